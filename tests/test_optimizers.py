import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning import optimizers
from prompt_tuning.errors import UserError
from prompt_tuning.optimizers import Adafactor, AdamW, Schedule


def constant(step):
    return 1.0


def numpy_adafactor(params, gradients, *, rate, decay=0.8, offset=0, clip=1.0, scaled=False, weight_decay=0.0, factored=False, beta=None):
    """Shazeer & Stern 2018, algorithms 4 (matrices) and 5 (vectors), in float64, one array; returns the parameter after each gradient."""
    x = params.astype(np.float64)
    rows = np.zeros(x.shape[:1])
    columns = np.zeros(x.shape[1:])
    second = np.zeros(x.shape)
    first = np.zeros(x.shape)
    history = []
    for t, g in enumerate(np.asarray(gradients, np.float64), start=1 + offset):
        beta2 = 1 - t**-decay
        squared = g**2 + 1e-30
        if factored:
            rows = beta2 * rows + (1 - beta2) * squared.sum(1)
            columns = beta2 * columns + (1 - beta2) * squared.sum(0)
            second = np.outer(rows, columns) / rows.sum()
        else:
            second = beta2 * second + (1 - beta2) * squared
        u = g / np.sqrt(second)
        u = u / max(1.0, np.sqrt(np.mean(u**2)) / clip)
        step = rate * (max(1e-3, np.sqrt(np.mean(x**2))) if scaled else 1.0) * u
        if beta is not None:
            step = first = beta * first + (1 - beta) * step
        x = (1 - weight_decay) * x - step
        history.append(x)
    return np.stack(history)


def run(transform, params, gradients):
    """Every parameter tree after each tree of gradients (stacked on axis 0)."""
    state = transform.init(params)
    step = jax.jit(transform.update)
    history = []
    for i in range(len(jax.tree.leaves(gradients)[0])):
        updates, state = step(jax.tree.map(lambda g, i=i: g[i], gradients), state, params)
        params = optax.apply_updates(params, updates)
        history.append(params)
    return jax.tree.map(lambda *xs: np.stack(xs), *history), state


def draws(shape, steps=6, seed=0):
    rng = np.random.default_rng(seed)
    # Gradients whose size differs by entry and by step, so that factoring, clipping and decay all show.
    sizes = np.exp(rng.normal(size=shape)) * np.exp(rng.normal(size=(steps, *([1] * len(shape)))))
    return rng.normal(size=shape).astype(np.float32), (rng.normal(size=(steps, *shape)) * sizes).astype(np.float32)


@pytest.mark.parametrize("shape", [(100, 16), (130, 140)])
@pytest.mark.parametrize("offset", [0, 1_100_000])
def test_a_prompt_follows_the_unfactored_algorithm_at_any_size(shape, offset):
    prompt, gradients = draws(shape)
    transform = Adafactor(step_offset=offset).transform(constant, unfactored=lambda name: "prompt" in name)
    ours, state = run(transform, {"embed": {"prompt": prompt}}, {"embed": {"prompt": gradients}})
    expected = numpy_adafactor(prompt, gradients, rate=0.3, offset=offset, weight_decay=1e-5)
    np.testing.assert_allclose(ours["embed"]["prompt"], expected, rtol=1e-4, atol=1e-5)
    assert state.full["embed/prompt"].shape == shape
    assert not state.row


def test_matrices_are_factored_and_follow_algorithm_4():
    kernel, gradients = draws((130, 140))
    settings = Adafactor(learning_rate=1e-3, multiply_by_parameter_scale=True, weight_decay=0.0)
    ours, state = run(settings.transform(constant), {"kernel": kernel}, {"kernel": gradients})
    expected = numpy_adafactor(kernel, gradients, rate=1e-3, scaled=True, factored=True)
    np.testing.assert_allclose(ours["kernel"], expected, rtol=1e-5, atol=1e-6)
    assert (state.row["kernel"].shape, state.column["kernel"].shape, state.full) == ((130,), (140,), {})


def test_small_matrices_and_vectors_are_not_factored():
    params = {"a": jnp.ones((127, 500)), "b": jnp.ones((500,)), "c": jnp.ones((128, 128)), "layers": {"d": jnp.ones((300, 64, 200))}}
    state = Adafactor().transform(constant).init(params)
    assert set(state.full) == {"a", "b", "layers/d"}
    assert set(state.row) == {"c"}


def test_momentum_follows_the_algorithm():
    kernel, gradients = draws((7, 5))
    ours, _ = run(Adafactor(momentum=0.9, learning_rate=0.1).transform(constant), {"x": kernel}, {"x": gradients})
    expected = numpy_adafactor(kernel, gradients, rate=0.1, weight_decay=1e-5, beta=0.9)
    np.testing.assert_allclose(ours["x"], expected, rtol=1e-5, atol=1e-6)


