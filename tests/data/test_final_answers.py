"""Answers at the end of chains of thought, by hand and on GSM8K's own worked answers."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.data import metrics
from prompt_tuning.data.final_answers import final_answer, final_number, majority
from tests.shared import shared_path


@pytest.mark.parametrize(
    ("text", "answer", "number"),
    [
        ("5 + 6 = 11. The answer is 11.", "11", 11),
        ("He pays 3 times. So the answer is: $1,200.50 in 2 weeks.\nQ: And 7?", "$1,200.50 in 2 weeks", Decimal("1200.5")),
        ("The answer is 4. No, wait. THE ANSWER IS -5.", "-5", -5),
        ("9 * 2 = <<9*2=18>>18\n#### 18", "18", 18),
        ("There are 12 cows and 3 of 15 sheep left", "There are 12 cows and 3 of 15 sheep left", 15),
        ("It is 20-8", "It is 20-8", 8),
        ("the answer is yes", "yes", None),
        ("The answer is", "", None),
        ("1,2,3", "1,2,3", 3),
        ("1,2345", "1,2345", 2345),
        ("half, so .5", "half, so .5", Decimal("0.5")),
        ("a total of -$3.25.", "a total of -$3.25.", Decimal("-3.25")),
        ("take x5", "take x5", None),
    ],
)
def test_answers_by_hand(text: str, answer: str, number: Decimal | int | None) -> None:
    assert (final_answer(text), final_number(text)) == (answer, number)


@given(st.decimals(-(10**9), 10**9, places=2), st.sampled_from(["The answer is {}.", "#### {}", "so there are {} of them, all told"]))
def test_a_number_is_read_as_it_was_written(number: Decimal, text: str) -> None:
    assert final_number(text.format(f"{number:,}")) == number
    assert final_number(text.format(f"{number:f}")) == number


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert final_answer(text) in text
    final_number(text)


def test_metrics_compare_what_was_concluded() -> None:
    targets = ["3 and 4 make 7.\n#### 7", ("The answer is 1,000.", "1"), "yes"]
    predictions = ["It is 7.00", "First 5, then 1000", "There are 7"]
    assert metrics.compute(["final_number"], targets, predictions) == {"final_number": pytest.approx(2 / 3)}
    said = ["So the answer is 7.", "The answer is: 1", "Of course. The answer is Yes!"]
    assert metrics.compute(["final_answer"], targets, said) == {"final_answer": 1.0}
    assert metrics.final_answer(["yes"], ["no, not yes"]) == 0.0


def test_the_majority_is_of_conclusions() -> None:
    texts = ["No idea", "I count 3", "So the answer is 7.", "3 and 4: the answer is $7.00", "nothing at all", "none"]
    assert majority(texts, numbers=True) == texts[2]
    assert majority(["a: the answer is B", "the answer is A.", "so the answer is a"], numbers=False) == "the answer is A."
    assert majority(["The answer is 2", "The answer is 1"], numbers=True) == "The answer is 2", "the first of equals"
    assert majority(["none", "at all"], numbers=True) == "none"
    assert majority([" ", "", "b"], numbers=False) == "b"


@given(st.lists(st.integers(-3, 3), min_size=1))
def test_the_majority_is_a_mode_of_the_numbers(numbers: list[int]) -> None:
    chosen = final_number(majority([f"The answer is {number}." for number in numbers], numbers=True))
    assert numbers.count(int(chosen)) == max(map(numbers.count, numbers))


def test_the_answers_of_gsm8k_are_its_own() -> None:
    lines = (shared_path("data/gsm8k") / "test.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    wanted = [Decimal(answer.rpartition("####")[2].replace(",", "")) for answer in answers]
    assert list(map(final_number, answers)) == wanted
    assert metrics.final_number(answers, [f"Let me see. The answer is {number}." for number in wanted]) == 1.0
    assert metrics.final_number(answers, [f"The answer is {number + 1}" for number in wanted]) == 0.0
