"""Super-NaturalInstructions (Wang et al. 2022, arXiv:2204.07705): a JSON file a task, encoded as Tk-Instruct reads it.

A task has `Definition` (a list of one text; a text in older files), `Positive Examples` and `Negative Examples` (`input`, `output`,
`explanation`) and `Instances` (`id`, which older files lack, `input`, `output`: the accepted texts). The first of its `Categories` is the
group of its rows, by which `prompt_tuning.summarise` reports.

The encoding (section 5.1 and the released collator) is the definition, k positive and k negative examples, each with its explanation if
asked for, and the instance. A full stop is added to whatever does not end in punctuation, and examples are taken while the whole fits.
The target is one of the accepted texts, drawn. Deviations: the length is counted on the text that is read, where the released code counts
one with more spaces; an empty explanation is left out, where the released code writes a full stop.
"""

import dataclasses
import functools
import os
import string
from collections.abc import Iterator, Mapping
from typing import Any

from prompt_tuning.data.instructions.record import Reading, Record, content_identity, draw
from prompt_tuning.data.provenance import Provenance
from prompt_tuning.data.row_files import field, given_id, json_file, json_object, texts
from prompt_tuning.data.rows import TextRow
from prompt_tuning.errors import UserError

_ENCODINGS: tuple[dict[str, Any], ...] = (
    {"definition": True, "positive": 0, "negative": 0, "explanations": False},
    {"definition": False, "positive": 2, "negative": 0, "explanations": False},
    {"definition": True, "positive": 2, "negative": 0, "explanations": False},
    {"definition": True, "positive": 2, "negative": 2, "explanations": False},
    {"definition": True, "positive": 2, "negative": 0, "explanations": True},
)


@dataclasses.dataclass(frozen=True)
class SuperNaturalInstructions:
    """How instances are encoded; the defaults are Tk-Instruct's main setting, the definition and two positive examples.

    Attributes:
      definition: whether the task's definition is read.
      positive: most positive examples.
      negative: most negative examples.
      explanations: whether examples come with their explanations.
      mixed: whether training draws one of five encodings for each instance, as Tk-Instruct was trained: the definition; two positive
        examples; both; these with two negative examples; these with explanations. Evaluation keeps to the settings.
      input_tokens: examples are added while the whole has at most so many tokens, EOS included; None adds them all.
    """

    definition: bool = True
    positive: int = 2
    negative: int = 0
    explanations: bool = False
    mixed: bool = False
    input_tokens: int | None = 1024

    def items(self, path: str) -> Iterator[tuple[str, Any]]:
        """The instances of a task, each with its task."""
        task = json_object(path, json_file(path))
        for name in ("Instances", "Positive Examples", "Negative Examples"):
            if not isinstance(task.get(name), list):
                raise UserError(f"{path}: field {name!r} is {type(task.get(name)).__name__}, wanted a list; mend the file")
        texts(task, "Definition", path)
        for number, instance in enumerate(task["Instances"]):
            yield f"{path}: instance {number}", (task, instance)

    def provenance(self, path: str) -> Provenance:
        """Where a task is from, as its file states it: its category, the data sets it was made of, its languages."""
        return _provenance(path, os.stat(path).st_mtime_ns)

    def records(self, where: str, item: Any, reading: Reading) -> Iterator[Record]:
        """One record; in evaluation every accepted text is a reference."""
        task, instance = item
        instance = json_object(where, instance)
        accepted = texts(instance, "output", where)
        name = given_id(instance)
        question = field(instance, "input", where)
        identity = content_identity(reading, question)
        target = accepted[draw(identity, "reference", reading.seed, len(accepted)) if reading.training else 0]
        encoding = self
        if self.mixed and reading.training:
            encoding = dataclasses.replace(self, **_ENCODINGS[draw(identity, "encoding", reading.seed, len(_ENCODINGS))])
        references = accepted if len(accepted) > 1 else ()
        row = TextRow(encoding.encode(task, question, where, reading), target.strip(), references=references, group=_category(task))
        yield Record(where, identity, row, name)

    def encode(self, task: Mapping[str, Any], question: str, where: str, reading: Reading) -> str:
        """The text of an instance."""
        definition = _stopped(f"Definition: {texts(task, 'Definition', where)[0].strip()}") + "\n\n" if self.definition else ""
        asked = "Now complete the following example -\n" + _stopped(f"Input: {question.strip()}") + "\nOutput: "
        shown = ""
        for kind, most in (("Positive", self.positive), ("Negative", self.negative)):
            for number, example in enumerate(task[f"{kind} Examples"][:most], start=1):
                more = shown + self._example(f" {kind} Example {number} -\n", json_object(where, example), where)
                if self.input_tokens is not None and reading.count_tokens(definition + more + asked) > self.input_tokens:
                    break
                shown = more
        return definition + shown + asked

    def _example(self, head: str, example: Mapping[str, Any], where: str) -> str:
        where = f"{where}: an example of the task"
        parts = [_stopped(f"Input: {field(example, 'input', where).strip()}"), _stopped(f" Output: {_answer(example, where)}")]
        if self.explanations and example.get("explanation"):
            parts.append(_stopped(f" Explanation: {field(example, 'explanation', where).strip()}"))
        return head + "\n".join(parts) + "\n\n"


@functools.lru_cache(maxsize=4096)
def _provenance(path: str, modified: int) -> Provenance:
    del modified  # A key of the cache: a file written anew is read anew.
    task = json_object(path, json_file(path))

    def listed(name: str) -> tuple[str, ...]:
        given = task.get(name) or []
        entries = [given] if isinstance(given, str) else given
        return tuple(dict.fromkeys(entry.strip().lower() for entry in entries if isinstance(entry, str)))

    languages = dict.fromkeys((*listed("Input_language"), *listed("Output_language")))
    return Provenance(_category(task).lower(), listed("Source"), tuple(languages))


def _category(task: Mapping[str, Any]) -> str:
    """The first of a task's categories, which some files give as a text; empty where it has none."""
    given = task.get("Categories") or ""
    first = given[0] if isinstance(given, list) else given
    return first.strip() if isinstance(first, str) else ""


def _answer(example: Mapping[str, Any], where: str) -> str:
    return texts(example, "output", where)[0].strip()


def _stopped(text: str) -> str:
    return text if text[-1] in string.punctuation else f"{text}."