def test_agrees_with_optax_where_the_two_mean_the_same():
    params = {"k": draws((130, 140), seed=3)[0], "v": draws((9,), seed=4)[0]}
    gradients = {"k": draws((130, 140), seed=3)[1], "v": draws((9,), seed=4)[1]}
    theirs, _ = run(optax.adafactor(0.01, weight_decay_rate=1e-4), params, gradients)
    ours, _ = run(Adafactor(0.01, weight_decay=1e-4, multiply_by_parameter_scale=True).transform(constant), params, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), ours, theirs)


def test_the_released_offset_gives_every_update_an_rms_of_exactly_the_rate():
    prompt, gradients = draws((100, 16), steps=40)

    def rms_of_updates(offset):
        settings = Adafactor(step_offset=offset, weight_decay=0.0)
        after, _ = run(settings.transform(constant, unfactored=lambda name: True), {"prompt": prompt}, {"prompt": gradients})
        steps = np.diff(np.concatenate([prompt[None], after["prompt"]]).astype(np.float64), axis=0)
        return np.sqrt(np.mean(steps**2, axis=(1, 2)))

    np.testing.assert_allclose(rms_of_updates(1_100_000), 0.3, rtol=1e-5)
    assert np.min(rms_of_updates(0)) < 0.29


def test_weight_decay_is_not_scaled_by_the_rate():
    x = jnp.full((3, 4), 2.0)
    for rate in (0.3, 1e-4):
        transform = Adafactor(learning_rate=rate, weight_decay=0.01).transform(constant)
        updates, _ = transform.update({"x": jnp.zeros_like(x)}, transform.init({"x": x}), {"x": x})
        np.testing.assert_allclose(updates["x"], -0.01 * x, rtol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [Adafactor(), Adafactor(1e-2, multiply_by_parameter_scale=True, momentum=0.5), AdamW(1e-2, weight_decay=0.1)],
    ids=["adafactor", "scaled", "adamw"],
)
def test_stacked_layers_get_the_updates_of_separate_layers(settings):
    settings = dataclasses.replace(settings, min_dim_size_to_factor=16) if isinstance(settings, Adafactor) else settings
    shapes = {"kernel": (3, 20, 24), "scale": (3, 5)}
    stacked = {
        name: draws(shape, seed=i)[0] * np.array([0.1, 1, 9]).reshape(3, *[1] * (len(shape) - 1))
        for i, (name, shape) in enumerate(shapes.items())
    }
    gradients = {name: draws(shape, seed=9 + i)[1] for i, (name, shape) in enumerate(shapes.items())}
    ours, _ = run(settings.transform(constant), {"layers": stacked}, {"layers": gradients})
    for layer in range(3):
        one = {"layers": {str(layer): {name: x[layer] for name, x in stacked.items()}}}
        one_gradients = {"layers": {str(layer): {name: g[:, layer] for name, g in gradients.items()}}}
        alone, _ = run(settings.transform(constant), one, one_gradients)
        for name in shapes:
            np.testing.assert_allclose(ours["layers"][name][:, layer], alone["layers"][str(layer)][name], rtol=1e-6, atol=1e-6)


def test_stacked_is_read_off_the_name():
    assert optimizers.is_stacked("encoder/layers/mlp/wi/kernel")
    assert not optimizers.is_stacked("encoder/layers/3/mlp/wi/kernel")
    assert not optimizers.is_stacked("encoder/norm/scale")


def test_bf16_parameters_keep_float32_statistics():
    params = {"x": jnp.ones((4, 4), jnp.bfloat16)}
    transform = Adafactor().transform(constant)
    updates, state = transform.update({"x": jnp.ones((4, 4), jnp.bfloat16)}, transform.init(params), params)
    assert updates["x"].dtype == jnp.bfloat16
    assert state.full["x"].dtype == jnp.float32


def test_adamw_follows_the_algorithm_and_spares_vectors():
    x, gradients = draws((6, 5))
    v, v_gradients = draws((6,), seed=1)
    ours, _ = run(AdamW(0.01, weight_decay=0.1).transform(lambda step: 0.5), {"x": x, "v": v}, {"x": gradients, "v": v_gradients})
    for name, start, grads, decay in (("x", x, gradients, 0.1), ("v", v, v_gradients, 0.0)):
        p, m, s = start.astype(np.float64), 0.0, 0.0
        for t, g in enumerate(grads.astype(np.float64), start=1):
            m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
            p = p - 0.005 * (m / (1 - 0.9**t) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8) + decay * p)
            np.testing.assert_allclose(ours[name][t - 1], p, rtol=1e-4, atol=1e-6)


