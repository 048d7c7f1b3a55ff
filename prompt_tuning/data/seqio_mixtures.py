"""A source's tasks and rates as a mixture of SeqIO, for T5X, SeqIO's evaluator and whatever else takes one by its name."""

from typing import TYPE_CHECKING

from prompt_tuning.data import mixtures
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio


def register(name: str, source: mixtures.Source, vocabulary: "seqio.Vocabulary", *, split: str = "train") -> "seqio.Mixture":
    """The mixture, registered under its name: `seqio.get_mixture_or_task(name)`.

    Args:
      name: letters, digits and underscores.
      source: its training tasks are those of the mixture, at the rates of its own training; of a `Mixture`, `HeldOut` or any other.
      vocabulary: of the model.
      split: whose examples rates are proportional to.

    Raises UserError for a name that is taken, and for what is wrong with the source. Reads every task, to count its examples.
    """
    import seqio

    if name in seqio.MixtureRegistry.names() or name in seqio.TaskRegistry.names():
        raise UserError(f"{name}: SeqIO knows a task or mixture of this name already; choose another")
    tasks = source.tasks(vocabulary)
    _, _, rates = mixtures.tables_and_rates(source, tasks, split)
    parts = [(getattr(task, "seqio", task).name, float(rate)) for task, rate in zip(tasks, rates, strict=True) if rate > 0]
    return seqio.MixtureRegistry.add(name, parts)
