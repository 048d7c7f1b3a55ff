"""BIG-Bench Hard: 23 tasks in 27 files, three-shot, answered directly or by a chain of thought (Suzgun et al. 2022, arXiv:2210.09261).

Read are the published files: `bbh/TASK.json`, `{"examples": [{"input": ..., "target": ...}]}`, and `cot-prompts/TASK.txt`, which holds,
below a canary and a line of dashes, what the task is and three questions with chains of thought that end in "So the answer is X.".
Answered directly, the same exemplars stand there with X alone. A prediction is what is said last, compared letter for letter
(`metrics.final_text`).
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_tuning.data import final_answers, row_files, row_tasks
from prompt_tuning.data.instructions import few_shot
from prompt_tuning.data.provenance import Provenance
from prompt_tuning.data.rows import TextRow
from prompt_tuning.data.tasks.files import read_text
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

# The files of both kinds of tasks (section 2); two tasks have a file each for three, five and seven objects.
KINDS: dict[str, tuple[str, ...]] = {
    "algorithmic": (
        *("boolean_expressions", "dyck_languages", "geometric_shapes"),
        *("logical_deduction_three_objects", "logical_deduction_five_objects", "logical_deduction_seven_objects"),
        *("multistep_arithmetic_two", "navigate", "object_counting", "temporal_sequences"),
        *("tracking_shuffled_objects_three_objects", "tracking_shuffled_objects_five_objects", "tracking_shuffled_objects_seven_objects"),
        *("web_of_lies", "word_sorting"),
    ),
    "NLP": (
        *("causal_judgement", "date_understanding", "disambiguation_qa", "formal_fallacies", "hyperbaton", "movie_recommendation"),
        *("penguins_in_a_table", "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks"),
        "sports_understanding",
    ),
}
TASKS: dict[str, str] = dict(sorted((task, kind) for kind, tasks in KINDS.items() for task in tasks))
_STEPS = "Let's think step by step."


@dataclasses.dataclass(frozen=True)
class BigBenchHard:
    """A task a file, `bbh_TASK`, with the split `test`; the kind of task is the group of its rows.

    The training split are the exemplars themselves, with none before them.

    Attributes:
      folder: the repository's folder, with `bbh` and `cot-prompts`.
      task_list: names of files that are wanted; () for all 27.
      chain_of_thought: whether exemplars reason and the model is asked to; else they answer directly.
      exemplars: of the prompt file, at most 3.
      input_tokens: the last exemplars are left out until an input has at most so many tokens, EOS included; None keeps them all.
    """

    folder: str = ""
    task_list: tuple[str, ...] = ()
    chain_of_thought: bool = False
    exemplars: int = 3
    input_tokens: int | None = None

    def __post_init__(self) -> None:
        wanted = (self.task_list,) if isinstance(self.task_list, str) else tuple(self.task_list)
        object.__setattr__(self, "task_list", wanted)
        if unknown := [task for task in wanted if task not in TASKS]:
            raise UserError(f"BBH_TASKS: no task {unknown[0]!r}; wanted some of {', '.join(TASKS)}")
        if not 0 <= self.exemplars <= 3:
            raise UserError(f"EXEMPLARS: wanted 0 to 3, those of a prompt file, got {self.exemplars}")

    @property
    def _tasks(self) -> tuple[str, ...]:
        return self.task_list or tuple(TASKS)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks."""
        return tuple(f"bbh_{task}" for task in self._tasks)

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        """Where the tasks are from, for `provenance.HeldOut`."""
        return (Provenance("bbh", ("big_bench",)),) * len(self._tasks)

    def paths(self, task: str) -> tuple[str, str]:
        """The files of a task's examples and prompt. Raises UserError where one is not there."""
        if not self.folder:
            raise UserError("BBH_DIR is not set; wanted the folder that holds bbh and cot-prompts")
        there = pathlib.Path(self.folder).expanduser()
        paths = (there / "bbh" / f"{task}.json", there / "cot-prompts" / f"{task}.txt")
        for path in paths:
            if not path.is_file():
                raise UserError(f"{path}: no such file; wanted BIG-Bench Hard's published files; set BBH_DIR to their folder")
        return str(paths[0]), str(paths[1])

    def tasks(self, vocabulary: "seqio.Vocabulary") -> list[row_tasks.RowTask]:
        """The tasks; see `mixtures.Source`."""
        found = []
        for task in self._tasks:
            stamps = [(path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in self.paths(task)]
            found.append(
                row_tasks.register(
                    f"bbh_{task}",
                    settings=(dataclasses.replace(self, folder="", task_list=()), stamps),
                    vocabulary=vocabulary,
                    read=functools.partial(text_rows, self, task, vocabulary),
                    splits=("train", "test"),
                    metric_names=("final_text",),
                    on_disk=True,
                )
            )
        return found


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt file: what the task is, and pairs of question and chain of thought."""

    description: str
    exemplars: tuple[tuple[str, str], ...]


def read_prompt(path: str) -> Prompt:
    """The prompt of a file. Raises UserError where no line of dashes or no question stands in it."""
    _, dashes, text = read_text(path).replace("\r\n", "\n").partition("\n-----\n")
    description, *parts = re.split(r"(?:\A|\n)Q: ", text.strip())
    if not dashes or not parts:
        raise UserError(f"{path}: wanted a line of five dashes, a description and questions behind 'Q: '; fetch the file again")
    found = []
    for number, part in enumerate(parts, start=1):
        question, mark, answer = part.strip().partition("\nA:")
        if not mark or not answer.strip():
            raise UserError(f"{path}: question {number} has no answer behind 'A:'; fetch the file again")
        found.append((question, answer.strip().removeprefix(_STEPS).strip()))
    return Prompt(description.strip(), tuple(found))


def examples(path: str) -> list[tuple[str, str]]:
    """Inputs and targets of a file. Raises UserError, naming file and place, for whatever is wrong."""
    rows = row_files.json_object(path, row_files.json_file(path)).get("examples")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: no list 'examples'; wanted BIG-Bench Hard's JSON; fetch the file again")
    found = []
    for number, row in enumerate(rows, start=1):
        where = f"{path}: example {number}"
        found.append(tuple(row_files.field(row_files.json_object(where, row), name, where).strip() for name in ("input", "target")))
    return found  # type: ignore[return-value]  # Two names give two texts.


def text_rows(settings: BigBenchHard, task: str, vocabulary: "seqio.Vocabulary", split: str) -> list[TextRow]:
    """The rows of a task's split as text."""
    examples_path, prompt_path = settings.paths(task)
    prompt = read_prompt(prompt_path)
    steps = f" {_STEPS}\n" if settings.chain_of_thought else " "
    solved = [
        (question, answer if settings.chain_of_thought else final_answers.final_answer(answer)) for question, answer in prompt.exemplars
    ]

    def asked(question: str, before: Sequence[tuple[str, str]]) -> str:
        shown = "".join(f"Q: {each}\nA:{steps}{answer}\n\n" for each, answer in before)
        return f"{prompt.description}\n\n{shown}Q: {question}\nA:{steps.rstrip()}"

    if split == "train":
        return [TextRow(asked(question, []), answer, group=TASKS[task]) for question, answer in solved]
    rows = []
    for question, target in examples(examples_path):
        inputs = few_shot.first_that_fit(
            solved[: settings.exemplars],
            functools.partial(asked, question),
            input_tokens=settings.input_tokens,
            count_tokens=lambda text: len(vocabulary.encode(text)) + 1,
        )
        rows.append(TextRow(inputs, target, group=TASKS[task]))
    return rows
