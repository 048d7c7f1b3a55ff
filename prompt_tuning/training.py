"""Training: the step as a pure function, and the loop, read from top to bottom.

The model is split once into a graph definition, what is tuned and what is frozen. The step differentiates with respect to what is tuned
only, Optax sees and checkpoints hold only that, and the frozen weights are an argument that is never donated or copied.
"""

import contextlib
import dataclasses
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from prompt_tuning import assembly, checkpoints, evaluation, interop, losses, optimizers, sharding, trainable
from prompt_tuning.data import choices, features, mixtures
from prompt_tuning.errors import Interrupted, UserError
from prompt_tuning.experiment import Experiment, resolved
from prompt_tuning.journal import Best, Journal
from prompt_tuning.methods.base import rate_factors
from prompt_tuning.models.layers import Tunable
from prompt_tuning.models.whisper import WhisperConfig
from prompt_tuning.run_folder import RunFolder

Array = jax.Array
Batch = dict[str, Array]


class TrainState(NamedTuple):
    """All that changes from step to step, or where it lies. `step` counts the steps taken."""

    step: Any
    tuned: dict[str, Any]
    optimizer_state: Any


def optimizer(experiment: Experiment, model: nnx.Module) -> optax.GradientTransformation:
    """The Optax transformation of an experiment, whose method is on `model`.

    A parameter that a method added (`Tunable`) keeps its second moment whole, as a prompt does in the released code; one of the base's own
    has it factored, as T5's training does.
    """
    added = {name for name, variable in trainable.named_variables(model) if isinstance(variable, Tunable)}
    updates = -(-experiment.train_steps // experiment.accumulation_steps)
    transform = experiment.optimizer.transform(experiment.schedule.factor(updates), unfactored=added.__contains__)
    return optimizers.with_clipping_and_accumulation(
        optimizers.with_rate_factors(transform, rate_factors(experiment.method)),
        max_norm=experiment.gradient_clip_norm,
        accumulation_steps=experiment.accumulation_steps,
    )


def train_step(
    state: TrainState,
    frozen: dict[str, Any],
    batch: Batch,
    *,
    graphdef: Any,
    transform: optax.GradientTransformation,
    seed: int,
    dropout_rate: float,
    z_loss: float,
    label_smoothing: float,
    choice_losses: losses.ChoiceLosses | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One step on one batch: the new state, and what the weights before the step made of the batch.

    The loss is the mean over target tokens of the batch, what the answer choices of `data.choices.layout` add (`choice_losses`), and what
    the plugged-in modules ask for (`losses.penalty`). Dropout draws from the seed and the step alone, so a resumed run draws the same.
    """
    dropout_key = jax.random.fold_in(jax.random.key(seed), state.step) if dropout_rate else None

    def loss_of(tuned: dict[str, Any]) -> tuple[Array, dict[str, Array]]:
        model = nnx.merge(graphdef, tuned, frozen)
        logits = model(batch, dropout_key=dropout_key)
        targets, weights = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
        if choice_losses is None:
            loss, metrics = losses.per_token(logits, targets, weights_BT=weights, label_smoothing=label_smoothing, z_loss=z_loss)
        else:
            loss, metrics = losses.of_choices(
                logits, targets, weights_BCT=weights, settings=choice_losses, label_smoothing=label_smoothing, z_loss=z_loss
            )
        added = losses.penalty(model, batch, logits)
        return (loss, metrics) if added is None else (loss + added, metrics | {"penalty": added})

    (loss, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.tuned)
    updates, optimizer_state = transform.update(gradient, state.optimizer_state, state.tuned)
    tuned = optax.apply_updates(state.tuned, updates)
    metrics |= {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
    return TrainState(state.step + 1, tuned, optimizer_state), metrics


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What the loop needs: where everything lies, and the step under `jit`: (state, frozen, batch) -> (state, metrics)."""

    built: assembly.Assembly
    state: TrainState
    places: TrainState
    step: jax.stages.Wrapped


def trainer(experiment: Experiment, built: assembly.Assembly) -> Trainer:
    """The first state and the step, compiled with explicit shardings; the state is donated.

    Raises UserError for a batch whose rows the mesh cannot share out evenly, and where a quantized kernel would be trained.
    """
    if experiment.batch_size % built.mesh.shape["data"]:
        raise UserError(
            f"batch_size: wanted a multiple of the mesh's {built.mesh.shape['data']} data devices, got {experiment.batch_size}; "
            "set BATCH_SIZE or sharding.Mesh.data"
        )
    if held := [row for row in built.rows if row.trained and not jnp.issubdtype(row.dtype, jnp.floating)]:
        raise UserError(
            f"{held[0].name} is quantized ({held[0].dtype}) and cannot be trained ({len(held)} such): set BASE_QUANTIZATION = 'none', "
            "or choose a method that leaves the kernels frozen"
        )
    transform = optimizer(experiment, nnx.merge(built.graphdef, built.tuned, built.frozen))
    everywhere = sharding.everywhere(built.mesh)
    tuned_places = trainable.nested({name: built.places[name] for name in trainable.named(built.tuned)})
    # Optimizer state is made where it will lie, from shapes alone: nothing is copied or moved.
    abstract = jax.eval_shape(transform.init, built.tuned)
    optimizer_places = optimizers.like_params(abstract, built.tuned, built.places, otherwise=everywhere)
    optimizer_state = jax.jit(transform.init, out_shardings=optimizer_places)(built.tuned)
    state = TrainState(jax.device_put(jnp.zeros((), jnp.int32), everywhere), built.tuned, optimizer_state)
    places = TrainState(everywhere, tuned_places, optimizer_places)
    frozen_places = trainable.nested({name: built.places[name] for name in trainable.named(built.frozen)})
    step = functools.partial(
        train_step,
        graphdef=built.graphdef,
        transform=transform,
        seed=experiment.seed,
        dropout_rate=experiment.dropout_rate,
        z_loss=experiment.z_loss,
        label_smoothing=experiment.label_smoothing,
        choice_losses=experiment.choice_losses,
    )
    rows = sharding.of_rows(built.mesh)
    compiled = jax.jit(step, in_shardings=(places, frozen_places, rows), out_shardings=(places, everywhere), donate_argnums=0)
    return Trainer(built, state, places, compiled)


def abstract_batch(experiment: Experiment, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of the experiment's training batches, known before there is data."""
    example = {"inputs": [features.EOS_ID], "targets": [features.EOS_ID], "task": 0}
    shape: Any = {
        "input_length": experiment.input_length,
        "target_length": experiment.target_length,
        "prompt": experiment.layout,
    }
    if experiment.choice_losses is None:
        one = features.layout_rows([[example]], packed=experiment.packed, **shape)
    else:
        one = choices.layout([example], num_choices=experiment.choice_losses.num_choices, **shape)
    rows = sharding.of_rows(mesh)
    return {
        name: jax.ShapeDtypeStruct((experiment.batch_size, *value.shape[1:]), value.dtype, sharding=rows) for name, value in one.items()
    }


def on_devices(batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh) -> Batch:
    """A batch of this process's rows as arrays over the mesh's `data` axis."""
    rows = sharding.of_rows(mesh)
    return {name: jax.make_array_from_process_local_data(rows, value) for name, value in batch.items()}


def batches(experiment: Experiment, *, start_step: int) -> mixtures.Prefetched:
    """The experiment's training batches from a step on, made in the background."""
    return mixtures.training_batches(
        experiment.data,
        vocabulary=experiment.vocabulary.load,
        input_length=experiment.input_length,
        target_length=experiment.target_length,
        batch_size=experiment.batch_size,
        prompt=experiment.layout,
        seed=experiment.seed,
        start_step=start_step,
        packed=experiment.packed,
        num_choices=0 if experiment.choice_losses is None else experiment.choice_losses.num_choices,
        shard=(jax.process_index(), jax.process_count()),
    )


def evaluator(experiment: Experiment, graphdef: Any, frozen: dict[str, Any]) -> Callable[[dict[str, Any]], evaluation.Report]:
    """A function from what is tuned to its report on the evaluation split; the examples are read once, on the first call."""
    vocabulary = experiment.vocabulary.load()
    lengths = evaluation.Lengths(experiment.input_length, experiment.target_length, experiment.layout)

    @functools.cache
    def tasks() -> list[evaluation.TaskExamples]:
        source = experiment.evaluation_data or experiment.data
        return evaluation.task_examples(source, vocabulary, settings=experiment.evaluation, lengths=lengths, trained_on=experiment.data)

    def evaluate(tuned: dict[str, Any]) -> evaluation.Report:
        return evaluation.evaluate(
            (graphdef, tuned, frozen), tasks(), settings=experiment.evaluation, lengths=lengths, vocabulary=vocabulary
        )

    return evaluate


def train(experiment: Experiment, workdir: str, *, gin_config: str = "", label: str = "train") -> dict[str, Any]:
    """Trains, or goes on where an earlier run of the same experiment in this folder stopped; gives what `results.json` holds.

    Raises:
      UserError: for what the user gave wrong, and for a loss that is not finite.
      Interrupted: after SIGTERM, once the state is saved.
    """
    if isinstance(experiment.model, WhisperConfig):
        raise UserError(
            "train: a Whisper hears, and the tasks here are texts; train it from Python (docs/whisper.md), or set another model"
        )
    folder = RunFolder(workdir)
    folder.claim(resolved(experiment), gin_config)
    if folder.results is not None:
        return folder.results
    with contextlib.ExitStack() as stack:
        stack.enter_context(folder.locked())
        asked_to_stop = stack.enter_context(_sigterm())
        # TensorFlow is imported and the first batches are made in the background, while the model is read and the step compiles here.
        start_step = checkpoints.latest_step(folder.path / "checkpoints") or 0
        data = stack.enter_context(batches(experiment, start_step=start_step))
        built = assembly.assemble(experiment)
        print(trainable.table(built.rows), flush=True)
        ready = trainer(experiment, built)
        take_step = ready.step.lower(ready.state, built.frozen, abstract_batch(experiment, built.mesh)).compile()
        assembly.check_vocabulary(experiment)
        evaluate = evaluator(experiment, built.graphdef, built.frozen)
        saved = stack.enter_context(
            checkpoints.Checkpoints(folder.path / "checkpoints", base=built.base, keep_latest=experiment.keep_checkpoints)
        )
        state, best, seconds = _resume(ready, saved, folder, experiment)
        step = int(state.step)
        assert step == start_step, (step, start_step)
        journal = stack.enter_context(Journal(folder, experiment, start_step=step, label=label))
        stopped = best.evals_since >= experiment.early_stopping_evals > 0
        unread: list[tuple[int, dict[str, Array]]] = []
        report = None
        started = time.monotonic()

        while step < experiment.train_steps and not stopped:
            state, metrics = take_step(state, built.frozen, on_devices(next(data), built.mesh))
            step += 1
            unread.append((step, metrics))
            last = step == experiment.train_steps
            evaluating = last or _due(step, experiment.eval_steps)
            # Asked once a step: a signal that comes during the evaluation waits for the next step, which then saves.
            stopping = asked_to_stop()
            saving = last or _due(step, experiment.checkpoint_steps) or stopping
            # Metrics are read one step late, so that the devices are not waited for; all are read before anything is kept.
            while len(unread) > (0 if evaluating or saving else 1):
                journal.trained(*unread.pop(0))
            score = None
            if evaluating:
                report = evaluate(state.tuned)
                score, best = report.score, best.after(step, report.score)
                stopped = best.evals_since >= experiment.early_stopping_evals > 0
                journal.evaluated(step, report, best)
                saving = saving or stopped or best.step == step
            if saving:
                spent = seconds + time.monotonic() - started
                extra = {"best": dataclasses.asdict(best), "seconds": spent, "data_step": step}
                saved.save(step, state.tuned, state.optimizer_state, extra=extra, metric=score)
            if stopping and not (last or stopped):
                saved.wait()
                raise Interrupted(f"saved at step {step} of {experiment.train_steps} in {folder.path}; the same command resumes")

        seconds += time.monotonic() - started
        saved.wait()
        if report is None:  # An earlier process ended between its last step and `results.json`.
            report = evaluate(state.tuned)
        if best.step != step:
            state = state._replace(tuned=_restored(saved.restore_best(shapes(ready)[0])).trainable)
        return _finish(experiment, folder, built, state.tuned, evaluate, final=report, best=best, steps=step, seconds=seconds)


def shapes(ready: Trainer) -> tuple[Any, Any]:
    """What is tuned and the optimizer state as shapes with shardings: what a checkpoint is read into."""

    def abstract(leaf: Array, place: jax.sharding.NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    tuned = jax.tree.map(abstract, ready.state.tuned, ready.places.tuned)
    return tuned, jax.tree.map(abstract, ready.state.optimizer_state, ready.places.optimizer_state)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _resume(ready: Trainer, saved: checkpoints.Checkpoints, folder: RunFolder, experiment: Experiment) -> tuple[TrainState, Best, float]:
    restored = saved.restore_latest(*shapes(ready))
    if restored is None:
        folder.forget_metrics_after(-1)
        return ready.state, Best(), 0.0
    folder.forget_metrics_after(restored.step)
    print(f"resuming at step {restored.step} of {experiment.train_steps}", flush=True)
    step = jax.device_put(jnp.int32(restored.step), ready.places.step)
    return TrainState(step, restored.trainable, restored.optimizer_state), Best(**restored.extra["best"]), restored.extra["seconds"]


def _restored(found: checkpoints.Restored | None) -> checkpoints.Restored:
    assert found is not None, "a run that took a step has a checkpoint"
    return found


def _finish(
    experiment: Experiment,
    folder: RunFolder,
    built: assembly.Assembly,
    best_tuned: dict[str, Any],
    evaluate: Callable[[dict[str, Any]], evaluation.Report],
    *,
    final: evaluation.Report,
    best: Best,
    steps: int,
    seconds: float,
) -> dict[str, Any]:
    """Writes what comes out of a run; `results.json` last, so that a folder that has it is whole."""
    report = final if best.step == steps else evaluate(best_tuned)
    folder.write_rows("predictions.jsonl", report.predictions)
    flat = trainable.named(best_tuned)
    prompt = nnx.merge(built.graphdef, best_tuned, built.frozen).embed.prompt
    if prompt is not None:  # The rows, whatever makes them: what a network made needs the network no more.
        checkpoints.save_prompt_npy(folder.path / "prompt.npy", prompt())
    if experiment.save_base:
        interop.save_base(folder.path / "base", trainable.named(built.frozen) | flat, config=experiment.model, dtype="bfloat16")
    trained, frozen = trainable.totals(built.rows)
    results = {
        "split": experiment.evaluation.split,
        "final": {"step": steps, "score": final.score, "metrics": final.metrics},
        "best": {"step": best.step, "score": report.score, "metrics": report.metrics},
        "trained_parameters": trained,
        "frozen_parameters": frozen,
        "steps": steps,
        "seconds": round(seconds, 3),
        "stored_bytes": sum(row.num_bytes for row in built.rows if row.trained),
    }
    folder.write_json("results.json", results)
    return results


@contextlib.contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGTERM has come; outside the main thread it never does."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handler(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked.set()

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, previous)
