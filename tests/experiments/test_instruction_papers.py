"""The papers on instruction tuning in miniature: nothing held out is trained on, and figures are made of the right runs."""

import itertools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import instructions, mini, points
from experiments.chung2022 import sweep as chung2022
from experiments.flan2021 import sweep as flan2021
from experiments.longpre2023 import sweep as longpre2023
from experiments.super_ni2022 import sweep as super_ni2022
from experiments.t0_2021 import sweep as t0_2021
from paper_figures import drawing, results
from paper_figures import instructions as shared
from paper_figures.papers import chung2022 as chung2022_figures
from paper_figures.papers import flan2021 as flan2021_figures
from paper_figures.papers import longpre2023 as longpre2023_figures
from paper_figures.papers import super_ni2022 as super_ni2022_figures
from paper_figures.papers import t0_2021 as t0_2021_figures
from prompt_tuning.data.world import catalogue

SWEEPS = {"flan2021": flan2021, "t0_2021": t0_2021, "super_ni2022": super_ni2022, "chung2022": chung2022, "longpre2023": longpre2023}
FIGURES = {
    "flan2021": flan2021_figures,
    "t0_2021": t0_2021_figures,
    "super_ni2022": super_ni2022_figures,
    "chung2022": chung2022_figures,
    "longpre2023": longpre2023_figures,
}
RUNS = pathlib.Path("runs")


def _needed(sweep: Any) -> Iterator[points.Point]:
    return iter(points.with_needed(sweep.every()))


def test_clusters_tested_are_not_trained_on() -> None:
    tested = {catalogue.task(name).cluster for name in instructions.TESTED}
    assert tested == {"inference", "facts", "arithmetic"}
    # Paraphrase is near to inference (Wei et al. 2021, section 2.2).
    assert set(instructions.CLUSTERS) == set(catalogue.clusters()) - tested - {"paraphrase"}
    ranked = [name for cluster in tested for name in catalogue.cluster(cluster) if "accuracy" in catalogue.task(name).metrics]
    assert sorted(instructions.TESTED) == sorted(ranked)


def test_clusters_come_by_their_number_of_tasks() -> None:
    sizes = [len(catalogue.cluster(name)) for name in instructions.CLUSTERS]
    assert sizes == sorted(sizes, reverse=True)
    assert tuple(itertools.accumulate(sizes)) == instructions.TASKS
    assert {count: instructions.TASKS[count - 1] for count in flan2021.CLUSTERS} == chung2022_figures._TASKS


@pytest.mark.parametrize("paper", SWEEPS)
def test_instruction_tuning_sees_no_task_that_it_is_tested_on(paper: str) -> None:
    found = [point for point in _needed(SWEEPS[paper]) if point.trained and "clusters" in str(point.factors["trained_on"])]
    assert found
    kinds = {tuple(sorted((name, value) for name, value in point.bindings.items() if name != "SEED")): point for point in found}
    for point in kinds.values():
        data = points.experiment(point, RUNS).data
        assert not {name.partition("/")[0] for name in data.task_names} & set(instructions.TESTED)


@pytest.mark.parametrize("paper", SWEEPS)
def test_all_are_tested_on_the_same_rows(paper: str) -> None:
    import dataclasses

    for point in {str(point.tests): point for point in SWEEPS[paper].every()}.values():
        if not set(point.tests) <= {"test", "out"}:
            loaded = points.experiment(point, RUNS).data
            for fields in point.tests.values():
                source = dataclasses.replace(loaded, **fields)
                assert source.seed == 0 and {name.partition("/")[0] for name in source.task_names} == set(instructions.TESTED)


def test_prompts_are_tuned_on_tasks_held_out_from_the_bases_of_the_same_seed() -> None:
    assert set(flan2021.PROMPTED) <= set(instructions.TESTED) & set(mini.SUITE)
    assert set(longpre2023.TARGETS) <= set(instructions.TESTED)
    for point in (*flan2021.prompts(), *longpre2023.targets()):
        loaded = points.experiment(point, RUNS)
        if point.after:
            assert loaded.base_checkpoint == str(RUNS / point.after["start"].name / "base")
            assert points.experiment(point.after["start"], RUNS).save_base
            assert point.after["start"].factors["seed"] == point.factors["seed"]
        else:
            assert loaded.base_checkpoint == f"bundled:{instructions.BASE}"


def test_papers_share_the_runs_on_instructions() -> None:
    names = {paper: {point.name for point in _needed(sweep) if point.trained} for paper, sweep in SWEEPS.items()}
    shared_by_all = {instructions.tuned(instructions.BASE, seed).name for seed in mini.SEEDS}
    assert all(shared_by_all <= names[paper] for paper in ("flan2021", "t0_2021", "chung2022", "longpre2023"))
    assert {instructions.tuned(instructions.BASE, 0, form="name").name} <= names["flan2021"] & names["super_ni2022"]


