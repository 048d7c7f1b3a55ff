"""Every paper in miniature: its points load, names stand for one run each, committed results are of its points, its page is whole."""

import functools
import importlib
import math
import pathlib

import pytest

from experiments import mini, points
from paper_figures import __main__ as figures
from paper_figures import claims
from prompt_tuning import cli, inspect
from prompt_tuning.models import sizes

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAPERS = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/sweep.py"))


@functools.cache
def of(paper: str) -> list[points.Point]:
    return importlib.import_module(f"experiments.{paper}.sweep").every()


def rows(paper: str) -> list[points.Row]:
    return points.read(ROOT / "experiments" / paper / "results.csv")


def test_every_paper_has_both_halves() -> None:
    assert figures.names() == PAPERS
    assert {path.parent.name for path in (ROOT / "experiments").glob("*/results.csv")} - {"bundled_base", "demo", "real_data"} <= set(
        PAPERS
    )


@pytest.mark.parametrize("paper", PAPERS)
def test_names_stand_for_one_run(paper: str) -> None:
    assert of(paper)
    points.check_names(of(paper))


@pytest.mark.parametrize("paper", PAPERS)
def test_every_kind_of_point_loads(paper: str) -> None:
    """Points that differ in values alone are of one kind."""
    kinds = {(point.gin_files, frozenset(point.bindings), point.trained): point for point in points.with_needed(of(paper))}
    for point in kinds.values():
        experiment = points.experiment(point, pathlib.Path("runs"))
        assert experiment.train_steps > 0
        for before in point.after:
            assert f"{{{before}}}" not in "".join(point.text(pathlib.Path("runs"))), point.name


def test_a_name_is_the_same_run_in_all_papers() -> None:
    seen: dict[str, tuple[str, points.Point]] = {}
    for paper in PAPERS:
        for point in points.with_needed(of(paper)):
            other, first = seen.setdefault(point.name, (paper, point))
            assert first.training == point.training, f"{point.name} is one run in {other} and another in {paper}"


@pytest.mark.parametrize("paper", PAPERS)
def test_committed_results_are_of_the_sweep(paper: str) -> None:
    by_hash = {point.config: point for point in of(paper)}
    for row in rows(paper):
        point = by_hash.get(row["config"])
        assert point is not None, f"python -m experiments.{paper}.sweep: {sorted(points.factors_of(row))} is no point of it any more"
        assert points.factors_of(row) == {(name, str(value)) for name, value in point.factors.items()}
        assert row["test"] in {*point.tests, *point.measures}
        assert row["commit"] and row["machine"] and float(row["value"]) == float(row["value"])
        assert (float(row["steps"]) > 0) == point.trained


@pytest.mark.parametrize("paper", PAPERS)
def test_committed_points_are_whole(paper: str) -> None:
    """Each has all its tests and measures; no row is there twice."""
    found = rows(paper)
    scored: dict[str, set[str]] = {}
    for row in found:
        scored.setdefault(row["config"], set()).add(row["test"])
    for point in of(paper):
        assert scored.get(point.config, {*point.tests, *point.measures}) == {*point.tests, *point.measures}, point.name
    told = [(row["config"], row["test"], row["task"], row["metric"]) for row in found]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("base", mini.BASES)
def test_parameters_of_the_bases(base: str) -> None:
    experiment = cli.load_experiment(
        [f"configs/models/{base}.gin", "configs/methods/full.gin"],
        ["experiment.Experiment.data = None", "experiment.Experiment.allow_random_base = True", "BASE_CHECKPOINT = None"],
    )
    assert sum(math.prod(row.shape) for row in inspect.audit(experiment)) == mini.PARAMETERS[base]
    assert sizes.named(base) == experiment.model


def test_the_suite_is_five_tasks_of_five_clusters_with_choices() -> None:
    from prompt_tuning.data.world import catalogue

    tasks = [catalogue.task(name) for name in mini.SUITE]
    assert len({task.cluster for task in tasks}) == len(tasks) == 5
    assert all("accuracy" in task.metrics for task in tasks)


@pytest.mark.parametrize("paper", PAPERS)
def test_the_page_is_what_the_command_writes(paper: str) -> None:
    page = figures.readme(paper).read_text(encoding="utf-8")
    module = figures.module(paper)
    section = figures.section(paper, module.figures(), module.claims())
    assert figures.with_section(page, section) == page, f"python -m paper_figures {paper}"


@pytest.mark.parametrize("paper", PAPERS)
def test_the_page_says_command_and_what_agrees(paper: str) -> None:
    page = figures.readme(paper).read_text(encoding="utf-8")
    assert page.startswith("# ") and f"python -m experiments.{paper}.sweep" in page
    # What agrees is said of results, so it is there where they are.
    assert not rows(paper) or "## What agrees and what does not" in page
    for line in page.splitlines():
        assert not line.startswith("![") or (figures.readme(paper).parent / line.split("](")[1].rstrip(")")).exists(), line


@pytest.mark.parametrize("paper", PAPERS)
def test_claims_have_a_figure_of_the_paper_and_a_verdict(paper: str) -> None:
    module = figures.module(paper)
    assert module.TITLE and module.__doc__
    for claim in module.claims():
        assert claim.text.strip() and claim.theirs.strip() and "|" not in claim.text + claim.theirs
        assert claim.verdict in claims.Verdict.__args__  # type: ignore[attr-defined]
