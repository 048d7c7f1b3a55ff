"""FLAN's mixture: the paper's counts, the published columns, what is trained on and tested, and the rates as drawn; nothing is fetched."""

import collections
import csv
import itertools
import pathlib
import socket

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.data import mixtures, template_sets
from prompt_tuning.data.provenance import DATASETS, RELATED, HeldOut
from prompt_tuning.data.tasks import flan2021
from prompt_tuning.data.tasks.every_template import EveryTemplate
from prompt_tuning.data.tasks.instructions import Instructions
from prompt_tuning.errors import UserError
from tests.data.small import BYTES
from tests.data.test_template_sets import ROWS
from tests.shared import shared_path

# Figure 3's headings.
COUNTS = {
    **{"nli": 7, "commonsense": 4, "sentiment": 4, "paraphrase": 4, "closed_book_qa": 3, "struct_to_text": 4, "reading_comprehension": 5},
    **{"reading_comprehension_with_commonsense": 2, "coreference": 3, "miscellaneous": 7, "translation": 8, "summarization": 11},
}
BY_NAME = {task.name: task for task in flan2021.TASKS}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Fails a test that opens a connection."""

    def refuse(*args, **settings):
        raise AssertionError(f"a connection was opened: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def published_rows(task):
    """Rows of a task as TFDS has them: those of the bundled set's test, in TFDS's columns."""
    rows = ROWS["mnli" if task.name == "snli" else task.templates]
    if task.cluster == "translation":
        return [row["translation"] for row in rows]
    if task.dataset == "anli":
        return [{"context" if key == "premise" else key: value for key, value in row.items()} for row in rows]
    return rows


@pytest.fixture
def stored(monkeypatch):
    """TFDS's builders, with rows written by hand in the place of what they would read."""
    counts = collections.Counter()

    def load(name, *, split, data_dir):
        task = next(task for task in flan2021.TASKS if task.tfds == name)
        features = tfds.builder(name).info.features
        rows = [{key: row[key] for key in features if key in row} for row in published_rows(task)]
        counts[name, split] += 1
        return rows

    monkeypatch.setattr(tfds, "load", load)
    monkeypatch.setattr(tfds, "as_numpy", lambda rows: rows)
    return counts


def test_62_data_sets_in_12_clusters():
    clusters = collections.defaultdict(set)
    for task in flan2021.TASKS:
        clusters[task.cluster].add(task.dataset)
    assert {name: len(found) for name, found in clusters.items()} == COUNTS
    assert len(COUNTS) == 12 and sum(COUNTS.values()) == 62
    assert len(BY_NAME) == len(flan2021.TASKS)
    for task in flan2021.TASKS:
        assert len(template_sets.load(task.templates).templates) == 10
        assert (task.rows > 0) == (task.splits[0] is not None)


def test_the_settings_are_the_published_ones():
    with shared_path("published/flan2021_training_setup.csv").open() as file:
        rows = {row["metric"]: row["value"] for row in csv.DictReader(file)}
    mixture = flan2021.mixture()
    assert (len({task.dataset for task in flan2021.TASKS}), len(COUNTS)) == (int(rows["datasets"]), int(rows["task clusters"]))
    assert (flan2021.CAP, mixture.cap) == (int(rows["examples per dataset cap"]), int(rows["mixing rate maximum"]))
    assert {source.input_tokens for source in mixture.sources} == {int(rows["input length"])}
    assert rows["templates per dataset"] == "10 (up to 3 turned around)"
    assert all(sum(t.turned_around for t in template_sets.load(task.templates).templates) <= 3 for task in flan2021.TASKS)


@pytest.mark.parametrize("name", BY_NAME)
def test_templates_read_the_columns_that_tfds_publishes(name):
    task = BY_NAME[name]
    builder = tfds.builder(task.tfds)
    chosen = template_sets.load(task.templates)
    columns = {**chosen.columns, **task.columns}
    if not task.tfds.startswith("wmt"):  # Of WMT, whose builders share their instructions, CzEng alone.
        assert bool(builder.MANUAL_DOWNLOAD_INSTRUCTIONS) == task.by_hand
    wanted = {columns.get(field, field) for field in chosen.fields if field not in chosen.constants}
    for path in wanted:
        here = builder.info.features
        for step in [path] if path in here else path.split("."):
            here = here.feature if step.isdecimal() else here[step]
    label = dict(builder.info.features).get(columns.get("label", "label"))
    if chosen.labels and isinstance(label, tfds.features.ClassLabel):
        names = chosen.row_labels or chosen.labels
        assert label.num_classes == len(names)
        if task.cluster == "nli" or name in ("sst2", "imdb", "trec", "ag_news", "cola", "openbookqa"):
            assert [word[0].lower() for word in label.names] == [word[0].lower() for word in names]  # ANLI's are e, n and c.


@pytest.mark.parametrize("name", BY_NAME)
def test_every_task_reads_its_rows(stored, name):
    source = next(source for source in flan2021.mixture().sources if source.name == name)
    (task,) = source.tasks(BYTES.load())
    assert set(task.splits) == {split for split, named in zip(("train", "validation", "test"), BY_NAME[name].splits, strict=True) if named}
    for split in task.splits:
        examples = mixtures.evaluation_examples(task, split)
        if split != "train":
            assert len(examples) == len(published_rows(BY_NAME[name]))
        for example in examples:
            if split != "train" and example["answer_choices"]:
                assert example["targets_pretokenized"] in example["answer_choices"]
                assert all(f"- {choice}" in example["inputs_pretokenized"] for choice in example["answer_choices"])