def test_accuracy_by_step_is_read_from_the_run(tmp_path: pathlib.Path) -> None:
    point = longpre2023.targets()[0]
    task = point.factors["trained_on"]
    rows = [
        {"step": 10, "split": "train", "loss": 1.0},
        {"step": 20, "split": "validation", "score": 0.5, f"{task}/accuracy": 0.5},
        {"step": 40, "split": "validation", "score": 0.75, f"{task}/accuracy": 0.75},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = longpre2023.by_step(point, points.experiment(point, RUNS), tmp_path)
    assert found == {f"{task}@20": {"accuracy": 0.5}, f"{task}@40": {"accuracy": 0.75}}


@pytest.mark.parametrize(("text", "value"), [("220M", 2.2e8), ("11B", 1.1e10), ("8 training tasks", 8.0), ("0.5 of K", 0.5), ("10K", 1e4)])
def test_numbers_in_published_tables(text: str, value: float) -> None:
    assert shared.number(text) == pytest.approx(value)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.lists(st.floats(0, 1), min_size=3, max_size=3), st.floats(0, 1))
def test_gains_are_taken_seed_by_seed(first: list[float], second: list[float], frozen: float) -> None:
    gain = shared.difference([first], [[frozen]])
    assert gain is not None and gain.value == pytest.approx(np.mean(first) - frozen)
    both = shared.of_differences(([first], [[frozen]]), ([second], [[frozen]]))
    assert both is not None and both.value == pytest.approx(np.mean(first) - np.mean(second), abs=1e-12) and both.runs == 3
    assert shared.difference([first], []) is None and shared.difference([first], [second[:2]]) is None


