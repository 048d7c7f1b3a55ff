"""The `export` command: what it writes, other programs run; what it cannot write, it says, and it overwrites nothing."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors

from prompt_tuning import cli, export, infer, interop, train
from prompt_tuning.errors import UserError
from prompt_tuning.files import new_folder
from prompt_tuning.interop import adapter_files as adapters
from prompt_tuning.interop import config_json, decoder_configs, huggingface
from prompt_tuning.methods.adapter import Adapter
from prompt_tuning.methods.dept import DePT
from prompt_tuning.methods.dora import Dora
from prompt_tuning.methods.from_peft import FromPeft
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.lora import Lora
from prompt_tuning.methods.mpt import MPT
from prompt_tuning.methods.norms import Norms
from prompt_tuning.methods.p_tuning import PTuning
from prompt_tuning.methods.per_layer import PerLayerPrompt
from prompt_tuning.methods.pissa import Pissa
from prompt_tuning.methods.prefix import Prefix
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.methods.residual_prompt import ResidualPrompt
from prompt_tuning.methods.together import Together
from prompt_tuning.models import sizes
from prompt_tuning.models.decoder_layers import DecoderConfig
from prompt_tuning.models.t5 import T5Config
from tests import tiny_run
from tests.interop import tiny, tiny_decoders
from tests.interop.test_peft import fresh, moved, our_logits, ours_of, pair, their_logits, words
from tests.tiny_experiment import tiny_experiment

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*"),
]


def experiment_of(model, method):
    return tiny_experiment(model=model.config, method=method)


def close(found, wanted):
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def attached(model, method, seed=0):
    method.attach(model, jax.random.key(seed), vocabulary=None)
    return moved(model)


T5S = {"v1.0": tiny.V1_0, "v1.1": tiny.V1_1, "umt5": tiny.UMT5}
LORA = Lora(rank=2, alpha=3.0, targets=(".*/(out|wo)",))
FOLDED = {
    ("v1.0", "lora"): LORA,
    ("v1.1", "lora and ia3"): Together((Lora(rank=2, targets=(".*/query",)), IA3())),
    ("v1.1", "dora"): Dora(rank=2),
    ("v1.1", "full"): Full(),
    ("umt5", "pissa"): Pissa(rank=2),
}


@pytest.mark.parametrize(("kind", "name"), FOLDED)
def test_transformers_computes_from_a_merged_t5_what_we_do(kind, name, tmp_path):
    import transformers

    model = tiny.model_with(T5S[kind], tiny.random_values(T5S[kind]))
    method = FOLDED[kind, name]
    attached(model, method)
    wanted = our_logits(model, *words(model), 0)
    export.write_huggingface(tmp_path, model, experiment_of(model, method))
    family = "UMT5" if kind == "umt5" else "T5"
    theirs = getattr(transformers, f"{family}ForConditionalGeneration").from_pretrained(tmp_path).eval()
    # transformers 5 says of every UMT5 that it is tied, and scales its logits then.
    theirs.config.tie_word_embeddings = config_json.config_json(model.config)["tie_word_embeddings"]
    close(their_logits(theirs, *words(model), 0), wanted)


def test_a_merged_model_keeps_its_dtype(tmp_path):
    config = dataclasses.replace(tiny.V1_1, param_dtype="bfloat16")
    model = tiny.model_with(config, {name: value.astype(ml_dtypes.bfloat16) for name, value in tiny.random_values(tiny.V1_1).items()})
    attached(model, LORA)
    wanted = our_logits(model, *words(model), 0)
    export.write_huggingface(tmp_path, model, experiment_of(model, LORA))
    values, _ = interop.load_base(str(tmp_path), config, tiny.abstract(config))
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="numpy") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    found = our_logits(tiny.model_with(config, values), *words(model), 0)
    # A folded kernel is rounded to eight bits of mantissa, through four layers.
    assert 0 < np.abs(found - wanted).max() <= 0.05 * np.abs(wanted).max()


QUICK = {"gpt2", "llama3", "gemma3", "deepseek_v3"}


@pytest.mark.parametrize("family", [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in tiny_decoders.FAMILIES])
def test_transformers_computes_from_a_merged_decoder_what_we_do(family, tmp_path):
    import transformers

    model = ours_of(family)
    attached(model, LORA)
    wanted = our_logits(model, *words(model), 0)
    export.write_huggingface(tmp_path, model, experiment_of(model, LORA))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert type(theirs).__name__.startswith(tiny_decoders.FAMILIES[family][0].removesuffix("Text"))
    close(their_logits(theirs, *words(model), 0), wanted)


def test_a_configuration_goes_out_as_it_came_in(tmp_path):
    for name in sizes.SIZES:
        config = sizes.named(name)
        assert T5Config(**huggingface.config_fields(config_json.config_json(config)), tied=config.tied) == config
    # Figures of published releases, whose scales and bases are no round numbers.
    released = {
        "llama 3.1 8B": DecoderConfig(
            vocab_size=128256, d_model=4096, d_ff=14336, num_layers=32, num_heads=32, num_kv_heads=8, head_width=128, rope_base=5e5,
            rope_scaling="llama3", rope_factor=8.0,
        ),
        "gemma 2 27B": DecoderConfig(
            vocab_size=256000, d_model=4608, d_ff=36864, num_layers=46, num_heads=32, num_kv_heads=16, head_width=128, norm_plus_one=True,
            post_norms=True, norm_epsilon=1e-6, activation="gelu", layer_kinds="LG", attention_scale=144**-0.5, attention_cap=50.0,
            logit_cap=30.0, scaled_embedding=True, tied=True,
        ),
    }  # fmt: skip
    for config in released.values():
        assert DecoderConfig(**decoder_configs.config_fields(config_json.config_json(config))) == config
    odd = dataclasses.replace(released["gemma 2 27B"], qk_norm=True, norm="layer")
    with pytest.raises(UserError, match="no family of Hugging Face's has this architecture"):
        config_json.config_json(odd)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (Prompt(length=2, initializer=Uniform()), "embed/prompt/rows .* cannot be folded .* --format=npy"),
        (Together((Prompt(length=2, initializer=Uniform()), Lora(rank=2))), "embed/prompt/rows .* cannot be folded"),
        (Adapter(width=2), "cannot be folded"),
    ],
)
def test_what_cannot_be_folded_is_refused(method, said, tmp_path):
    model = attached(fresh(), method)
    with pytest.raises(UserError, match=said):
        export.write_huggingface(tmp_path, model, experiment_of(model, method))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "method",
    [
        Pissa(rank=2, alpha=3.0, targets=(".*/(query|wo)",)),
        Pissa(rank=2, alpha=3.0, rank_stabilized=True),
        PTuning(length=3, initializer=Uniform(), network="mlp", hidden=5),
        ResidualPrompt(length=3, initializer=Uniform(), width=5),
        MPT(length=3, initializer=Uniform()),
    ],
    ids=["pissa", "pissa, rank-stabilized", "p-tuning", "residual prompt", "mpt"],
)
def test_what_peft_knows_otherwise_goes_out_as_what_it_makes(method, tmp_path):
    import peft

    from prompt_tuning import assembly

    theirs, model = pair("t5")
    tiny.save_huggingface(theirs, tmp_path / "base")
    experiment = dataclasses.replace(
        experiment_of(model, method), base_checkpoint=str(tmp_path / "base"), vocabulary=None, allow_random_base=False
    )
    built = assembly.assemble(experiment)
    model = moved(assembly.nnx.merge(built.graphdef, built.tuned, built.frozen))
    length = method.layout.encoder_length
    wanted = our_logits(model, *words(model), length)
    (tmp_path / "adapter").mkdir()
    export.write_peft(tmp_path / "adapter", model, experiment)
    assert adapters.read(str(tmp_path / "adapter")).settings["base_model_name_or_path"] == str(tmp_path / "base")
    wrapped = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapter")).eval()
    close(their_logits(wrapped, *words(model), length), wanted)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (MPT(length=3, tasks=2, initializer=Uniform()), "MPT holds the prompts of several tasks, 6 rows in all"),
        (DePT(length=3, initializer=Uniform(), input_length=6, rank=2), "DePT does more than put the same rows before every input"),
        (PerLayerPrompt(length=3, combine="add"), "PerLayerPrompt does more than put the same rows before every input"),
        (Norms(), "Norms has no like in PEFT"),
        (Together((Prompt(length=2, initializer=Uniform()), Adapter(width=2, train_norms=False))), "Adapter has no like in PEFT"),
        (Together((Prompt(length=2, initializer=Uniform()), Prefix(length=2, hidden=None))), "a prefix: PEFT gives a T5 prefixes in the"),
    ],
)
def test_what_peft_has_no_like_of_is_refused(method, said, tmp_path):
    model = attached(fresh(), method)
    with pytest.raises(UserError, match=said):
        export.write_peft(tmp_path, model, experiment_of(model, method))
    assert list(tmp_path.iterdir()) == []
    if isinstance(method, DePT | PerLayerPrompt | Norms):
        with pytest.raises(UserError, match="prompt.npy could not say what it does|has no prompt to write"):
            export.write_npy(tmp_path, model, experiment_of(model, method))
    else:
        export.write_npy(tmp_path, model, experiment_of(model, method))
        np.testing.assert_array_equal(np.load(tmp_path / "prompt.npy"), model.embed.prompt())


PROMPT = Prompt(length=3, initializer=Uniform())
SEVERAL = {
    "prompt over lora": ("t5", Together((PROMPT, Lora(rank=2, alpha=3.0))), ["1_lora", "2_prompt_tuning"]),
    "all that t5 takes": (
        "t5",
        Together(
            (
                ResidualPrompt(length=3, initializer=Uniform(), width=5),
                IA3(),
                Lora(rank=2, targets=(".*/query",)),
                Pissa(rank=2, targets=(".*/wo",)),
            )
        ),
        ["1_lora", "2_lora", "3_ia3", "4_prompt_tuning"],
    ),
    "prefix over ia3 and dora": (
        "llama3",
        Together((Prefix(length=3, hidden=5), IA3(), Dora(rank=2, targets=(".*/(query|out)",)))),
        ["1_lora", "2_ia3", "3_prefix_tuning"],
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_methods_that_are_together_go_out_as_adapters_that_peft_loads_in_order(name, tmp_path):
    import peft

    from prompt_tuning import assembly

    family, method, folders = SEVERAL[name]
    theirs, model = pair(family)
    (tiny.save_huggingface if family == "t5" else tiny_decoders.save)(theirs, tmp_path / "base")
    experiment = dataclasses.replace(
        experiment_of(model, method), base_checkpoint=str(tmp_path / "base"), vocabulary=None, allow_random_base=False
    )
    built = assembly.assemble(experiment)
    model = moved(assembly.nnx.merge(built.graphdef, built.tuned, built.frozen))
    length = method.layout.encoder_length
    wanted = our_logits(model, *words(model), length)
    (tmp_path / "adapters").mkdir()
    export.write_peft(tmp_path / "adapters", model, experiment)
    assert sorted(path.name for path in (tmp_path / "adapters").iterdir()) == folders
    assert np.abs(their_logits(theirs, *words(model), 0) - wanted).max() > 1e-2, "what was trained matters"
    for number, folder in enumerate(folders, start=1):
        theirs = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapters" / folder)).eval()
        if number < len(folders):
            theirs = theirs.merge_and_unload()
    close(their_logits(theirs, *words(model), length), wanted)
    again = ours_of(family)
    back = Together(tuple(FromPeft(str(tmp_path / "adapters" / folder)) for folder in folders))
    back.attach(again, jax.random.key(1), vocabulary=None)
    close(our_logits(again, *words(model), back.layout.encoder_length), wanted)


def test_two_prompts_for_peft_are_one_too_many(tmp_path):
    method = Together((PROMPT, Prefix(length=3, hidden=None)))
    model = attached(ours_of("llama3"), method)
    with pytest.raises(UserError, match="PROMPT_TUNING and PREFIX_TUNING: PEFT puts one prompt or prefix on a model"):
        export.write_peft(tmp_path, model, experiment_of(model, method))
    assert list(tmp_path.iterdir()) == []


def test_a_decoders_prefix_goes_out_without_its_network(tmp_path):
    import peft

    theirs, model = pair("llama3")
    method = Prefix(length=3, hidden=5)
    attached(model, method)
    wanted = our_logits(model, *words(model), 0)
    (tmp_path / "adapter").mkdir()
    export.write_peft(tmp_path / "adapter", model, experiment_of(model, method))
    wrapped = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapter")).eval()
    close(their_logits(wrapped, *words(model), 0), wanted)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.train_tiny(tmp_path_factory.mktemp("export"))


def refused(capsys, *flags):
    with pytest.raises(SystemExit) as stop:
        export.main(list(flags))
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_runs_prompt_goes_out_and_infers_from_there_as_the_run_does(run, tmp_path, capsys):
    export.main([f"--workdir={run}", "--format=npy", f"--target={tmp_path / 'npy'}"])
    assert "wrote prompt.npy into" in capsys.readouterr().err
    np.testing.assert_array_equal(np.load(tmp_path / "npy" / "prompt.npy"), np.load(run / "prompt.npy"))

    export.main([f"--workdir={run}", "--format=peft", f"--target={tmp_path / 'peft'}"])
    held = adapters.read(str(tmp_path / "peft"))
    np.testing.assert_array_equal(held.entries["prompt_embeddings"], np.load(run / "prompt.npy"))
    assert (tmp_path / "peft").stat().st_mode & 0o777 == (run.stat().st_mode & 0o777)

    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"inputs": text, "targets": "good"}) + "\n" for text in ("a fine film", "dull", "so so")))
    model = tiny_run.write_gin(tmp_path)["model"]
    infer.main([f"--workdir={run}", f"--input={rows}", "--score"])
    of_run = capsys.readouterr().out
    sizes_ = [f"--gin.{setting}" for setting in tiny_run.SETTINGS if setting.startswith(("INPUT", "TARGET"))]
    adapter = (f"--gin_file={model}", "--gin_file=configs/methods/from_peft.gin", f"--gin.ADAPTER='{tmp_path / 'peft'}'")
    infer.main([*adapter, *sizes_, f"--input={rows}", "--score"])
    found = [json.loads(line)["log_likelihood"] for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(found, [json.loads(line)["log_likelihood"] for line in of_run.splitlines()], rtol=1e-6)
    infer.main([*adapter, *sizes_, f"--input={rows}", "--score", "--checkpoint=base"])
    without = [json.loads(line)["log_likelihood"] for line in capsys.readouterr().out.splitlines()]
    assert np.abs(np.subtract(found, without)).max() > 1e-3, "the prompt matters"


def test_training_goes_on_from_an_adapter(run, tmp_path, capsys):
    export.main([f"--workdir={run}", "--format=peft", f"--target={tmp_path / 'peft'}"])
    files = tiny_run.write_gin(tmp_path)
    flags = [f"--gin_file={files['model']}", "--gin_file=configs/methods/from_peft.gin", f"--gin_file={files['data']}"]
    settings = [f"--gin.{setting}" for setting in tiny_run.SETTINGS if not setting.startswith("PROMPT")]
    workdir = f"--workdir={tmp_path / 'on'}"
    cli.main(train.run, "train", argv=[*flags, *settings, f"--gin.ADAPTER='{tmp_path / 'peft'}'", workdir, "--gin.LEARNING_RATE=1e-6"])
    np.testing.assert_allclose(np.load(tmp_path / "on" / "prompt.npy"), np.load(run / "prompt.npy"), atol=1e-4)
    export.main([workdir, "--format=peft", f"--target={tmp_path / 'again'}"])
    found = adapters.read(str(tmp_path / "again")).entries["prompt_embeddings"]
    np.testing.assert_array_equal(found, np.load(tmp_path / "on" / "prompt.npy"))


def test_mistakes_are_one_line_and_nothing_is_written(run, tmp_path, capsys):
    target = tmp_path / "there"
    target.mkdir()
    (target / "mine.txt").write_text("kept")
    line = refused(capsys, f"--workdir={run}", "--format=npy", f"--target={target}")
    assert line.startswith(f"error: --target {target}: is there already") and (target / "mine.txt").read_text() == "kept"
    for flags, said in (
        (("--format=huggingface",), "cannot be folded"),
        (("--format=peft", "--checkpoint=base"), "use --format=huggingface"),
        (("--format=npy", "--checkpoint=base"), "has no prompt to write"),
    ):
        assert said in refused(capsys, f"--workdir={run}", f"--target={tmp_path / 'new'}", *flags)
        assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_folder_is_whole_or_not_there(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a", flag="--target") as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with new_folder(tmp_path / "a", flag="--target") as folder:
        (folder / "whole").write_text("x")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["whole"]
