"""What the task world holds: every task of every cluster module under `clusters/`."""

import functools
import importlib
import pkgutil
import random
from collections.abc import Callable
from types import ModuleType

from prompt_tuning.data.world import clusters as clusters_package
from prompt_tuning.data.world.task import Domain, WorldTask
from prompt_tuning.errors import UserError


@functools.cache
def cluster_modules() -> tuple[ModuleType, ...]:
    """The modules of `clusters/` that offer TASKS, by name."""
    names = sorted(found.name for found in pkgutil.iter_modules(clusters_package.__path__))
    modules = (importlib.import_module(f"{clusters_package.__name__}.{name}") for name in names)
    return tuple(module for module in modules if hasattr(module, "TASKS"))


@functools.cache
def all_tasks() -> dict[str, WorldTask]:
    """Every task by its name, sorted by cluster module, then as the module lists them."""
    tasks: dict[str, WorldTask] = {}
    for module in cluster_modules():
        for task in module.TASKS:
            assert task.name not in tasks, f"two tasks of the world are called {task.name}"
            tasks[task.name] = task
    return tasks


def clusters() -> dict[str, tuple[str, ...]]:
    """The names of the tasks of each cluster."""
    names: dict[str, tuple[str, ...]] = {}
    for task in all_tasks().values():
        names[task.cluster] = (*names.get(task.cluster, ()), task.name)
    return names


def passage_makers() -> dict[str, Callable[[random.Random, Domain], str]]:
    """The functions that draw a passage of pretraining prose, one a cluster module, by the cluster's name."""
    return {module.TASKS[0].cluster: module.passages for module in cluster_modules()}


def task(name: str) -> WorldTask:
    """The task of that name. Raises UserError, with the names there are, when there is none."""
    if name not in all_tasks():
        raise UserError(f"the task world has no task {name!r}; it has {', '.join(sorted(all_tasks()))}; name one of these in TASKS")
    return all_tasks()[name]


def cluster(name: str) -> tuple[str, ...]:
    """The names of the tasks of that cluster. Raises UserError, with the names there are, when there is none."""
    if name not in clusters():
        raise UserError(f"the task world has no cluster {name!r}; it has {', '.join(sorted(clusters()))}; name one of these in CLUSTERS")
    return clusters()[name]
