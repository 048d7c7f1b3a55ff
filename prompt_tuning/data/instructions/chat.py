"""Conversations: JSON rows with `messages`, each a `role` and a `content`. The loss is on the responses only, on all of them."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from prompt_tuning.data.instructions import chat_templates
from prompt_tuning.data.instructions.chat_templates import ROLES, ChatTemplate, Message
from prompt_tuning.data.instructions.record import Reading, Record, content_identity
from prompt_tuning.data.row_files import field, given_id, json_object, json_rows
from prompt_tuning.data.rows import TextRow
from prompt_tuning.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chat:
    """Rows of a JSONL file, or of a JSON file that holds an array.

    Attributes:
      messages_field: the field that lists the messages.
      last_only: whether the loss is on the last response alone. In evaluation it is what is written, the rest is what is read.
    """

    messages_field: str = "messages"
    last_only: bool = False

    def items(self, path: str) -> Iterator[tuple[str, Any]]:
        """The rows."""
        return json_rows(path)

    def records(self, where: str, item: Any, reading: Reading) -> Iterator[Record]:
        """One record, written by the chat template of the reading, or plainly."""
        row = json_object(where, item)
        messages = _messages(row.get(self.messages_field), where, self.messages_field)
        template = reading.chat or chat_templates.TEMPLATES["plain"]
        try:
            written = text_row(template, messages, last_only=self.last_only or not reading.training)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        yield Record(where, content_identity(reading, *(message.content for message in messages)), written, given_id(row))


def text_row(template: ChatTemplate, messages: tuple[Message, ...], *, last_only: bool = False) -> TextRow:
    """A conversation as text; the reference of one response is that response without the mark that ends it."""
    written = template.conversation(messages, last_only=last_only)
    spans = () if len(written.spans) == 1 else written.spans
    return TextRow(written.inputs, written.targets, references=() if spans else (messages[-1].content.strip(),), loss_spans=spans)


def wrapped(template: ChatTemplate, row: TextRow) -> TextRow:
    """A row of another format as a conversation of one turn: its choices are written as its target is, its references stay as they are."""

    def written(response: str) -> TextRow:
        return text_row(template, (Message("user", row.inputs), Message("assistant", response)))

    found = written(row.targets)
    choices = tuple(written(choice).targets for choice in row.answer_choices)
    references = () if choices else row.references or (row.targets,)
    return dataclasses.replace(found, answer_choices=choices, references=references, group=row.group)


def _messages(value: Any, where: str, name: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: field {name!r} is {type(value).__name__}, wanted a list of messages; mend the row")
    found: list[Message] = []
    for number, entry in enumerate(value):
        place = f"{where}: message {number}"
        entry = json_object(place, entry)
        role = field(entry, "role", place)
        if role not in ROLES:
            raise UserError(f"{place}: field 'role' is {role!r}, wanted one of {', '.join(ROLES)}; mend the row")
        if role == "system" and found:
            raise UserError(f"{place}: a system message, wanted none but the first; mend the row")
        before = found[-1].role if found else "system"
        wanted = "assistant" if before == "user" else "user"
        if role not in ("system", wanted):
            raise UserError(f"{place}: field 'role' is {role!r} after {before!r}, wanted {wanted!r}; join or drop messages")
        found.append(Message(role, field(entry, "content", place)))
    return tuple(found)
