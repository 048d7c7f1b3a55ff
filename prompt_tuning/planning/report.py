"""A plan as text and as plain values."""

from collections.abc import Mapping
from typing import Any

from prompt_tuning import text_tables
from prompt_tuning.experiment import Experiment
from prompt_tuning.planning.chips import Topology
from prompt_tuning.planning.compiling import Planned

_GIB = 2**30


def table(planned: Mapping[str, Planned], experiment: Experiment, machine: Topology, where: str) -> str:
    """The plan as people read it: a column a program, bytes in GiB on each chip, times in milliseconds."""
    names = [name for one in planned.values() for name in one.parts]
    rows = [["", *planned]]
    for part in dict.fromkeys(names):
        rows.append([part, *(_gib(one.parts[part]) if part in one.parts else "" for one in planned.values())])
    rows.append(["all", *(_gib(one.bytes_per_device) for one in planned.values())])
    rows.append([f"fits {_gib(machine.chip.memory_bytes)}", *("yes" if one.fits else "NO" for one in planned.values())])
    rows.append(["TFLOP, all chips", *(f"{one.flops / 1e12:,.3f}" for one in planned.values())])
    for kind in dict.fromkeys(kind for one in planned.values() for kind in one.collectives or ()):
        found = [(one.collectives or {}).get(kind) for one in planned.values()]
        rows.append([kind, *(f"{each.count} of {_gib(each.num_bytes)}" if each else "" for each in found)])
    for part in ("compute", "memory", "interconnect"):
        rows.append([f"{part}, ms", *(_ms(one.bounds[part]) for one in planned.values())])
    rows.append(["at least, ms", *(_ms(one.seconds_bound) for one in planned.values())])
    head = (
        f"{machine.name}: {machine.size} chips as {_mesh(experiment, machine)}, compiled for {where}; "
        f"a step of {experiment.batch_size} rows, evaluation of {experiment.evaluation.batch_size}; GiB on each chip"
    )
    return f"{head}\n{text_tables.aligned(rows, 'lr')}"


def as_json(planned: Mapping[str, Planned], experiment: Experiment, machine: Topology, where: str) -> dict[str, Any]:
    """The plan as plain values; those of the first program, a training step unless others were asked for, stand on top too."""
    programs = {name: _program(one) for name, one in planned.items()}
    first = next(iter(programs.values()))
    return {
        "topology": machine.name,
        "devices": machine.size,
        "compiled_for": where,
        "mesh": {"data": machine.size // experiment.mesh.model, "model": experiment.mesh.model, "fsdp": experiment.mesh.fsdp},
        "batch_size": experiment.batch_size,
        "memory_bytes": machine.chip.memory_bytes,
        "fits": all(one.fits for one in planned.values()),
        "bytes_per_device": max(one.bytes_per_device for one in planned.values()),
        "flops": first["flops"],
        "collectives": first["collectives"],
        "step_seconds_bound": first["seconds_bound"],
        "programs": programs,
    }


def _program(one: Planned) -> dict[str, Any]:
    found = None
    if one.collectives is not None:
        found = {kind: {"count": c.count, "bytes": c.num_bytes, "sent_bytes": c.sent_bytes} for kind, c in one.collectives.items()}
    return {
        "fits": one.fits,
        "bytes_per_device": one.bytes_per_device,
        "parts": {name.replace(" ", "_"): size for name, size in one.parts.items()},
        "flops": one.flops,
        "collectives": found,
        "seconds_bound": one.seconds_bound,
        "bounds": one.bounds,
    }


def _mesh(experiment: Experiment, machine: Topology) -> str:
    mesh = experiment.mesh
    return f"data={machine.size // mesh.model} model={mesh.model}{' fsdp' if mesh.fsdp else ''}"


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / _GIB:.3f}"


def _ms(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds * 1e3:,.3f}"
