"""Prompts that are made of, or change, what the encoder reads, beside NumPy's; and learning rates of their own."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import checkpoints, optimizers, programs, trainable
from prompt_tuning.data import features
from prompt_tuning.errors import UserError
from prompt_tuning.experiment import resolved
from prompt_tuning.methods.attempt import Attempt
from prompt_tuning.methods.dept import DePT, token_positions
from prompt_tuning.methods.lora import Lora
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.methods.together import Together
from prompt_tuning.models.decoder import Decoder, DecoderConfig
from tests.interop import tiny
from tests.tiny_experiment import tiny_experiment

CONFIG = tiny.V1_1
WIDTH, LENGTH = 16, 3


def attached(method):
    model = tiny.model_with(CONFIG, tiny.random_values(CONFIG))
    sources = method.attach(model, jax.random.key(0), vocabulary=None)
    assert set(sources) == {name for name, _ in trainable.named_variables(model) if name.startswith("embed/prompt/")}
    rng = np.random.default_rng(3)
    for name, variable in trainable.named_variables(model):
        if name.startswith("embed/prompt/") and "sources" not in name:
            variable.set_value(variable[...] + jnp.asarray(rng.normal(size=variable.shape), jnp.float32))
    return model


def packed_batch(layout):
    rng = np.random.default_rng(1)

    def example(length, task):
        return {"inputs": [*rng.integers(2, 40, length - 1).tolist(), 1], "targets": [3, 1], "task": task}

    rows = [[example(5, 1), example(2, 0)], [example(7, 1)]]
    return features.layout_rows(rows, input_length=7 + LENGTH, target_length=4, prompt=layout)


def embedded(model, batch):
    return np.asarray(
        model.embed(batch["encoder_input_tokens"], batch["encoder_prompt_slots"], "float32", segment_ids_BS=batch["encoder_segment_ids"])
    )


def source_files(folder, count=2):
    rng = np.random.default_rng(7)
    for number in range(count):
        np.save(folder / f"{number}.npy", rng.normal(size=(LENGTH, WIDTH)).astype(np.float32))
    return tuple(str(folder / f"{number}.npy") for number in range(count))


def segments(batch):
    """Row, tokens' places and slots' places of each example."""
    for row, ids in enumerate(batch["encoder_segment_ids"]):
        for segment in range(1, ids.max() + 1):
            slots = batch["encoder_prompt_slots"][row]
            yield row, np.flatnonzero((ids == segment) & (slots < 0)), np.flatnonzero((ids == segment) & (slots >= 0))


@pytest.mark.parametrize(("placement", "tasks"), [("before", 1), ("suffix", 2)])
def test_attempt_mixes_the_sources_by_what_each_example_holds(tmp_path, placement, tasks):
    settings = {"width": 5, "temperature": 3.0, "placement": placement, "tasks": tasks}
    method = Attempt(length=LENGTH, initializer=Uniform(), sources=source_files(tmp_path), **settings)
    model = attached(method)
    prompt, table = model.embed.prompt, np.asarray(model.embed.embedding[...])
    rows, sources, down, up, scale, bias = (
        np.asarray(getattr(prompt, name)[...], np.float64) for name in ("rows", "sources", "down", "up", "norm_scale", "norm_bias")
    )
    np.testing.assert_array_equal(sources.astype(np.float32), [np.load(path) for path in method.sources])
    batch = packed_batch(method.layout)
    found, shares = embedded(model, batch), []
    targets = rows.reshape(tasks, LENGTH, WIDTH)
    assert tasks == 1 or np.abs(targets[0] - targets[1]).max() > 0.1, "each task's prompt is drawn by itself"
    for (row, tokens, slots), task in zip(segments(batch), (1, 0, 1), strict=True):
        own = targets[task if tasks > 1 else 0]
        x = table[batch["encoder_input_tokens"][row, tokens]].astype(np.float64)
        np.testing.assert_array_equal(found[row, tokens], x.astype(np.float32))
        h = x.max(axis=0) @ down
        h = (h / (1 + np.exp(-h))) @ up
        h = (h - h.mean()) / np.sqrt(h.var() + 1e-5) * scale + bias
        prompts = [*sources, own]
        scores = np.array([each.max(axis=0) @ h for each in prompts]) / 3.0
        share = np.exp(scores - scores.max())
        share = share / share.sum()
        wanted = own + sum(a * each for a, each in zip(share, prompts, strict=True))
        np.testing.assert_allclose(found[row, slots], wanted, rtol=1e-4, atol=1e-4)
        shares.append(share)
    assert len(shares) == 3 and np.abs(np.diff(shares, axis=0)).max() > 0.05, "examples take different mixtures"
    np.testing.assert_array_equal(prompt(), rows.astype(np.float32))


def test_only_its_own_tasks_examples_teach_a_targets_prompt(tmp_path):
    method = Attempt(length=LENGTH, initializer=Uniform(), sources=source_files(tmp_path), width=5, temperature=3.0, tasks=3)
    graphdef, tuned, frozen = trainable.split(attached(method), method.trainable)
    batch = packed_batch(method.layout)

    def loss_of(tuned):
        return jnp.mean(jnp.square(nnx.merge(graphdef, tuned, frozen)(batch)))

    gradient = trainable.named(nnx.to_pure_dict(jax.jit(jax.grad(loss_of))(tuned)))
    taught = np.abs(gradient["embed/prompt/rows"].reshape(3, LENGTH, WIDTH)).max(axis=(1, 2))
    assert (taught[:2] > 0).all() and taught[2] == 0, "no example is of the third task"
    assert all(np.abs(gradient[f"embed/prompt/{name}"]).max() > 0 for name in ("down", "up", "norm_scale", "norm_bias"))


def test_a_target_begins_with_the_attention_of_another_run(tmp_path):
    sources = source_files(tmp_path)
    taught = Attempt(length=LENGTH, initializer=Uniform(), sources=sources, width=5, tasks=2)
    _, state, _ = trainable.split(attached(taught), taught.trainable)
    held = nnx.to_pure_dict(state)
    with checkpoints.Checkpoints(tmp_path / "checkpoints", base=checkpoints.Base("random", "x")) as writer:
        writer.save(1, held, {}, extra={})
    (tmp_path / "experiment.json").write_text(json.dumps({"experiment": {"method": resolved(taught)}}))
    model = tiny.model_with(CONFIG, tiny.random_values(CONFIG))
    method = Attempt(length=LENGTH, initializer=Uniform(), sources=sources, width=5, attention=str(tmp_path))
    found = method.attach(model, jax.random.key(1), vocabulary=None)
    for name in ("down", "up", "norm_scale", "norm_bias"):
        np.testing.assert_array_equal(getattr(model.embed.prompt, name)[...], held["embed"]["prompt"][name])
        assert found[f"embed/prompt/{name}"] == str(tmp_path)
    assert model.embed.prompt().shape == (LENGTH, WIDTH)
    for changes, message in (
        ({"width": 4}, r"wanted down of shape \[16, 4\], got \[16, 5\]; set Attempt.width"),
        ({"attention": "nowhere"}, "Attempt.attention 'nowhere': holds no run"),
    ):
        with pytest.raises(UserError, match=message):
            attached(dataclasses.replace(method, **changes))


def test_attempts_temperature_is_e_times_the_width(tmp_path):
    model = attached(Attempt(length=LENGTH, initializer=Uniform(), sources=source_files(tmp_path)))
    assert model.embed.prompt.temperature == pytest.approx(math.e * WIDTH)
    assert trainable.trained_names(model, trainable.Tunable) == {
        f"embed/prompt/{name}" for name in ("rows", "down", "up", "norm_scale", "norm_bias")
    }


@pytest.mark.parametrize("placement", ["before", "after_first"])
def test_dept_adds_a_low_rank_change_by_position_to_the_tokens_alone(placement):
    method = DePT(length=LENGTH, initializer=Uniform(), input_length=6, rank=2, placement=placement)
    model = attached(method)
    prompt, table = model.embed.prompt, np.asarray(model.embed.embedding[...])
    change = np.asarray(prompt.left[...]) @ np.asarray(prompt.right[...])
    batch = packed_batch(method.layout)
    found = embedded(model, batch)
    for row, tokens, slots in segments(batch):
        x = table[batch["encoder_input_tokens"][row, tokens]]
        wanted = x + np.concatenate([change, np.zeros_like(change)])[: len(x)]  # The seventh token has no change.
        np.testing.assert_allclose(found[row, tokens], wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found[row, slots], np.asarray(prompt.rows[...]))
    padding = batch["encoder_segment_ids"] == 0
    np.testing.assert_array_equal(found[padding], np.broadcast_to(table[0], found[padding].shape))


def test_dept_begins_as_a_plain_prompt():
    changed, plain = (tiny.model_with(CONFIG, tiny.random_values(CONFIG)) for _ in range(2))
    method = DePT(length=LENGTH, initializer=Uniform(), input_length=6, rank=2)
    method.attach(changed, jax.random.key(0), vocabulary=None)
    Prompt(length=LENGTH).attach(plain, jax.random.key(1), vocabulary=None)
    plain.embed.prompt.rows.set_value(changed.embed.prompt())
    batch = packed_batch(method.layout)
    np.testing.assert_array_equal(embedded(changed, batch), embedded(plain, batch))


@settings(deadline=None)  # The first call compiles.
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), max_size=4))
def test_positions_of_tokens_restart_in_each_segment_and_do_not_count_the_prompt(sizes):
    slots, ids, wanted = [], [], []
    for segment, (tokens, rows) in enumerate(sizes, start=1):
        slots += [*range(rows), *[-1] * tokens]
        ids += [segment] * (rows + tokens)
        wanted += [-1] * rows + list(range(tokens))
    padding = 30 - len(ids)
    slots, ids, wanted = slots + [-1] * padding, ids + [0] * padding, wanted + [-1] * padding
    found = token_positions(jnp.asarray([slots], jnp.int32), jnp.asarray([ids], jnp.int32))
    assert found[0].tolist() == wanted


def test_a_method_states_the_learning_rate_of_some_of_its_parameters():
    method = DePT(length=LENGTH, initializer=Uniform(), input_length=6, rank=2, change_rate_factor=0.25)
    both = Together((method, Lora(rank=2)))
    assert dict(both.rate_factors) == {"embed/prompt/(left|right)": 0.25}
    for stated in (method, both):
        experiment = tiny_experiment(method=stated, optimizer=optimizers.AdamW(learning_rate=0.5))
        model = tiny.model_with(CONFIG, tiny.random_values(CONFIG))
        stated.attach(model, jax.random.key(0), vocabulary=None)
        _, tuned, _ = trainable.split(model, stated.trainable)
        tuned = nnx.to_pure_dict(tuned)
        transform = programs.optimizer(experiment, model)
        updates, _ = transform.update(jax.tree.map(jnp.ones_like, tuned), transform.init(tuned), tuned)
        for name, update in trainable.named(updates).items():
            # Adam's first step is the rate, whatever the gradient.
            wanted = -0.5 * (0.25 if name in ("embed/prompt/left", "embed/prompt/right") else 1.0)
            np.testing.assert_allclose(update, wanted, rtol=1e-4, err_msg=name)


def test_settings_that_cannot_be_are_refused(tmp_path):
    sources = source_files(tmp_path)
    for method, stated, message in (
        (Attempt, {}, "Attempt.sources is empty"),
        (Attempt, {"sources": sources, "width": 0}, "Attempt.width: wanted a whole number"),
        (Attempt, {"sources": sources, "temperature": 0}, "Attempt.temperature: wanted more than 0, got 0"),
        (Attempt, {"sources": sources, "stacks": "both"}, "Attempt.stacks"),
        (Attempt, {"sources": sources, "tasks": 0}, "Attempt.tasks: wanted a whole number"),
        (Attempt, {"sources": sources, "attention_rate_factor": -1}, "Attempt.attention_rate_factor: wanted 0 or more, got -1"),
        (DePT, {"rank": 0}, "DePT.rank: wanted a whole number"),
        (DePT, {"input_length": 0}, "DePT.input_length: wanted a whole number"),
        (DePT, {"change_rate_factor": -1}, "DePT.change_rate_factor: wanted 0 or more, got -1"),
        (DePT, {"stacks": "decoder"}, "DePT.stacks"),
    ):
        with pytest.raises(UserError, match=message):
            method(**stated)
    with pytest.raises(UserError, match=r"0.npy.*wanted shape \[5, 16\]"):
        attached(Attempt(length=5, initializer=Uniform(), sources=sources))
    decoder = DecoderConfig(vocab_size=40, d_model=16, d_ff=8, num_layers=1, num_heads=2, num_kv_heads=2, head_width=4)
    for method in (Attempt(sources=sources, length=LENGTH), DePT()):
        with pytest.raises(UserError, match="wanted an encoder-decoder, got Decoder"):
            method.attach(Decoder(decoder, nnx.Rngs(params=0)), jax.random.key(0), vocabulary=None)


def test_settings_survive_a_round_through_replace(tmp_path):
    method = Attempt(sources=list(source_files(tmp_path)), length=LENGTH)
    assert dataclasses.replace(method, width=7).sources == method.sources == source_files(tmp_path)
