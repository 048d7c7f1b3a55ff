"""Checkpoints of a run: what is trained, its optimizer state, and where the run stands; never the frozen weights.

A run's folder of checkpoints holds a folder a step, written by Orbax in the background and made visible in one rename, so that a process
killed in the middle of a save leaves the step before it as the latest. The last few steps are kept, and the best one on the dev metric.
Each names the frozen base it belongs to by a fingerprint, and is refused with another.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from prompt_tuning import sharding
from prompt_tuning.errors import UserError
from prompt_tuning.files import atomic_write

PyTree = Any

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Base:
    """The frozen weights a run was made on.

    Attributes:
      source: where they came from, for messages: a path, or a word such as "random initialisation".
      fingerprint: of their values (`fingerprint`); the empty string where nothing is frozen.
    """

    source: str
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint held. `optimizer_state` is None where it was not asked for."""

    step: int
    trainable: PyTree
    optimizer_state: PyTree
    extra: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. Close it, or use it as a context, so that the last save ends."""

    def __init__(
        self, directory: str | os.PathLike[str], *, base: Base, keep_latest: int = 2, higher_is_better: bool = True, writable: bool = True
    ):
        """Opens the folder, and makes it if it is not there and may be written.

        Args:
          directory: the folder of the checkpoints alone.
          base: the frozen weights of this process: written into each checkpoint, compared on each restore.
          keep_latest: how many of the latest steps to keep; the best one is kept besides.
          higher_is_better: whether the dev metric is.
          writable: False to only read, as evaluation does while training may be writing.

        Raises:
          UserError: nothing there to read.
        """
        self._directory = pathlib.Path(directory).absolute()
        if not writable and not self._directory.is_dir():
            raise UserError(f"no checkpoints: wanted a folder written by training, {self._directory} is not there")
        self._base = base
        policies = ocp.training.preservation_policies

        def rank(metrics: Mapping[str, float]) -> tuple[float, int]:
            value = metrics["dev"] if higher_is_better else -metrics["dev"]
            # Among equals the earliest step: more training that brought nothing is not better.
            return (-math.inf if math.isnan(value) else value), -int(metrics["step"])

        self._rank = rank
        self._checkpointer = ocp.training.Checkpointer(
            self._directory,
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(keep_latest),
                    policies.BestN(get_metric_fn=rank, n=1, keep_checkpoints_without_metrics=False),  # type: ignore[arg-type]
                ]
            ),
            # What a killed process left half written. A reader must not touch what another process is writing.
            cleanup_tmp_directories=writable,
        )

    def save(self, step: int, trainable: PyTree, optimizer_state: PyTree, *, extra: Mapping[str, Any], metric: float | None = None) -> None:
        """Starts saving in the background; waits first for a save that is still under way.

        The arrays are copied before the call returns, so that they may be donated or changed after. A step that is there already is
        deleted and written anew: while that lasts, the step before it is the latest.

        Args:
          step: steps taken so far.
          trainable: pytree of arrays: everything that is trained.
          optimizer_state: pytree of arrays.
          extra: what else resuming needs, as JSON values: data position, best metric, experiment hash.
          metric: the dev metric at this step, if it was measured: makes the step a candidate for the best.
        """
        self.wait()
        about = {"format": _FORMAT, "base_source": self._base.source, "base_fingerprint": self._base.fingerprint, "extra": dict(extra)}
        trees = {"trainable": trainable, "optimizer_state": optimizer_state}
        self._checkpointer.save_checkpointables_async(
            step,
            # Orbax refuses trees without arrays, which the state of a plain optimizer is.
            {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)},
            force=True,
            overwrite=step in self.steps,
            metrics=None if metric is None else {"dev": float(metric), "step": step},
            custom_metadata=about,
        )

    @property
    def steps(self) -> list[int]:
        """The steps that are there, ascending."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    @property
    def latest_step(self) -> int | None:
        """The last step that was saved whole."""
        return max(self.steps, default=None)

    @property
    def best_step(self) -> int | None:
        """The step with the best dev metric, the earliest among equals; None if none was saved with a metric."""
        ranked = [(self._rank(c.metrics), c.step) for c in self._checkpointer.checkpoints if c.metrics]  # type: ignore[arg-type]
        return max(ranked)[1] if ranked else None

    def extra(self, step: int) -> dict[str, Any]:
        """What `save` was given as `extra` at this step; the base is not compared."""
        return dict(self._about(step)["extra"])

    def restore(self, step: int, trainable: PyTree, optimizer_state: PyTree = None) -> Restored:
        """Reads a step, bit for bit as it was saved.

        Args:
          step: one of `steps`.
          trainable: pytree of arrays or `jax.ShapeDtypeStruct` that says what to read: names, shapes, dtypes, shardings (one device where
            there is none).
          optimizer_state: the same; None to leave it unread.

        Raises:
          UserError: the checkpoint belongs to another base, holds other parameters, or cannot be read.
        """
        about = self._about(step)
        if about["base_fingerprint"] != self._base.fingerprint:
            raise UserError(
                f"the base checkpoint differs: step {step} of {self._directory} was trained on {about['base_source']} "
                f"(fingerprint {about['base_fingerprint'][:12] or 'none'}), got {self._base.source} "
                f"(fingerprint {self._base.fingerprint[:12] or 'none'}): give that BASE_CHECKPOINT, or another --workdir"
            )
        wanted = {"trainable": trainable}
        if optimizer_state is not None:
            wanted["optimizer_state"] = optimizer_state
        wanted = jax.tree.map(_abstract, wanted)
        with self._readable(step):
            metadata = self._checkpointer.checkpointables_metadata(step).metadata
            held = {name: _shapes(metadata, name) for name in wanted}
        for name, tree in wanted.items():
            self._check_fits(step, name, tree, held[name])
        with self._readable(step):
            read = self._checkpointer.load_checkpointables(step, {name: tree for name, tree in wanted.items() if held[name]})
        # A tree without arrays is its own value.
        values = wanted | read
        return Restored(step, values["trainable"], values.get("optimizer_state"), dict(about["extra"]))

    def restore_latest(self, trainable: PyTree, optimizer_state: PyTree = None) -> Restored | None:
        """`restore` of the latest step; None if there is none."""
        return None if self.latest_step is None else self.restore(self.latest_step, trainable, optimizer_state)

    def restore_best(self, trainable: PyTree) -> Restored | None:
        """`restore` of the best step, without optimizer state; of the latest where no step has a metric; None if there is none."""
        step = self.best_step if self.best_step is not None else self.latest_step
        return None if step is None else self.restore(step, trainable)

    def wait(self) -> None:
        """Waits until the save under way, if any, is on the disk. Raises what went wrong with it."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Waits, and lets go of the folder."""
        self._checkpointer.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _about(self, step: int) -> dict[str, Any]:
        with self._readable(step):
            about = self._checkpointer.metadata(step).custom_metadata
            if not isinstance(about, dict) or "extra" not in about:
                raise ValueError("its metadata is damaged or was not written by prompt_tuning")
            return about

    def _check_fits(self, step: int, name: str, wanted: PyTree, held: Mapping[str, Any]) -> None:
        named = _named(wanted)
        where = f"{name} of step {step} in {self._directory}"
        advice = "the run was made with other settings: give those, or another --workdir"
        for parameter, leaf in named.items():
            if parameter not in held:
                raise UserError(f"the checkpoint does not fit: wanted {parameter} in {where}, it is not there; {advice}")
            there = held[parameter]
            if tuple(there.shape) != tuple(leaf.shape) or np.dtype(there.dtype) != np.dtype(leaf.dtype):
                raise UserError(
                    f"the checkpoint does not fit: {parameter} in {where}: wanted {_spell(leaf)}, got {_spell(there)}; {advice}"
                )
        if unused := sorted(set(held) - set(named)):
            raise UserError(f"the checkpoint does not fit: {unused[0]} in {where} belongs to nothing here ({len(unused)} such); {advice}")

    @contextlib.contextmanager
    def _readable(self, step: int) -> Iterator[None]:
        """Turns whatever a damaged checkpoint makes Orbax raise into one line, and keeps its log lines out of it."""
        logger = logging.getLogger("absl")
        level = logger.level
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        except Exception as error:
            raise UserError(
                f"cannot read the checkpoint {self._directory / str(step)}: truncated, corrupt or foreign ({_reason(error)}); "
                "delete that folder to go on from the step before it"
            ) from error
        finally:
            logger.setLevel(level)


