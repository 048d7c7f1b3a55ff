"""The runs of the papers in miniature: names, hashes, what comes before what, results kept and added to; a real sweep of a tiny size."""

import dataclasses
import json
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import mini, points
from experiments.points import Point
from prompt_tuning import files
from prompt_tuning.errors import UserError

TINY = {"TRAIN_STEPS": "2", "BATCH_SIZE": "4", "INPUT_LENGTH": "32", "NUM_TRAIN": "16", "NUM_VALIDATION": "4", "EVAL_STEPS": "0"}
FEW = {"test": {"num_test": 4}}
TASK = "sentiment_review"


def tiny(method: str, seed: int = 0, **changes: Any) -> Point:
    bindings = {**TINY, **changes.pop("bindings", {})}
    return mini.point("t5_nano", method, TASK, seed, bindings=bindings, tests=changes.pop("tests", FEW), **changes)


def plain(name: str, **changes: Any) -> Point:
    """A point that is not run."""
    return Point({"name": name, "seed": 0}, ("a.gin",), {"SEED": "0"}, **changes)


def count(point: Point, experiment: Any, folder: pathlib.Path) -> dict[str, dict[str, float]]:
    return {"folder": {"prompts": float((folder / "prompt.npy").exists())}}


@pytest.fixture(scope="module")
def sweep() -> list[Point]:
    """Two runs of one form, one upon another, and the base."""
    base = tiny("full", factors={"kept": "yes"}, bindings={"experiment.Experiment.save_base": "True"})
    upon = tiny("prompt", factors={"upon": "full"}, bindings={"BASE_CHECKPOINT": "'{tuned}/base'"}, after={"tuned": base})
    return [
        tiny("prompt", 0, measures={"kept": count}),
        tiny("prompt", 1, tests={**FEW, "out": {"domain": "out", "num_test": 4}}),
        upon,
        mini.frozen("t5_nano", TASK, bindings=TINY, tests=FEW),
    ]


