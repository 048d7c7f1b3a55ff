"""The papers on tuning methods: their runs, what they print and we carry, their figures, and their settings at full scale."""

import csv
import importlib
import pathlib
import re

import pytest

from experiments import methods, mini, points
from paper_figures import claims, drawing, results, tuning_methods
from prompt_tuning import assembly, cli, inspect, trainable
from tests.shared import shared_path

PAPERS = ("houlsby2019", "lora2021", "prefix2021", "ptuning2021", "ptuning_v2_2022", "tfew2022")
ROOT = pathlib.Path(__file__).parents[2]
PUBLISHED = sorted(path for path in results.PUBLISHED.glob("*.csv") if re.match("houlsby|lora2021|prefix2021|ptuning|tfew", path.name))
FULL_SCALE = sorted(str(path.relative_to(ROOT)) for paper in PAPERS for path in (ROOT / "configs" / "papers" / paper).glob("*.gin"))
NOTHING_AT_HAND = ("experiment.Experiment.allow_random_base = True", "experiment.Experiment.data = None")


def sweep(paper):
    return importlib.import_module(f"experiments.{paper}.sweep")


def figures(paper):
    return importlib.import_module(f"paper_figures.papers.{paper}")


@pytest.mark.parametrize("paper", PAPERS)
def test_points_have_names_of_their_own_and_load(paper):
    every = sweep(paper).every()
    points.check_names(every)
    assert len({point.name for point in every}) == len(every)
    for point in {tuple(sorted({**point.factors, "trained_on": "", "seed": ""}.items())): point for point in every}.values():
        assert points.experiment(point, ROOT).train_steps == 300


def test_runs_of_two_papers_with_one_name_are_one_run():
    found = {}
    for point in (point for paper in PAPERS for point in sweep(paper).every()):
        assert found.setdefault(point.name, point.config) == point.config


def test_what_two_papers_have_is_scored_once(tmp_path):
    asked = []

    def count(point, experiment, folder):
        asked.append(point.name)
        return {"asked": {"times": float(len(asked))}}

    shared = mini.frozen("t5_nano", mini.SUITE[0], tests={}, measures={"count": count})
    for paper in ("one", "other"):
        points.main([shared], tmp_path / paper, argv=[f"--workdir={tmp_path / 'runs'}"])
    one, other = (points.read(tmp_path / paper / "results.csv") for paper in ("one", "other"))
    assert one == other and len(asked) == 1
    points.main([shared], tmp_path / "one", argv=[f"--workdir={tmp_path / 'runs'}", "--again"])
    assert [row["value"] for row in points.read(tmp_path / "one" / "results.csv")] == ["2"]


def test_guessing_is_what_the_tasks_say():
    from prompt_tuning.data.tasks import world
    from prompt_tuning.data.world import catalogue

    found = []
    for name in methods.TASKS:
        rows = world.text_rows(catalogue.task(name), world.World(task_list=(name,), num_test=50), "test")
        (choices,) = {len(row.answer_choices) for row in rows}
        found.append(1 / choices)
    assert sum(found) / len(found) == pytest.approx(tuning_methods.GUESSING)


def test_few_examples_are_told_and_all_are_not():
    (few,), (whole,) = (methods.runs("lora", examples, tasks=mini.SUITE[:1])[:1] for examples in (methods.FEW, methods.ALL))
    assert few.factors["examples"] == methods.FEW and "examples" not in whole.factors
    assert points.experiment(few, ROOT).data.num_train == methods.FEW
    assert points.experiment(whole, ROOT).data.num_train == methods.ALL


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_what_papers_print_is_carried_as_it_was_read(path):
    with shared_path(f"published/{path.name}").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    carried = results.published(path.stem)
    assert carried and all(row in read for row in carried)
    assert all(row["source"] and row["verified"] for row in carried)


def made(paper, value):
    """Results of all runs of a paper whose accuracies are those of a function of the point, task and seed."""
    rows = []
    for point in sweep(paper).every():
        for test in point.tests:
            told = {name: str(factor) for name, factor in point.factors.items()}
            scored = {"test": test, "task": point.factors["trained_on"], "metric": "accuracy", "value": str(value(point))}
            rows.append({**told, **scored, "trained_parameters": "0" if not point.trained else str(100 + len(point.factors["method"]))})
    return tuple(rows)


