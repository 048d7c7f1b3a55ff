"""Rows of different tasks in one batch do what a loop over the tasks does."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import decoding, evaluation, infer, mixed_tasks, programs, train, trainable
from prompt_tuning.data import features
from prompt_tuning.errors import UserError
from prompt_tuning.models.decoder import Decoder, DecoderConfig
from tests import tiny_run
from tests.jaxprs import equations
from tests.methods import test_contract as contract
from tests.methods.cases import CASES

TASKS = np.array([1, 0, 2, 1], np.int32)
METHODS = [
    "prompt",
    "lora",
    "ia3",
    "prefix",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("p-tuning v2", "prompts in both", "prompt and lora", "dora", "adapter")),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("compacter", "p-tuning, lstm")),
]
every_method = pytest.mark.parametrize("name", METHODS)
LLAMA = DecoderConfig(vocab_size=384, d_model=16, d_ff=24, num_layers=2, num_heads=4, num_kv_heads=2, head_width=4, unroll_layers=False)


def parts_of(name, config=None):
    """A graph definition, the tuned variables of three tasks, and the frozen ones."""
    if config is None:
        model, _ = contract.model_of(name)
    else:
        model = Decoder(config, nnx.Rngs(params=0))
        CASES[name].method.attach(model, jax.random.key(0), vocabulary=None)
    graphdef, tuned, frozen = trainable.split(model, trainable.Tunable)
    rng = np.random.default_rng(7)
    tuned = nnx.to_pure_dict(tuned)
    tasks = [jax.tree.map(lambda x: x + jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), tuned) for _ in range(3)]
    return graphdef, tasks, nnx.to_pure_dict(frozen)


def laid_out(name, count=4, seed=0):
    return features.layout(contract.examples(count, seed=seed), input_length=8, target_length=5, prompt=CASES[name].method.layout)


def by_task(run, tasks, task_ids=TASKS):
    """What `run(tuned)` gives for each row with its own task's variables: the loop over tasks."""
    found = [np.asarray(run(tuned)) for tuned in tasks]
    return np.stack([found[task][row] for row, task in enumerate(task_ids)])


@every_method
@pytest.mark.parametrize("config", [None, LLAMA], ids=["t5", "llama"])
def test_logits_of_a_row_are_those_of_its_own_task(name, config):
    if config is not None and name == "prompts in both":
        pytest.skip("one stack has one prompt")
    graphdef, tasks, frozen = parts_of(name, config)
    batch = laid_out(name)
    wanted = by_task(contract.jitted(lambda tuned: nnx.merge(graphdef, tuned, frozen)(batch)), tasks)
    mixed = contract.jitted(lambda tuned: mixed_tasks.MixedTasks(graphdef, tuned, frozen, jnp.asarray(TASKS))(batch))
    contract.close(np.asarray(mixed(mixed_tasks.stacked(tasks))), wanted, 1e-5)
    assert np.abs(wanted[0] - wanted[2]).max() > 1e-2, "tasks differ"


@every_method
@pytest.mark.parametrize("config", [None, LLAMA], ids=["t5", "llama"])
def test_a_row_is_given_the_tokens_its_own_task_writes(name, config):
    if config is not None and name == "prompts in both":
        pytest.skip("one stack has one prompt")
    graphdef, tasks, frozen = parts_of(name, config)
    batch = {key: value for key, value in laid_out(name).items() if key.startswith("encoder_")}
    start_tokens, start_slots = features.decoder_start(CASES[name].method.layout)
    batch["decoder_start_tokens"] = np.tile(start_tokens, (4, 1))
    if CASES[name].method.layout.decoder_length:
        batch["decoder_start_slots"] = np.tile(start_slots, (4, 1))

    @contract.jitted
    def generated(tuned, task_ids):
        kind = graphdef if task_ids is None else mixed_tasks.Mixed(graphdef)
        return decoding.generate(mixed_tasks.model_of(kind, tuned, frozen, {"task_ids": task_ids}), batch, max_tokens=6)

    found = np.asarray(generated(mixed_tasks.stacked(tasks), jnp.asarray(TASKS)))
    np.testing.assert_array_equal(found, by_task(lambda tuned: generated(tuned, None), tasks))


def test_choices_are_ranked_with_the_rows_own_task():
    graphdef, tasks, frozen = parts_of("prompt")
    examples = [example | {"task": int(task)} for example, task in zip(contract.examples(4), TASKS, strict=True)]
    choices = [[[5, 1], [9, 8, 1]], [[7, 1]], [[4, 1], [6, 6, 1], [3, 1]], [[11, 1], [12, 1]]]
    lengths = evaluation.Lengths(8, 5, CASES["prompt"].method.layout)
    kept = {"choices": choices, "lengths": lengths, "batch_size": 3}
    found = evaluation.score_choices((mixed_tasks.Mixed(graphdef), mixed_tasks.stacked(tasks), frozen), examples, **kept)
    alone = [evaluation.score_choices((graphdef, tuned, frozen), contract.examples(4), **kept) for tuned in tasks]
    for row, task in enumerate(TASKS):
        np.testing.assert_allclose(found[row], alone[task][row], rtol=1e-5)


