"""Compiles the programs of a run for a machine that is not there, and says what each needs of every chip.

Three programs: a training step, reading the inputs of an evaluation batch into the cache ("prefill", with the first token), and writing one
more token. They are compiled as they are run, ahead of time: no weight and no datum is made.

The bound on the time of a program is the largest of three times that no program goes below on the machine: of its matrix products at the
published rate, shared out evenly over all chips; of reading what it is given, writing what is new, and both for what it sets aside; of what
a chip must send to others. Overlap is taken to be perfect, so that measured times are above it.
"""

import concurrent.futures
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning import assembly, caches, decoding, evaluation_batches, programs, sharding
from prompt_tuning.data import features
from prompt_tuning.errors import UserError
from prompt_tuning.experiment import Experiment
from prompt_tuning.models import backends
from prompt_tuning.models.whisper import WhisperConfig
from prompt_tuning.planning.chips import Topology
from prompt_tuning.planning.collectives import Collective, collectives
from prompt_tuning.planning.counting import operations

# What libtpu says: of everything, or of what is neither given to the program nor comes out of it.
_OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMGT])i?B? of")
_TEMPORARIES = re.compile(r"HLO temporaries \(([\d.]+)([KMGT])i?B?\)")
_LOWERED = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Planned:
    """What one program needs.

    Attributes:
      parts: bytes on each chip, by what they are. `temporaries` (activations are among them) is None where memory ran out before they
        were known.
      bytes_per_device: all that is known of; where the compiler ran out of memory, what it says it would have taken.
      fits: whether that is at most the chip's memory, and the compiler agrees.
      flops: of all chips together.
      collectives: by kind; None where memory ran out.
      bounds: seconds of `compute`, `memory` and `interconnect`; the last two None where memory ran out.
    """

    parts: dict[str, int | None]
    bytes_per_device: int
    fits: bool
    flops: int
    collectives: dict[str, Collective] | None
    bounds: dict[str, float | None]

    @property
    def seconds_bound(self) -> float:
        """The least time that the program can take."""
        return max(seconds for seconds in self.bounds.values() if seconds is not None)


@dataclasses.dataclass(frozen=True)
class _Traced:
    """A program in JAX's own terms, and what stands on a chip when it runs."""

    stage: jax.stages.Traced
    held: dict[str, int]


def plan(experiment: Experiment, machine: Topology, devices: Sequence[Any], *, names: Sequence[str]) -> dict[str, Planned]:
    """What the named programs need: "train", "prefill" and "token".

    Args:
      experiment: its base checkpoint is not read.
      machine: what it is planned for.
      devices: those of the machine: `chips.described`, or as many others in their stead.

    Raises UserError where the mesh does not take all chips, or the experiment cannot be laid over it.
    """
    if isinstance(experiment.model, WhisperConfig):
        raise UserError("plan: a Whisper hears, and what is planned reads texts; set another model")
    mesh = experiment.mesh.build(devices)
    if mesh.size != machine.size:
        raise UserError(
            f"mesh data={experiment.mesh.data}, model={experiment.mesh.model}: takes {mesh.size} of the {machine.size} chips of "
            f"{machine.name}; set sharding.Mesh.data and .model to numbers whose product is {machine.size}"
        )
    # One at a time, in one thread: what a program is traced for is the thread's own.
    with backends.traced_for(machine.chip.kind):
        built = assembly.abstract(experiment, mesh)
        program = programs.program(experiment, built)
        held = {
            "frozen weights": bytes_on_each(program.frozen),
            "tuned weights": bytes_on_each(program.state.tuned),
            "optimizer": bytes_on_each((program.state.step, program.state.optimizer_state)),
        }
        traced = {}
        if "train" in names:
            batch = programs.abstract_batch(experiment, mesh)
            stage = program.step.trace(program.state, program.frozen, batch)
            traced["train"] = _Traced(stage, held | {"batch": bytes_on_each(batch)})
        if {"prefill", "token"} & set(names):
            # While a run evaluates, the optimizer's state stays where it is.
            traced |= _decoding(experiment, built, program, held)
        # What is more than a chip's memory before it runs need not be compiled.
        small = [name for name in names if sum(traced[name].held.values()) <= machine.chip.memory_bytes]
        lowered = [traced[name].stage.lower(lowering_platforms=(_LOWERED[devices[0].platform],)) for name in small]
    with concurrent.futures.ThreadPoolExecutor() as threads:  # The compiler holds no lock of Python's.
        compiled = dict(zip(small, threads.map(_compiled, lowered, [devices[0].platform] * len(lowered)), strict=True))
    return {name: _planned(traced[name], compiled.get(name, ""), machine) for name in names}


