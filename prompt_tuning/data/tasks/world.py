"""Tasks of the bundled task world, as plain text-to-text tasks or as instructions."""

import dataclasses
import functools
import hashlib
import itertools
from typing import TYPE_CHECKING, Literal

from prompt_tuning.data.provenance import Provenance
from prompt_tuning.data.rows import SPLITS, TextRow
from prompt_tuning.data.templates import Template
from prompt_tuning.data.world import catalogue
from prompt_tuning.data.world.task import Domain, Language, Row, WorldTask, rows
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

    from prompt_tuning.data.text_tasks import TextTask


@dataclasses.dataclass(frozen=True)
class World:
    """Tasks of the world.

    Which tasks: `task_list`, and all those of `clusters`; neither: all of the world. Then those of the clusters `held_out` are left out.

    Attributes:
      task_list: names of tasks.
      clusters: names of clusters.
      held_out: names of clusters that are left out, as FLAN holds out clusters (Wei et al. 2021, section 2.2).
      form: `plain` has no instruction ("sentence: ..."); in `instructions` each row has one of its task's templates, drawn by a hash of the
        row's content and the seed, so that neither order nor shards nor restarts change it. Templates that are turned around occur in
        training only.
      template: the index of one template that all rows of form `instructions` take, turned around or not; None draws.
      num_train: training rows of each task.
      num_validation: validation rows of each task.
      num_test: test rows of each task.
      language: `english`, or `tavi`, the constructed language that some tasks have.
      domain: `in`, or `out`: another lexicon and other sentence frames.
      seed: of the rows and the templates.
    """

    task_list: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    form: Literal["plain", "instructions"] = "plain"
    template: int | None = None
    num_train: int = 2000
    num_validation: int = 200
    num_test: int = 200
    language: Language = "english"
    domain: Domain = "in"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("task_list", "clusters", "held_out"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value or ()))
        for name, wanted in (("form", ("plain", "instructions")), ("language", ("english", "tavi")), ("domain", ("in", "out"))):
            if getattr(self, name) not in wanted:
                raise UserError(f"World.{name}: wanted one of {', '.join(wanted)}, got {getattr(self, name)!r}")
        for name in ("num_train", "num_validation", "num_test"):
            if getattr(self, name) < 1:
                raise UserError(f"World.{name}: wanted at least 1 row, got {getattr(self, name)}")

    def world_tasks(self) -> tuple[WorldTask, ...]:
        """The tasks these settings name. Raises UserError for unknown names, a task that the language lacks, or when none is left."""
        names = [*self.task_list, *itertools.chain.from_iterable(map(catalogue.cluster, self.clusters))]
        left_out = set(itertools.chain.from_iterable(map(catalogue.cluster, self.held_out)))
        chosen = [catalogue.task(name) for name in dict.fromkeys(names or catalogue.all_tasks()) if name not in left_out]
        lacking = [task.name for task in chosen if self.language not in task.languages and task.name in self.task_list]
        if lacking:
            raise UserError(
                f"World.language: {lacking[0]} can't be drawn in {self.language}; it has {', '.join(catalogue.task(lacking[0]).languages)}"
            )
        found = tuple(task for task in chosen if self.language in task.languages)
        if not found:
            raise UserError(
                f"World: no task left of task_list {self.task_list}, clusters {self.clusters}, without {self.held_out}, in {self.language}"
            )
        return found

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks in reports."""
        return tuple(task.name for task in self.world_tasks())

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        """Where the tasks are from, for `provenance.HeldOut`: the tasks of a cluster are drawn from one lexicon."""
        return tuple(Provenance(task.cluster, (f"world/{task.cluster}",)) for task in self.world_tasks())

    def tasks(self, vocabulary: "seqio.Vocabulary") -> "list[TextTask]":
        """The SeqIO tasks; see `mixtures.Source`."""
        from prompt_tuning.data import text_tasks

        found = []
        for task in self.world_tasks():
            # What the other tasks are doesn't change the content of this one.
            settings = dataclasses.replace(self, task_list=(task.name,), clusters=(), held_out=())
            found.append(
                text_tasks.register(
                    task.name,
                    settings=settings,
                    vocabulary=vocabulary,
                    source=functools.partial(text_tasks.rows_source, functools.partial(text_rows, task, settings), SPLITS),
                    metric_names=task.metrics,
                )
            )
        return found


def text_rows(task: WorldTask, settings: World, split: str) -> list[TextRow]:
    """The rows of one task and split as text. Of `settings` it reads all but the choice of tasks."""
    count = {"train": settings.num_train, "validation": settings.num_validation, "test": settings.num_test}[split]
    drawn = rows(task, split, seed=settings.seed, domain=settings.domain, language=settings.language)  # type: ignore[arg-type]
    found = []
    for row in itertools.islice(drawn, count):
        rendered = choose_template(task, row, settings, split).render(row)
        found.append(TextRow(rendered.inputs, rendered.targets, rendered.answer_choices or ()))
    return found


def choose_template(task: WorldTask, row: Row, settings: World, split: str) -> Template:
    """The template of a row. Raises UserError for a template index that the task lacks."""
    if settings.form == "plain":
        return task.plain
    if settings.template is not None:
        if not 0 <= settings.template < len(task.templates):
            raise UserError(f"World.template: task {task.name} has templates 0..{len(task.templates) - 1}, got {settings.template}")
        return task.templates[settings.template]
    templates = [template for template in task.templates if split == "train" or not template.turned_around]
    content = "\x1f".join([task.name, str(settings.seed), *(str(row[field]) for field in task.key_fields)])
    return templates[int.from_bytes(hashlib.sha256(content.encode()).digest()[-8:]) % len(templates)]