@pytest.mark.parametrize("paper", PAPERS)
def test_every_run_is_drawn_and_every_claim_is_decided(paper, monkeypatch):
    # Model tuning is best, then what is called later in the alphabet; a seed adds a little to all.
    monkeypatch.setattr(
        results,
        "ours",
        lambda asked: made(asked, lambda point: 0.5 + 0.001 * ord(point.factors["method"][0]) + 0.0001 * point.factors["seed"]),
    )
    module = figures(paper)
    found = module.figures()
    assert found and all(panel.marks for figure in found for panel in figure.panels)
    ours = [mark for figure in found for panel in figure.panels for mark in panel.marks if mark.source == drawing.OURS]
    assert all(mark.runs in (len(methods.TASKS) * len(mini.SEEDS), len(methods.TASKS)) for mark in ours)
    decided = module.claims()
    assert decided and all(claim.ours is not None and claim.verdict != "not run" for claim in decided)
    assert "| the paper says |" in claims.table(decided)


@pytest.mark.parametrize("paper", PAPERS)
def test_where_nothing_has_been_run_nothing_is_drawn(paper, monkeypatch):
    monkeypatch.setattr(results, "ours", lambda asked: ())
    module = figures(paper)
    assert module.figures() == []
    assert all(claim.verdict == "not run" for claim in module.claims())


def test_a_lead_is_paired_and_a_margin_is_added_to_the_first():
    first, second = [[0.5, 0.7], [0.9, 0.9]], [[0.4, 0.5], [0.9, 0.8]]
    found = tuning_methods.lead(first, second)
    assert found.value == pytest.approx((0.15 + 0.05) / 2)
    assert tuning_methods.lead(first, second, margin=0.02).value == pytest.approx(0.12)
    base = tuning_methods.lead([[0.5, 0.6, 0.7]], [[0.4]])
    assert base.value == pytest.approx(0.2) and base.runs == 3
    assert tuning_methods.lead(first, []) is None


def test_some_tasks_alone_are_not_a_score(monkeypatch):
    rows = made("lora2021", lambda point: 0.5)
    monkeypatch.setattr(results, "ours", lambda asked: rows)
    assert tuning_methods.scores("lora2021", "lora")
    monkeypatch.setattr(results, "ours", lambda asked: tuple(row for row in rows if row["task"] != methods.TASKS[0]))
    assert tuning_methods.scores("lora2021", "lora") == []


@pytest.mark.parametrize(
    "note, count", [("trainable parameters 540K", 540e3), ("trainable parameters 4.7M", 4.7e6), ("x; trainable parameters 3B", 3e9)]
)
def test_numbers_of_parameters_are_read_from_notes(note, count):
    assert tuning_methods.parameters(note) == count


def totals(path):
    """Trained and frozen parameters of the experiment that the command on top of a run file names, from shapes alone."""
    header = " ".join(line.removeprefix("#").strip() for line in (ROOT / path).read_text().splitlines() if line.startswith("#"))
    if path.endswith("ptuning2021/few_shot.gin"):  # Its command is that of the file before it.
        header = (ROOT / path).with_name("superglue.gin").read_text()
    named = [*re.findall(r"--vary gin_file=([^,\s]+)", header), *re.findall(r"--gin_file=(\S+?\.gin)", header)]
    assert all((ROOT / each).exists() for each in named)
    built = inspect.without_vocabulary(cli.load_experiment([*(each for each in named if each != path), path], fallbacks=NOTHING_AT_HAND))
    return trainable.totals(assembly.abstract(built, built.mesh.build()).rows)


@pytest.mark.parametrize("path", FULL_SCALE)
def test_run_files_build_on_shapes_as_their_commands_name_them(path):
    trained, frozen = totals(path)
    assert 0 < trained < 0.2 * frozen


def test_methods_train_as_many_parameters_as_the_papers_print():
    # IA3 on T0-3B: 540K (Liu et al. 2022, table 4); 24 blocks of d = 2,048 and a feed-forward width of 5,120 in each stack.
    assert totals("configs/papers/tfew2022/few_shot.gin")[0] == 24 * (2 * 2048 + 5120) + 24 * (4 * 2048 + 5120) == 540_672
    # LoRA of queries and values of GPT-2 medium at rank 4: twice 24 matrices of 1,024 x 4 and 4 x 1,024.
    assert totals("configs/papers/lora2021/e2e.gin")[0] == 2 * 24 * 2 * 1024 * 4