def bytes_on_each(shapes: Any) -> int:
    """Bytes that shapes with shardings take on each device."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _decoding(experiment: Experiment, built: assembly.Assembly, program: programs.Program, held: Mapping[str, int]) -> dict[str, _Traced]:
    """Reading the inputs of an evaluation batch, and writing one token."""
    settings, layout = experiment.evaluation.decoding, experiment.layout
    lengths = evaluation_batches.Lengths(experiment.input_length, experiment.target_length, layout)
    row = [{"inputs": [features.EOS_ID] * experiment.input_length}]
    laid = evaluation_batches.encoder_batch(row, experiment.input_length, lengths)
    laid |= evaluation_batches.decoder_start(row, experiment.input_length, lengths, settings)
    rows = experiment.evaluation.batch_size
    over_devices = sharding.of_rows(built.mesh) if rows % built.mesh.shape["data"] == 0 else sharding.everywhere(built.mesh)
    batch = {name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=over_devices) for name, x in laid.items()}

    def prefill(tuned: Any, frozen: Any, batch: Any) -> tuple[Any, caches.Cache]:
        _, logits_BV, cache = decoding.begin(
            nnx.merge(built.graphdef, tuned, frozen),
            batch,
            max_tokens=experiment.evaluation.max_tokens or experiment.target_length,
            settings=settings,
            shared=evaluation_batches.shared_columns(laid, lengths),
        )
        beams_R = jnp.repeat(jnp.arange(rows), settings.num_beams)
        return jnp.argmax(logits_BV, axis=-1)[beams_R], caches.take_rows(cache, beams_R) if settings.num_beams > 1 else cache

    def token(tuned: Any, frozen: Any, tokens_R: Any, cache: caches.Cache) -> tuple[Any, caches.Cache]:
        model = decoding.settled(nnx.merge(built.graphdef, tuned, frozen))
        logits_R1V, cache = model.decode_step(tokens_R[:, None], cache)
        return jnp.argmax(logits_R1V[:, 0], axis=-1), cache

    weights = program.state.tuned, program.frozen
    tokens, cache = jax.eval_shape(prefill, *weights, batch)
    tokens = jax.ShapeDtypeStruct(tokens.shape, tokens.dtype, sharding=over_devices)
    cache = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.of_cache(name, x.shape, built.mesh)) for name, x in cache.items()
    }
    places = jax.tree.map(lambda leaf: leaf.sharding, (*weights, batch, tokens, cache))
    read = jax.jit(prefill, in_shardings=places[:3], out_shardings=places[3:])
    write = jax.jit(token, in_shardings=(*places[:2], *places[3:]), out_shardings=places[3:], donate_argnums=3)
    stands = dict(held) | {"batch": bytes_on_each(batch), "cache": bytes_on_each(cache)}
    return {
        "prefill": _Traced(read.trace(*weights, batch), stands),
        "token": _Traced(write.trace(*weights, tokens, cache), stands),
    }


def _compiled(lowered: jax.stages.Lowered, platform: str) -> jax.stages.Compiled | str:
    """The compiled program, or where memory ran out what the compiler said."""
    # Without a GPU to try kernels on, XLA takes tiles for its own that small products cannot have.
    options: dict[str, str | bool] | None = {"xla_gpu_enable_triton_gemm": False} if platform == "gpu" else None
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return str(error)


def _planned(traced: _Traced, compiled: jax.stages.Compiled | str, machine: Topology) -> Planned:
    chip = machine.chip
    flops = operations(traced.stage.jaxpr.jaxpr)
    compute = flops / machine.size / chip.flops
    held = sum(traced.held.values())
    if isinstance(compiled, str):
        bounds: dict[str, float | None] = {"compute": compute, "memory": None, "interconnect": None}
        temporaries = _said(_TEMPORARIES, compiled)
        total = held + temporaries if temporaries else max(_said(_OUT_OF_MEMORY, compiled) or 0, held)
        return Planned({**traced.held, "temporaries": temporaries}, total, False, flops, None, bounds)
    memory = compiled.memory_analysis()
    assert memory is not None
    parts: dict[str, int | None] = traced.held | {
        "temporaries": memory.temp_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    total = sum(size for size in parts.values() if size is not None)
    # What comes out in the place of what went in, as a cache with one position more, need not be written whole.
    given = memory.output_size_in_bytes - memory.alias_size_in_bytes
    moved = memory.argument_size_in_bytes + given + 2 * memory.temp_size_in_bytes
    found = collectives(compiled.as_text() or "", devices=machine.size)
    bounds = {
        "compute": compute,
        "memory": moved / chip.memory_bandwidth,
        "interconnect": sum(each.sent_bytes for each in found.values()) / chip.link_bandwidth,
    }
    return Planned(parts, total, total <= chip.memory_bytes, flops, found, bounds)


def _said(pattern: re.Pattern[str], message: str) -> int | None:
    found = pattern.search(message)
    return int(float(found[1]) * _UNITS[found[2]]) if found else None
