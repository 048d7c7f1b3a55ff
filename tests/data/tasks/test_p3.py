"""T0's mixtures over rendered files of P3."""

import collections
import csv
import itertools
import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import cli
from prompt_tuning.data import mixtures
from prompt_tuning.data.instructions.rendered import Rendered
from prompt_tuning.data.mixtures import Mixture
from prompt_tuning.data.tasks import p3_datasets
from prompt_tuning.data.tasks.p3 import P3
from prompt_tuning.data.tasks.p3_datasets import DATASETS, MIXTURES
from prompt_tuning.errors import UserError
from tests.data.small import BYTES
from tests.shared import shared_path

ROOT = pathlib.Path(__file__).resolve().parents[3]


def written(folder: pathlib.Path, rows: dict[str, int], **more) -> str:
    """Files of P3 with so many rows each; the pattern that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, count in rows.items():
        lines = [{"prompt": f"{folder.name} {stem} {i}", "completion": f" {i % 2}<|endoftext|>", **more} for i in range(count)]
        (folder / f"{stem}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder / "*.jsonl")


def test_the_mixtures_are_the_papers():
    assert len({dataset.task for dataset in DATASETS}) == 12  # Section 3, figure 2.
    assert [sum(dataset.trained_in(mixture) for dataset in DATASETS) for mixture in MIXTURES] == [38, 48, 54]
    assert len({dataset.name for dataset in DATASETS}) == len(DATASETS)
    trained = {dataset.task for dataset in DATASETS if dataset.trained_in("t0")}
    assert len(trained) == 8 and not trained & set(p3_datasets.HELD_OUT_TASKS)
    never = {dataset.name for dataset in DATASETS if not dataset.trained_in("t0++")}
    assert {"super_glue_rte", "super_glue_cb"} < never
    # Section 5.2: those that are capped.
    assert {dataset.name for dataset in DATASETS if dataset.rows > 500_000} == {
        "amazon_polarity", "yelp_review_full", "wiki_bio", "gigaword", "dbpedia_14",
    }  # fmt: skip


def test_the_page_has_the_table():
    page = (ROOT / "docs/t0_and_super_ni.md").read_text()
    assert p3_datasets.table() in page, "put what p3_datasets.table() gives into docs/t0_and_super_ni.md"


def test_what_is_held_out_is_what_the_paper_reports():
    with shared_path("published/t0_2021_heldout.csv").open() as file:
        reported = {row["task"] for row in csv.DictReader(file) if row["model"] == "T0" and row["method"].startswith("zero-shot")}
    names = {
        "COPA": "super_glue_copa", "HellaSwag": "hellaswag", "StoryCloze": "story_cloze_2016", "Winogrande": "winogrande_winogrande_xl",
        "WSC": "super_glue_wsc_fixed", "WiC": "super_glue_wic", "RTE": "super_glue_rte", "CB": "super_glue_cb", "ANLI-R1": "anli",
        "ANLI-R2": "anli", "ANLI-R3": "anli",
    }  # fmt: skip
    assert reported == set(names)
    assert {names[name] for name in reported} == {dataset.name for dataset in DATASETS if dataset.evaluated}


def test_the_rendered_files_at_hand_are_of_ten_of_its_data_sets():
    stems = [path.stem for path in shared_path("data/p3_rendered").glob("*.jsonl")]
    found = [p3_datasets.of_file(stem) for stem in stems]
    counts = collections.Counter(dataset.name for dataset, _ in filter(None, found))
    assert len(counts) == 10 and counts["gigaword"] == 9 and counts["trec"] == 18
    # In P3, and in none of T0's mixtures.
    assert {stem.split("_qa_")[0] for stem, told in zip(stems, found, strict=True) if told is None} == {"commonsense"}


@given(
    st.dictionaries(
        st.sampled_from([dataset.name for dataset in DATASETS if dataset.trained_in("t0")]),
        st.lists(st.integers(0, 30), min_size=1, max_size=4),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 40),
)
@settings(max_examples=50, deadline=None)
def test_a_data_set_above_the_cap_counts_as_the_cap(sizes, cap):
    class Told(P3):
        """Without files."""

        def _templates(self):
            by_name = {dataset.name: dataset for dataset in DATASETS}
            return [(by_name[name], str(i), None) for name, counts in sizes.items() for i in range(len(counts))]

    weights = iter(Told(cap=cap).weights([size for counts in sizes.values() for size in counts]))
    for counts in sizes.values():
        mine = list(itertools.islice(weights, len(counts)))
        if max(counts) <= cap:
            assert mine == counts
        else:
            assert sum(mine) == pytest.approx(cap)
            assert len({weight for weight, count in zip(mine, counts, strict=True) if count}) == 1
            assert all(weight == 0 for weight, count in zip(mine, counts, strict=True) if not count)


def test_published_sizes_stand_in_for_samples(tmp_path):
    files = written(tmp_path / "train", {"gigaword_a": 3, "gigaword_b": 2, "trec_a": 1, "imdb_a": 1})
    told = P3(train_files=files, published_sizes=True)
    assert dict(zip(told.task_names, told.weights([3, 2, 1, 1]), strict=True)) == {
        "gigaword/a": 250_000, "gigaword/b": 250_000, "imdb/a": 25_000, "trec/a": 5_452,
    }  # fmt: skip


def test_parts_share_the_files_out_and_validation_goes_by_name(tmp_path):
    stems = {"trec_a": 3, "hellaswag_a": 3, "super_glue_rte_a": 3, "super_glue_wsc.fixed_a b": 3, "other_data_a": 3}
    files = {"train_files": written(tmp_path / "train", stems), "validation_files": written(tmp_path / "validation", stems)}
    parts = {mixture: [P3(mixture=mixture, part=part, **files).task_names for part in ("training", "held_out")] for mixture in MIXTURES}
    wsc = "super_glue_wsc_fixed/a_b"
    assert parts["t0"] == [("trec/a",), ("hellaswag/a", "super_glue_rte/a", wsc)]
    assert parts["t0+"] == [("hellaswag/a", "trec/a"), ("super_glue_rte/a", wsc)]
    assert parts["t0++"] == [("hellaswag/a", wsc, "trec/a"), ("super_glue_rte/a",)]
    (task,) = P3(**files).tasks(BYTES.load())
    texts = {split: [example["inputs_pretokenized"] for example in mixtures.evaluation_examples(task, split)] for split in task.splits}
    assert texts == {"train": [f"train trec_a {i}" for i in range(3)], "validation": [f"validation trec_a {i}" for i in range(3)]}


def test_rows_with_choices_are_ranked(tmp_path):
    files = written(tmp_path, {"super_glue_rte_a": 4}, answer_choices=["0", "1"])
    told = P3(validation_files=files, part="held_out", format=Rendered(choices_field="answer_choices"))
    (task,) = told.tasks(BYTES.load())
    assert task.metric_names[0] == "accuracy"
    assert [example["answer_choices"] for example in mixtures.evaluation_examples(task, "validation")] == [("0", "1")] * 4


def test_rates_hold_within_another_mixture(tmp_path):
    files = written(tmp_path, {"trec_a": 6, "trec_b": 6, "imdb_a": 2})
    told = P3(train_files=files, cap=4)
    both = Mixture((told, P3(train_files=str(tmp_path / "imdb*"))), rates=(0.6, 0.4))
    np.testing.assert_allclose(mixtures.mixing_rates(told, [2, 6, 6]), np.array([2, 2, 2]) / 6)
    np.testing.assert_allclose(mixtures.mixing_rates(both, [2, 6, 6, 2]), [0.2, 0.2, 0.2, 0.4])


def test_fewer_templates_and_what_is_wrong(tmp_path):
    files = written(tmp_path, {"trec_a": 1, "trec_b": 1, "imdb_a": 1})
    assert P3(train_files=files, num_templates=1).task_names == ("imdb/a", "trec/a")
    with pytest.raises(UserError, match="no file is of a data set of t0, held_out; wanted DATASET_TEMPLATE.jsonl"):
        P3(train_files=files, part="held_out").task_names  # noqa: B018
    for how, message in (({"mixture": "t1"}, "P3.mixture"), ({"part": "rest"}, "P3.part"), ({"cap": 0}, "P3.cap: wanted at least 1")):
        with pytest.raises(UserError, match=message):
            P3(**how)


def test_the_papers_mixture_runs_on_the_rendered_files_at_hand():
    # Those of TREC hold no rows, or rows without a target.
    there = [str(path) for path in sorted(shared_path("data/p3_rendered").glob("*.jsonl")) if not path.stem.startswith("trec")]
    files = [
        str(ROOT / "configs" / path) for path in ("models/t5_nano.gin", "methods/full.gin", "papers/t0/mixture.gin", "papers/t0/train.gin")
    ]
    built = cli.load_experiment(files, [f"TRAIN_FILES = {there!r}", "PUBLISHED_SIZES = True", "MAX_TRAIN = 20", "ON_ERROR = 'skip'"])
    assert (built.input_length, built.target_length, built.batch_size, built.packed) == (1024, 256, 1024, True)
    assert (built.optimizer.learning_rate, built.dropout_rate, built.schedule.kind) == (1e-3, 0.1, "constant")
    told = built.data
    drawn = collections.Counter(
        example["task"]
        for example in itertools.islice(
            mixtures.mixed_examples(told, vocabulary=BYTES.load(), input_length=1024, target_length=256, seed=0), 4000
        )
    )
    weights = told.weights([20] * len(told.task_names))
    expected = collections.Counter()
    found = collections.Counter()
    for place, name in enumerate(told.task_names):
        expected[name.split("/")[0]] += 4000 * weights[place] / sum(weights)
        found[name.split("/")[0]] += drawn[place]
    templates = collections.Counter(name.split("/")[0] for name in told.task_names)
    rows = {dataset.name: dataset.rows for dataset in DATASETS}
    # Section 5.2: a data set with more than 500,000 examples counts as 500,000 over all its templates.
    published = {name: 500_000 if rows[name] > 500_000 else rows[name] * count for name, count in templates.items()}
    for name, whole in published.items():
        assert expected[name] == pytest.approx(4000 * whole / sum(published.values()))
        # Five standard deviations of a count.
        assert abs(found[name] - expected[name]) < 5 * np.sqrt(expected[name]) + 1
