"""Accelerators by their published rates, and descriptions of machines that are not there.

| chip | source |
|---|---|
| v5e, v5p, v6e | Google Cloud, "TPU v5e", "TPU v5p", "TPU v6e" (docs.cloud.google.com/tpu/docs): peak compute (bf16), HBM, ICI bandwidth |
| H100 | NVIDIA, "H100 Tensor Core GPU" data sheet, SXM: bfloat16 without sparsity, HBM3, NVLink |

Memory is what a program may take: of a TPU what its compiler says it has, of a GPU its 80 GB.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax

from prompt_tuning.errors import UserError

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """An accelerator.

    Attributes:
      name: in topologies.
      kind: "tpu" or "gpu".
      memory_bytes: for programs and their arrays.
      flops: bfloat16 multiplications and additions a second.
      memory_bandwidth: bytes a second between the chip and its memory.
      link_bandwidth: bytes a second that a chip sends to other chips, over all its links: half of what is published for both directions.
    """

    name: str
    kind: str
    memory_bytes: int
    flops: float
    memory_bandwidth: float
    link_bandwidth: float


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", "tpu", int(15.75 * _GIB), 197e12, 819e9, 200e9),
        Chip("v5p", "tpu", int(95.74 * _GIB), 459e12, 2765e9, 600e9),
        Chip("v6e", "tpu", int(31.25 * _GIB), 918e12, 1640e9, 400e9),
        Chip("h100", "gpu", 80 * 10**9, 989e12, 3350e9, 450e9),
    )
}

# Without these libtpu asks the network what machine it is on, and lets one process at a time compile.
_TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# An H100 (SXM) as XLA asks for it. Clock and bandwidth steer its cost model only; sizes of memory are bytes.
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  l2_cache_size: 52428800
  memory_bandwidth: 3350000000000
  device_memory_size: 80000000000
  clock_rate_ghz: 1.98
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
_EXAMPLES = "v5e:4x4, v5p:2x2x4, v6e:4x4, h100:8"


@dataclasses.dataclass(frozen=True)
class Topology:
    """A machine: `chip`, and the shape in which chips are joined."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """As it was asked for."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def size(self) -> int:
        """The number of chips."""
        return math.prod(self.shape)


def topology(name: str) -> Topology:
    """The topology of a name such as v5e:4x4. Raises UserError for a chip that is not known, or a shape that says no number."""
    chip, _, shape = name.partition(":")
    if chip not in CHIPS:
        raise UserError(f"--topology: chip {chip!r} is not known; wanted one of {', '.join(CHIPS)} with a shape, as {_EXAMPLES}")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape):
        raise UserError(f"--topology: wanted CHIP:SHAPE, as {_EXAMPLES}; got {name!r}")
    return Topology(CHIPS[chip], tuple(map(int, shape.split("x"))))


def described(machine: Topology) -> Sequence[Any]:
    """The devices of a machine that is not there, to compile for ahead of time.

    Raises UserError where the chip's compiler is not installed, or knows no such machine.
    """
    from jax.experimental import topologies

    library, install = {
        "tpu": ("libtpu", "pip install 'prompt_tuning[tpu]' (213 MB)"),
        "gpu": ("jax_plugins.xla_cuda12", "pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt (180 MB), in jax's version"),
    }[machine.chip.kind]
    if not installed(library):
        raise UserError(
            f"--topology={machine.name}: the compiler for this chip is not installed; {install}, "
            "or add --simulate, which compiles for as many simulated CPU devices"
        )
    try:
        if machine.chip.kind == "gpu":
            # Slices, hosts and GPUs of a host.
            shape = "x".join(map(str, (1,) * (3 - len(machine.shape)) + machine.shape))
            return topologies.get_topology_desc(platform="cuda", target_config=_H100, topology=shape).devices
        os.environ.update({name: os.environ.get(name, value) for name, value in _TPU_ENVIRONMENT.items()})
        alone = {"chips_per_host_bounds": (1, 1, 1)} if machine.size == 1 else {}
        return topologies.get_topology_desc(platform="tpu", topology_name=machine.name, **alone).devices
    except Exception as error:  # Whatever goes wrong there is of one type, jaxlib's own.
        said = str(error).split("\n")[0]
        raise UserError(
            f"--topology={machine.name}: the chip's compiler refuses such a machine ({said}); wanted one as {_EXAMPLES}"
        ) from error


def installed(name: str) -> bool:
    """Whether a package is there, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def simulated(machine: Topology) -> Sequence[jax.Device]:
    """As many CPU devices as the machine has chips; only before JAX has looked for devices can there be more than one."""
    with contextlib.suppress(RuntimeError):  # JAX has looked for devices already.
        jax.config.update("jax_num_cpu_devices", machine.size)
    devices = jax.devices("cpu")
    if len(devices) < machine.size:
        raise UserError(f"--simulate: wanted {machine.size} CPU devices, got {len(devices)}; set JAX_NUM_CPU_DEVICES={machine.size}")
    return devices[: machine.size]
