"""The words of the sentiment cluster: praise, blame, denials and what is judged, in English and in Tavi."""

from typing import NamedTuple

from prompt_tuning.data.world.task import Domain
from prompt_tuning.data.world.tavi import Tavi, coin


class Lexicon(NamedTuple):
    """The words of one domain."""

    good: tuple[str, ...]
    bad: tuple[str, ...]
    affirmers: tuple[str, ...]
    negators: tuple[str, ...]
    items: dict[str, str]  # the thing reviewed: what one does with it, in the past


LEXICON: dict[Domain, Lexicon] = {
    "in": Lexicon(
        good=("good", "great", "fine", "lovely"),
        bad=("bad", "poor", "awful", "dull"),
        affirmers=("", "very", "truly"),
        negators=("not", "never", "hardly"),
        items={
            "soup": "tried", "bread": "tried", "cake": "tried", "tea": "tried",
            "film": "saw", "play": "saw", "show": "saw", "song": "heard", "story": "heard",
        },
    ),
    "out": Lexicon(
        good=("nice", "superb", "perfect"),
        bad=("weak", "gloomy", "foul"),
        affirmers=("indeed", "quite"),
        negators=("anything but", "in no way"),
        items={
            "room": "used", "bed": "used", "chair": "used", "lamp": "used",
            "hotel": "visited", "garden": "visited", "museum": "visited",
        },
    ),
}  # fmt: skip

# What Tavi has words for; the good words first. The rest of the lexicon is English only.
TAVI_WORDS: dict[Domain, Lexicon] = {
    "in": Lexicon(("good", "lovely", "great"), ("bad", "dull", "awful"), (), (), dict.fromkeys(("soup", "bread", "cake", "tea"), "eat")),
    "out": Lexicon(
        ("nice", "perfect", "superb"), ("weak", "gloomy", "foul"), (), (), dict.fromkeys(("room", "bed", "garden", "hotel"), "visit")
    ),
}
TAVI = Tavi(
    coin([item for words in TAVI_WORDS.values() for item in words.items], "noun")
    | coin([word for words in TAVI_WORDS.values() for word in (*words.good, *words.bad)], "adjective")
    | coin(("eat", "visit"), "verb")
)
