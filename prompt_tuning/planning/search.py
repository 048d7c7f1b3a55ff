"""Looks for the mesh, batch size and rematerialisation with which a training step fits a machine and can be fastest.

For each shape of the mesh and batch size, what costs the least time comes first and the next is tried only where it does not fit: keeping
the products of a layer, keeping its input alone; weights whole over `data`, and shared out over all chips (`Mesh.fsdp`).
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prompt_tuning import assembly, programs, text_tables
from prompt_tuning.errors import UserError
from prompt_tuning.experiment import Experiment
from prompt_tuning.models import backends
from prompt_tuning.models.layers import Remat
from prompt_tuning.planning.chips import Topology
from prompt_tuning.planning.compiling import Planned, bytes_on_each, plan
from prompt_tuning.sharding import Mesh

_REMATS: tuple[Remat, ...] = ("products", "full")


@dataclasses.dataclass(frozen=True)
class Tried:
    """One setting, and its training step; None where the arrays of the run alone are more than a chip's memory."""

    mesh: Mesh
    batch_size: int
    remat: Remat
    bytes_per_device: int
    step: Planned | None

    @property
    def fits(self) -> bool:
        """Whether the step fits."""
        return self.step is not None and self.step.fits

    @property
    def seconds_per_row(self) -> float | None:
        """The least seconds a step over its rows; None where it does not fit."""
        return self.step.seconds_bound / self.batch_size if self.step is not None and self.step.fits else None


def batch_sizes(asked: str | None, experiment: Experiment) -> tuple[int, ...]:
    """The batch sizes of `--batch_sizes`, from small to large, or the experiment's, twice and four times that."""
    if asked is None:
        return tuple(experiment.batch_size * more for more in (1, 2, 4))
    if not all(text.strip().isdecimal() and int(text) > 0 for text in asked.split(",")):
        raise UserError(f"--batch_sizes: wanted numbers such as 32,64, got {asked!r}")
    return tuple(sorted({int(text) for text in asked.split(",")}))


def meshes(size: int) -> Iterator[Mesh]:
    """Every way to share `size` chips out between `data` and `model`."""
    for model in range(1, size + 1):
        if size % model == 0:
            yield Mesh(data=size // model, model=model)


def search(
    experiment: Experiment, machine: Topology, devices: Sequence[Any], *, batch_sizes: Sequence[int], said: Callable[[str], None]
) -> list[Tried]:
    """What was tried, those that fit first, by the least time a row; `said` hears of each."""
    tried = []
    for mesh in meshes(machine.size):
        for rows in sorted(batch_sizes):
            if rows % mesh.data:
                continue
            ladder = list(_ladder(experiment, machine, devices, mesh, rows, said=said))
            tried += ladder
            if not ladder[-1].fits:  # Nor do more rows.
                break
    if not tried:
        raise UserError(
            f"--search: no batch size of {list(batch_sizes)} can be shared out over {machine.size} chips in any mesh; give more"
        )
    return sorted(tried, key=lambda each: (each.seconds_per_row is None, each.seconds_per_row or 0.0))


def _ladder(
    experiment: Experiment, machine: Topology, devices: Sequence[Any], mesh: Mesh, rows: int, *, said: Callable[[str], None]
) -> Iterator[Tried]:
    """From what is fastest to what is smallest, up to the first that fits."""
    for fsdp in (False, True) if mesh.data > 1 else (False,):
        for remat in _REMATS:
            own = dataclasses.replace(mesh, fsdp=fsdp)
            model = dataclasses.replace(experiment.model, remat=remat)
            setting = dataclasses.replace(experiment, mesh=own, model=model, batch_size=rows)
            held, step = _held(setting, machine, devices), None
            if held <= machine.chip.memory_bytes:
                step = plan(setting, machine, devices, names=("train",))["train"]
                held = step.bytes_per_device
            found = Tried(own, rows, remat, held, step)
            said("  ".join(_row(found)))
            yield found
            if found.fits:
                return
            if step is None:
                break  # Nor does it with less kept of a layer.


def _held(experiment: Experiment, machine: Topology, devices: Sequence[Any]) -> int:
    """Bytes on each chip of what the run holds from step to step."""
    with backends.traced_for(machine.chip.kind):
        program = programs.program(experiment, assembly.abstract(experiment, experiment.mesh.build(devices)))
    return bytes_on_each((program.state, program.frozen))


def table(tried: Sequence[Tried]) -> str:
    """The ranking as people read it."""
    head = ["mesh", "batch", "kept of a layer", "GiB a chip", "fits", "ms a step, at least", "ms a row, at least"]
    return text_tables.aligned([head, *map(_row, tried)], "lrlrlrr")


def _row(one: Tried) -> list[str]:
    mesh = f"data={one.mesh.data} model={one.mesh.model}{' fsdp' if one.mesh.fsdp else ''}"
    times = ["", ""]
    if one.step is not None and one.seconds_per_row is not None:
        times = [f"{one.step.seconds_bound * 1e3:.3f}", f"{one.seconds_per_row * 1e3:.4f}"]
    return [mesh, str(one.batch_size), one.remat, f"{one.bytes_per_device / 2**30:.3f}", "yes" if one.fits else "no", *times]


def as_json(tried: Sequence[Tried], machine: Topology) -> dict[str, Any]:
    """The ranking as plain values, best first."""
    return {
        "topology": machine.name,
        "fits": any(one.fits for one in tried),
        "tried": [
            {
                "mesh": dataclasses.asdict(one.mesh),
                "batch_size": one.batch_size,
                "remat": one.remat,
                "fits": one.fits,
                "bytes_per_device": one.bytes_per_device,
                "step_seconds_bound": one.step.seconds_bound if one.step is not None else None,
                "seconds_bound_per_row": one.seconds_per_row,
            }
            for one in tried
        ],
    }
