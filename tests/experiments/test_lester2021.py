"""Lester et al. 2021: the runs are what they say, the files of the paper's own scale hold its settings, and figures show what is there."""

import csv
import dataclasses
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments import mini, points
from experiments.lester2021 import sweep as paper
from paper_figures import drawing, results
from paper_figures.papers import lester2021 as figures
from prompt_tuning import cli, sweep
from prompt_tuning.data import mixtures, row_tasks
from prompt_tuning.data.tasks import after_sentinel, superglue, world
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import ClassLabels, SampledVocabulary
from tests.data.small import BYTES
from tests.shared import shared_path

FOLDER = "configs/papers/lester2021/"
MODELS = tuple(f"configs/models/t5_1_1_lm100k_{size}.gin" for size in ("small", "base", "large", "xl", "xxl"))
PROMPT, FULL = "configs/methods/prompt.gin", "configs/methods/full.gin"
GIVEN = ("BASE_CHECKPOINT = 'base'", "VOCABULARY = 'spiece.model'")


def printed(name):
    with shared_path(f"published/lester2021_{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# The runs in miniature.


def test_every_point_has_a_name_of_its_own():
    points.check_names(paper.every())
    names = [point.name for point in paper.every()]
    assert len(set(names)) == len(names)


def test_what_figures_read_is_what_is_run():
    for name in ("TASKS", "ALL", "LENGTHS", "ADAPTED", "ADAPTED_STEPS", "ABLATED", "ABLATED_TASKS", "ENSEMBLED", "ENSEMBLED_TASKS"):
        assert getattr(figures, name) == getattr(paper, name), name
    factors = {name for point in paper.every() for name in point.factors}
    assert factors == {"base", "method", "trained_on", "for", "seed", *figures._FACTORS}


@pytest.mark.parametrize("task", paper.LABELS)
def test_class_labels_are_those_of_the_task(task):
    (told,) = world.World(task_list=(task,)).world_tasks()
    assert told.plain.answer_choices == paper.LABELS[task]


def test_inputs_of_no_task_are_cut_in_either_domain():
    vocabulary = _vocabulary()
    for task in paper.TASKS:
        for domain in ("in", "out"):
            (told,) = world.World(task_list=(task,), domain=domain).tasks(vocabulary)
            assert max(len(example["inputs"]) for example in row_tasks.examples(told, "test")) <= 48


def test_all_exemplars_fit_the_input(tmp_path):
    point = paper.few_shot()[0]
    loaded = points.experiment(point, tmp_path)
    assert loaded.data.exemplars == paper.EXEMPLARS
    vocabulary = _vocabulary()
    longest = 0
    for task in loaded.data.tasks(vocabulary):
        for example in row_tasks.examples(task, "test"):
            # One target is shown with each exemplar, and none behind the input.
            assert example["inputs_pretokenized"].count("\n\n") == paper.EXEMPLARS
            longest = max(longest, len(example["inputs"]))
    assert longest <= loaded.input_length


def _vocabulary():
    return cli.load_experiment(["configs/models/t5_nano.gin", PROMPT, "configs/data/world.gin"]).vocabulary.load()


def test_bases_of_the_ablation_differ_in_their_pretraining_alone(tmp_path):
    by_name = {point.factors["pretraining"]: point for point in paper.pretraining()}
    assert set(by_name) == {"lm_0", "lm_500", "lm_1500", "lm_6000", "span", "span_and_sentinel"}
    assert by_name["span"].after["base"].config == by_name["span_and_sentinel"].after["base"].config
    span, adapted, long_span = (by_name[name].after["base"] for name in ("lm_0", "lm_500", "span"))
    assert adapted.after["base"].config == span.config
    loaded = {name: points.experiment(point, tmp_path) for name, point in (("span", span), ("lm", adapted), ("long", long_span))}
    assert [loaded[name].train_steps for name in loaded] == [800, 500, 800 + paper.ADAPTED_STEPS[-1]]
    assert loaded["lm"].base_checkpoint == str(tmp_path / span.name / "base")
    assert loaded["long"] == dataclasses.replace(loaded["span"], train_steps=800 + paper.ADAPTED_STEPS[-1])
    assert all(each.save_base for each in loaded.values())
    for name, point in by_name.items():
        there = points.experiment(point, tmp_path)
        assert there.base_checkpoint == str(tmp_path / point.after["base"].name / "base"), name


def test_no_two_ensembles_share_a_prompt():
    for task in paper.ENSEMBLED_TASKS:
        members = [member.name for point in paper.ensembles() if point.factors["trained_on"] == task for member in point.after.values()]
        assert len(members) == len(set(members)) == 3 * paper.MEMBERS


@pytest.mark.slow
def test_each_kind_of_point_is_run_and_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "ENSEMBLED", "t5_nano")
    monkeypatch.setattr(mini, "BASES", ("t5_nano",))
    chosen = [paper.ensembles()[0], paper.few_shot()[0], next(p for p in paper.pretraining() if "sentinel" in p.name)]

    def cut(point):
        after = {name: cut(each) for name, each in point.after.items()}
        return dataclasses.replace(point, bindings={**point.bindings, "TRAIN_STEPS": "2"}, after=after)

    points.run([cut(point) for point in chosen], tmp_path / "runs", tmp_path / "results.csv")
    rows = points.read(tmp_path / "results.csv")
    votes = {row["metric"]: float(row["value"]) for row in rows if row["members"]}
    assert set(votes) == {"mean", "best", "vote"} and votes["mean"] <= votes["best"]
    assert {row["task"] for row in rows if row["exemplars"]} == set(paper.TASKS)
    assert [row["metric"] for row in rows if row["pretraining"]] == ["accuracy", "f1_macro"]