@every_method
def test_training_all_tasks_at_once_is_training_each_alone(name):
    graphdef, tasks, frozen = parts_of(name)
    # Clipping by the norm sees all of a task's parameters, and must see no other task's.
    transform = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.5, momentum=0.9))
    settings = {"graphdef": graphdef, "transform": transform, "seed": 0, "dropout_rate": 0.0, "z_loss": 1e-3, "label_smoothing": 0.1}
    stacked = mixed_tasks.stacked(tasks)
    mixed = programs.TrainState(jnp.int32(0), stacked, jax.vmap(transform.init)(stacked))
    alone = [programs.TrainState(jnp.int32(0), tuned, transform.init(tuned)) for tuned in tasks]
    mixed_step = contract.jitted(lambda state, batch: mixed_tasks.train_step(state, frozen, batch, **settings))
    one_step = contract.jitted(lambda state, batch: programs.train_step(state, frozen, batch, **settings))
    task_ids = np.array([0, 1, 2, 2, 1, 0], np.int32)
    for number in range(3):
        batch = laid_out(name, count=6, seed=number)
        mixed, metrics = mixed_step(mixed, batch | {"task_ids": task_ids})
        for task in range(3):
            alone[task], own = one_step(alone[task], {key: value[task_ids == task] for key, value in batch.items()})
            for metric in ("loss", "cross_entropy", "token_accuracy", "gradient_norm"):
                np.testing.assert_allclose(metrics[metric][task], own[metric], rtol=2e-4, err_msg=metric)
    for task in range(3):
        for path, value in trainable.named(alone[task].tuned).items():
            np.testing.assert_allclose(trainable.named(mixed.tuned)[path][task], value, rtol=1e-3, atol=2e-5, err_msg=path)


def test_a_task_without_a_row_keeps_what_it_has():
    graphdef, tasks, frozen = parts_of("prompt")
    transform = optax.adam(0.1)
    stacked = mixed_tasks.stacked(tasks)
    before = programs.TrainState(jnp.int32(0), stacked, jax.vmap(transform.init)(stacked))
    batch = laid_out("prompt") | {"task_ids": np.array([0, 2, 2, 0], np.int32)}
    after, metrics = mixed_tasks.train_step(before, frozen, batch, graphdef=graphdef, transform=transform)
    assert float(metrics["loss"][1]) == 0.0 and min(float(metrics["loss"][task]) for task in (0, 2)) > 0
    for old, new in zip(jax.tree.leaves(before[1:]), jax.tree.leaves(after[1:]), strict=True):
        np.testing.assert_array_equal(old[1], new[1])
        assert not np.array_equal(old[0], new[0])


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_any_assignment_of_tasks_to_rows_agrees_with_the_loop(task_ids):
    stacked, mixed, each = prepared("prompt")
    found = np.asarray(mixed(stacked, jnp.asarray(task_ids, jnp.int32)))
    contract.close(found, np.stack([each[task][row] for row, task in enumerate(task_ids)]), 1e-5)


@functools.cache
def prepared(name):
    """The tuned variables of all tasks, the mixed model's logits given them and the rows' tasks, and each task's logits alone."""
    graphdef, tasks, frozen = parts_of(name)
    batch = laid_out(name)
    mixed = contract.jitted(lambda tuned, task_ids: mixed_tasks.MixedTasks(graphdef, tuned, frozen, task_ids)(batch))
    one = contract.jitted(lambda tuned: nnx.merge(graphdef, tuned, frozen)(batch))
    return mixed_tasks.stacked(tasks), mixed, [np.asarray(one(tuned)) for tuned in tasks]


def test_frozen_products_stay_one_product_over_all_rows():
    graphdef, tasks, frozen = parts_of("lora")
    batch = laid_out("lora")
    jaxpr = jax.make_jaxpr(lambda tuned: mixed_tasks.MixedTasks(graphdef, tuned, frozen, jnp.asarray(TASKS))(batch))(
        mixed_tasks.stacked(tasks)
    )
    kernels = {tuple(value.shape[1:]) for path, value in trainable.named(frozen).items() if path.endswith("kernel") and value.ndim == 3}
    seen = 0
    for equation in equations(jaxpr.jaxpr):
        if equation.primitive.name == "dot_general" and tuple(equation.invars[1].aval.shape) in kernels:
            seen += 1
            assert equation.params["dimension_numbers"][1] == ((), ())
    assert seen > 10