def _row(point: points.Point, test: str, task: str, value: float) -> dict[str, str]:
    """A row as `points.score` makes it."""
    scored = {"test": test, "task": task, "metric": "accuracy", "value": str(value)}
    return {**{name: str(factor) for name, factor in point.factors.items()}, **scored}


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, str]]]:
    """Results of each paper's whole sweep: a score is drawn for each point, test and task."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[dict[str, str]]] = {}
    for paper, sweep in SWEEPS.items():
        rows[paper] = []
        for point in sweep.every():
            for test in point.tests:
                tasks = instructions.TESTED if "task_list" in point.tests[test] else (point.factors["trained_on"],)
                told = [f"{task}/{letter}" for task in tasks for letter in "abcd"] if test == "templates" else tasks
                rows[paper] += [_row(point, test, task, rng.uniform()) for task in told]
            if point.measures:
                task = point.factors["trained_on"]
                rows[paper] += [_row(point, "validation", f"{task}@{step}", rng.uniform()) for step in range(20, 201, 20)]
    monkeypatch.setattr(results, "ours", lambda paper: tuple(rows[paper]))
    return rows


@pytest.mark.parametrize("paper", FIGURES)
def test_whole_sweeps_leave_no_figure_or_claim_empty(paper: str, made_up: dict[str, list[dict[str, str]]]) -> None:
    figures = FIGURES[paper].figures()
    assert figures and all(claim.ours is not None for claim in FIGURES[paper].claims())
    for figure in figures:
        for panel in figure.panels:
            assert len({(mark.series, mark.x, mark.source) for mark in panel.marks}) == len(panel.marks), (figure.name, panel.title)
            for mark in panel.marks:
                if mark.source == drawing.OURS:
                    assert mark.runs >= 3 or "frozen" in mark.series or mark.series == "few-shot" or mark.x == 0, (panel.title, mark)


@pytest.mark.parametrize("paper", FIGURES)
def test_without_results_there_is_no_figure_and_every_claim_is_not_run(paper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "ours", lambda paper: ())
    assert FIGURES[paper].figures() == []
    assert {claim.verdict for claim in FIGURES[paper].claims()} == {"not run"}


def test_scores_of_a_kind_are_those_of_its_runs_alone(made_up: dict[str, list[dict[str, str]]]) -> None:
    def expected(paper: str, run: points.Point, test: str) -> float:
        own = {name: str(value) for name, value in run.factors.items()}
        named = [row for row in made_up[paper] if row["test"] == test and {k: v for k, v in row.items() if k in run.factors} == own]
        kept = [row for row in named if set(row) - {"test", "task", "metric", "value"} == set(own)]
        assert len(kept) == len(instructions.TESTED)
        return float(np.mean([float(row["value"]) for row in kept]))

    for seed in mini.SEEDS:
        runs = {
            shared.tuned("flan2021")[0][seed]: ("flan2021", instructions.tuned(instructions.BASE, seed), "instructions"),
            shared.tuned("flan2021", clusters=3)[0][seed]: ("flan2021", flan2021.clusters()[3 + seed], "instructions"),
            shared.tuned("flan2021", exemplars="2", test="few_shot")[0][seed]: ("flan2021", flan2021.few_shot()[seed], "few_shot"),
            longpre2023_figures._mixed(0.0, "few_shot")[0][seed]: (
                "longpre2023",
                instructions.read(instructions.tuned(instructions.BASE, seed), {}),
                "few_shot",
            ),
            super_ni2022_figures._encoded("name", "definition")[0][seed]: (
                "super_ni2022",
                instructions.read(instructions.tuned(instructions.BASE, seed, form="name"), {}),
                "definition",
            ),
        }
        for found, (paper, run, test) in runs.items():
            assert found == pytest.approx(expected(paper, run, test)), run.name


def test_median_and_range_over_templates() -> None:
    rows = [
        {"seed": "0", "task": f"{task}/{number}", "value": str(value)}
        for task, values in {"one": (0.1, 0.3, 0.5, 0.9), "other": (0.2, 0.2, 0.2, 0.6)}.items()
        for number, value in enumerate(values)
    ]
    median, spread = t0_2021_figures._over_templates(rows)
    assert median == [[pytest.approx((0.4 + 0.2) / 2)]]
    # NumPy's quartiles of four values by hand: 0.25 and 0.6; 0.2 and 0.3.
    assert spread == [[pytest.approx((0.35 + 0.1) / 2)]]


def test_published_values_are_drawn_as_they_are_printed(made_up: dict[str, list[dict[str, str]]]) -> None:
    def marks(paper: str, figure: str, title: str) -> list[tuple[str, float | str, float]]:
        (found,) = [each for each in FIGURES[paper].figures() if each.name == figure]
        (panel,) = [each for each in found.panels if each.title == title]
        assert all(mark.source != drawing.OURS for mark in panel.marks)
        return [(mark.series, mark.x, mark.value) for mark in panel.marks]

    assert marks("flan2021", "clusters", "figure 6 of the paper")[0] == ("instruction tuning", 1.0, 49.9)
    assert ("asked by instructions", "nothing", 37.3) in marks("flan2021", "roles", "figure 8 of the paper")
    assert ("asked as tuned", "names of tasks", 47.0) in marks("flan2021", "roles", "figure 8 of the paper")
    assert ("instruction tuning", 1.1e10, 62.0) in marks("super_ni2022", "scaling", "figure 5c of the paper")
    assert ("definition", "definition", 45.0) in marks("super_ni2022", "encodings", "table 4 of the paper")
    assert ("PaLM 8B", 1836.0, 21.9) in marks("chung2022", "tasks", "table 3 of the paper")
    assert ("instruction tuning", 8e7, -3.1) in marks("chung2022", "sizes", "table 5 of the paper: T5")
    assert ("few-shot, without few-shot templates", "MMLU", 38.7) in marks("longpre2023", "mixing", "table 1 of the paper")
    assert ("Tk-Instruct", 10.0, 58.69) in marks("longpre2023", "targets", "Gupta et al. 2023")
    assert ("T0", "RTE", 81.2) in marks("t0_2021", "tasks", "figure 4 of the paper")


@pytest.mark.slow
def test_a_prompt_starts_from_the_base_tuned_on_instructions(tmp_path: pathlib.Path) -> None:
    """Two steps of each on t5_nano: tuning, reading it at another length, a prompt on it; scores of all three are kept."""
    few = {"TRAIN_STEPS": "2", "NUM_TRAIN": "4", "NUM_VALIDATION": "1"}
    tests: points.Tests = {"few_shot": instructions.held_out(num_test=2, exemplars=2)}
    start = instructions.tuned("t5_nano", 0, bindings=few, tests={"instructions": instructions.held_out(num_test=2)})
    prompt = mini.point(
        "t5_nano",
        "prompt",
        "fact_town_choice",
        0,
        factors={"start": "instructions"},
        bindings={**few, "BASE_CHECKPOINT": "'{start}/base'"},
        tests={"test": {"num_test": 4}},
        after={"start": start},
    )
    every = [start, instructions.read(start, tests), prompt]
    points.run(every, tmp_path / "runs", tmp_path / "results.csv")
    rows = points.read(tmp_path / "results.csv")
    assert {row["test"] for row in rows} == {"instructions", "few_shot", "test"}
    assert {row["task"] for row in rows if row["test"] == "few_shot"} == set(instructions.TESTED)
    held = json.loads((tmp_path / "runs" / prompt.name / "experiment.json").read_text())
    assert held["experiment"]["base_checkpoint"] == str(tmp_path / "runs" / start.name / "base")


def test_a_line_of_one_point_is_not_drawn() -> None:
    def figure(*xs: float) -> drawing.Figure:
        marks = [drawing.Mark("instruction tuning", x, 0.5) for x in xs] + [drawing.Mark("frozen", x, 0.4) for x in (1.0, 3.0, 6.0)]
        return drawing.Figure("clusters", "", [drawing.Panel("", "", "", marks)])

    assert shared.drawn([figure(6.0)]) == [] and shared.drawn([figure()]) == []
    assert shared.drawn([figure(1.0, 6.0)]) == [figure(1.0, 6.0)]