# Targets after a sentinel.


def test_sentinel_stands_before_every_target_and_choice_of_rows():
    vocabulary = _vocabulary()
    source = world.World(task_list=("sentiment_review", "fact_town_choice"), num_train=20, num_validation=5, num_test=5)
    (sentinel,) = vocabulary.encode("<extra_id_0>")
    wrapped = after_sentinel.AfterSentinel(source)
    assert wrapped.task_names == source.task_names
    assert list(mixtures.mixing_rates(wrapped, [10, 30])) == list(mixtures.mixing_rates(source, [10, 30]))
    for plain, begun in zip(source.tasks(vocabulary), wrapped.tasks(vocabulary), strict=True):
        assert begun.name != plain.name
        for split in plain.splits:
            for before, after in zip(row_tasks.examples(plain, split), row_tasks.examples(begun, split), strict=True):
                np.testing.assert_array_equal(after["inputs"], before["inputs"])
                np.testing.assert_array_equal(after["targets"], [sentinel, *before["targets"]])
                assert after["answer_choices"] == tuple(f"<extra_id_0> {choice}" for choice in before["answer_choices"])


def test_sentinel_stands_before_targets_of_tfds():
    vocabulary = _vocabulary()
    with tfds.testing.mock_data(num_examples=4):
        pairs = []
        for source in (superglue.SuperGlue("cb"), after_sentinel.AfterSentinel(superglue.SuperGlue("cb"))):
            (task,) = source.tasks(vocabulary)
            pairs.append(mixtures.evaluation_examples(task, "validation", 4))
    for before, after in zip(*pairs, strict=True):
        assert after["inputs_pretokenized"] == before["inputs_pretokenized"]
        assert after["targets_pretokenized"] == f"<extra_id_0> {before['targets_pretokenized']}"
        assert after["answer_choices"] == tuple(f"<extra_id_0> {choice}" for choice in before["answer_choices"])


