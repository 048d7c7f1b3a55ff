"""One mesh, one table: how logical axes of parameters and batches lie on the devices."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from prompt_tuning import caches
from prompt_tuning.errors import UserError
from prompt_tuning.models.layers import Fixed, Tunable

# Logical axis -> mesh axis. An axis that is not here is on every device in full.
TABLE: dict[str, str] = {
    "batch": "data",
    "heads": "model",
    "mlp": "model",
    "vocab": "model",
}
# The same for matrices of the base where `Mesh.fsdp` shares them out over all devices.
FSDP_TABLE: dict[str, str] = TABLE | {"embed": "data"}


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The shape of the device mesh.

    Attributes:
      data: devices that share out the rows of a batch; -1 takes what is left.
      model: devices that share out the weights.
      fsdp: the base's matrices, and what the optimizer keeps of them, are shared out over the `data` devices too; each is gathered where
        it is used (Rajbhandari et al. 2020, arXiv:1910.02054, stage 3). What a method added stays whole.
    """

    data: int = -1
    model: int = 1
    fsdp: bool = False

    def build(self, at_hand: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
        """The mesh over all devices, or over those given, which need not be there. Raises UserError where they are too few."""
        at_hand = jax.devices() if at_hand is None else at_hand
        devices = len(at_hand)
        data = devices // self.model if self.data == -1 and self.model > 0 else self.data
        if data < 1 or self.model < 1 or data * self.model > devices:
            raise UserError(
                f"mesh data={self.data}, model={self.model}: does not fit the {devices} device(s) at hand; "
                "set sharding.Mesh.data and .model"
            )
        chosen = np.array(at_hand[: data * self.model]).reshape(data, self.model)
        return jax.sharding.Mesh(chosen, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def spec(
    axes: tuple[str, ...] | None, shape: tuple[int, ...], mesh: jax.sharding.Mesh, *, table: Mapping[str, str] = TABLE
) -> PartitionSpec:
    """Where an array with these logical axes lies.

    Stacked layers have axes in front that are not named; a width that does not divide stays whole.
    """
    if not axes:
        return PartitionSpec()
    names = (None,) * (len(shape) - len(axes)) + tuple(table.get(axis) for axis in axes)
    used: set[str] = set()
    out: list[str | None] = []
    for name, size in zip(names, shape, strict=True):
        fits = name is not None and name not in used and size % mesh.shape[name] == 0
        out.append(name if fits else None)
        used |= {name} if fits and name is not None else set()
    return PartitionSpec(*out)


def of_state(state: nnx.State, mesh: jax.sharding.Mesh, *, fsdp: bool = False) -> dict[str, NamedSharding]:
    """Where each variable of a state lies, by its name ("/"-joined path)."""

    def place(variable: nnx.Variable) -> NamedSharding:
        axes = variable.get_metadata().get("axes")
        over_all = fsdp and len(axes or ()) > 1 and not isinstance(variable, Tunable | Fixed)
        return NamedSharding(mesh, spec(axes, variable.get_value().shape, mesh, table=FSDP_TABLE if over_all else TABLE))

    return {"/".join(map(str, path)): place(variable) for path, variable in nnx.to_flat_state(state)}


def of_rows(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Arrays of a batch: rows over `data`."""
    return NamedSharding(mesh, PartitionSpec(TABLE["batch"]))


def of_cache(name: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> NamedSharding:
    """Where an array of a decoding cache lies: its rows over `data`, and the heads of keys and values over `model`, where they divide."""
    row = caches.row_axis(name)
    axes = [""] * len(shape)
    if row is not None:
        axes[row] = "batch"
        if len(shape) == 5:  # [N, B, H, L, K].
            axes[row + 1] = "heads"
    return NamedSharding(mesh, spec(tuple(axes), shape, mesh))


def everywhere(mesh: jax.sharding.Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put(value: jax.typing.ArrayLike, place: jax.sharding.Sharding) -> jax.Array:
    """An array laid where it belongs. Of several processes, which all have the whole of it, each lays down its own devices' part."""
    if place.is_fully_addressable or (isinstance(value, jax.Array) and not value.is_fully_addressable):
        return jax.device_put(value, place)
    whole = np.asarray(value)
    return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])


def on_host(array: jax.typing.ArrayLike) -> np.ndarray:
    """The whole of an array, wherever its parts lie; of several processes all must ask together."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def rows_over_devices(batch: dict[str, np.ndarray], beside: Any) -> dict[str, Any]:
    """A batch whose rows are shared out over the mesh that the arrays `beside` lie on.

    As it is where the rows do not divide, or one device takes all.
    """
    place = getattr(next(iter(jax.tree.leaves(beside)), None), "sharding", None)
    if not isinstance(place, NamedSharding) or not isinstance(place.mesh, jax.sharding.Mesh) or place.mesh.shape["data"] == 1:
        return batch
    rows = of_rows(place.mesh)
    if any(len(value) % place.mesh.shape["data"] for value in batch.values()):
        return batch
    return {name: put(value, rows) for name, value in batch.items()}
