"""Templates: how the fields of a row become the text of an input, the text of a target and the answer choices.

One engine, sandboxed Jinja, with two notations. Short: `inputs` and `targets` name fields in braces, as in `"Is it true? {hypothesis}"`;
`{answer}` is the verbalised label and `{options}` the block that lists the choices (FLAN, Wei et al. 2021, section 2.1). Full: one Jinja
text `input ||| target`, as promptsource has it (Bach et al. 2022, section 3), where fields are variables, `answer_choices` is the list of
the choices, and `answer` and `options` are known too unless the row has columns of these names. In the full notation a row may also be
dropped: one for which the template gives no input or no target.

What a full template may call besides Jinja's own: the filters `choice` (and Jinja's `random`), which draw one of a list by a hash of the
row, so that the same row always gives the same text; `most_frequent`, the elements of a list that occur most often; `highlight`, which
marks text for readers in promptsource and leaves it as it is here; and `zip`.
"""

import collections
import dataclasses
import functools
import hashlib
import random
import string
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.sandbox

from prompt_tuning.errors import UserError

SEPARATOR = "|||"
_ESCAPED = "\ue0f0\ue0f1\ue0f2"  # Stands for a separator that a row's own text holds.
_DRAWS = "__draws__"
_FIELDS = "__fields__"


@dataclasses.dataclass(frozen=True)
class Rendered:
    """One example as text: what the model reads, what it should write, the choices it is ranked over (None: free text).

    `references` are all accepted texts where the template knows several.
    """

    inputs: str
    targets: str
    answer_choices: tuple[str, ...] | None = None
    references: tuple[str, ...] = ()

    @property
    def dropped(self) -> bool:
        """Whether the template gave no input or no target for the row."""
        return not (self.inputs.strip() and self.targets.strip())


@functools.lru_cache(maxsize=4096)
def field_names(text: str, where: str = "template") -> tuple[str, ...]:
    """The names in braces of a text in the short notation, in order.

    Raises UserError for a brace that is not closed or a field that is not a plain name.
    """
    return tuple(name for _, name in _pieces(text, where) if name is not None)


def options_block(choices: Sequence[str]) -> str:
    """The choices as FLAN lists them: a line `OPTIONS:` and a line `- choice` for each."""
    return "OPTIONS:\n" + "\n".join(f"- {choice}" for choice in choices)


