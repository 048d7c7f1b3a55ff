"""The audit without training: exact counts of published sizes, the JSON others rely on, and errors for what would not train as meant."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from prompt_tuning import cli, inspect, interop, trainable
from prompt_tuning.errors import UserError
from prompt_tuning.models.t5 import T5, T5Config

MODEL = "--gin_file=configs/models/{}.gin"
PROMPT = "--gin_file=configs/methods/prompt.gin"
FULL = "--gin_file=configs/methods/full.gin"
RANDOM = "--gin.BASE_CHECKPOINT=None"


def answer(capsys, *argv):
    inspect.main([*argv, "--json"])
    return json.loads(capsys.readouterr().out)


def test_json_has_exactly_the_keys_others_rely_on(capsys):
    found = answer(capsys, MODEL.format("t5_nano"), PROMPT, RANDOM, "--gin.PROMPT_LENGTH=7")
    assert set(found) == {"trained_parameters", "frozen_parameters", "parameters"}
    for row in found["parameters"]:
        assert set(row) == {"name", "shape", "dtype", "trained", "source"}
    trained = [row for row in found["parameters"] if row["trained"]]
    assert [(row["shape"], row["dtype"]) for row in trained] == [([7, 64], "float32")]
    assert found["trained_parameters"] == 7 * 64


@pytest.mark.parametrize(
    "model, frozen, trained",
    [  # As counted in the published checkpoints.
        ("t5_small", 60_506_624, 100 * 512),
        ("t5_1_1_base", 247_577_856, 100 * 768),
        ("mt5_small", 300_176_768, 100 * 512),
        ("byt5_small", 299_637_760, 100 * 1472),
        ("t5_1_1_xxl", 11_135_332_352, 100 * 4096),
    ],
)
def test_counts_of_published_sizes_without_making_a_weight(capsys, model, frozen, trained):
    found = answer(capsys, MODEL.format(model), PROMPT)
    assert (found["frozen_parameters"], found["trained_parameters"]) == (frozen, trained)
    assert answer(capsys, MODEL.format(model), FULL)["trained_parameters"] == frozen


def test_every_model_file_says_its_number_of_parameters(capsys):
    root = pathlib.Path(__file__).resolve().parents[1]
    for path in sorted((root / "configs" / "models").glob("*.gin")):
        found = answer(capsys, f"--gin_file={path}", FULL, RANDOM)
        assert f": {found['trained_parameters']:,} parameters." in path.read_text().splitlines()[0], path.name


def test_the_table_names_every_parameter_and_the_totals(capsys):
    inspect.main([MODEL.format("t5_nano"), PROMPT, RANDOM])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("trained") and "embed/prompt/rows" in lines[1] and "100x64" in lines[1]
    assert all(line.startswith("frozen") for line in lines[2:-1])
    assert "trained 6,400" in lines[-1]


def test_bf16_base_keeps_a_float32_prompt(capsys):
    found = answer(capsys, MODEL.format("t5_nano"), PROMPT, RANDOM, "--gin.sizes.named.param_dtype='bfloat16'")
    assert {row["dtype"] for row in found["parameters"] if row["trained"]} == {"float32"}
    assert {row["dtype"] for row in found["parameters"] if not row["trained"]} == {"bfloat16"}


def test_patterns_train_what_they_name_and_an_idle_one_is_refused(capsys):
    found = answer(capsys, MODEL.format("t5_nano"), FULL, RANDOM, "--gin.full.Full.patterns=('decoder/.*norm/scale',)")
    trained = {row["name"] for row in found["parameters"] if row["trained"]}
    assert trained == {
        row["name"] for row in found["parameters"] if row["name"].startswith("decoder/") and row["name"].endswith("norm/scale")
    }

    experiment = cli.load_experiment(
        ["configs/models/t5_nano.gin", "configs/methods/full.gin"],
        ["BASE_CHECKPOINT = None", "full.Full.patterns = ('encoder/.*', 'encodr/.*')"],
        fallbacks=("experiment.Experiment.data = None",),
    )
    with pytest.raises(UserError, match="'encodr/.*' matches no parameter"):
        inspect.audit(experiment)


def test_a_vocabulary_is_asked_for_only_where_the_method_reads_it(capsys):
    answer(capsys, MODEL.format("t5_1_1_small"), PROMPT)
    with pytest.raises(SystemExit) as caught:
        labels = ["--gin.prompt.Prompt.initializer=@prompt.ClassLabels()", "--gin.prompt.ClassLabels.labels=('good', 'bad')"]
        answer(capsys, MODEL.format("t5_1_1_small"), PROMPT, *labels)
    assert caught.value.code == 2
    assert "VOCABULARY" in capsys.readouterr().err


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base of random weights, small on every axis."""
    folder = tmp_path_factory.mktemp("base")
    config = T5Config(vocab_size=64, d_model=16, d_ff=16, num_heads=2, d_kv=8, num_encoder_layers=2, num_decoder_layers=2)
    model = T5(config, nnx.Rngs(0))
    interop.save_base(folder, {name: v[...] for name, v in trainable.named_variables(model)}, config=config, dtype="float32")
    return folder


