"""Several processes as one run: one a host of a TPU pod, one a GPU under Slurm, or as many as are started by hand.

Each process holds its own devices; the mesh is over those of all. Every process runs the same program on the same settings and reads its
own share of the training rows. The first process alone writes a run's folder, which all must see under the same path; checkpoints are
written by all. docs/many_machines.md tells how a run is started.
"""

import argparse
import contextlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from prompt_tuning.errors import UserError

T = TypeVar("T")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say which process of how many this one is."""
    group = parser.add_argument_group("several processes (docs/many_machines.md)")
    group.add_argument(
        "--distributed", action="store_true", help="join the processes that Cloud TPU, GKE, Slurm or Open MPI started beside this one"
    )
    group.add_argument("--coordinator_address", metavar="HOST:PORT", help="by hand: where process 0 listens; the same for all processes")
    group.add_argument("--num_processes", type=int, metavar="N", help="by hand: how many processes there are")
    group.add_argument("--process_id", type=int, metavar="I", help="by hand: this process's number, 0 to N - 1")


def join(flags: argparse.Namespace) -> None:
    """Joins the other processes, where the flags say that there are any; must come before anything is computed.

    Raises UserError for flags that say half of it, where no cluster is found, and where the other processes do not come.
    """
    by_hand: dict[str, Any] = {name: getattr(flags, name, None) for name in ("coordinator_address", "num_processes", "process_id")}
    given = [name for name, value in by_hand.items() if value is not None]
    distributed = getattr(flags, "distributed", False)
    if not given and not distributed:
        return
    if given:
        _check(by_hand, distributed=distributed)
    import jax

    try:
        jax.distributed.initialize(**by_hand, cluster_detection_method="deactivate" if given else None)
    except (ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        where = f"--coordinator_address {by_hand['coordinator_address']}" if given else "--distributed"
        advice = "see that all processes run, and that this address can be reached" if given else "give --coordinator_address by hand"
        raise UserError(f"{where}: could not join the other processes ({line}); {advice}") from error


def _check(by_hand: dict[str, Any], *, distributed: bool) -> None:
    if distributed:
        raise UserError("--distributed finds the other processes by itself; leave it out, or leave out --coordinator_address and the like")
    if missing := [name for name, value in by_hand.items() if value is None]:
        raise UserError(f"--{missing[0]} is missing; wanted --coordinator_address, --num_processes and --process_id together, or none")
    address, total, number = by_hand.values()
    if not re.fullmatch(r".+:\d+", str(address)):
        raise UserError(f"--coordinator_address: wanted HOST:PORT, got {address!r}; as 10.0.0.1:8476")
    if not 0 <= number < total:
        raise UserError(f"--process_id: wanted 0 to {total - 1}, got {number}; processes are numbered from 0")


def count() -> int:
    """How many processes run together; 1 where none were joined."""
    import jax

    return jax.process_count()


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    import jax

    return jax.process_index() == 0


def first_alone(action: Callable[[], T]) -> T | None:
    """What `action` gives on the first process, None on the others, which wait for it; a UserError there ends all of them.

    Raises UserError on every process where it raised one on the first.
    """
    if count() == 1:
        return action()
    found, failure = None, None
    if is_first():
        try:
            found = action()
        except UserError as error:
            failure = error
    if not agreed(failure is None):
        raise failure or UserError("process 0 stopped, and says why")
    return found


def agreed(number: int) -> int:
    """The first process's number, on all of them: what each would read from the run's folder for itself, and might read too early."""
    if count() == 1:
        return number
    import numpy as np
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


@contextlib.contextmanager
def only_first_speaks() -> Iterator[None]:
    """Sends what the other processes print to standard output nowhere: they would all say the same."""
    if count() == 1 or is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def asked_to_stop(step: int) -> bool:
    """Whether SIGTERM came to any of several processes and this is the step after which all of them save.

    To be asked once after each step, by all; JAX's preemption service makes them agree on the step.
    """
    from jax.experimental import multihost_utils

    return bool(multihost_utils.reached_preemption_sync_point(step))