@dataclasses.dataclass(frozen=True)
class Template:
    """One way of asking a task.

    Attributes:
      inputs: text with fields in braces; with `targets` None the full notation, `input ||| target`.
      targets: text with fields in braces; `{answer}` is `answer_choices[row["label"]]` where there are answer choices.
      answer_choices: the label words in label order; None where the target is free text. Each may hold fields of the row
        (multiple choice: `("{choice0}", "{choice1}")`). In the full notation one Jinja text, `choice ||| choice`.
      turned_around: the template swaps input and output (FLAN section 2.1), as in "write a negative review".
      name: short, unique within its task.
      original_task: whether it asks what the data set was made for (promptsource); a template that is turned around does not.
      metrics: names in `prompt_tuning.data.metrics`; empty: the task's own.
      references: in the full notation, one Jinja text `accepted ||| accepted` of all accepted targets; None where only the target is.
      where: the file it comes from, for messages.
    """

    inputs: str
    targets: str | None = "{answer}"
    answer_choices: tuple[str, ...] | str | None = None
    turned_around: bool = False
    name: str = ""
    original_task: bool = True
    metrics: tuple[str, ...] = ()
    references: str | None = None
    where: str = ""

    def __str__(self) -> str:
        return f"{self.where}: template {self.name!r}" if self.where else f"template {self.name!r}"

    def render(self, row: Mapping[str, Any], *, seed: int = 0) -> Rendered:
        """The text of one row; `seed` is of what `choice` draws.

        Raises UserError, naming file, template and field, for a field that the row lacks, a label outside the choices, or a target that is
        none of the choices where the template asks the original task.
        """
        values = {key: value for key, value in row.items() if isinstance(key, str)}
        return self._render_full(values, seed) if self.targets is None else self._render_short(values, self.targets)

    def _render_short(self, values: dict[str, Any], targets_text: str) -> Rendered:
        choices = None
        if self.answer_choices is not None:
            choices = tuple(self._fill(choice, values) for choice in self.answer_choices)
            label = values.get("label")
            if not isinstance(label, int) or not 0 <= label < len(choices):
                raise UserError(f"{self}: label is {label!r}, wanted 0..{len(choices) - 1} (choices {list(choices)})")
            values |= {"answer": choices[label], "options": options_block(choices)}
        return self._checked(self._fill(self.inputs, values), self._fill(targets_text, values), choices)

    def _fill(self, text: str, values: Mapping[str, Any]) -> str:
        for name in field_names(text, str(self)):
            if name not in values:
                raise self._lacks(name, values)
        return self._run(_short_source(text, str(self)), {_FIELDS: values})

    def _render_full(self, values: dict[str, Any], seed: int) -> Rendered:
        if "answer_choices" in values:
            raise UserError(f"{self}: the row has a field 'answer_choices', which templates make themselves; rename the column")
        values = {key: _escaped(value) for key, value in values.items()}
        values[_DRAWS] = _Draws(f"{seed}\x1f{self.name}\x1f{sorted(values.items(), key=lambda item: item[0])!r}")
        choices = None
        if self.answer_choices is not None:
            text = self.answer_choices if isinstance(self.answer_choices, str) else SEPARATOR.join(self.answer_choices)
            choices = self._listed(text, values)
            made = {"options": options_block(choices)}
            label = values.get("label")
            if isinstance(label, int) and 0 <= label < len(choices):
                made["answer"] = choices[label]
            values = made | values | {"answer_choices": list(choices)}  # What the row calls by these names stays the row's.
        parts = [_unescaped(part).strip() for part in self._run(self.inputs, values).split(SEPARATOR)]
        if len(parts) > 2:
            raise UserError(f"{self}: gave {len(parts)} parts, wanted two, 'input {SEPARATOR} target'; mend the template")
        rendered = self._checked(parts[0], parts[1] if len(parts) == 2 else "", choices and tuple(map(_unescaped, choices)))
        if self.references is None or rendered.dropped:
            return rendered
        accepted = dict.fromkeys([rendered.targets, *map(_unescaped, self._listed(self.references, values))])
        return dataclasses.replace(rendered, references=tuple(filter(None, accepted)))

    def _listed(self, text: str, values: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(entry.strip() for entry in self._run(text, values).split(SEPARATOR))

    def _checked(self, inputs: str, targets: str, choices: tuple[str, ...] | None) -> Rendered:
        rendered = Rendered(inputs, targets, choices)
        if choices is None or targets in choices or rendered.dropped:
            return rendered
        if self.original_task and not self.turned_around:
            raise UserError(f"{self}: the target {targets!r} is none of the choices {list(choices)}; mend the template or the row")
        return Rendered(inputs, targets)

    def _run(self, source: str, values: Mapping[str, Any]) -> str:
        try:
            return _compiled(source, str(self)).render(values)
        except jinja2.UndefinedError as error:
            name = next((part for part in str(error).split("'")[1::2] if part.isidentifier()), "")
            if str(error).endswith("is undefined"):
                raise self._lacks(name, values) from error
            raise UserError(f"{self}: {error}; mend the template or the columns") from error
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise UserError(f"{self}: cannot be filled: {type(error).__name__}: {error}; mend the template or the columns") from error

    def _lacks(self, name: str, values: Mapping[str, Any]) -> UserError:
        there = sorted(key for key in values if key != _DRAWS)
        return UserError(f"{self}: no field {name!r} in the row; the row has {there}; mend the template or the columns")


class _Draws:
    """What `choice` draws from: one stream of random numbers a row, made when it is first asked."""

    def __init__(self, key: str) -> None:
        self._key = key

    @functools.cached_property
    def rng(self) -> random.Random:
        return random.Random(hashlib.sha256(self._key.encode("utf-8", "surrogatepass")).digest())


@jinja2.pass_context
def _choice(context: jinja2.runtime.Context, items: Any) -> Any:
    """One of a list, drawn by the row."""
    return context[_DRAWS].rng.choice(list(items))


def _most_frequent(items: Any) -> list[Any]:
    """The elements that occur most often, in the order of their first place."""
    counts = collections.Counter(items)
    return [item for item, count in counts.items() if count == max(counts.values())]


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {"choice": _choice, "random": _choice, "most_frequent": _most_frequent, "highlight": str}
    environment.globals["zip"] = zip
    del environment.globals["lipsum"]  # Draws without a seed.
    return environment


_ENVIRONMENT = _environment()


@functools.lru_cache(maxsize=4096)
def _compiled(source: str, where: str) -> jinja2.Template:
    try:
        return _ENVIRONMENT.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{where}: not a Jinja template: {error.message} (line {error.lineno} of it); mend the template") from error


def check_syntax(template: Template) -> None:
    """Raises UserError, naming file and template, where a template of the full notation is not Jinja."""
    _compiled(template.inputs, str(template))
    for text in (template.answer_choices, template.references):
        if isinstance(text, str):
            _compiled(text, str(template))


@functools.lru_cache(maxsize=4096)
def _short_source(text: str, where: str) -> str:
    """The Jinja source of a text in the short notation. Fields go through one mapping, for a column may be called what Jinja reserves."""
    parts = []
    for literal, name in _pieces(text, where):
        parts.append(literal.replace("{", '{{ "{" }}'))
        if name is not None:
            parts.append(f'{{{{ {_FIELDS}["{name}"] }}}}')
    return "".join(parts)


def _pieces(text: str, where: str) -> list[tuple[str, str | None]]:
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise UserError(f"{where}: cannot read {text!r}: {error}; write a literal brace as {{{{ or }}}}") from error
    for _, name, spec, conversion in parsed:
        if name is not None and (spec or conversion or not name.isidentifier()):
            raise UserError(f"{where}: field {{{name}}} in {text!r} is not a plain name; name a column in braces, as {{text}}")
    return [(literal, name) for literal, name, _, _ in parsed]


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(SEPARATOR, _ESCAPED)
    if isinstance(value, Mapping):
        return {key: _escaped(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_escaped(entry) for entry in value]
    return value


def _unescaped(text: str) -> str:
    return text.replace(_ESCAPED, SEPARATOR)
