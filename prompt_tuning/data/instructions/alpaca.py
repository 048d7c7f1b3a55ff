"""Records of an instruction, an input that may be empty, and an output: Alpaca (Taori et al. 2023) and self-instruct (Wang et al. 2022).

Self-instruct's files (arXiv:2212.10560; its 175 seed tasks, say) hold an instruction with several instances, each of them an example.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from prompt_tuning.data.instructions.record import Reading, Record, content_identity
from prompt_tuning.data.row_files import field, given_id, json_object, json_rows
from prompt_tuning.data.rows import TextRow
from prompt_tuning.data.templates import Template
from prompt_tuning.errors import UserError


@dataclasses.dataclass(frozen=True)
class Alpaca:
    """How a record is written; the tuned models of others read texts of their own, which can be given here.

    Attributes:
      with_input: the text of a record that has an input, with `{instruction}` and `{input}` in braces.
      without_input: the text of one that has none.
    """

    with_input: str = "{instruction}\n\n{input}"
    without_input: str = "{instruction}"

    def items(self, path: str) -> Iterator[tuple[str, Any]]:
        """The rows of a JSONL file, or of a JSON file that holds an array."""
        return json_rows(path)

    def records(self, where: str, item: Any, reading: Reading) -> Iterator[Record]:
        """One record, or one for each of the row's `instances`. Further fields are of no account."""
        row = json_object(where, item)
        instruction = field(row, "instruction", where).strip()
        name = given_id(row)
        if "instances" not in row:
            yield self._record(where, name, instruction, row, reading)
            return
        if not isinstance(row["instances"], list) or not row["instances"]:
            raise UserError(f"{where}: field 'instances' is no list of at least one; mend the row")
        for number, instance in enumerate(row["instances"]):
            place = f"{where}: instance {number}"
            yield self._record(place, f"{name}/{number}" if name else "", instruction, json_object(place, instance), reading)

    def _record(self, where: str, name: str, instruction: str, row: dict[str, Any], reading: Reading) -> Record:
        more = field(row, "input", where, empty=True).strip() if row.get("input") is not None else ""
        template = Template(self.with_input if more else self.without_input, "{output}", name="Alpaca")
        rendered = template.render({"instruction": instruction, "input": more, "output": field(row, "output", where).strip()})
        identity = content_identity(reading, instruction, more)
        return Record(where, identity, TextRow(rendered.inputs, rendered.targets), name)