def test_sentinel_is_refused_where_it_would_be_scored():
    vocabulary = _vocabulary()
    with pytest.raises(UserError, match="task super_glue_record is scored by squad_f1, exact_match, wanted one scored over labels"):
        after_sentinel.AfterSentinel(superglue.SuperGlue("record")).tasks(vocabulary)
    with pytest.raises(UserError, match="'no such piece' is . tokens"):
        after_sentinel.AfterSentinel(superglue.SuperGlue("cb"), sentinel="no such piece").tasks(vocabulary)


# The paper's own scale.


def experiments_of(model):
    found = sweep.read_sweep(f"{FOLDER}superglue.sweep")
    return sweep.load(found, [model, PROMPT, f"{FOLDER}prompt.gin"], GIVEN)


def test_settings_are_the_printed_ones():
    rows = {row["metric"]: row["value"] for row in printed("hyperparameters")}
    first = experiments_of(MODELS[-1])[0].experiment
    assert (first.train_steps, first.batch_size) == (int(rows["training steps"]), int(rows["batch size"]))
    assert first.method.length == int(rows["prompt length (default)"])
    assert (first.optimizer.learning_rate, first.optimizer.weight_decay) == (float(rows["learning rate"]), float(rows["weight decay"]))
    assert first.optimizer.multiply_by_parameter_scale is False and rows["parameter scaling"] == "off"
    assert first.schedule.kind == "constant" and first.schedule.warmup_steps == 0
    assert first.method.initializer.fallback == SampledVocabulary(5000)
    single = cli.load_experiment([MODELS[0], FULL, "configs/data/boolq.gin", f"{FOLDER}model_tuning.gin"], GIVEN)
    many = cli.load_experiment([MODELS[0], FULL, f"{FOLDER}multitask.gin"], GIVEN)
    assert single.optimizer.learning_rate == many.optimizer.learning_rate == float(rows["model tuning learning rate"])
    assert rows["model tuning batch"] == "2^16 tokens (multi-task 2^20 tokens)"
    assert (single.batch_size * single.input_length, many.batch_size * many.input_length) == (2**16, 2**20)


@pytest.mark.parametrize("model", MODELS)
def test_all_eight_tasks_have_a_prompt_of_their_own_on_every_size(model):
    runs = experiments_of(model)
    assert [run.name for run in runs] == list(superglue.FORMATS)
    for run in runs:
        choices = superglue.FORMATS[run.name].choices
        assert run.experiment.data == superglue.SuperGlue(run.name, task_prefix=False)
        assert run.experiment.method.initializer == (ClassLabels(choices) if choices else SampledVocabulary())


def test_trained_parameters_are_those_of_table_4():
    by_size = {"Small": 0, "Base": 1, "Large": 2, "XL": 3, "XXL": 4}
    misprinted = {("Small", 20): 10_240}
    for row in printed("table4_prompt_param_counts"):
        if row["metric"] == "trainable parameters":
            size, length = row["model"].split()[-1], int(row["task"].split()[-1])
            model = cli.load_experiment([MODELS[by_size[size]], PROMPT, "configs/data/boolq.gin"], GIVEN).model
            assert length * model.d_model == misprinted.get((size, length), int(row["value"]))


def test_many_tasks_are_mixed_by_their_sizes():
    many = cli.load_experiment([MODELS[0], FULL, f"{FOLDER}multitask.gin"], GIVEN)
    assert many.data.task_names == tuple(f"super_glue_{name}" for name in superglue.FORMATS)
    rates = mixtures.mixing_rates(many.data, [10, 20, 30, 40, 10, 20, 30, 40])
    np.testing.assert_allclose(rates, np.array([1, 2, 3, 4, 1, 2, 3, 4]) / 20)


SQUAD = {"question": "who sat?", "context": "the cat sat on a mat", "answers": {"text": ["the cat", "cat"], "answer_start": [0, 4]}}
MRQA = {"question": "on what?", "context": "the cat sat on a mat", "answers": ["a mat", "mat"], "subset": "RACE"}


