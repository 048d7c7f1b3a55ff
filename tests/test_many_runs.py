"""Several runs in one program do what each does alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import losses, many_runs, programs, trainable
from prompt_tuning.data import choices, features
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.models.decoder import Decoder, DecoderConfig
from prompt_tuning.models.layers import Fixed
from tests.jaxprs import equations
from tests.methods import test_contract as contract
from tests.methods.cases import CASES, CONFIG, VOCABULARY

RUNS, ROWS = 3, 2
# Plain steps: where a gradient is next to nothing, Adam's first steps are of full length in the direction of its rounding error. Clipping
# by the norm sees all of a run's variables, and must see no other run's.
TRANSFORMS = [optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(rate, momentum=0.9)) for rate in (0.5, 0.1, 0.3)]
SEEDS = (3, 1, 4)
LLAMA = DecoderConfig(vocab_size=384, d_model=16, d_ff=24, num_layers=2, num_heads=4, num_kv_heads=2, head_width=4, unroll_layers=False)
PLAIN = {"dropout_rate": 0.0, "z_loss": 1e-3, "label_smoothing": 0.1, "choice_losses": None}


def parts_of(methods, config=CONFIG, **changes):
    """The graph definition, the tuned variables of each run, the base that all share, and what each run holds fixed."""
    config, found = dataclasses.replace(config, **changes), []
    for number, method in enumerate(methods):
        model = Decoder(config, nnx.Rngs(params=0)) if isinstance(config, DecoderConfig) else contract.tiny.model_with(config, base(config))
        method.attach(model, jax.random.key(number), vocabulary=VOCABULARY)
        fixed = {name for name, variable in trainable.named_variables(model) if isinstance(variable, Fixed)}
        graphdef, tuned, frozen = trainable.split(model, trainable.Tunable)
        rng = np.random.default_rng(number)
        tuned = jax.tree.map(lambda x, rng=rng: x + jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), nnx.to_pure_dict(tuned))
        frozen = trainable.named(nnx.to_pure_dict(frozen))
        held = {name: value + number for name, value in frozen.items() if name in fixed}
        found.append((graphdef, tuned, {name: value for name, value in frozen.items() if name not in fixed}, held))
    assert all(one[0] == found[0][0] for one in found), "one graph definition"
    return found[0][0], [one[1] for one in found], found[0][2], [one[3] for one in found]


def base(config):
    return contract.tiny.random_values(config)


def batches_of(methods, *, seed=0, packed=False, num_choices=0, marks=features.T5_DELIMITERS):
    """A batch of each run, of examples of its own."""
    found = []
    for number, method in enumerate(methods):
        layout = dataclasses.replace(method.layout, delimiters=marks)
        lengths = {"input_length": 24 if packed else 8, "target_length": 12 if packed else 5, "prompt": layout}
        examples = contract.examples(2 * ROWS, seed=10 * seed + number)
        if num_choices:
            others = ((5, 1), (9, 7, 1))
            chosen = [{**one, "choices": (tuple(one["targets"]), *others[: row + 1])} for row, one in enumerate(examples)]
            found.append(choices.layout(chosen[:ROWS], num_choices=num_choices, **lengths))
        elif packed:
            found.append(features.layout_rows([examples[:ROWS], examples[ROWS:]], **lengths))
        else:
            found.append(features.layout(examples[:ROWS], **lengths))
    return found


def laid_together(batches):
    shapes = {
        name: jax.ShapeDtypeStruct((len(batches), *np.max([one[name].shape for one in batches], axis=0)), value.dtype)
        for name, value in batches[0].items()
    }
    return many_runs.stacked_batch(batches, shapes)


@functools.cache
def steps_of(methods, config, **loss):
    """First states, the step of all runs in one program, and the step of each alone."""
    changes = {"dropout_rate": loss["dropout_rate"]} if loss["dropout_rate"] else {}
    graphdef, tuned, frozen, held = parts_of(methods, config, **changes)
    states = tuple(programs.TrainState(jnp.int32(0), one, transform.init(one)) for one, transform in zip(tuned, TRANSFORMS, strict=True))
    held_K, shared = many_runs.stacked(held), trainable.nested(frozen)

    @contract.jitted
    def together(states, batch, going):
        return many_runs.train_step(states, shared, held_K, batch, going, graphdef=graphdef, transforms=TRANSFORMS, seeds=SEEDS, **loss)

    def alone(run):
        own = {"graphdef": graphdef, "transform": TRANSFORMS[run], "seed": SEEDS[run], **loss}
        whole = trainable.nested(frozen | held[run])
        return contract.jitted(lambda state, batch: programs.train_step(state, whole, batch, **own))

    return states, together, [alone(run) for run in range(RUNS)]


def compare(methods, *, config=CONFIG, steps=3, going=None, marks=features.T5_DELIMITERS, batch_settings=None, **changed):
    """Takes steps of all runs in one program and of each alone, and holds losses, metrics and variables against each other."""
    first, together, single = steps_of(tuple(methods), config, **(PLAIN | changed))
    states, alone = first, list(first)
    for number in range(steps):
        batches = batches_of(methods, seed=number, marks=marks, **(batch_settings or {}))
        now = [True] * RUNS if going is None else going[number]
        states, metrics = together(states, laid_together(batches), jnp.asarray(now))
        for run in range(RUNS):
            if now[run]:
                alone[run], said = single[run](alone[run], batches[run])
                assert set(said) == set(metrics[run])
                for name in said:
                    # float32, summed in another order.
                    np.testing.assert_allclose(metrics[run][name], said[name], rtol=2e-4, atol=1e-6, err_msg=f"{name}, run {run}")
    for run in range(RUNS):
        assert int(states[run].step) == int(alone[run].step)
        for name, value in trainable.named(alone[run].tuned).items():
            np.testing.assert_allclose(trainable.named(states[run].tuned)[name], value, rtol=2e-4, atol=2e-5, err_msg=name)
    return [state.tuned for state in first], states


METHODS = [
    "prompt",
    "lora",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("wayward", "prefix", "ia3", "adapter", "prompts in both", "p-tuning, lstm", "dept")
    ),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("prompt and lora", "residual prompt", "attempt", "compacter", "dora")),
]


@pytest.mark.parametrize("name", METHODS)
def test_steps_together_are_the_steps_of_each_alone(name):
    before, after = compare([CASES[name].method] * RUNS)
    for one, state in zip(before, after, strict=True):
        moved = jax.tree.map(lambda old, new: float(jnp.abs(old - new).max()), one, state.tuned)
        assert min(jax.tree.leaves(moved)) > 0


def prompts(*lengths, **settings):
    return [Prompt(length=length, initializer=Uniform(), **settings) for length in lengths]


@pytest.mark.parametrize(
    "settings", [{}, pytest.param({"stacks": "both", "placement": "suffix"}, marks=pytest.mark.slow)], ids=["before", "both, suffix"]
)
def test_prompts_of_several_lengths_go_together(settings):
    _, states = compare(prompts(2, 5, 3, **settings))
    copies = 2 if settings else 1
    assert [state.tuned["embed"]["prompt"]["rows"].shape[0] for state in states] == [2 * copies, 5 * copies, 3 * copies]


@pytest.mark.slow
def test_a_decoder_only_model_trains_prompts_of_several_lengths():
    compare(prompts(2, 4, 3), config=LLAMA, marks=features.Delimiters(eos=2, pad=0, start=None, bos=1, inputs_end=False))


def test_each_run_draws_the_dropout_that_it_draws_alone():
    compare(prompts(3, 3, 3), dropout_rate=0.2)


@pytest.mark.slow
def test_packed_rows_and_answer_choices_go_together():
    compare(prompts(2, 5, 3), batch_settings={"packed": True})
    compare(prompts(2, 5, 3), batch_settings={"num_choices": 3}, choice_losses=losses.ChoiceLosses(num_choices=3))


@settings(max_examples=5, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=RUNS, max_size=RUNS), min_size=2, max_size=2))
def test_a_run_that_does_not_go_keeps_its_state_and_changes_no_other(going):
    compare(prompts(2, 5, 3), steps=2, going=going)


def test_frozen_products_stay_one_product_over_the_rows_of_all_runs():
    methods = [CASES["lora"].method] * RUNS
    graphdef, tuned, frozen, _ = parts_of(methods)
    states = tuple(programs.TrainState(jnp.int32(0), one, transform.init(one)) for one, transform in zip(tuned, TRANSFORMS, strict=True))
    jaxpr = jax.make_jaxpr(
        lambda states, batch: many_runs.train_step(
            states,
            trainable.nested(frozen),
            {},
            batch,
            jnp.ones(RUNS, bool),
            graphdef=graphdef,
            transforms=TRANSFORMS,
            seeds=SEEDS,
            **PLAIN,
        )
    )(states, laid_together(batches_of(methods)))
    kernels = {tuple(value.shape[1:]) for path, value in frozen.items() if path.endswith("kernel") and value.ndim == 3}
    seen = [one for one in equations(jaxpr.jaxpr) if one.primitive.name == "dot_general" and one.invars[1].aval.shape in kernels]
    assert len(seen) > 10
    assert all(one.params["dimension_numbers"][1] == ((), ()) for one in seen)