@pytest.fixture(scope="module")
def ran(sweep: list[Point], tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("paper")
    points.main(sweep, folder, argv=[f"--workdir={folder / 'runs'}"])
    return folder


def test_every_point_has_its_rows_in_the_order_of_the_sweep(sweep: list[Point], ran: pathlib.Path) -> None:
    rows = points.read(ran / "results.csv")
    assert list(dict.fromkeys(row["config"] for row in rows)) == [point.config for point in sweep]
    for point in sweep:
        own = [row for row in rows if row["config"] == point.config]
        assert all(points.factors_of(row) == frozenset((name, str(value)) for name, value in point.factors.items()) for row in own)
        assert {row["test"] for row in own} == {*point.tests, *point.measures}
        scored = {(row["task"], row["metric"]) for row in own if row["test"] in point.tests}
        assert (TASK, "accuracy") in scored and {task for task, _ in scored} == {TASK}


def test_a_row_says_what_the_run_was(sweep: list[Point], ran: pathlib.Path) -> None:
    rows = points.read(ran / "results.csv")
    prompt, frozen = rows[0], rows[-1]
    assert prompt["trained_parameters"] == str(20 * 64) and prompt["steps"] == "2" and float(prompt["seconds"]) > 0
    assert frozen["trained_parameters"] == frozen["steps"] == "0" and "as_it_is" in frozen
    assert all(row["commit"] == points.commit() and row["machine"] == points.machine() for row in rows)
    for row in rows:
        kept = ran / "runs" / next(point.name for point in sweep if point.config == row["config"])
        if row["test"] in FEW:
            metrics = json.loads((kept / "test-test.json").read_text())["metrics"][TASK]
            assert float(row["value"]) == pytest.approx(metrics[row["metric"]], rel=1e-5)
            assert len((kept / "test-test-predictions.jsonl").read_text().splitlines()) == 4


def test_what_is_measured_stands_where_a_test_would(sweep: list[Point], ran: pathlib.Path) -> None:
    (row,) = [row for row in points.read(ran / "results.csv") if row["test"] == "kept"]
    assert (row["task"], row["metric"], float(row["value"])) == ("folder", "prompts", 1.0)


def test_a_point_starts_from_what_was_trained_before_it(sweep: list[Point], ran: pathlib.Path) -> None:
    upon = sweep[2]
    settings = json.loads((ran / "runs" / upon.name / "experiment.json").read_text())["experiment"]
    before = upon.after["tuned"]
    assert settings["base_checkpoint"] == str(ran / "runs" / before.name / "base")
    assert (ran / "runs" / before.name / "results.json").exists()
    assert before.config not in points.finished(ran / "results.csv"), "what is only needed is not scored"


def test_a_second_call_runs_nothing(sweep: list[Point], ran: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in ran.rglob("*") if path.name in ("results.json", "results.csv", "test-test.json")}
    points.main(sweep, ran, argv=[f"--workdir={ran / 'runs'}"])
    assert "0 points run, 4 were there" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_test_scores_the_run_that_is_there(sweep: list[Point], ran: pathlib.Path, tmp_path: pathlib.Path) -> None:
    trained = ran / "runs" / sweep[0].name / "results.json"
    before = trained.stat().st_mtime_ns
    more = dataclasses.replace(sweep[0], tests={"more": {"num_test": 3}}, measures={})
    assert more.config != sweep[0].config and more.training == sweep[0].training
    points.main([more], tmp_path, argv=[f"--workdir={ran / 'runs'}"])
    assert {row["test"] for row in points.read(tmp_path / "results.csv")} == {"more"}
    assert trained.stat().st_mtime_ns == before


def test_list_says_what_there_is_to_do(sweep: list[Point], ran: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    points.main([*sweep, plain("new")], ran, argv=["--list"])
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["done"] * 4 + ["to"]
    points.main([*sweep, plain("new")], ran, argv=["--list", "--only=name=ne"])
    assert capsys.readouterr().out == "to do name=new,seed=0\n"


def test_a_run_that_fails_stops_what_comes_after_it_and_nothing_else(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tiny("prompt", 2, factors={"bad": "yes"}, bindings={"BASE_CHECKPOINT": "'nowhere'"})
    after = tiny("prompt", 3, factors={"after": "bad"}, bindings={"BASE_CHECKPOINT": "'{bad}/base'"}, after={"bad": bad})
    good = mini.frozen("t5_nano", TASK, bindings=TINY, tests=FEW)
    with pytest.raises(SystemExit) as stopped:
        points.main([bad, after, good], tmp_path, argv=[f"--workdir={tmp_path / 'runs'}"])
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert "error: 2 runs failed" in said.err and bad.name in said.err and "Traceback" not in said.err
    assert points.finished(tmp_path / "results.csv") == {good.config}


@pytest.mark.parametrize(
    ("flag", "said"),
    [("--only=nothing", "no point is called so"), ("--only=(", "no regular expression"), ("--together=0", "wanted 1 or more")],
)
def test_bad_flags_are_one_line(flag: str, said: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        points.main([plain("one")], tmp_path, argv=[f"--workdir={tmp_path}", flag])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ([plain("a"), dataclasses.replace(plain("a"), bindings={"SEED": "1"})], "two points are called"),
        ([plain("a"), dataclasses.replace(plain("a"), tests={"out": {}})], "is there twice with other tests"),
        ([Point({"steps": 3}, (), {})], "is called steps, as a column"),
        ([plain("b", after={"x": dataclasses.replace(plain("a"), trained=False)}), plain("a")], "two points are called"),
    ],
)
def test_points_that_cannot_be_told_apart_are_refused(listed: list[Point], said: str) -> None:
    with pytest.raises(UserError, match=said):
        points.check_names(listed)


def test_a_point_may_be_needed_with_fewer_tests_than_it_is_scored_on() -> None:
    whole = plain("a")
    points.check_names([plain("b", after={"x": dataclasses.replace(whole, tests={})}), whole, whole])


def test_the_hash_holds_the_weights_of_a_bundled_base(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "ROOT", tmp_path)
    weights = tmp_path / "prompt_tuning" / "assets" / "t5_x" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    point = plain("a")
    of_base = dataclasses.replace(point, gin_files=("configs/models/t5_x.gin",))
    found = set()
    for content in (b"first", b"second"):
        weights.write_bytes(content)
        points._weights.cache_clear()
        found.add((of_base.config, point.config))
    points._weights.cache_clear()
    assert len({base for base, _ in found}) == 2
    assert len({other for _, other in found}) == 1


def test_rows_of_points_that_changed_are_dropped_when_asked(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, changed = plain("a"), plain("b")
    rows = [{"name": each.factors["name"], "seed": "0", "value": "0.5", "config": each.config} for each in (kept, changed)]
    files.write_csv(tmp_path / "results.csv", rows)
    points.main([kept, dataclasses.replace(changed, bindings={"SEED": "1"})], tmp_path, argv=["--prune"])
    assert points.read(tmp_path / "results.csv") == rows[:1]
    assert "1 of 2 rows dropped" in capsys.readouterr().out


def test_the_hash_is_of_all_that_a_point_says() -> None:
    point = plain("a")
    others = [
        plain("b"),
        dataclasses.replace(point, gin_files=("b.gin",)),
        dataclasses.replace(point, bindings={"SEED": "1"}),
        dataclasses.replace(point, tests={"test": {"num_test": 3}}),
        dataclasses.replace(point, measures={"m": count}),
        dataclasses.replace(point, after={"x": plain("c")}),
        dataclasses.replace(point, trained=False),
    ]
    assert len({each.config for each in (point, *others)}) == len(others) + 1
    assert point.config == plain("a").config == "6e0e7c57b02e", "the same on any machine and in any year"
    assert len({each.training for each in (point, *others)}) == len(others) - 1, "tests and measures don't change what is trained"


def test_what_is_needed_comes_first_and_once() -> None:
    first = plain("first")
    second = plain("second", after={"x": first})
    third = plain("third", after={"x": second, "y": first})
    assert [point.name for point in points.with_needed([third, first])] == [first.name, second.name, third.name]
    assert [point.depth() for point in (first, second, third)] == [0, 1, 2]
    assert dataclasses.replace(third, bindings={"B": "'{x}/base' + '{y}'"}).text(pathlib.Path("runs")) == [
        f"B = 'runs/{second.name}/base' + 'runs/{first.name}'"
    ]


def _row(point: Point, value: str) -> dict[str, Any]:
    scored = {"test": "test", "task": "t", "metric": "accuracy", "value": value}
    return {**point.factors, **scored, **dict.fromkeys(points.COST, 0), "config": point.config, "commit": "", "machine": ""}


NAMES = st.sampled_from(["base", "method", "length", "rate"])
FACTORS = st.lists(NAMES, unique=True, min_size=1).flatmap(
    lambda names: st.fixed_dictionaries({name: st.sampled_from(["a", "b"]) for name in names})
)


@given(st.lists(FACTORS, min_size=1, max_size=6, unique_by=lambda told: frozenset(told.items())), st.randoms())
def test_results_keep_the_order_of_the_sweep_and_one_entry_a_point(
    tmp_path_factory: pytest.TempPathFactory, told: list[dict[str, str]], random: Any
) -> None:
    """Points have other factors, in other orders; they are added in any order, some of them twice."""
    output = tmp_path_factory.mktemp("results") / "results.csv"
    every = [Point(factors, (), {}) for factors in told]
    added = [random.choice(every) for _ in range(2 * len(every))]
    for number, point in enumerate(added):
        points._add([_row(point, str(number))], point, output, every)
    rows = points.read(output)
    assert [row["config"] for row in rows] == [point.config for point in every if point in added]
    last = {point.config: str(number) for number, point in enumerate(added)}
    assert {row["config"]: row["value"] for row in rows} == last
    # What is no point any more goes, and so do the columns that only it had.
    points._add([_row(every[0], "x")], every[0], output, every[:1])
    (row,) = points.read(output)
    assert row["value"] == "x" and points.factors_of(row) == frozenset(told[0].items())
