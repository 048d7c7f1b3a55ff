"""MMLU: questions of 57 subjects with four choices (Hendrycks et al. 2021, arXiv:2009.03300), from its published files.

The archive's folders `dev`, `val` and `test` hold a CSV file a subject, without a header: question, four choices, the right one's letter.
What this file follows: the released evaluation, its header with two spaces before the subject, letters A to D ranked behind "Answer:", five
exemplars from `dev`, the last of which are left out until the input fits. Deviation: cells are texts as the file has them; the released
code reads them as pandas does, to which "None" is nan and 0.50 is 0.5.
"""

import csv
import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_tuning.data import row_tasks
from prompt_tuning.data.instructions import few_shot
from prompt_tuning.data.provenance import Provenance
from prompt_tuning.data.rows import TextRow
from prompt_tuning.data.tasks.files import read_text
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

LETTERS = ("A", "B", "C", "D")
# Split -> folder and end of the file's name.
_FILES = {"train": "dev", "validation": "val", "test": "test"}
# The fields of each category, and their subjects (the released code's categories.py).
CATEGORIES: dict[str, dict[str, tuple[str, ...]]] = {
    "STEM": {
        "biology": ("college_biology", "high_school_biology"),
        "chemistry": ("college_chemistry", "high_school_chemistry"),
        "computer science": ("college_computer_science", "computer_security", "high_school_computer_science", "machine_learning"),
        "engineering": ("electrical_engineering",),
        "math": (
            *("abstract_algebra", "college_mathematics", "elementary_mathematics", "high_school_mathematics", "high_school_statistics"),
        ),
        "physics": ("astronomy", "college_physics", "conceptual_physics", "high_school_physics"),
    },
    "humanities": {
        "history": ("high_school_european_history", "high_school_us_history", "high_school_world_history", "prehistory"),
        "law": ("international_law", "jurisprudence", "professional_law"),
        "philosophy": (*("formal_logic", "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy", "world_religions"),),
    },
    "social sciences": {
        "culture": ("human_sexuality", "sociology"),
        "economics": ("econometrics", "high_school_macroeconomics", "high_school_microeconomics"),
        "geography": ("high_school_geography",),
        "politics": ("high_school_government_and_politics", "public_relations", "security_studies", "us_foreign_policy"),
        "psychology": ("high_school_psychology", "professional_psychology"),
    },
    "other": {
        "business": ("business_ethics", "management", "marketing"),
        "health": (
            *("anatomy", "clinical_knowledge", "college_medicine", "human_aging", "medical_genetics", "nutrition"),
            *("professional_medicine", "virology"),
        ),
        "other": ("global_facts", "miscellaneous", "professional_accounting"),
    },
}
SUBJECTS: dict[str, str] = dict(
    sorted((subject, f"{category}/{field}") for category, fields in CATEGORIES.items() for field, own in fields.items() for subject in own)
)


