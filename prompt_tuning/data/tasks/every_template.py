"""The same rows told by each template of their set, every template a task of its own: for evaluation over templates.

FLAN reports the mean over templates and the best on the dev split (Wei et al. 2021, section 3), T0 the median and the quartiles (Sanh et
al. 2021, section 6). Templates that are turned around, or do not ask the original task, are left out, as in evaluation elsewhere. Whatever
else is drawn for a row, such as its split, is drawn as where templates are drawn: what is held out from training there is held out here.
"""

import dataclasses
from typing import TYPE_CHECKING

from prompt_tuning.data.instructions.templated import Templated
from prompt_tuning.data.mixtures import Mixture, Source
from prompt_tuning.data.provenance import HeldOut
from prompt_tuning.data.row_tasks import RowTask
from prompt_tuning.data.tasks.instructions import Instructions
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio


@dataclasses.dataclass(frozen=True)
class EveryTemplate:
    """A source of tasks `TASK/TEMPLATE`.

    Attributes:
      data: rows in files or TFDS whose format is `Templated`; its `template` is not asked for. Of a mixture each of its sources, of a
        `HeldOut` with both parts what is held out.
    """

    data: Source = dataclasses.field(default_factory=Instructions)

    def __post_init__(self) -> None:
        for source in _sources(self.data):
            if not isinstance(source, Instructions) or not isinstance(source.format, Templated):
                got = source.format if isinstance(source, Instructions) else source
                raise UserError(f"EveryTemplate.data: wanted the format Templated (configs/data/templated.gin), got {got!r}")

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks, template after template."""
        return tuple(f"{name}/{template}" for template, told in self._told() for name in told.task_names)

    def tasks(self, vocabulary: "seqio.Vocabulary") -> list[RowTask]:
        """The tasks; see `mixtures.Source`."""
        return [task for _, told in self._told() for task in told.tasks(vocabulary)]

    def _told(self) -> list[tuple[str, Instructions]]:
        """The data as each template alone tells it."""
        return [
            (template.name, dataclasses.replace(source, format=dataclasses.replace(source.format, template=template.name)))
            for source in _sources(self.data)
            if isinstance(source, Instructions) and isinstance(source.format, Templated)  # Seen to above.
            for template in source.format.asking()
        ]


def _sources(data: Source) -> list[Source]:
    """The sources that a source is mixed of."""
    if isinstance(data, HeldOut):
        data = data.evaluated
    return [inner for source in data.sources for inner in _sources(source)] if isinstance(data, Mixture) else [data]