@pytest.fixture
def stored(monkeypatch):
    """Rows written by hand in the columns that TFDS's builders publish, in the place of what they would read."""
    asked = []

    def load(name, *, split, data_dir):
        del data_dir
        asked.append((name, split))
        columns = tfds.builder(name).info.features
        if name.startswith("glue/"):
            one, other = ("question1", "question2") if "qqp" in name else ("sentence1", "sentence2")
            found = [{one: f"is it {i}?", other: "is it not?", "label": i % 2, "idx": i} for i in range(4)]
        else:
            found = [MRQA if name.startswith("mrqa") else SQUAD]
        assert set(found[0]) <= set(columns)
        return found

    monkeypatch.setattr(tfds, "load", load)
    monkeypatch.setattr(tfds, "as_numpy", lambda rows: rows)
    return asked


def test_questions_are_read_from_squad_and_from_six_other_domains(stored):
    files = [MODELS[0], PROMPT, f"{FOLDER}prompt.gin", f"{FOLDER}squad.gin"]
    trained = cli.load_experiment(files, [*GIVEN, "CLASS_LABELS = ('a',)"])
    (task,) = trained.data.tasks(BYTES.load())
    (row,) = task.read("train")
    assert row.inputs == "question: who sat? context: the cat sat on a mat"
    assert (row.targets, row.references) == ("the cat", ("the cat", "cat"))
    moved = cli.load_experiment([*files, f"{FOLDER}mrqa.gin"], [*GIVEN, "CLASS_LABELS = ('a',)"])
    tasks = moved.data.tasks(BYTES.load())
    for task in tasks:
        (row,) = task.read("test")
        assert (row.inputs, row.targets) == ("question: on what? context: the cat sat on a mat", "a mat")
        assert task.metric_names == ("squad_f1", "exact_match")
    where = {name.partition("/")[2] for name, split in stored if split == "test"}
    assert where == {"textbook_qa", "bio_asq", "race", "relation_extraction", "duo_rc", "drop"} and len(tasks) == 6
    # The model is what decides whether a run's prompt can be scored there.
    assert (moved.model, moved.method, moved.input_length) == (trained.model, trained.method, trained.input_length)


def test_both_sets_of_paraphrases_have_the_same_words(stored):
    files = [MODELS[0], PROMPT, f"{FOLDER}prompt.gin", f"{FOLDER}paraphrase.gin"]
    over = ["VALIDATION_FILES = 'tfds:glue/mrpc:2.0.0#validation'", "COLUMNS = {'question1': 'sentence1', 'question2': 'sentence2'}"]
    told = []
    for more in ([], over):
        loaded = cli.load_experiment(files, [*GIVEN, *more])
        (task,) = loaded.data.tasks(BYTES.load())
        told.append(task.read("validation"))
    assert told[0] == told[1]
    assert [row.targets for row in told[0]] == ["different", "same", "different", "same"]
    assert told[0][0].inputs == "first: is it 0? second: is it not?"
    assert loaded.method.initializer.labels == told[0][0].answer_choices


# Figures.


@pytest.mark.parametrize("path", sorted(results.PUBLISHED.glob("lester2021_*.csv")), ids=lambda path: path.stem)
def test_printed_values_are_those_that_were_read(path):
    with shared_path(f"published/{path.name}").open(encoding="utf-8", newline="") as file:
        there = list(csv.DictReader(file))
    rows = results.published(path.stem)
    assert rows and all(dict(row) in there for row in rows)


def test_every_printed_value_is_drawn():
    drawn = {mark.value for figure in figures.figures() for panel in figure.panels for mark in panel.marks if mark.source != drawing.OURS}
    for name in ("table1_mrqa_domain_transfer", "table2_paraphrase_transfer", "table3_prompt_ensembling"):
        assert {float(row["value"]) for row in results.published(f"lester2021_{name}")} <= drawn


