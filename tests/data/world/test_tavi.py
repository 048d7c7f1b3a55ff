import random
import re

import pytest

from prompt_tuning.data.world.clusters import arithmetic, ordering, words_lexicon
from prompt_tuning.data.world.tavi import ASK, FUNCTION_WORDS, Tavi, coin

_ENGLISH = [
    f"{first}{second}" for first in ("dog", "cat", "river", "stone", "lamp") for second in ("", "house", "man", "day", "field", "boat")
]


@pytest.mark.parametrize("part, ending", [("noun", "[ao]"), ("verb", "i"), ("adjective", "u"), ("other", "ei")])
def test_coined_words_follow_the_sounds_and_never_collide(part, ending):
    many = [f"{word}{number}" for word in _ENGLISH for number in range(6)]
    coined = coin(many, part)
    assert len(set(coined.values())) == len(many)
    for form in coined.values():
        assert re.fullmatch(f"[bdgklmnprstvz][aeiou]n?[bdgklmnprstvz]{ending}", form)
        assert form not in {*FUNCTION_WORDS.values(), ASK}


def test_coining_does_not_hang_on_the_order_of_the_list():
    shuffled = random.Random(3).sample(_ENGLISH, len(_ENGLISH))
    assert coin(shuffled, "noun") == coin(_ENGLISH, "noun")


def test_a_word_is_the_same_in_every_list_without_a_clash():
    # The value is fixed here so that a change of the language, which would part the bundled base from its words, is seen.
    assert coin(["dog"], "noun") == {"dog": "vaka"}
    assert coin(["dog", "cat"], "noun")["dog"] == "vaka"


def test_no_coined_word_is_taken_from_those_to_avoid():
    form = coin(["dog"], "noun")["dog"]
    assert coin(["dog"], "noun", avoid=[form])["dog"] != form


def test_clause_order_negation_question_and_names():
    tavi = Tavi(coin(["dog", "coin"], "noun") | coin(["see"], "verb") | coin(["big", "tall"], "adjective") | coin(["three"], "other"))
    dog, see, big, tall, three = (tavi.word(word) for word in ("dog", "see", "big", "tall", "three"))
    assert tavi.clause("see", "Mara", object=("dog", "big", "three")) == f"{see} Mara {dog} {big} {three}"
    assert tavi.clause("be", "Mara", complement=("more", "tall", "than", "Tom"), negated=True) == f"ne es Mara zo {tall} da Tom"
    asked = tavi.clause("see", "Mara", object="dog", question=True)
    assert tavi.say(asked, tavi.clause("be", "Tom", complement="tall")) == f"{see.capitalize()} Mara {dog} kai? Es Tom {tall}."


def test_an_unknown_word_is_an_error():
    with pytest.raises(KeyError, match="unicorn"):
        Tavi({}).word("unicorn")


@pytest.mark.parametrize("cluster", [arithmetic, ordering])
def test_the_dictionaries_of_the_clusters_keep_english_and_tavi_apart(cluster):
    forms = list(cluster.TAVI.dictionary.values())
    assert len(set(forms)) == len(forms)
    rng = random.Random(0)
    english = {word for domain in ("in", "out") for word in words_lexicon.NOUNS[domain]}
    for task in cluster.TASKS:
        for _ in range(500):
            text = task.draw(rng, rng.choice(("in", "out")), "english")["text"]
            english |= set(re.findall(r"[a-z]+", text.lower()))
    assert not english & set(forms)
