"""Every gin file under configs/ parses, builds and takes two steps at tiny size."""

import dataclasses
import functools
import math
import pathlib

import numpy as np
import pytest

from prompt_tuning import assembly, cli, experiment, training
from prompt_tuning.data import vocabularies
from prompt_tuning.data.tasks import world
from prompt_tuning.interop import adapter_files

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL, METHOD = "configs/models/t5_nano.gin", "configs/methods/prompt.gin"
WORLD = world.World(task_list=("sentiment_review",), num_train=8, num_validation=2, num_test=2)
# For a part alone: a model needs no data to be built, and none of these needs its weights.
NO_DATA = ("experiment.Experiment.data = None", "experiment.Experiment.allow_random_base = True")
# What a file leaves to its user; FOLDER is one of the test's own.
NEEDED = {
    "configs/methods/from_peft.gin": ("ADAPTER = 'FOLDER/adapter'",),
    "configs/methods/attempt.gin": ("SOURCE_PROMPTS = ['FOLDER/one.npy', 'FOLDER/two.npy']",),
    "configs/data/files.gin": (
        "TRAIN_FILES = 'rows.tsv'",
        "VALIDATION_FILES = ['rows.tsv']",
        "INPUT_COLUMN = 'sentence'",
        "TARGET_COLUMN = 'label'",
        "ANSWER_CHOICES = ['even', 'odd']",
        "TEMPLATE = 'number: {sentence}'",
    ),
}


def mocked_downloads():
    """TensorFlow Datasets' own builders, with random examples in place of downloaded ones."""
    import tensorflow_datasets as tfds

    return tfds.testing.mock_data(num_examples=4)


def named(folder):
    """The gin files of a folder, as a user writes them."""
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "configs" / folder).rglob("*.gin"))]


def tiny(built, **changes):
    """The experiment with every size cut down; what kind of model, method and data it is stays."""
    bundled = str(getattr(built.vocabulary, "path", "")).startswith("bundled:")  # T5's own vocabularies are not at hand.
    model = dataclasses.replace(
        built.model,
        vocab_size=2048 if bundled else 384,
        d_model=8,
        d_ff=8,
        num_heads=2,
        d_kv=4,
        num_encoder_layers=2,
        num_decoder_layers=2,
        unroll_layers=False,
    )
    small = {
        "model": model,
        "vocabulary": built.vocabulary if bundled else vocabularies.Bytes(),
        "base_checkpoint": None,
        "allow_random_base": True,
        "batch_size": 2,
        "input_length": 16,
        "target_length": 8,
    }
    if hasattr(built.method, "length"):
        small["method"] = dataclasses.replace(built.method, length=3)
    return dataclasses.replace(built, **(small | changes))


def two_steps(small):
    """Builds the experiment and takes two steps; gives the losses."""
    built = assembly.assemble(small)
    ready = training.trainer(small, built)
    state, losses = ready.state, []
    with training.batches(small, start_step=0) as batches:
        for _ in range(2):
            state, metrics = ready.step(state, built.frozen, training.on_devices(next(batches), built.mesh))
            losses.append(float(metrics["loss"]))
    assert int(state.step) == 2
    return losses


@functools.cache
def losses_of(digest):
    """Two steps of an experiment that is at tiny size the same as another's are not taken again."""
    return two_steps(_EXPERIMENTS[digest])


_EXPERIMENTS = {}


def check(small):
    digest = experiment.digest(small)
    _EXPERIMENTS[digest] = small
    assert all(math.isfinite(loss) for loss in losses_of(digest))


@pytest.mark.parametrize("path", named("models"))
def test_model_files_train(path):
    built = cli.load_experiment([path, METHOD], ["BASE_CHECKPOINT = None"], fallbacks=NO_DATA)
    check(tiny(built, data=WORLD))


@pytest.mark.parametrize("path", named("methods"))
def test_method_files_train(path, tmp_path):
    for name in ("one.npy", "two.npy"):
        np.save(tmp_path / name, np.ones((3, 8), np.float32))
    (tmp_path / "adapter").mkdir()
    prompt = {"prompt_embeddings": np.ones((3, 8), np.float32)}
    adapter_files.write(tmp_path / "adapter", adapter_files.Adapter({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3}, prompt))
    needed = [line.replace("FOLDER", str(tmp_path)) for line in NEEDED.get(path, ())]
    built = cli.load_experiment([MODEL, path], ["BASE_CHECKPOINT = None", *needed], fallbacks=NO_DATA)
    check(tiny(built, data=WORLD))


@pytest.mark.parametrize("path", named("data"))
def test_data_files_train(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.tsv").write_text("sentence\tlabel\n" + "".join(f"it is number {i}\t{i % 2}\n" for i in range(4)))
    built = cli.load_experiment([MODEL, METHOD, path], ["BASE_CHECKPOINT = None", *NEEDED.get(path, ())], fallbacks=NO_DATA)
    fewer = {name: 4 for name in ("num_train", "num_validation", "num_test") if hasattr(built.data, name)}
    with mocked_downloads():
        check(tiny(built, data=dataclasses.replace(built.data, **fewer)))


@pytest.mark.parametrize("path", [*named("runs"), *named("papers")])
def test_run_files_train(path):
    # A run file says what differs from the files that its command names before it.
    built = cli.load_experiment([MODEL, METHOD, "configs/data/world.gin", path])
    fewer = {name: 4 for name in ("num_train", "num_validation", "num_test") if hasattr(built.data, name)}
    with mocked_downloads():
        check(tiny(built, data=dataclasses.replace(built.data, **fewer)))