def made(value_of):
    """Rows as all runs would leave them, each of them `value_of` its point's factors."""
    found = []
    for point in paper.every():
        for test in (*point.tests, *point.measures):
            tasks = paper.TASKS if point.factors["trained_on"] == paper.ALL else [point.factors["trained_on"]]
            for task in tasks:
                for metric in ("mean", "best", "vote") if point.measures else ("accuracy", "f1_macro"):
                    factors = {
                        name: str(point.factors.get(name, "")) for name in ("base", "method", "trained_on", *figures._FACTORS, "seed")
                    }
                    row = {**factors, "test": test, "task": task, "metric": metric, "trained_parameters": "320"}
                    found.append({**row, "value": str(value_of(row))})
    return tuple(found)


def claimed(row):
    """Scores of a world in which all that the paper says is so."""
    size = mini.BASES.index(row["base"])
    if row["metric"] in ("mean", "best", "vote"):
        return {"mean": 0.5, "best": 0.6, "vote": 0.7}[row["metric"]]
    if row["exemplars"]:
        return 0.2
    if row["method"] == "full":
        return 1.0 - (0.2 if row["test"] == "out" else 0.0)
    score = 0.5 + 0.1 * size - (0.0 if row["test"] == "test" else 0.05)
    change = {"1": -0.1, "5": -0.02, "100": 0.01}.get(row["length"], 0.0)
    change += {"uniform": -0.1, "labels": 0.02}.get(row["begins"], 0.0)
    change += {"lm_0": -0.2, "lm_500": -0.1, "lm_1500": -0.05, "lm_6000": -0.02, "span": -0.2, "span_and_sentinel": -0.2}.get(
        row["pretraining"], 0.0
    )
    return score + change * (4 - size)


def test_claims_hold_in_a_world_in_which_they_do_and_not_in_its_mirror(monkeypatch):
    found = {}
    for side in (1, -1):
        monkeypatch.setattr(results, "ours", lambda paper_name, side=side: made(lambda row: side * claimed(row)))
        found[side] = figures.claims()
    assert [claim.text for claim in found[1] if claim.verdict != "agrees"] == []
    assert [claim.text for claim in found[-1] if claim.verdict != "disagrees"] == []


def test_figures_show_our_means(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "ours", lambda paper_name: made(claimed))
    drawn = {figure.name: figure for figure in figures.figures()}
    assert {name: len(figure.panels) for name, figure in drawn.items()} == {
        "sizes": 2, "ablations": 4, "transfer": 3, "ensembling": 2, "parameters": 2,
    }  # fmt: skip
    ours = [mark for mark in drawn["sizes"].panels[0].marks if mark.series == "prompt tuning"]
    assert [mark.x for mark in ours] == [mini.PARAMETERS[base] for base in mini.BASES]
    np.testing.assert_allclose([mark.value for mark in ours], [0.5, 0.6, 0.7, 0.8, 0.9])
    assert {mark.runs for mark in ours} == {9}
    vote = next(mark for mark in drawn["ensembling"].panels[0].marks if mark.series == "majority vote")
    assert (vote.value, vote.runs) == (pytest.approx(0.7), 3)
    drawing.save(drawn["ablations"], tmp_path, "lester2021")
    assert len(list(tmp_path.iterdir())) == 3


def test_without_runs_nothing_of_ours_is_drawn(monkeypatch):
    monkeypatch.setattr(results, "ours", lambda paper_name: ())
    shown = {mark.source for figure in figures.figures() for panel in figure.panels for mark in panel.marks}
    assert drawing.OURS not in shown and drawing.PRINTED in shown
    assert {claim.verdict for claim in figures.claims()} == {"not run"}


def test_readme_says_how_and_what():
    page = (pathlib.Path(paper.__file__).parent / "README.md").read_text(encoding="utf-8")
    for path in pathlib.Path(FOLDER).glob("*.*"):
        assert path.suffix == ".yaml" or f"{FOLDER}{path.name}" in page
