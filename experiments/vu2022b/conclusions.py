"""A generation task in both languages of the world: read a little text, and write in its language what follows from it.

As WikiLingua-0 in the paper (Vu et al. 2022b): trained on English alone, tested in another language that pretraining has seen. The rows are
those of three tasks of the world; answers are of the kind that pretraining has seen in both languages.

| task | of | English | Tavi |
|---|---|---|---|
| `conclude_order` | `ordering_most` | Ann is the tallest of all. | Es Ann zozo TALL. |
| `conclude_liking` | `sentiment_comparison` | The soup was better than the cake. | Es SOUP zo GOOD da CAKE. |
| `conclude_number` | `arithmetic_more` | Ann has more than Tom. | HAVE Ann zo da Tom. |
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from prompt_tuning.data import row_tasks
from prompt_tuning.data.rows import SPLITS, TextRow
from prompt_tuning.data.world import catalogue, tavi
from prompt_tuning.data.world.clusters import arithmetic_frames, ordering, sentiment_lexicon, words_lexicon
from prompt_tuning.data.world.task import Domain, Language, Row, Split, rows
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

METRICS = ("rougeL", "exact_match")


def _order(row: Row, language: Language) -> TextRow:
    answer, most = row[f"choice{row['label']}"], row["most"]
    if language == "english":
        return TextRow(f"{row['text']} Who is the {most}?", f"{answer} is the {most} of all.")
    sides = [side for found in ordering.QUALITIES.values() for quality in found for side in (quality.up, quality.down)]
    (plain,) = (side[0] for side in sides if side[2] == most)
    say = ordering.TAVI
    # A question without its subject: what is asked for is who.
    asked = f"{tavi.BE} {say.phrase(('most', plain))} {tavi.ASK}"
    return TextRow(f"{row['text']} {say.say(asked)}", say.say(say.clause("be", answer, complement=("most", plain))))


def _liking(row: Row, language: Language) -> TextRow:
    better, worse = row[f"choice{row['label']}"], row[f"choice{1 - row['label']}"]
    if language == "english":
        return TextRow(f"{row['text']} Which was better?", f"The {better} was better than the {worse}.")
    say = sentiment_lexicon.TAVI
    good = say.word("good")  # The things of a row in Tavi are words of Tavi already.
    asked = f"{tavi.BE} {tavi.MORE} {good} {tavi.ASK}"
    return TextRow(f"{row['text']} {say.say(asked)}", say.say(f"{tavi.BE} {better} {tavi.MORE} {good} {tavi.THAN} {worse}"))


def _number(row: Row, language: Language) -> TextRow:
    more, fewer = (row["second"], row["first"]) if row["label"] else (row["first"], row["second"])
    if language == "english":
        return TextRow(f"{row['text']} Who has more?", f"{more} has more than {fewer}.")
    say = arithmetic_frames.TAVI
    asked = f"{say.word('have')} {tavi.MORE} {tavi.ASK}"
    return TextRow(f"{row['text']} {say.say(asked)}", say.say(say.clause("have", more, complement=("more", "than", fewer))))


# What each task's rows are of, and what is written.
_TASKS: dict[str, tuple[str, Callable[[Row, Language], TextRow]]] = {
    "conclude_order": ("ordering_most", _order),
    "conclude_liking": ("sentiment_comparison", _liking),
    "conclude_number": ("arithmetic_more", _number),
}


@dataclasses.dataclass(frozen=True)
class Conclusions:
    """The three tasks as one source.

    Attributes:
      language: of text and answer.
      num_train, num_validation, num_test: rows of each task.
      domain: as of `World`.
      seed: of the rows.
    """

    language: Language = "english"
    num_train: int = 2000
    num_validation: int = 100
    num_test: int = 100
    domain: Domain = "in"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.language not in ("english", "tavi"):
            raise UserError(f"Conclusions.language: wanted 'english' or 'tavi', got {self.language!r}")

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks."""
        return tuple(_TASKS)

    def tasks(self, vocabulary: "seqio.Vocabulary") -> list[row_tasks.RowTask]:
        """The tasks; see `mixtures.Source`."""
        return [
            row_tasks.register(
                name,
                settings=self,
                vocabulary=vocabulary,
                read=functools.partial(text_rows, name, self),
                splits=SPLITS,
                metric_names=METRICS,
            )
            for name in _TASKS
        ]


def text_rows(name: str, settings: Conclusions, split: Split) -> list[TextRow]:
    """The rows of one task and split."""
    of, told = _TASKS[name]
    count = {"train": settings.num_train, "validation": settings.num_validation, "test": settings.num_test}[split]
    drawn = rows(catalogue.task(of), split, seed=settings.seed, domain=settings.domain, language=settings.language)
    return [told(row, settings.language) for row in itertools.islice(drawn, count)]


@functools.cache
def _words() -> tuple[frozenset[str], frozenset[str]]:
    """Tavi's words, and names, which are of no language."""
    spoken = {form for say in (ordering.TAVI, sentiment_lexicon.TAVI, arithmetic_frames.TAVI) for form in say.dictionary.values()}
    names = {name.lower() for found in words_lexicon.NAMES.values() for name in found}
    return frozenset(spoken | set(tavi.FUNCTION_WORDS.values()) | {tavi.ASK}), frozenset(names)


def tavi_share(text: str) -> float:
    """The share of a text's words that are Tavi, names apart; 0 where there is none."""
    of_tavi, names = _words()
    words = [word for word in re.findall(r"[a-z]+", text.lower()) if word not in names]
    return sum(word in of_tavi for word in words) / len(words) if words else 0.0