def latest_step(directory: str | os.PathLike[str]) -> int | None:
    """The last step saved whole in a run's folder of checkpoints, read from its names alone; None where there is none."""
    folder = pathlib.Path(directory)
    # What is half written has a suffix.
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=None) if folder.is_dir() else None


def read_trained(directory: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """What was trained at the best step (the latest where none has a metric), by name, whatever base it belongs to.

    For what begins from another run. Raises UserError where there is nothing, or nothing readable.
    """
    with Checkpoints(directory, base=Base("", ""), writable=False) as saved:
        step = saved.latest_step if saved.best_step is None else saved.best_step
        if step is None:
            raise UserError(f"{directory} holds no checkpoint; wanted the folder of a run that has saved one")
        with saved._readable(step):
            held = saved._checkpointer.checkpointables_metadata(step).metadata["trainable"]
            shapes = jax.tree.map(_abstract, held, is_leaf=lambda x: hasattr(x, "shape"))
            read = saved._checkpointer.load_checkpointables(step, {"trainable": shapes})["trainable"]
    return {name: np.asarray(value) for name, value in _named(read).items()}


def read_run(workdir: str, method: type, *, where: str) -> dict[str, np.ndarray]:
    """`read_trained` of a run's folder. Raises UserError, naming the setting `where` it was named, where it holds no run of `method`."""
    described = pathlib.Path(workdir) / "experiment.json"
    if not described.is_file():
        raise UserError(f"{where} {workdir!r}: holds no run (no experiment.json); wanted the work folder of a run of {method.__name__}")
    kind = json.loads(described.read_text(encoding="utf-8"))["experiment"]["method"]["class"].rpartition(".")[2]
    if kind != method.__name__:
        raise UserError(f"{where} {workdir!r}: wanted a run of {method.__name__}, got one of {kind}")
    return read_trained(pathlib.Path(workdir) / "checkpoints")


def fingerprint(params: PyTree) -> str:
    """A SHA-256 in hexadecimal over names, shapes, dtypes and values of all arrays, whatever order they come in.

    The same for NumPy and JAX arrays, however they are laid out; of several processes all must ask together. The empty string for a tree
    without arrays.
    """
    named = _named(params)
    if not named:
        return ""

    def digest(name: str) -> str:
        array = np.ascontiguousarray(sharding.on_host(named[name]))
        values = hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()
        return f"{name} {array.shape} {array.dtype.name} {values}\n"

    # Hashing lets other threads run: a large model is read at the speed of all cores. What several processes gather, they gather in order.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() if jax.process_count() == 1 else 1) as pool:
        lines = pool.map(digest, sorted(named))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def save_prompt_npy(path: str | os.PathLike[str], prompt_PD: jax.typing.ArrayLike) -> None:
    """Writes a prompt [P, D] as a float32 .npy file, as the released prompts are, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(prompt_PD, dtype=np.float32), allow_pickle=False)
    atomic_write(path, buffer.getvalue())


def _shapes(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Shapes and dtypes by name of what a checkpoint holds; nothing where there was nothing to save."""
    if name not in metadata:
        return {}
    if metadata[name] is None:
        raise ValueError(f"the files of {name} are damaged")
    return _named(metadata[name], is_leaf=lambda x: hasattr(x, "shape"))


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _named(tree: PyTree, **how: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree, **how)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _spell(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause, short."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
