"""Whisper through the commands' own parts: converted, inspected, assembled, trained from Python, and written for transformers again."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import assembly, cli, convert, export, inspect, interop, trainable, training
from prompt_tuning.data.decoder_vocabularies import TokenizerJson
from prompt_tuning.data.vocabularies import Bytes
from prompt_tuning.errors import UserError
from prompt_tuning.experiment import Experiment
from prompt_tuning.interop import adapter_files
from prompt_tuning.interop.peft import to_adapter
from prompt_tuning.methods.dora import Dora
from prompt_tuning.methods.from_peft import FromPeft
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.lora import Lora
from prompt_tuning.methods.prefix import Prefix
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.models.whisper import WhisperConfig
from prompt_tuning.optimizers import AdamW
from tests.data.test_decoder_vocabularies import tokenizer_json
from tests.interop import tiny_whisper
from tests.interop.tiny_whisper import CONFIG
from tests.models.test_whisper import batch_of, close, theirs
from tests.test_configs import METHOD, NO_DATA

pytest.importorskip("transformers")


# As many tokens as the tokenizer has.
WIDE = dataclasses.replace(CONFIG, vocab_size=280)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder of transformers' with a tokenizer, and the model."""
    folder = tmp_path_factory.mktemp("whisper")
    model = tiny_whisper.huggingface_model(WIDE)
    model.save_pretrained(folder)
    tokenizer_json(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder, model


def experiment_of(folder, method, **changes):
    config = dataclasses.replace(interop.read_config(str(folder)), unroll_layers=False)
    common = {"vocabulary": Bytes(), "data": None, "optimizer": AdamW(learning_rate=0.03), "batch_size": 2}
    return Experiment(model=config, method=method, base_checkpoint=str(folder), **common | changes)


def test_a_published_folder_becomes_a_base_of_our_own_with_its_gin_file(published, tmp_path, capsys):
    folder, _ = published
    convert.main([f"--source={folder}", f"--target={tmp_path / 'ours'}"])
    files = [str(tmp_path / "ours" / "model.gin"), METHOD]
    built = cli.load_experiment(files, fallbacks=NO_DATA)
    assert built.model == dataclasses.replace(WIDE, unroll_layers=None) and isinstance(built.model, WhisperConfig)
    assert built.vocabulary == TokenizerJson(str(tmp_path / "ours" / "tokenizer.json"), eos="<|endoftext|>", pad="<|endoftext|>")
    wanted = tiny_whisper.load(folder)[1]
    found, _ = interop.load_base(built.base_checkpoint, built.model, tiny_whisper.abstract(WIDE))
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    inspect.main([f"--gin_file={file}" for file in files])
    shown = capsys.readouterr().out
    assert "stem/conv1/kernel" in shown and "embed/prompt/rows" in shown


@pytest.mark.parametrize("method", [Prompt(length=3, initializer=Uniform()), Lora(rank=2)], ids=["prompt", "lora"])
def test_a_step_of_the_trainer_trains_it(published, method):
    experiment = experiment_of(published[0], method)
    built = assembly.assemble(experiment)
    assert built.rows == assembly.audit(dataclasses.replace(experiment, vocabulary=inspect._NoVocabulary(Bytes(), WIDE.vocab_size)))
    ready = training.trainer(experiment, built)
    state, batch, losses = ready.state, training.on_devices(batch_of(method.layout), built.mesh), []
    for _ in range(5):
        state, metrics = ready.step(state, built.frozen, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.05


def test_what_is_trained_goes_back_to_transformers(published, tmp_path):
    import transformers

    experiment = experiment_of(published[0], Lora(rank=2))
    built = assembly.assemble(experiment)
    moved = jax.tree.map(lambda x: x + 0.1 * np.random.default_rng(0).normal(size=x.shape).astype(np.float32), built.tuned)
    model, batch = nnx.merge(built.graphdef, moved, built.frozen), batch_of()
    wanted = np.asarray(model(batch))
    export.write_huggingface(tmp_path, model, experiment)
    assert (tmp_path / "tokenizer.json").is_file()
    loaded = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager").eval()
    counted = batch["decoder_loss_weights"] > 0
    close(wanted[counted], theirs(loaded, batch)[counted], 1e-4)
    assert interop.read_config(str(tmp_path)) == interop.read_config(str(published[0]))
    assert np.abs(wanted - theirs(published[1], batch)).max() > 1e-2


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize(
    "method",
    [Lora(rank=2, targets=(".*/(query|out|wi)",)), Dora(rank=2), IA3()],
    ids=["lora", "dora", "ia3"],
)
def test_peft_computes_from_our_adapter_what_we_compute_and_it_comes_back(published, method, tmp_path):
    peft = pytest.importorskip("peft")
    import transformers

    built = assembly.assemble(experiment_of(published[0], method))
    rng = np.random.default_rng(0)
    moved = jax.tree.map(lambda x: np.asarray(x + 0.1 * rng.normal(size=x.shape), np.float32), built.tuned)
    model, batch = nnx.merge(built.graphdef, moved, built.frozen), batch_of()
    adapter_files.write(tmp_path, to_adapter(model, method, base=str(published[0])))
    base = transformers.WhisperForConditionalGeneration.from_pretrained(published[0], attn_implementation="eager")
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path)).eval()
    counted = batch["decoder_loss_weights"] > 0
    found = np.asarray(model(batch))
    close(found[counted], theirs(loaded.base_model.model, batch)[counted], 1e-4)
    # The base has other logits.
    assert np.abs(found - theirs(published[1], batch))[counted].max() > 1e-2
    again = assembly.assemble(experiment_of(published[0], FromPeft(str(tmp_path))))
    jax.tree.map(np.testing.assert_array_equal, again.tuned, moved)


@pytest.mark.parametrize("method", [Prompt(length=3, initializer=Uniform()), Prefix(hidden=None)], ids=["prompt", "prefix"])
def test_what_peft_cannot_put_on_it_is_named(published, method):
    built = assembly.assemble(experiment_of(published[0], method))
    with pytest.raises(UserError, match="PEFT has no .* for a model that hears"):
        to_adapter(nnx.merge(built.graphdef, built.tuned, built.frozen), method)


def test_training_it_by_the_command_is_refused_in_one_line(published, tmp_path):
    experiment = experiment_of(published[0], Full())
    with pytest.raises(UserError, match=r"a Whisper hears.*docs/whisper.md") as refused:
        training.train(experiment, str(tmp_path / "run"))
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_shapes_alone_make_the_model(published):
    abstract = assembly.abstract_base(interop.read_config(str(published[0])))
    assert {name: v.get_value().shape for name, v in trainable.named_variables(abstract)} == {
        name: leaf.shape for name, leaf in tiny_whisper.abstract(WIDE).items()
    }