def test_tasks_of_other_sizes_are_refused_by_name():
    with pytest.raises(UserError, match=r"task 1 has embed/prompt/rows of shape \(4, 8\), task 0 of \(3, 8\)"):
        mixed_tasks.stacked([{"embed": {"prompt": {"rows": np.zeros((length, 8))}}} for length in (3, 4)])
    with pytest.raises(UserError, match="at least one task"):
        mixed_tasks.stacked([])


@pytest.mark.parametrize("name", ["wayward", "mpt, taught"])
def test_each_task_has_its_own_penalty(name):
    """What the loop over tasks does, where what each task's penalty is taken from differs between tasks too."""
    graphdef, tasks, frozen = parts_of(name)
    held = {path: value for path, value in trainable.named(frozen).items() if path.startswith("embed/prompt/")}
    base = trainable.nested({path: value for path, value in trainable.named(frozen).items() if path not in held})
    rng = np.random.default_rng(11)
    fixed = [
        trainable.nested({path: value + jnp.asarray(rng.normal(size=value.shape), jnp.float32) for path, value in held.items()})
        for _ in tasks
    ]
    assert held
    transform = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.5))
    settings = {"graphdef": graphdef, "transform": transform, "seed": 0, "dropout_rate": 0.0, "z_loss": 0.0, "label_smoothing": 0.0}
    stacked = mixed_tasks.stacked(tasks)
    state = programs.TrainState(jnp.int32(0), stacked, jax.vmap(transform.init)(stacked))
    batch, task_ids = laid_out(name, count=5), np.array([0, 2, 2, 0, 2], np.int32)
    mixed_step = contract.jitted(
        lambda state, batch: mixed_tasks.train_step(state, base, batch, fixed=mixed_tasks.stacked(fixed), **settings)
    )
    after, metrics = mixed_step(state, batch | {"task_ids": task_ids})
    one_step = contract.jitted(lambda state, frozen, batch: programs.train_step(state, frozen, batch, **settings))
    for task in (0, 2):
        whole = trainable.nested(trainable.named(base) | trainable.named(fixed[task]))
        alone = programs.TrainState(jnp.int32(0), tasks[task], transform.init(tasks[task]))
        own = {key: value[task_ids == task] for key, value in batch.items()}
        wanted, said = one_step(alone, whole, own)
        assert float(said["penalty"]) > 1e-2
        for metric in ("penalty", "loss", "gradient_norm"):
            np.testing.assert_allclose(metrics[metric][task], said[metric], rtol=2e-4, err_msg=metric)
        for path, value in trainable.named(wanted.tuned).items():
            np.testing.assert_allclose(trainable.named(after.tuned)[path][task], value, rtol=1e-3, atol=2e-5, err_msg=path)
    assert all(float(value[1]) == 0 for value in metrics.values()), "no row is of the second task"
    for old, new in zip(jax.tree.leaves(state.tuned), jax.tree.leaves(after.tuned), strict=True):
        np.testing.assert_array_equal(old[1], new[1])


def test_the_infer_command_answers_each_row_with_the_run_of_its_task(tmp_path, capsys):
    files = tiny_run.write_gin(tmp_path)
    runs = [tmp_path / name for name in ("a", "b")]
    for rate, run in zip((1.0, 3.0), runs, strict=True):  # The random base comes of the seed, which both must have.
        train.main([*tiny_run.arguments(files), f"--gin.LEARNING_RATE={rate}", f"--workdir={run}"])
    rows = [{"inputs": f"row {number}", "targets": "yes", "task": "ab"[number % 2]} for number in range(5)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answers(*flags):
        infer.main([*flags, "--score", f"--input={tmp_path / 'rows.jsonl'}", f"--output={tmp_path / 'out.jsonl'}"])
        return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    found = answers(f"--task=a={runs[0]}", f"--task=b={runs[1]}")
    alone = [answers(f"--workdir={run}") for run in runs]
    for number, row in enumerate(rows):
        assert found[number] | {"log_likelihood": 0} == row | {"log_likelihood": 0, "target_tokens": 4}
        np.testing.assert_allclose(found[number]["log_likelihood"], alone[number % 2][number]["log_likelihood"], rtol=1e-5)
    assert abs(alone[0][0]["log_likelihood"] - alone[1][0]["log_likelihood"]) > 1e-3
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        answers(f"--task=a={runs[0]}")
    assert stop.value.code == 2 and "one of a, got task 'b'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        answers("--task=nonsense")
    assert "wanted NAME=RUN" in capsys.readouterr().err
