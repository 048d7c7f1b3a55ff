"""The Flan 2022 collection: weights as published and as drawn, what is passed over, and the ways of telling; nothing is fetched."""

import fnmatch
import itertools
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from prompt_tuning.data import mixtures
from prompt_tuning.data.tasks import flan2021, flan2022
from prompt_tuning.errors import UserError
from tests.data.small import BYTES
from tests.data.test_template_sets import ROWS
from tests.shared import shared_path

SETS = {"rte", "wic"}


@pytest.fixture
def collection(files):
    return flan2022.mixture(datasets=SETS, **files)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """All five parts, small: files as they are passed on, and rows written by hand in the place of what TFDS would read."""
    for name, prompts in (("quoref_Read", 6), ("sciq_Direct", 3), ("glue_mrpc_same_thing", 4)):
        rows = [{"prompt": f"{name} {i}?", "completion": f" {i}<|endoftext|>"} for i in range(prompts)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("task002_quoref", "task692_mmlu"):
        examples = [{"input": f"example {i}", "output": "yes", "explanation": "so"} for i in range(2)]
        instances = [{"id": f"{name}-{i}", "input": f"{i}?", "output": [str(i)]} for i in range(5)]
        task = {
            "Definition": ["Say it."],
            "Categories": ["x"],
            "Source": ["y"],
            "Input_language": ["English"],
            "Output_language": ["English"],
        }
        task |= {"Positive Examples": examples, "Negative Examples": [], "Instances": instances}
        (tmp_path / f"{name}.json").write_text(json.dumps(task))
    for name in ("creak_train", "qasc_train"):
        (tmp_path / f"{name}.tsv").write_text("".join(f"is {name} {i} even?\tyes\thalf of it is {i}\n" for i in range(4)))
    known = {task.tfds: task.templates for task in flan2021.TASKS} | {name: key for key, (name, _) in flan2022.DIALOGUES.items()}

    def load(name, *, split, data_dir):
        features = tfds.builder(name).info.features
        return [{key: row[key] for key in features} for row in ROWS[known[name]]]

    monkeypatch.setattr(tfds, "load", load)
    monkeypatch.setattr(tfds, "as_numpy", lambda rows: rows)
    return {"p3_files": f"{tmp_path}/*.jsonl", "natural_files": f"{tmp_path}/*.json", "cot_files": f"{tmp_path}/*.tsv"}


def test_weights_are_those_of_the_parts(collection):
    sizes = [7] * len(collection.task_names)
    rates = dict(zip(collection.task_names, mixtures.mixing_rates(collection, sizes), strict=True))
    ends = {
        "flan2021": [f"{name}{way.suffix}" for name in SETS for way in flan2022.WAYS],
        "t0_sf": [name for name in rates if name.startswith("t0_sf_")],
        "niv2": [name for name in rates if name.startswith("niv2_")],
        "cot": [name for name in rates if name.startswith("cot_")],
        "dialog": [name for name in rates if name.startswith(("qrecc", "wiki_dialog"))],
    }
    assert sorted(itertools.chain(*ends.values())) == sorted(rates)
    for part, names in ends.items():
        np.testing.assert_allclose(sum(rates[name] for name in names), flan2022.WEIGHTS[part], rtol=1e-9)
        told = [sum(rates[name] for name in names if way.suffix in name) for way in flan2022.WAYS]
        ways = 4 if part in ("flan2021", "t0_sf") else 2
        np.testing.assert_allclose(told, [flan2022.WEIGHTS[part] / ways] * ways + [0.0] * (4 - ways), rtol=1e-9)
    turned = sum(rates[name] for name in ends["cot"] if "_inverted" in name)
    np.testing.assert_allclose(turned / flan2022.WEIGHTS["cot"], 0.3 / 1.3, rtol=1e-9)
    assert flan2022.WEIGHTS == {"flan2021": 0.4, "t0_sf": 0.32, "niv2": 0.2, "cot": 0.05, "dialog": 0.03}
    assert flan2022.MAXIMA == {"flan2021": 30_000, "t0_sf": 20_000, "niv2": 5_000, "cot": 100_000, "dialog": 200_000}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_share_of_few_shot_prompts_is_that_of_every_part(files, share):
    found = flan2022.mixture(datasets=SETS, few_shot_frac=share, **files)
    rates = dict(zip(found.task_names, mixtures.mixing_rates(found, [7] * len(found.task_names)), strict=True))
    of_part = {
        part: {name: rate for name, rate in rates.items() if (name.split("_")[0] in starts)}
        for part, starts in {"flan2021": SETS, "t0_sf": {"t0"}, "niv2": {"niv2"}, "cot": {"cot"}, "dialog": {"qrecc", "wiki"}}.items()
    }
    for part, own in of_part.items():
        few = sum(rate for name, rate in own.items() if "_fs_" in name)
        np.testing.assert_allclose(
            [few, sum(own.values())], [share * flan2022.WEIGHTS[part], flan2022.WEIGHTS[part]], rtol=1e-9, err_msg=part
        )
    # What is never drawn is not read either.
    assert all(rates.values()) and sum(map(len, of_part.values())) == len(rates)


def test_a_share_that_is_none_is_refused():
    with pytest.raises(UserError, match="FEW_SHOT_FRAC: wanted 0 to 1, got 1.5"):
        flan2022.mixture(few_shot_frac=1.5)


def test_maxima_hold_within_a_part(collection):
    names = collection.task_names
    told = [place for place, name in enumerate(names) if name.startswith("t0_sf_zs_opt")]
    sizes = [1_000] * len(names)
    sizes[told[0]] = 1_000_000
    rates = mixtures.mixing_rates(collection, sizes)
    np.testing.assert_allclose(rates[told[0]] / rates[told[1]], 20.0)


def test_what_flan_has_already_and_mmlu_are_passed_over(collection):
    names = collection.task_names
    assert not [name for name in names if "glue_mrpc" in name or "mmlu" in name]
    assert {name for name in names if "quoref_Read" in name} == {f"t0_sf{way.suffix}_quoref_Read" for way in flan2022.WAYS}
    assert "niv2_zs_opt_task002_quoref" in names


def test_each_way_tells_as_it_says(collection):
    tasks = dict(zip(collection.task_names, collection.tasks(BYTES.load()), strict=True))

    def texts(name):
        return [(row["inputs_pretokenized"], row["targets_pretokenized"]) for row in mixtures.evaluation_examples(tasks[name], "train")]

    assert all("\n" not in inputs for inputs, _ in texts("t0_sf_zs_opt_quoref_Read"))
    for inputs, _ in texts("t0_sf_fs_opt_quoref_Read"):
        *exemplars, asked = inputs.split("\n\n")
        assert len(exemplars) == 5 and asked not in {exemplar.partition("\n")[0] for exemplar in exemplars}
    assert all("Positive Example" not in inputs for inputs, _ in texts("niv2_zs_opt_task002_quoref"))
    assert all("Positive Example 2" in inputs for inputs, _ in texts("niv2_fs_opt_task002_quoref"))
    pairs = zip(texts("cot_zs_opt_creak_train"), texts("cot_inverted_zs_opt_creak_train"), strict=True)
    for number, ((asked, answer), (given, wanted)) in enumerate(pairs):
        assert f"is creak_train {number} even?" in asked and f"is creak_train {number} even?" in wanted
        assert f"half of it is {number}" in answer and f"half of it is {number}" in given and "even?" not in given
    for inputs, target in texts("qrecc_zs_opt"):
        assert "Ibsen did." in inputs and "When?" in inputs and target == "In 1867."
    assert [target for _, target in texts("wiki_dialog_zs_opt")] == ["It is old."]
    for name in SETS:
        assert not any("OPTIONS:\n-" in inputs for inputs, _ in texts(f"{name}_zs_noopt"))


def test_a_part_without_files_is_named_and_one_of_no_weight_is_left_out():
    with pytest.raises(UserError, match="P3_FILES: t0_sf has the weight 0.32 and no files; name them, or leave the part out"):
        flan2022.mixture()
    with pytest.raises(UserError, match="WEIGHTS: wanted one of each of flan2021, t0_sf, niv2, cot, dialog, got"):
        flan2022.mixture(weights=(1.0,))
    alone = flan2022.mixture(weights=(1, 0, 0, 0, 0), datasets=SETS)
    assert alone.task_names == tuple(f"{name}{way.suffix}" for way in flan2022.WAYS for name in ("rte", "wic"))


def test_real_files_are_read_in_every_way():
    mixture = flan2022.mixture(
        weights=(0, 0.32, 0.2, 0.05, 0),
        p3_files=str(shared_path("data/p3_rendered") / "app_reviews_*.jsonl"),
        natural_files=str(shared_path("data/super_natural_instructions/tasks") / "task[06]*.json"),
        cot_files=str(shared_path("data/flan_cot") / "*.tsv"),
    )
    stems = ("app_reviews_generate_review", "task002_quoref_answer_generation", "qasc_train")
    found = [name for name in mixture.task_names if name.endswith(stems)]
    assert len(found) == 4 + 2 + 4
    assert list((shared_path("data/super_natural_instructions/tasks")).glob("task665_mmmlu*"))
    assert not any("mmmlu" in name for name in mixture.task_names)
    tasks = dict(zip(mixture.task_names, mixture.tasks(BYTES.load()), strict=True))
    for name in found:
        first = mixtures.evaluation_examples(tasks[name], "train", 2)[0]
        assert first["inputs_pretokenized"] and first["targets_pretokenized"]


def test_patterns_cover_the_data_sets_that_both_have():
    covered = [task.name for task in flan2021.TASKS if any(fnmatch.fnmatchcase(f"{task.name}_x", name) for name in flan2022.IN_FLAN)]
    assert {"ag_news", "cnn_dailymail", "common_gen", "cosmos_qa", "gigaword", "hellaswag", "imdb", "multi_news", "paws"} <= set(covered)