TINY = [
    "--gin.sizes.named.vocab_size=64",
    "--gin.sizes.named.d_model=16",
    "--gin.sizes.named.d_ff=16",
    "--gin.sizes.named.d_kv=8",
    "--gin.VOCABULARY=None",
    "--gin.PROMPT_LENGTH=4",
]


def test_sources_name_the_checkpoint_entry_that_fills_each_parameter(capsys, base):
    found = answer(capsys, MODEL.format("t5_nano"), PROMPT, *TINY, f"--gin.BASE_CHECKPOINT='{base}'")
    sources = {row["name"]: row["source"] for row in found["parameters"]}
    assert "model.safetensors:embed/embedding" in sources["embed/embedding"]
    assert "SampledVocabulary" in sources["embed/prompt/rows"]
    assert all("model.safetensors" in source for name, source in sources.items() if name != "embed/prompt/rows")


def refused(capsys, base, *argv):
    with pytest.raises(SystemExit) as caught:
        answer(capsys, MODEL.format("t5_nano"), PROMPT, *TINY, f"--gin.BASE_CHECKPOINT='{base}'", *argv)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_an_unused_entry_a_missing_one_and_a_wrong_shape_are_each_named(capsys, base, tmp_path):
    entries = safetensors.numpy.load_file(base / "model.safetensors")

    def changed(entries, name):
        shutil.copytree(base, tmp_path / name)
        safetensors.numpy.save_file(entries, tmp_path / name / "model.safetensors")
        return tmp_path / name

    assert "decoder/extra" in refused(capsys, changed(entries | {"decoder/extra": np.zeros(3, np.float32)}, "more"))
    assert "embed/embedding" in refused(capsys, changed({k: v for k, v in entries.items() if k != "embed/embedding"}, "less"))
    wide = {name: np.zeros((2, 16, 32), np.float32) if name.endswith("mlp/wi/kernel") else value for name, value in entries.items()}
    message = refused(capsys, changed(wide, "wide"))
    assert "[2, 16, 32]" in message and "[2, 16, 16]" in message and "mlp/wi/kernel" in message
    assert "d_ff = 16" in refused(capsys, base, "--gin.sizes.named.d_ff=32")
    assert "vocab" in refused(capsys, base, "--gin.sizes.named.vocab_size=96")


def test_a_truncated_checkpoint_is_refused(capsys, base, tmp_path):
    shutil.copytree(base, tmp_path / "cut")
    whole = (base / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "model.safetensors" in refused(capsys, tmp_path / "cut")


def test_a_base_that_is_not_there_exits_with_2(capsys, tmp_path):
    with pytest.raises(SystemExit) as caught:
        answer(capsys, MODEL.format("t5_nano"), PROMPT, f"--gin.BASE_CHECKPOINT='{tmp_path / 'nothing'}'")
    assert caught.value.code == 2
    assert "nothing" in capsys.readouterr().err
