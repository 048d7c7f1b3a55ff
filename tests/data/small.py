"""A tiny source of numbered rows, read through real SeqIO."""

import dataclasses
import functools
from typing import Any

from prompt_tuning.data import vocabularies
from prompt_tuning.data.rows import TextRow

BYTES = vocabularies.Bytes(extra_ids=100)


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Rows "NAME i" -> "i"; the choices are "0" and "1" where `choices` is true."""

    name: str = "numbered"
    num_train: int = 10
    num_validation: int = 4
    choices: bool = False

    @property
    def task_names(self) -> tuple[str, ...]:
        """The name of the task."""
        return (self.name,)

    def tasks(self, vocabulary: Any) -> list[Any]:
        """The SeqIO task."""
        from prompt_tuning.data import text_tasks

        def read(split: str) -> list[TextRow]:
            count = {"train": self.num_train, "validation": self.num_validation}[split]
            choices = ("0", "1") if self.choices else ()
            return [TextRow(f"{self.name} {i}", str(i % 2 if choices else i), choices) for i in range(count)]

        source = functools.partial(text_tasks.rows_source, read, ("train", "validation"))
        return [text_tasks.register(self.name, settings=self, vocabulary=vocabulary, source=source, metric_names=("accuracy",))]