@dataclasses.dataclass(frozen=True)
class Mmlu:
    """A task a subject, `mmlu_SUBJECT`, to be evaluated on; its category and field, `STEM/physics`, are the group of its rows.

    The training split are the exemplars themselves, with none before them.

    Attributes:
      folder: the unpacked archive, with the folders `dev`, `val` and `test`.
      subjects: those of them that are wanted; () for all 57.
      exemplars: solved questions of `dev` before each, at most 5.
      input_tokens: the last exemplars are left out until an input has at most so many tokens, EOS included; None keeps them all.
      before_answer: stands before the letters as they are ranked: "" where "Answer:" and a letter are tokenized apart, as an
        encoder-decoder does; " " for decoder-only models whose tokens begin with their space.
    """

    folder: str = ""
    subjects: tuple[str, ...] = ()
    exemplars: int = 5
    input_tokens: int | None = None
    before_answer: str = ""

    def __post_init__(self) -> None:
        wanted = (self.subjects,) if isinstance(self.subjects, str) else tuple(self.subjects)
        object.__setattr__(self, "subjects", wanted)
        if unknown := [subject for subject in wanted if subject not in SUBJECTS]:
            raise UserError(f"MMLU_SUBJECTS: no subject {unknown[0]!r}; wanted some of {', '.join(SUBJECTS)}")
        if not 0 <= self.exemplars <= 5:
            raise UserError(f"EXEMPLARS: wanted 0 to 5, the questions of a dev file, got {self.exemplars}")

    @property
    def _subjects(self) -> tuple[str, ...]:
        return self.subjects or tuple(SUBJECTS)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks."""
        return tuple(f"mmlu_{subject}" for subject in self._subjects)

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        """Where the tasks are from, for `provenance.HeldOut`."""
        return (Provenance("mmlu", ("mmlu",)),) * len(self._subjects)

    def path(self, subject: str, split: str) -> str:
        """The file of a subject's split. Raises UserError where it is not there."""
        if not self.folder:
            raise UserError("MMLU_DIR is not set; wanted the unpacked archive's folder, which holds dev, val and test")
        place = _FILES[split]
        path = pathlib.Path(self.folder).expanduser() / place / f"{subject}_{place}.csv"
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; wanted MMLU's published CSV files; set MMLU_DIR to the folder that holds dev, val and test"
            )
        return str(path)

    def tasks(self, vocabulary: "seqio.Vocabulary") -> list[row_tasks.RowTask]:
        """The tasks; see `mixtures.Source`."""
        found = []
        for subject in self._subjects:
            paths = [self.path(subject, split) for split in _FILES]
            stamps = [(path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths]
            found.append(
                row_tasks.register(
                    f"mmlu_{subject}",
                    settings=(dataclasses.replace(self, folder="", subjects=()), stamps),
                    vocabulary=vocabulary,
                    read=functools.partial(text_rows, self, subject, vocabulary),
                    splits=tuple(_FILES),
                    metric_names=("accuracy",),
                    on_disk=True,
                )
            )
        return found


@dataclasses.dataclass(frozen=True)
class Question:
    """One question: its text, its four choices, the right letter."""

    text: str
    choices: tuple[str, ...]
    letter: str


def questions(path: str) -> list[Question]:
    """The questions of a file. Raises UserError, naming file and line, for a row that is none."""
    found = []
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    start = 1
    try:
        for cells in reader:
            where, start = f"{path}:{start}", reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(LETTERS) + 2:
                raise UserError(f"{where}: {len(cells)} columns, wanted question, four choices and a letter; mend the row")
            text, *choices, letter = cells
            if letter.strip() not in LETTERS:
                raise UserError(f"{where}: the answer is {letter!r}, wanted one of {', '.join(LETTERS)}; mend the row")
            found.append(Question(text, tuple(choices), letter.strip()))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not readable as columns: {error}; wanted RFC 4180 quoting; mend the line") from error
    if not found:
        raise UserError(f"{path}: holds no question; fetch the file again")
    return found


def text_rows(settings: Mmlu, subject: str, vocabulary: "seqio.Vocabulary", split: str) -> list[TextRow]:
    """The rows of a subject's split as text."""
    solved = questions(settings.path(subject, "train"))[: settings.exemplars]
    choices = tuple(f"{settings.before_answer}{letter}" for letter in LETTERS)
    rows = []
    for question in questions(settings.path(subject, split)):
        inputs = few_shot.first_that_fit(
            solved if split != "train" else [],
            functools.partial(prompt, subject, question=question),
            input_tokens=settings.input_tokens,
            count_tokens=lambda text: len(vocabulary.encode(text)) + 1,
        )
        rows.append(TextRow(inputs, choices[LETTERS.index(question.letter)], choices, group=SUBJECTS[subject]))
    return rows


def prompt(subject: str, solved: Sequence[Question], question: Question) -> str:
    """What the model reads: a header, solved questions, and one without its answer."""
    before = f"The following are multiple choice questions (with answers) about  {subject.replace('_', ' ')}.\n\n"
    return before + "".join(f"{_asked(each)} {each.letter}\n\n" for each in solved) + _asked(question)


def _asked(question: Question) -> str:
    listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, question.choices, strict=True))
    return f"{question.text}{listed}\nAnswer:"
