"""Overlaps of evaluation and training data, against plain Python sets and scikit-learn."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from prompt_tuning.data.overlap import Overlap, Search, Text, hashed_runs, similarity, words
from prompt_tuning.errors import UserError

LEXICON = [f"w{number}" for number in range(3000)]


def drawn(seed: int, count: int) -> str:
    return " ".join(random.Random(seed).choices(LEXICON, k=count))


def kinds(found: list[Overlap]) -> dict[int, str]:
    return {overlap.index: overlap.kind for overlap in found}


def test_same_near_shared_and_unrelated_texts_are_told_apart() -> None:
    stated, near, long = drawn(1, 20), drawn(2, 60), drawn(3, 60)
    evaluation = [
        Text("task", 0, stated, "yes"),
        Text("task", 1, near, "yes"),
        Text("task", 2, f"{long} {drawn(4, 30)}", "no"),
        Text("task", 3, drawn(5, 60), "no"),
        Text("task", 4, "short", "yes"),
    ]
    training = [
        Text("other", 7, stated.upper().replace(" ", ", ") + "!", "no"),  # The same words.
        Text("other", 8, near + " " + drawn(6, 2), "no"),
        Text("more", 9, f"{drawn(7, 40)} {' '.join(long.split()[10:23])}", "no"),  # Thirteen words of it.
        Text("more", 10, " ".join(drawn(5, 60).split()[:12]), "no"),  # Twelve are one too few.
    ]
    found = Search().overlaps(evaluation, training)
    assert kinds(found) == {0: "same", 1: "near", 2: "shared"}
    assert [(overlap.training_task, overlap.training_index) for overlap in found] == [("other", 7), ("other", 8), ("more", 9)]
    assert found[2].share == pytest.approx(1 / (90 + 1 - 13 + 1))  # The target is a word too.
    assert found[0].training_inputs == training[0].inputs


def test_an_answer_that_follows_its_question_in_training_text_is_found_through_the_target() -> None:
    question, answer = drawn(1, 7), drawn(2, 6)
    found = Search().overlaps([Text("task", 0, question, answer)], [Text("corpus", 0, f"{question} {answer}", "")])
    assert kinds(found) == {0: "shared"}


def test_what_many_training_examples_share_is_a_template() -> None:
    template = drawn(0, 20)
    evaluation = [Text("task", 0, f"{template} {drawn(1, 40)}", "")]
    training = [Text("other", number, f"{template} {drawn(10 + number, 40)}", "") for number in range(11)]
    assert Search().overlaps(evaluation, training[:10]) != []
    assert Search().overlaps(evaluation, training) == []
    assert Search(common=11).overlaps(evaluation, training) != []


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), lengths=st.tuples(st.integers(0, 40), st.integers(0, 40)), n=st.integers(1, 6))
def test_shared_runs_are_those_of_python_sets(seed: int, lengths: tuple[int, int], n: int) -> None:
    generator = random.Random(seed)
    texts = [tuple(generator.choices("abcd", k=length)) for length in lengths]
    sets = [{text[start : start + n] for start in range(len(text) - n + 1)} for text in texts]
    runs = [hashed_runs(text, n) for text in texts]
    assert [len(each) for each in runs] == [len(each) for each in sets]
    assert len(np.intersect1d(*runs)) == len(sets[0] & sets[1])
    universe = sorted(sets[0] | sets[1])
    if universe:
        members = [[run in each for run in universe] for each in sets]
        assert similarity(*runs) == pytest.approx(jaccard_score(*members))
    else:
        assert similarity(*runs) == 0.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_the_search_agrees_with_comparing_every_pair(seed: int) -> None:
    generator = random.Random(seed)
    pieces = [" ".join(generator.choices(LEXICON, k=8)) for _ in range(6)]
    texts = [Text("t", number, " ".join(generator.choices(pieces, k=3)), "") for number in range(12)]
    evaluation, training = texts[:6], texts[6:]
    search = Search(ngram=13, common=6, similarity=1.0)
    runs = {text: {words(text.inputs)[start : start + 13] for start in range(12)} for text in texts}
    wanted = {text.index for text in evaluation if any(runs[text] & runs[other] for other in training)}
    assert {overlap.index for overlap in search.overlaps(evaluation, training)} == wanted


def test_words_of_any_script_count() -> None:
    assert words("Ein Käse, 3 сыра_и 奶酪!") == ("ein", "käse", "3", "сыра", "и", "奶酪")


def test_training_text_is_read_once_and_nothing_of_it_is_kept() -> None:
    evaluation = [Text("task", 0, drawn(1, 30), "")]
    stream = (Text("corpus", number, drawn(100 + number, 50), "") for number in range(500))
    assert Search().overlaps(evaluation, stream) == []
    assert next(stream, None) is None
    assert Search().overlaps([], [Text("corpus", 0, "a", "b")]) == []


@pytest.mark.parametrize("wrong", [{"ngram": 0}, {"similarity": 0.0}, {"similarity": 1.5}, {"common": 0}, {"shingle": -1}])
def test_settings_that_mean_nothing_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match="Search: wanted"):
        Search(**wrong)
