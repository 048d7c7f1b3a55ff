"""Whisper against transformers, with and without prompts; its methods, its cache, its sizes."""

import dataclasses
import functools
import pathlib
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from prompt_tuning import decoding, programs, trainable
from prompt_tuning.data import features
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.models import quantized, whisper
from prompt_tuning.models.whisper import Whisper
from tests.interop import tiny_whisper
from tests.interop.tiny_whisper import CONFIG
from tests.methods.cases import CASES

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
NO_PROMPT = features.NO_PROMPT
# One of each kind of socket, and more in the slow tests.
METHODS = ("prompts in both", "lora everywhere", "prefix", "ia3", "adapter")
MORE = ("prompt", "dora", "p-tuning v2", "parallel adapter", "norms")
every_method = pytest.mark.parametrize("name", [*METHODS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
BEGIN_AS_THE_BASE = ("lora everywhere", "dora", "ia3", "parallel adapter")


def batch_of(prompt=NO_PROMPT, rows=2, target_length=5):
    """Random spectrograms and targets, the first row's as long as they may be."""
    rng = np.random.default_rng(1)
    lengths = [target_length, 3, *rng.integers(1, target_length, rows)][:rows]
    examples = [{"inputs": np.ones(CONFIG.source_positions, np.int32), "targets": rng.integers(3, CONFIG.vocab_size, n)} for n in lengths]
    batch = features.layout(examples, input_length=CONFIG.source_positions, target_length=target_length, prompt=prompt)
    del batch["encoder_input_tokens"]
    return batch | {"encoder_input_features": rng.normal(size=(rows, 2 * CONFIG.source_positions, CONFIG.mels)).astype(np.float32)}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A model of transformers' and ours with its weights."""
    folder = tmp_path_factory.mktemp("whisper")
    model = tiny_whisper.huggingface_model()
    model.save_pretrained(folder)
    return model, tiny_whisper.load(folder)[0]


def close(found, wanted, tolerance):
    assert np.isfinite(found).all()
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


def theirs(model, batch, prompt=None):
    """transformers' logits; the rows of a prompt [P, D] stand in each stack where the slots of the batch say."""
    import torch

    def placed(slots_BS, tokens_BSD):
        rows = []
        for slots, tokens in zip(slots_BS, tokens_BSD, strict=True):
            left = iter(tokens)
            rows.append(torch.stack([prompt[slot] if slot >= 0 else next(left) for slot in slots.tolist()]))
        return torch.stack(rows)

    prompt = None if prompt is None else torch.from_numpy(np.array(prompt))
    encoder, decoder = model.model.encoder, model.model.decoder
    with torch.no_grad():
        x = torch.from_numpy(batch["encoder_input_features"]).transpose(1, 2)
        x = torch.nn.functional.gelu(encoder.conv2(torch.nn.functional.gelu(encoder.conv1(x)))).transpose(1, 2)
        x = x + encoder.embed_positions.weight
        if "encoder_prompt_slots" in batch:
            x = placed(batch["encoder_prompt_slots"], x)
        for layer in encoder.layers:
            out = layer(x, None)
            x = out[0] if isinstance(out, tuple) else out
        encoded = (encoder.layer_norm(x),)
        tokens = torch.from_numpy(batch["decoder_input_tokens"]).long()
        if "decoder_prompt_slots" not in batch:
            return model(encoder_outputs=encoded, decoder_input_ids=tokens).logits.numpy()
        slots = torch.from_numpy(batch["decoder_prompt_slots"])
        rows = [
            torch.stack([prompt[slot] if slot >= 0 else decoder.embed_tokens(token) for slot, token in zip(*row, strict=True)])
            for row in zip(slots, tokens, strict=True)
        ]
        return model(encoder_outputs=encoded, decoder_inputs_embeds=torch.stack(rows)).logits.numpy()


# Against transformers.


@pytest.mark.parametrize("unroll", [False, True])
def test_logits_are_transformers(both, unroll):
    import torch

    model, ours = both
    batch = batch_of()
    with torch.no_grad():
        spectrograms = torch.from_numpy(batch["encoder_input_features"]).transpose(1, 2)
        wanted = model(input_features=spectrograms, decoder_input_ids=torch.from_numpy(batch["decoder_input_tokens"]).long()).logits.numpy()
    values = {name: v[...] for name, v in trainable.named_variables(ours)}
    config = CONFIG if not unroll else whisper.WhisperConfig(**{**vars(CONFIG), "unroll_layers": True})
    # Float32 through five layers.
    close(np.asarray(tiny_whisper.model_with(config, values)(batch)), wanted, 1e-4)
    close(theirs(model, batch), wanted, 1e-5)


@pytest.mark.parametrize("placement", ["before", "after_first", "suffix"])
@pytest.mark.parametrize("stacks", ["encoder", "decoder", "both"])
def test_prompts_are_what_transformers_makes_of_the_same_embeddings(both, placement, stacks):
    model, ours = both
    prompt = Prompt(length=3, initializer=Uniform(), stacks=stacks, placement=placement)
    ours = nnx.merge(*nnx.split(ours))
    prompt.attach(ours, jax.random.key(0), vocabulary=None)
    batch = batch_of(prompt.layout)
    close(np.asarray(ours(batch)), theirs(model, batch, ours.embed.prompt()), 1e-4)


def test_greedy_tokens_through_the_cache_are_transformers_without_one(both):
    model, ours = both
    batch = batch_of(rows=3)
    start = np.tile(np.array([[5, 6]], np.int32), (3, 1))
    given = {
        "encoder_input_features": batch["encoder_input_features"],
        "encoder_segment_ids": batch["encoder_segment_ids"],
        "decoder_start_tokens": start,
        "decoder_start_slots": np.full_like(start, -1),
    }
    found = np.asarray(decoding.generate(ours, given, max_tokens=8, settings=decoding.Decoding(eos_ids=(2,))))
    written = start
    for _ in range(8):
        batch["decoder_input_tokens"] = written
        written = np.concatenate([written, theirs(model, batch)[:, -1:].argmax(-1).astype(np.int32)], axis=1)
    for row, wanted in zip(found.tolist(), written[:, 2:].tolist(), strict=True):
        end = wanted.index(2) + 1 if 2 in wanted else len(wanted)
        assert row[:end] == wanted[:end]
    assert len({tuple(row) for row in found.tolist()}) > 1, "the audio matters"


# Methods.


@functools.cache
def parts_of(name, *, move=True):
    """`(graphdef, tuned, frozen)`, what is trained some way off its first values."""
    model = tiny_whisper.model_with(CONFIG, tiny_whisper.random_values(CONFIG))
    if name is None:
        graphdef, tuned, frozen = trainable.split(model, nnx.Param)
        return graphdef, nnx.to_pure_dict(tuned), nnx.to_pure_dict(frozen)
    method = CASES[name].method
    method.attach(model, jax.random.key(0), vocabulary=None)
    graphdef, tuned, frozen = trainable.split(model, method.trainable)
    rng = np.random.default_rng(5)
    moved = jax.tree.map(lambda x: x + move * 0.2 * rng.normal(size=x.shape).astype(np.float32), nnx.to_pure_dict(tuned))
    return graphdef, moved, nnx.to_pure_dict(frozen)


def layout_of(name):
    return NO_PROMPT if name is None else CASES[name].method.layout


@functools.cache
def logits(name, *, move=True):
    graphdef, tuned, frozen = parts_of(name, move=move)
    batch = batch_of(layout_of(name))
    return np.asarray(jax.jit(lambda t, f: nnx.merge(graphdef, t, f)(batch), compiler_options=FAST)(tuned, frozen))


@pytest.mark.parametrize("name", [*METHODS, *MORE, "full", "pissa", "compacter", "p-tuning, mlp", "residual prompt", "prompt and lora"])
def test_methods_attach_and_every_parameter_has_a_source(name):
    model = tiny_whisper.model_with(CONFIG, tiny_whisper.random_values(CONFIG))
    sources = CASES[name].method.attach(model, jax.random.key(0), vocabulary=None)
    rows = trainable.audit(model, CASES[name].method.trainable, dict.fromkeys(tiny_whisper.abstract(CONFIG), "base") | sources)
    assert trainable.totals(rows)[0] > 0


@pytest.mark.parametrize("name", BEGIN_AS_THE_BASE)
def test_before_training_the_model_is_the_base(name):
    close(logits(name, move=False), logits(None), 1e-6)
    assert np.abs(logits(name) - logits(None)).max() > 1e-2, "what is trained matters"


@every_method
def test_a_step_changes_all_that_is_trained_and_nothing_else(name):
    graphdef, tuned, frozen = parts_of(name)
    before = jax.tree.map(np.array, (tuned, frozen))
    transform = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    step = jax.jit(
        functools.partial(
            programs.train_step, graphdef=graphdef, transform=transform, seed=0, dropout_rate=0.1, z_loss=0.0, label_smoothing=0.0
        ),
        compiler_options=FAST,
    )
    state, metrics = step(programs.TrainState(jnp.int32(0), tuned, transform.init(tuned)), frozen, batch_of(layout_of(name)))
    assert np.isfinite(metrics["loss"])
    jax.tree.map(np.testing.assert_array_equal, frozen, before[1])
    same = [path for path, value in trainable.named(state.tuned).items() if np.array_equal(value, trainable.named(before[0])[path])]
    assert same == []


@every_method
def test_cached_decoding_agrees_with_all_positions_at_once(name):
    graphdef, tuned, frozen = parts_of(name)
    batch = batch_of(layout_of(name))
    start_tokens, start_slots = features.decoder_start(layout_of(name))
    start = len(start_tokens)

    def stepwise(tuned, frozen):
        model = nnx.merge(graphdef, tuned, frozen)
        encoded = model.encode(batch["encoder_input_features"], slots_BS=batch.get("encoder_prompt_slots"))
        cache = model.init_cache(encoded, length=batch["decoder_input_tokens"].shape[1])
        parts = [np.tile(each, (2, 1)) for each in (start_tokens, start_slots)]
        first, cache = model.decode_step(parts[0], cache, slots_BT=parts[1])

        def one(cache, tokens_B):
            found, cache = model.decode_step(tokens_B[:, None], cache)
            return cache, found[:, 0]

        _, later = jax.lax.scan(one, cache, batch["decoder_input_tokens"][:, start:].T)
        return jnp.concatenate([first, later.transpose(1, 0, 2)], 1)

    close(np.asarray(jax.jit(stepwise, compiler_options=FAST)(tuned, frozen)), logits(name), 1e-5)


def test_where_the_prompt_stands_in_the_encoder_does_not_matter(both):
    # It has no positions, and the encoder sees everything at once.
    found = []
    for placement in ("before", "suffix"):
        ours = nnx.merge(*nnx.split(both[1]))
        prompt = Prompt(length=3, initializer=Uniform(), placement=placement)
        prompt.attach(ours, jax.random.key(0), vocabulary=None)
        found.append(np.asarray(ours(batch_of(prompt.layout))))
    close(found[0], found[1], 1e-5)


def test_padding_after_the_targets_has_no_effect(both):
    batch = batch_of()
    other = dict(batch)
    padding = np.cumsum(batch["decoder_loss_weights"][:, ::-1], axis=1)[:, ::-1] == 0
    other["decoder_input_tokens"] = np.where(padding, 9, batch["decoder_input_tokens"])
    assert padding.any() and not np.array_equal(other["decoder_input_tokens"], batch["decoder_input_tokens"])
    found, wanted = (np.asarray(both[1](each))[~padding] for each in (other, batch))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("change", [{"remat": "full"}, {"unroll_layers": True}, {"dtype": "bfloat16"}])
def test_other_ways_to_compute_agree(both, change):
    values = {name: v[...] for name, v in trainable.named_variables(both[1])}
    model = tiny_whisper.model_with(whisper.WhisperConfig(**vars(CONFIG) | change), values)
    # Eight bits of mantissa, through five layers.
    close(np.asarray(model(batch_of())), np.asarray(both[1](batch_of())), 0.1 if "dtype" in change else 1e-5)


def test_a_quantized_base_is_near(both):
    ours = nnx.merge(*nnx.split(both[1]))
    before = np.asarray(ours(batch_of()))
    quantized.quantize(ours, "int8")
    after = np.asarray(ours(batch_of()))
    # 0.7% a kernel, which attention as sharp as this one's makes more of.
    assert 1e-4 < np.linalg.norm(after - before) / np.linalg.norm(before) < 0.1


# Sizes.


@pytest.mark.parametrize("size", whisper.SIZES)
def test_sizes_have_transformers_parameters(size):
    import torch
    import transformers

    config = whisper.named(size)
    ours = sum(v.get_value().size for _, v in trainable.named_variables(nnx.eval_shape(lambda: Whisper(config, nnx.Rngs(params=0)))))
    with torch.device("meta"):
        model = transformers.WhisperForConditionalGeneration(tiny_whisper.huggingface_config(config))
    assert ours == sum(p.numel() for p in model.parameters()) - model.model.encoder.embed_positions.weight.numel()


@pytest.mark.parametrize(
    ("size", "millions"), [("tiny", 39), ("base", 74), ("small", 244), ("medium", 769), ("large", 1550), ("large_v3_turbo", 809)]
)
def test_sizes_have_the_papers_parameters(size, millions):
    config = whisper.named(f"whisper_{size}")
    ours = sum(v.get_value().size for _, v in trainable.named_variables(nnx.eval_shape(lambda: Whisper(config, nnx.Rngs(params=0)))))
    # The table rounds, and may count the sinusoids.
    assert abs(ours / 1e6 - millions) < 0.05 * millions


# What cannot be.


def test_mistakes_are_named(both):
    ours = both[1]
    batch = batch_of()
    with pytest.raises(UserError, match=r"audio features: wanted \[24, 10\] .*got \[23, 10\].*log_mel"):
        ours(batch | {"encoder_input_features": batch["encoder_input_features"][:, 1:]})
    with pytest.raises(UserError, match="17 target positions.*16"):
        ours(batch | {"decoder_input_tokens": np.ones((2, 17), np.int32)})
    with pytest.raises(UserError, match="17 target positions.*16"):
        ours.init_cache(jnp.zeros((2, 12, 24)), length=17)
    with pytest.raises(UserError, match="whisper_tiny"):
        whisper.named("whisper_tinny")
    with pytest.raises(UserError, match="multiple of num_heads"):
        whisper.WhisperConfig(d_model=10, num_heads=4)


# The guide.


def test_the_guide_runs(tmp_path):
    guide = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "whisper.md").read_text()
    code = textwrap.dedent("".join(line + "\n" for line in guide.splitlines() if line.startswith("    ")))
    config = dataclasses.replace(CONFIG, vocab_size=51865, d_model=8, num_heads=2, num_encoder_layers=1, num_decoder_layers=1, mels=80)
    config = dataclasses.replace(config, source_positions=1500, target_positions=448)
    tiny_whisper.huggingface_model(config).save_pretrained(tmp_path)
    given = {"folder": str(tmp_path), "batches": [[{"audio": np.sin(np.arange(8000) / 9.0), "targets": [7, 8, 50257]}] * 8]}
    exec(code, given)
    assert isinstance(given["model"], Whisper) and np.isfinite(given["metrics"]["loss"]) and int(given["state"].step) == 1
    assert set(trainable.named(given["state"].tuned)) == {
        f"{stack}/layers/{block}/attention/{part}/delta/{side}"
        for stack, block in (("encoder", "self_attention"), ("decoder", "self_attention"), ("decoder", "cross_attention"))
        for part in ("query", "value")
        for side in ("down", "up")
    }
