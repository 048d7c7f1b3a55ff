"""The whole question on one page: what its ways cost, what is forgotten, and which way its table names."""

import pathlib
from typing import Any

import pytest

from experiments import mini, points
from experiments.question import costs, prose, sweep
from paper_figures import results
from paper_figures.papers import question
from prompt_tuning.data.world import catalogue


def test_instructions_are_of_no_cluster_that_is_asked_about() -> None:
    asked = {catalogue.task(name).cluster for name in sweep.TASKS}
    data = points.experiment(sweep.instructed("t5_500k", 0), points.RUNS).data
    assert len(asked) == len(sweep.TASKS) and not asked & {task.cluster for task in data.world_tasks()}


def test_a_prompt_stands_on_the_instruction_tuned_base_of_its_seed() -> None:
    for point in sweep.prompts_on_instructed("t5_500k"):
        assert point.after["start"].factors["seed"] == point.factors["seed"]
        (line,) = [line for line in point.text(pathlib.Path("runs")) if line.startswith("BASE_CHECKPOINT")]
        assert line == f"BASE_CHECKPOINT = 'runs/{point.after['start'].name}/base'"


def by_hand(*, inputs: int, answers: int, answer: int) -> int:
    """The matrix products of ranking answers with t5_100k, from its sizes: 2 x M x K x N each."""
    d, wide, heads, layers, vocabulary = 16, 64, 2 * 16, 2, 2048
    written = answers * answer
    encoder = 4 * 2 * inputs * d * heads + 2 * 2 * inputs * inputs * heads + 3 * 2 * inputs * d * wide
    own = 4 * 2 * written * d * heads + 2 * 2 * answers * answer * answer * heads
    crossed = 2 * 2 * (inputs + written) * d * heads + 2 * 2 * written * inputs * heads
    return layers * (encoder + own + crossed + 3 * 2 * written * d * wide) + 2 * written * d * vocabulary


def test_operations_are_those_of_the_sizes() -> None:
    ways = costs.ways("t5_100k")
    counted = {way: costs.counted(ways[way]) for way in ("frozen", "prompt", "full")}
    assert counted["frozen"]["answer_flops"] == by_hand(inputs=72, answers=3, answer=4)
    assert counted["full"]["answer_flops"] == by_hand(inputs=48, answers=3, answer=4)
    assert counted["prompt"]["answer_flops"] == by_hand(inputs=48 + 20, answers=3, answer=4)
    assert counted["prompt"]["trained_parameters"] == 20 * 16 and counted["full"]["trained_parameters"] == mini.PARAMETERS["t5_100k"]
    committed = {(row["base"], row["way"]): row for row in points.read(costs.COSTS)}
    for way, found in counted.items():
        assert {name: int(committed["t5_100k", way][name]) for name in found} == found, "python -m experiments.question.costs"
    assert set(committed) == {(base, way) for base in mini.BASES for way in ways}


def test_passages_are_parted_before_their_last_sentence() -> None:
    for before, last in prose.split_passages(50):
        assert before.endswith(".") and last.endswith(".") and last.count(".") == 1
    assert len(set(prose.split_passages(prose.PASSAGES))) > 0.9 * prose.PASSAGES


def test_the_base_reads_what_it_goes_on_from(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base that was pretrained on such prose gives its last sentences a loss far below that of even guesses over its 2,048 tokens, and a
    higher one where another passage stands before them."""
    point = mini.frozen("t5_nano", "sentiment_review")
    experiment = points.experiment(point, tmp_path)
    told = prose.split_passages(100)
    monkeypatch.setattr(prose, "split_passages", lambda count: told)
    own = prose.loss(point, experiment, tmp_path)["passages"]["nats_per_token"]
    befores = [before for before, _ in told]
    elsewhere = [(before, last) for before, (_, last) in zip(befores[1:] + befores[:1], told, strict=True)]
    monkeypatch.setattr(prose, "split_passages", lambda count: elsewhere)
    others = prose.loss(point, experiment, tmp_path)["passages"]["nats_per_token"]
    assert 0 < own < 3 < others < 7.6 + 5


def made_up(scores: dict[str, float], prose_of: dict[str, float]) -> list[dict[str, str]]:
    """Results in which each way has a score, a little more with each seed, on every task, with all examples as with few; 0.1 less out of
    domain for model tuning alone."""
    found = []
    for point in sweep.every():
        if point.factors["base"] != "t5_500k":
            continue
        told: dict[str, Any] = {name: str(value) for name, value in point.factors.items()}
        (way,) = [
            way
            for way, wanted in question.WAYS.items()
            if results.where([told], **wanted) and (way in question.WITHOUT_EXAMPLES or "exemplars" not in told)
        ]
        value = scores[way] + (0 if way == "frozen" else 0.01 * int(told["seed"]))
        common = {**told, "metric": "accuracy", "config": point.config, "stored_bytes": {"prompt tuning": "10"}.get(way, "1000")}
        tasks = sweep.TASKS if told["trained_on"] not in sweep.TASKS else (told["trained_on"],)
        for task in tasks:
            found.append({**common, "test": "test", "task": task, "value": str(value)})
            found.append({**common, "test": "out", "task": task, "value": str(value - (0.1 if way == "model tuning" else 0))})
        if point.measures:
            measured = {"test": "prose", "task": "passages", "metric": "nats_per_token", "value": str(2 + prose_of.get(way, 0))}
            found.append({**common, **measured})
    return found


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the question's results be rows."""

    def of(rows: list[dict[str, str]]) -> None:
        question.scores.cache_clear()
        monkeypatch.setattr(results, "ours", lambda paper: tuple(rows))

    yield of
    question.scores.cache_clear()


def test_the_table_names_the_best_those_as_good_and_the_smallest_of_them(told: Any) -> None:
    scores = dict.fromkeys(question.WAYS, 0.5) | {"model tuning": 0.9, "LoRA": 0.9, "prompt tuning": 0.899}
    told(made_up(scores, {"model tuning": 1.0, "prompt tuning": 0.25}))
    rows = question.decisions()
    assert [(row["base"], row["examples"]) for row in rows] == [("460k", "16"), ("460k", "256"), ("460k", "2,000")]
    # Differences run by run are exact here: only what is equal in every run is not told from the best.
    assert rows[0]["best"] == "LoRA (0.910)" and rows[0]["not told from it"] == "model tuning (0.910)"
    told(made_up(scores | {"prompt tuning": 0.9}, {}))
    assert question.decisions()[0]["of these the least stored a task"] == "prompt tuning (10 B)"


def test_claims_follow_from_the_rows(told: Any) -> None:
    scores = dict.fromkeys(question.WAYS, 0.5) | {"prompt on instruction tuning": 0.7, "instruction tuning": 0.4}
    told(made_up(scores, {"model tuning": 1.0, "prompt tuning": 0.25}))
    few, many, more, helps, domain, forgets, _ = question.claims()
    assert few.ours and few.ours.value == pytest.approx(0.2) and few.verdict == many.verdict == "agrees"
    assert more.ours and more.ours.value == pytest.approx(0.0)
    assert helps.verdict == "disagrees" and domain.verdict == forgets.verdict == "agrees"
    assert domain.ours and domain.ours.value == pytest.approx(0.1) and forgets.ours and forgets.ours.value == pytest.approx(0.75)


def test_no_results_are_no_figures_and_no_verdicts(told: Any) -> None:
    told([])
    assert question.figures() == question.tables() == [] and {claim.verdict for claim in question.claims()} == {"not run"}