def test_accumulated_micro_batches_make_one_step_of_the_mean_after_clipping():
    x, gradients = draws((4, 3), steps=6)
    base = Adafactor().transform(lambda step: 1.0 / (1.0 + step))
    accumulated = optimizers.with_clipping_and_accumulation(base, max_norm=0.1, accumulation_steps=3)
    ours, _ = run(accumulated, {"x": x}, {"x": gradients})
    np.testing.assert_array_equal(ours["x"][1], x)
    means = gradients.reshape(2, 3, 4, 3).mean(1)
    means = means * np.minimum(1, 0.1 / np.linalg.norm(means.reshape(2, -1), axis=1))[:, None, None]
    expected, _ = run(base, {"x": x}, {"x": means})
    np.testing.assert_allclose(ours["x"][[2, 5]], expected["x"], rtol=1e-5)


def test_schedules_have_their_closed_forms():
    steps = np.arange(100)
    warm = (steps + 1) / 10
    rest = (steps - 10) / 90
    forms = {
        "constant": np.ones(100),
        "linear": 1 - 0.8 * rest,
        "cosine": 0.2 + 0.8 * (1 + np.cos(math.pi * rest)) / 2,
    }
    for kind, form in forms.items():
        for warmup in ({"warmup_steps": 10}, {"warmup_frac": 0.1}):
            factor = Schedule(kind, final_frac=0.2, **warmup).factor(100)
            np.testing.assert_allclose(factor(steps), np.where(steps < 10, warm, form), rtol=1e-5)
            np.testing.assert_allclose(factor(jnp.int32(50)), form[50], rtol=1e-5)
    np.testing.assert_allclose(Schedule("inverse_sqrt", warmup_steps=10).factor(100)(steps), 1 / np.sqrt(np.maximum(steps, 10)), rtol=1e-5)
    np.testing.assert_allclose(Schedule().factor(100)(steps), 1.0)


def test_a_schedule_ends_at_its_final_fraction():
    for kind in ("linear", "cosine"):
        np.testing.assert_allclose(Schedule(kind, final_frac=0.25).factor(10)(jnp.array([10, 99])), 0.25, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [(Schedule("linaer"), "'linaer'"), (Schedule("linear", warmup_steps=50), "50"), (Schedule(warmup_frac=1.5), "1.5")],
)
def test_a_wrong_schedule_is_refused(schedule, said):
    with pytest.raises(UserError, match=said):
        schedule.factor(50)


def test_like_params_finds_the_owner_of_each_statistic():
    params = {"a": {"kernel": jnp.ones((130, 130))}, "kernel": jnp.ones((2, 3)), "prompt": jnp.ones((5, 4))}
    per_param = {"a/kernel": "A", "kernel": "K", "prompt": "P"}
    state = optimizers.like_params(Adafactor(momentum=0.9).transform(constant).init(params), params, per_param, otherwise="-")
    assert state.steps == "-"
    assert state.full == {"kernel": "K", "prompt": "P"}
    assert state.row == {"a/kernel": "-"}
    assert state.momentum == per_param
    adam = optimizers.like_params(AdamW().transform(constant).init(params), params, per_param, otherwise="-")
    assert adam[0].mu == {"a": {"kernel": "A"}, "kernel": "K", "prompt": "P"}


def test_rate_factors_multiply_updates_and_leave_the_state_as_it_was():
    params, gradients = {"a": {"left": jnp.ones(3)}, "b": jnp.ones(2)}, {"a": {"left": draws((3,))[1]}, "b": draws((2,), seed=1)[1]}
    plain, plain_state = run(AdamW(learning_rate=0.1).transform(constant), params, gradients)
    for transform, rate in ((AdamW(learning_rate=0.1), 0.1), (Adafactor(learning_rate=0.1, weight_decay=0.0), 0.1)):
        alone, _ = run(transform.transform(constant), params, gradients)
        slow, _ = run(optimizers.with_rate_factors(transform.transform(constant), {".*left": 0.0, "a/.*": 2.0}), params, gradients)
        np.testing.assert_array_equal(slow["a"]["left"], np.ones_like(slow["a"]["left"]))
        np.testing.assert_array_equal(slow["b"], alone["b"])
        twice, _ = run(optimizers.with_rate_factors(transform.transform(constant), {"b": 2.0}), params, gradients)
        doubled, _ = run(dataclasses.replace(transform, learning_rate=2 * rate).transform(constant), params, gradients)
        np.testing.assert_allclose(twice["b"], doubled["b"], rtol=1e-5)
        np.testing.assert_array_equal(twice["a"]["left"], alone["a"]["left"])
    assert jax.tree.structure(plain_state) == jax.tree.structure(AdamW().transform(constant).init(params))
    assert plain["b"].shape == (6, 2)
    with pytest.raises(UserError, match="pattern 'c' matches no trained parameter; there are a/left, b"):
        optimizers.with_rate_factors(AdamW().transform(constant), {"c": 2.0}).init(params)