def places(path, rows):
    """The split that a path names a part of, and the rows of it."""
    name, _, part = path.partition("#")[2].partition("[")
    begin, _, end = part.removesuffix("]").partition(":")
    return name, range(rows)[slice(int(begin or 0), int(end) if end else None)]


@pytest.mark.parametrize("cap", [flan2021.CAP, 100])
def test_training_rows_are_capped_and_apart_from_validation_and_test(cap):
    for task in flan2021.TASKS:
        found = [places(*paths, task.rows + 70_000) for paths in task.files(cap).values() if paths]
        for (one, rows), (other, others) in itertools.combinations(found, 2):
            assert one != other or rows.stop <= others.start or others.stop <= rows.start
        if task.rows > cap:
            assert len(found[0][1]) == cap


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 200_000), min_size=4, max_size=4), st.integers(1, 5_000))
def test_rates_are_in_proportion_up_to_the_maximum(sizes, maximum):
    mixture = flan2021.mixture(datasets=("cb", "copa", "rte", "wic"), maximum=maximum)
    rates = mixtures.mixing_rates(mixture, sizes)
    wanted = np.minimum(sizes, maximum)
    np.testing.assert_allclose(rates * max(wanted.sum(), 1), wanted, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.sampled_from(sorted(COUNTS)), min_size=1, max_size=3), st.booleans())
def test_nothing_of_a_held_out_cluster_is_trained_on(clusters, shared):
    held = HeldOut(flan2021.mixture(), tuple(sorted(clusters)), part="training", shared=shared)
    apart = clusters | {other for pair in RELATED if clusters & set(pair) for other in pair}
    trained = [BY_NAME[name] for name in held.task_names]
    assert not apart & {task.cluster for task in trained}
    sources = {source for task in flan2021.TASKS if task.cluster in clusters for source in DATASETS[task.dataset].sources}
    overlapping = [task for task in trained if sources & set(DATASETS[task.dataset].sources)]
    assert not overlapping if shared else len(trained) == sum(task.cluster not in apart for task in flan2021.TASKS)


def test_what_the_paper_leaves_out_for_each_evaluation():
    kept = {task.cluster for task in flan2021.TASKS}

    def clusters(*held):
        names = HeldOut(flan2021.mixture(), held, part="training", shared=False).task_names
        return kept - {BY_NAME[name].cluster for name in names}

    assert clusters("nli") == clusters("paraphrase") | {"nli"} == {"nli", "paraphrase"}
    both = {"reading_comprehension", "commonsense", "reading_comprehension_with_commonsense"}
    assert clusters("reading_comprehension_with_commonsense") == both
    assert clusters("reading_comprehension") == both - {"commonsense"}
    assert clusters("commonsense") == both - {"reading_comprehension"}
    assert clusters("translation") == {"translation"}


def test_what_is_held_out_is_asked_in_every_template():
    held = HeldOut(flan2021.mixture(datasets=("rte", "wnli", "mrpc", "sentiment")), ("nli",), shared=False)
    every = EveryTemplate(held)
    asking = {task: [each.name for each in template_sets.load(task).templates if not each.turned_around] for task in ("rte", "wnli")}
    assert every.task_names == tuple(f"{task}/{name}" for task, names in asking.items() for name in names)
    trained = {name for name, task in zip(held.task_names, held.tasks(BYTES.load()), strict=True) if "train" in task.splits}
    assert trained == {"imdb", "sentiment140", "sst2", "yelp"}
    with pytest.raises(UserError, match="EveryTemplate.data: wanted the format Templated"):
        EveryTemplate(mixtures.Mixture((flan2021.mixture(datasets=("rte",)), Instructions())))


@pytest.mark.parametrize("maximum", [2, 3, None])
def test_examples_are_drawn_at_the_rates_of_the_mixture(stored, maximum):
    mixture = flan2021.mixture(datasets=("rte", "mnli", "hellaswag", "trec"), maximum=maximum)  # 2, 3, 4 and 6 rows.
    drawn = mixtures.mixed_examples(mixture, vocabulary=BYTES.load(), seed=0, input_length=64, target_length=16)
    counts = collections.Counter(mixture.task_names[example["task"]] for example in itertools.islice(drawn, 4_000))
    sizes = {name: min(rows, maximum or rows) for name, rows in {"rte": 2, "mnli": 3, "hellaswag": 4, "trec": 6}.items()}
    for name, size in sizes.items():
        share = size / sum(sizes.values())
        assert abs(counts[name] - 4_000 * share) < 4 * (4_000 * share * (1 - share)) ** 0.5, "four standard deviations"
    assert set(counts) == set(sizes)


def test_an_unknown_data_set_is_named():
    with pytest.raises(UserError, match="DATASETS: FLAN has no data set or cluster 'rtee'; wanted some of aeslc, "):
        flan2021.mixture(datasets=("rtee",))


def test_the_page_has_the_table():
    page = (pathlib.Path(__file__).resolve().parents[3] / "docs" / "flan.md").read_text()
    assert flan2021.table() in page, "put what flan2021.table() gives into docs/flan.md"
    assert f"All {sum(COUNTS.values())} data sets run" in page
    assert "Five must be downloaded by hand" in page and sum(task.by_hand for task in flan2021.TASKS) == 5
