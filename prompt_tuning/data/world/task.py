"""What a task of the world is, and how its rows are drawn: seeded, endless, and with the splits apart by construction.

A row belongs to the split that the hash of its content names, so no row of one split can appear in another whatever the seed.
"""

import dataclasses
import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Any, Literal

from prompt_tuning.data.templates import Template

Split = Literal["train", "validation", "test"]
Domain = Literal["in", "out"]
Language = Literal["english", "tavi"]
Row = dict[str, Any]

# A draw takes a source of randomness, a domain and a language and gives one row; it knows nothing of splits.
Draw = Callable[[random.Random, Domain, Language], Row]


@dataclasses.dataclass(frozen=True)
class WorldTask:
    """One task.

    Attributes:
      name: unique in the world, lower_snake_case.
      cluster: the name of its cluster.
      draw: draws one row: the fields the templates name, and for a classification task `label` (int).
      key_fields: the fields whose content decides the split (normally all that the model reads, never the label).
      plain: the text-to-text form without an instruction, as Raffel et al. format data sets ("sentence: ...").
      templates: ten instructions, some of them turned around.
      metrics: names in `prompt_tuning.data.metrics`; the first is the main one.
      languages: the languages the task can be drawn in.
      split_fields: the fields whose content decides the split where that is coarser than `key_fields`: closed-book facts are split by the
        person they are about, so that no person is in two splits. Empty: `key_fields`.
    """

    name: str
    cluster: str
    draw: Draw
    key_fields: tuple[str, ...]
    plain: Template
    templates: tuple[Template, ...]
    metrics: tuple[str, ...]
    languages: tuple[Language, ...] = ("english",)
    split_fields: tuple[str, ...] = ()

    @property
    def is_classification(self) -> bool:
        """Whether the answer is one of a closed list of choices."""
        return self.plain.answer_choices is not None


def split_of(task: WorldTask, row: Row) -> Split:
    """The split a row belongs to: 80% train, 10% validation, 10% test, by a hash of its content."""
    content = "\x1f".join([task.name, *(str(row[field]) for field in task.split_fields or task.key_fields)])
    bucket = hashlib.sha256(content.encode()).digest()[0]
    return "train" if bucket < 205 else "validation" if bucket < 231 else "test"


def rows(task: WorldTask, split: Split, *, seed: int = 0, domain: Domain = "in", language: Language = "english") -> Iterator[Row]:
    """Endless rows of a task, all different in content, the same for the same arguments on any machine.

    Ends only when 10,000 draws in a row bring nothing new, that is when the task's content is used up.
    """
    rng = random.Random(f"{task.name}/{split}/{seed}/{domain}/{language}")
    seen: set[str] = set()
    misses = 0
    while misses < 10_000:
        row = task.draw(rng, domain, language)
        key = "\x1f".join(str(row[field]) for field in task.key_fields)
        if key in seen or split_of(task, row) != split:
            misses += 1
            continue
        misses = 0
        seen.add(key)
        yield row
