"""Prompts before every layer, beside transformers' models with hooks that put the rows there; and prompts held to where they began."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from prompt_tuning import interop, losses, programs, trainable
from prompt_tuning.data import features
from prompt_tuning.errors import UserError
from prompt_tuning.methods.per_layer import PerLayerPrompt
from prompt_tuning.methods.prompt import File, String, Uniform
from prompt_tuning.methods.wayward import Wayward
from tests.interop import tiny, tiny_decoders
from tests.methods.cases import CONFIG, VOCABULARY

LENGTH = 3
ROWS, SOURCE, TARGET = 3, 7, 5


@jax.jit
def forward(model, batch):
    return model(batch)


def agree(found, wanted, counted):
    assert np.abs(np.asarray(found) - wanted)[counted].max() <= 1e-4 * np.abs(wanted[counted]).max()  # Float32, through a few layers.


def hooked(layers, method, rows_NPD):
    """Makes PyTorch's layers read inputs whose first positions are, or have on top, these rows."""
    import torch

    def changed(rows, module, args, kwargs):
        del module
        x = (args[0] if args else kwargs.pop("hidden_states")).clone()
        x[:, :LENGTH] = rows if method.combine == "replace" else x[:, :LENGTH] + rows
        return (x, *args[1:]), kwargs

    for layer, rows_PD in zip(layers, np.array(rows_NPD), strict=True):
        layer.register_forward_pre_hook(functools.partial(changed, torch.from_numpy(rows_PD)), with_kwargs=True)


@pytest.mark.parametrize("combine", ["replace", "add"])
def test_rows_before_each_layer_are_those_of_hooks_in_transformers_t5(combine, tmp_path):
    import torch

    theirs = tiny.huggingface_model("t5", tiny.V1_1)
    tiny.save_huggingface(theirs, tmp_path)
    model = tiny.model_with(tiny.V1_1, interop.load_base(str(tmp_path), tiny.V1_1, tiny.abstract(tiny.V1_1))[0])
    method = PerLayerPrompt(length=LENGTH, combine=combine)
    sources = method.attach(model, jax.random.key(0), vocabulary=None)
    assert set(sources) == {"encoder/layers/prompt/rows"} | ({"embed/prompt/rows"} if combine == "add" else set())
    hooked(theirs.encoder.block, method, model.encoder.layers.prompt.rows[...])
    rng = np.random.default_rng(0)
    examples = [
        {"inputs": [*rng.integers(2, 40, n - 1).tolist(), 1], "targets": [*rng.integers(2, 40, m - 1).tolist(), 1]}
        for n, m in ((7, 5), (4, 2), (1, 3))
    ]
    batch = features.layout(examples, input_length=SOURCE, target_length=TARGET, prompt=method.layout)
    with torch.no_grad():
        embedded = theirs.shared(torch.from_numpy(batch["encoder_input_tokens"]).long())
        embedded[:, :LENGTH] = torch.from_numpy(np.array(model.embed.prompt())) if combine == "add" else torch.nan
        wanted = theirs(
            inputs_embeds=embedded,
            attention_mask=torch.from_numpy(batch["encoder_segment_ids"]).long(),
            decoder_input_ids=torch.from_numpy(batch["decoder_input_tokens"]).long(),
        ).logits.numpy()
    agree(forward(model, batch), wanted, batch["decoder_segment_ids"] > 0)


@pytest.mark.parametrize("combine", ["replace", "add"])
@pytest.mark.parametrize("family", ["llama2", "deepseek_v2"])
def test_rows_before_each_layer_are_those_of_hooks_in_transformers_decoders(family, combine, tmp_path):
    import torch

    theirs = tiny_decoders.huggingface_model(family)
    tiny_decoders.save(theirs, tmp_path)
    model, _ = tiny_decoders.load(tmp_path)
    method = PerLayerPrompt(length=LENGTH, combine=combine)
    method.attach(model, jax.random.key(0), vocabulary=None)
    stacks = [model.decoder] if model.first is None else [model.first, model.decoder]
    hooked(theirs.model.layers, method, np.concatenate([stack.layers.prompt.rows[...] for stack in stacks]))
    tokens = np.random.default_rng(0).integers(1, 61, (ROWS, LENGTH + SOURCE)).astype(np.int32)
    slots = np.tile(np.concatenate([np.arange(LENGTH), np.full(SOURCE, -1)]).astype(np.int32), (ROWS, 1))
    segments = np.ones_like(tokens)
    with torch.no_grad():
        embedded = theirs.get_input_embeddings()(torch.from_numpy(tokens).long())
        embedded[:, :LENGTH] = torch.from_numpy(np.array(model.embed.prompt())) if combine == "add" else torch.nan
        wanted = theirs(inputs_embeds=embedded).logits.numpy()
    batch = {"decoder_input_tokens": tokens, "decoder_segment_ids": segments, "decoder_prompt_slots": slots}
    agree(forward(model, batch), wanted, segments > 0)
    # And through a cache: the prompt and some tokens at once, then one token a step.
    cache = model.empty_cache(ROWS, length=LENGTH + SOURCE)
    step = jax.jit(lambda model, *given, **named: model.decode_step(*given, **named))
    found, cache = step(model, tokens[:, : LENGTH + 2], cache, slots_BT=slots[:, : LENGTH + 2])
    parts = [found]
    for place in range(LENGTH + 2, LENGTH + SOURCE):
        found, cache = step(model, tokens[:, place : place + 1], cache)
        parts.append(found)
    agree(jnp.concatenate(parts, axis=1), wanted, segments > 0)


