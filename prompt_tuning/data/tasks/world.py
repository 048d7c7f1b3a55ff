"""Tasks of the bundled task world, as plain text-to-text tasks or as instructions, zero-shot or few-shot.

What is drawn for a row (template, exemplars, options) is drawn by a hash of its content and the seed, so that neither order nor shards nor
restarts change it.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, get_args, overload

from prompt_tuning.data import row_tasks
from prompt_tuning.data.instructions.few_shot import with_exemplars
from prompt_tuning.data.instructions.record import Record, draw
from prompt_tuning.data.instructions.variations import with_options
from prompt_tuning.data.provenance import Provenance
from prompt_tuning.data.rows import SPLITS, TextRow
from prompt_tuning.data.templates import Template, field_names
from prompt_tuning.data.world import catalogue, definitions
from prompt_tuning.data.world.task import Domain, Language, Row, WorldTask, rows
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio


Form = Literal["none", "plain", "name", "definition", "instructions"]
Options = Literal["as_is", "listed", "lettered"]
Part = Literal["training", "held_out"]
_ALLOWED = {"form": Form, "options": Options, "part": Part, "language": Language, "domain": Domain}
_SHARES = 1_000_000


@dataclasses.dataclass(frozen=True)
class World:
    """Tasks of the world.

    Which tasks: `task_list`, and all those of `clusters`; neither: all of the world. Then those of the clusters `held_out` are left out.

    Attributes:
      task_list: names of tasks.
      clusters: names of clusters.
      held_out: names of clusters that are left out, as FLAN holds out clusters (Wei et al. 2021, section 2.2).
      part: `training`, all but the clusters held out; or `held_out`, the tasks of these clusters and no others, to evaluate on.
      num_tasks: takes this many of the training tasks, drawn with `seed` so that fewer are among more; None takes all.
      form: what a row says of its task (Wei et al. 2021, appendix B.2; Wang et al. 2022, table 4). `none`: nothing, the
        fields alone; `plain`: the fields with their labels ("sentence: ..."); `name`: the names of cluster and task before that;
        `definition`: one sentence for the task; `instructions`: one of the task's templates, drawn for each row. Templates that are turned
        around occur in training only.
      template: the index of one template that all rows of form `instructions` take, turned around or not; None draws.
      every_template: every template that asks the task is a task `TASK/TEMPLATE` of its own, for evaluation over templates.
      num_templates: training draws among the first so many templates of each task (those turned around come last); None: among all.
      exemplars: solved examples before each input, from the training rows of the same task and told as the row is: none of them the row
        itself.
      few_shot_frac: the share of training rows that have exemplars (Longpre et al. 2023, section 3.2); evaluation shows them to all.
      options: of a row with answer choices: `listed` puts them behind the input, `lettered` also asks for the letter of one (Flan 2022).
      input_tokens: exemplars are added while an input has at most so many tokens; None adds them all.
      num_train: training rows of each task.
      num_validation: validation rows of each task.
      num_test: test rows of each task.
      language: `english`, or `tavi`, the constructed language that some tasks have.
      domain: `in`, or `out`: another lexicon and other sentence frames.
      seed: of the rows and of everything drawn.
    """

    task_list: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    part: Part = "training"
    num_tasks: int | None = None
    form: Form = "plain"
    template: int | None = None
    every_template: bool = False
    num_templates: int | None = None
    exemplars: int = 0
    few_shot_frac: float = 1.0
    options: Options = "as_is"
    input_tokens: int | None = None
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
        for name, kind in _ALLOWED.items():
            if getattr(self, name) not in get_args(kind):
                raise UserError(f"World.{name}: wanted one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        for name in ("num_train", "num_validation", "num_test", "num_tasks", "num_templates"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"World.{name}: wanted at least 1, got {getattr(self, name)}")
        if self.exemplars < 0:
            raise UserError(f"World.exemplars: wanted 0 or more, got {self.exemplars}")
        if not 0 <= self.few_shot_frac <= 1:
            raise UserError(f"World.few_shot_frac: wanted 0 to 1, got {self.few_shot_frac}")
        if self.every_template and self.form != "instructions":
            raise UserError(f"World.every_template: wanted form 'instructions', which has templates, got {self.form!r}")
        if self.part == "held_out" and not self.held_out:
            raise UserError("World.part: 'held_out' wants clusters that are held out, got none; set World.held_out")

    def world_tasks(self) -> tuple[WorldTask, ...]:
        """The tasks these settings name. Raises UserError for unknown names, a task that the language lacks, or when none is left."""
        names = [*self.task_list, *itertools.chain.from_iterable(map(catalogue.cluster, self.clusters))]
        held_out = dict.fromkeys(itertools.chain.from_iterable(map(catalogue.cluster, self.held_out)))
        training = [name for name in dict.fromkeys(names or catalogue.all_tasks()) if name not in held_out]
        chosen = [catalogue.task(name) for name in (held_out if self.part == "held_out" else training)]
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
        if self.num_tasks is None or self.part == "held_out":
            return found
        if self.num_tasks > len(found):
            raise UserError(f"World.num_tasks: wanted at most the {len(found)} tasks that there are, got {self.num_tasks}")
        drawn = sorted(found, key=lambda task: draw(task.name, "tasks", self.seed, 2**63))[: self.num_tasks]
        return tuple(task for task in found if task in drawn)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks in reports."""
        return tuple(name for name, _, _ in self._told())

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        """Where the tasks are from, for `provenance.HeldOut`: the tasks of a cluster are drawn from one lexicon."""
        return tuple(Provenance(task.cluster, (f"world/{task.cluster}",)) for _, task, _ in self._told())

    def _told(self) -> list[tuple[str, WorldTask, int | None]]:
        """The tasks by their names in reports, each with the index of the one template that it takes."""
        tasks = self.world_tasks()
        if not self.every_template:
            return [(task.name, task, self.template) for task in tasks]
        return [
            (f"{task.name}/{template.name}", task, index)
            for task in tasks
            for index, template in enumerate(task.templates)
            if not template.turned_around
        ]

    def tasks(self, vocabulary: "seqio.Vocabulary") -> list[row_tasks.RowTask]:
        """The tasks; see `mixtures.Source`."""
        found = []
        for _, task, template in self._told():
            # What the other tasks are doesn't change the content of this one.
            alone = dataclasses.replace(self, task_list=(task.name,), clusters=(), held_out=(), part="training", num_tasks=None)
            settings = dataclasses.replace(alone, template=template, every_template=False)
            read = functools.partial(text_rows, task, settings, count_tokens=lambda text: len(vocabulary.encode(text)) + 1)
            found.append(
                row_tasks.register(
                    task.name,
                    settings=settings,
                    vocabulary=vocabulary,
                    read=read,
                    splits=SPLITS,
                    metric_names=task.metrics,
                    on_disk=True,
                )
            )
        return found