def test_settings_that_cannot_be_are_refused():
    for settings, message in (
        ({"combine": "multiply"}, "PerLayerPrompt.combine: wanted 'replace' or 'add', got 'multiply'"),
        ({"stacks": "both"}, "PerLayerPrompt.stacks: wanted 'encoder', got 'both'"),
        ({"initializer": File("x.npy")}, "PerLayerPrompt.initializer"),
        ({"length": 0}, "length: wanted 1 or more"),
    ):
        with pytest.raises(UserError, match=message):
            PerLayerPrompt(**settings)
    with pytest.raises(UserError, match=r"Wayward.gamma: wanted 0 or more, got -1"):
        Wayward(gamma=-1)


@functools.cache
def wayward_step(gamma):
    """The model split, and the step that trains it with plain gradient descent at rate 1."""
    model = tiny.model_with(CONFIG, tiny.random_values(CONFIG))
    Wayward(length=4, initializer=String("abcd"), gamma=gamma).attach(model, jax.random.key(0), vocabulary=VOCABULARY)
    graphdef, tuned, frozen = (nnx.to_pure_dict(p) if isinstance(p, nnx.State) else p for p in trainable.split(model, trainable.Tunable))
    transform = optax.sgd(1.0)
    step = functools.partial(
        programs.train_step, graphdef=graphdef, transform=transform, seed=0, dropout_rate=0.0, z_loss=0.0, label_smoothing=0.0
    )
    return tuned, frozen, transform.init(tuned), jax.jit(step)


def test_the_loss_is_the_tokens_plus_gamma_times_the_mean_squared_distance():
    tuned, frozen, state, _ = wayward_step(0.0)
    anchor = np.array(frozen["embed"]["prompt"]["anchor"])
    np.testing.assert_array_equal(anchor, frozen["embed"]["embedding"][np.array(VOCABULARY.encode("abcd"))])
    np.testing.assert_array_equal(tuned["embed"]["prompt"]["rows"], anchor)
    rows = anchor + np.random.default_rng(0).normal(size=anchor.shape).astype(np.float32)
    example = {"inputs": [5, 6, 1], "targets": [7, 1]}
    batch = features.layout([example], input_length=4, target_length=3, prompt=Wayward(length=4).layout)
    found = {}
    for gamma in (0.0, 0.5):
        given = programs.TrainState(jnp.int32(0), {"embed": {"prompt": {"rows": jnp.asarray(rows)}}}, state)
        after, metrics = wayward_step(gamma)[3](given, frozen, batch)
        found[gamma] = np.asarray(after.tuned["embed"]["prompt"]["rows"]), {name: float(value) for name, value in metrics.items()}
    penalty = 0.5 * np.square(rows - anchor).sum(axis=1).mean()
    assert found[0.0][1]["penalty"] == 0
    assert found[0.5][1]["penalty"] == pytest.approx(penalty, rel=1e-5)
    assert found[0.5][1]["loss"] - found[0.0][1]["loss"] == pytest.approx(penalty, rel=1e-5)
    assert found[0.5][1]["cross_entropy"] == pytest.approx(found[0.0][1]["cross_entropy"], rel=1e-5)
    pulled = found[0.0][0] - found[0.5][0]
    np.testing.assert_allclose(pulled, 2 * 0.5 * (rows - anchor) / 4, rtol=1e-4, atol=1e-5)


def test_a_model_without_penalties_has_none():
    model = tiny.model_with(CONFIG, tiny.random_values(CONFIG))
    assert losses.penalty(model, {}, jnp.zeros(1)) is None
    PerLayerPrompt(length=2, initializer=Uniform()).attach(model, jax.random.key(0), vocabulary=None)
    assert losses.penalty(model, {}, jnp.zeros(1)) is None