def text_rows(task: WorldTask, settings: World, split: str, *, count_tokens: Callable[[str], int] = len) -> list[TextRow]:
    """The rows of one task and split as text. Of `settings` it reads all but the choice of tasks."""
    found = _drawn_rows(task, settings, split)
    exemplars = found if split == "train" or not settings.exemplars else _drawn_rows(task, settings, "train")
    before = f"Definition: {definitions.of(task.name)}\n\n" if settings.form == "definition" else ""
    pools: dict[Template, _Told] = {}
    told = []
    for row in found:
        template = choose_template(task, row, settings, split)
        record = _record(task, row, settings, template)
        few_shot = split != "train" or draw(record.identity, "few_shot", settings.seed, _SHARES) < settings.few_shot_frac * _SHARES
        if settings.exemplars and few_shot:
            if template not in pools:
                pools[template] = _Told(task, exemplars, settings, template)
            (record,) = with_exemplars(
                [record],
                pools[template],
                count=settings.exemplars,
                seed=settings.seed,
                input_tokens=settings.input_tokens,
                count_tokens=lambda text: count_tokens(before + text),
            )
        told.append(dataclasses.replace(record.row, inputs=before + record.row.inputs))
    return told


def choose_template(task: WorldTask, row: Row, settings: World, split: str) -> Template:
    """The template of a row. Raises UserError for a template index, or a number of templates, that the task lacks."""
    if settings.form != "instructions":
        return _uninstructed(task, settings.form)
    count = len(task.templates)
    if settings.template is not None:
        if not 0 <= settings.template < count:
            raise UserError(f"World.template: task {task.name} has templates 0..{count - 1}, got {settings.template}")
        return task.templates[settings.template]
    most = count if settings.num_templates is None or split != "train" else settings.num_templates
    if most > count:
        raise UserError(f"World.num_templates: task {task.name} has {count}, got {most}")
    templates = [template for template in task.templates[:most] if split == "train" or not template.turned_around]
    content = "\x1f".join([task.name, str(settings.seed), *(str(row[field]) for field in task.key_fields)])
    return templates[int.from_bytes(hashlib.sha256(content.encode()).digest()[-8:]) % len(templates)]


def _uninstructed(task: WorldTask, form: Form) -> Template:
    """The plain template with as much around it as a form without instructions says."""
    plain = task.plain.inputs
    inputs = {
        "none": " ".join(f"{{{name}}}" for name in field_names(plain)),
        "plain": plain,
        "name": f"[{task.cluster}: {task.name.replace('_', ' ')}] {plain}",
        "definition": f"Input: {plain}",
    }[form]
    return dataclasses.replace(task.plain, inputs=inputs)


def _drawn_rows(task: WorldTask, settings: World, split: str) -> list[Row]:
    count = {"train": settings.num_train, "validation": settings.num_validation, "test": settings.num_test}[split]
    drawn = rows(task, split, seed=settings.seed, domain=settings.domain, language=settings.language)  # type: ignore[arg-type]
    return list(itertools.islice(drawn, count))


def _record(task: WorldTask, row: Row, settings: World, template: Template) -> Record:
    rendered = template.render(row)
    identity = "\x1f".join([task.name, *(str(row[field]) for field in task.key_fields)])
    record = Record(task.name, identity, TextRow(rendered.inputs, rendered.targets, rendered.answer_choices or ()))
    if settings.options != "as_is":
        record = with_options(record, lettered=settings.options == "lettered", seed=settings.seed)
    if settings.form != "definition":
        return record
    return dataclasses.replace(record, row=dataclasses.replace(record.row, inputs=f"{record.row.inputs}\nOutput:"))


class _Told(Sequence[Record]):
    """Rows told by one template, each when it is first asked for."""

    def __init__(self, task: WorldTask, drawn: Sequence[Row], settings: World, template: Template) -> None:
        self._rows = drawn
        self._record = functools.cache(lambda place: _record(task, drawn[place], settings, template))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> list[Record]: ...
    def __getitem__(self, place: int | slice) -> Record | list[Record]:
        return [self._record(each) for each in range(*place.indices(len(self)))] if isinstance(place, slice) else self._record(place)
