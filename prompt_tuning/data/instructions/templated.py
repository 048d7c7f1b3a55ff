"""Rows of a data set, each told by one template of a set: FLAN's way (Wei et al. 2021, section 2.1), over one's own files or TFDS.

The template of a row is drawn by a hash of the row, so that no order, shard or restart changes it. Templates that are turned around, and
those that do not ask the original task, occur in training only.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from prompt_tuning.data import template_sets, tfds_rows
from prompt_tuning.data.instructions.record import Reading, Record, content_identity
from prompt_tuning.data.row_files import given_id, json_object, json_rows, lines, text
from prompt_tuning.data.rows import TextRow
from prompt_tuning.data.templates import Template
from prompt_tuning.errors import UserError


@dataclasses.dataclass(frozen=True)
class Templated:
    """Rows of JSONL, JSON or TSV files (with a header) or of TFDS (`tfds_rows`), shown to templates.

    Attributes:
      templates: a bundled set by its data set's name (`template_sets.BUNDLED`), or the path of a YAML file (promptsource's too).
      columns: where a template's field is in a row, as `{"premise": "sentence1"}`; what is not named is under its own name.
      template: the name of the one template that all rows take; None draws.
      turned_around: whether training draws templates that are turned around too.
      data_dir: the TFDS folder, for rows of TFDS; None is TFDS's own, where data that is missing is downloaded.
    """

    templates: str = ""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    template: str | None = None
    turned_around: bool = True
    data_dir: str | None = None

    def items(self, path: str) -> Iterator[tuple[str, Any]]:
        """The rows."""
        self._set()
        if tfds_rows.named(path):
            return tfds_rows.rows(path, self.data_dir)
        return _table(path) if path.removesuffix(".gz").lower().endswith(".tsv") else json_rows(path)

    def records(self, where: str, item: Any, reading: Reading) -> Iterator[Record]:
        """One record, or none where the template drops the row."""
        row = _cells(where, *item) if isinstance(item, tuple) else json_object(where, item)
        chosen = self._set()
        shown = chosen.row(row, where)
        name = "" if tfds_rows.named(where) else given_id(row)  # Published data sets give some of their ids twice.
        says = {column: value for column, value in row.items() if column not in ("id", "idx")}
        identity = content_identity(reading, json.dumps(says, sort_keys=True, default=str))
        template = self._template(chosen, identity, reading)
        try:
            rendered = template.render(shown, seed=reading.seed)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        if not rendered.dropped:
            references = rendered.references if len(rendered.references) > 1 else ()
            told = TextRow(rendered.inputs, rendered.targets, rendered.answer_choices or (), references)
            yield Record(where, identity, told, name, template.name)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the templates name."""
        found = [metric for template in self._set().templates if template.original_task for metric in template.metrics]
        return tuple(dict.fromkeys(found))

    def asking(self) -> tuple[Template, ...]:
        """The templates that ask the original task, the ones evaluation takes. Raises UserError where there is none."""
        found = tuple(each for each in self._set().templates if each.original_task and not each.turned_around)
        if not found:
            raise UserError(f"{self.templates}: every template is turned around, wanted one that asks the original task; name one")
        return found

    def _set(self) -> template_sets.TemplateSet:
        if not self.templates:
            raise UserError("Templated.templates: wanted a set's name or the path of a YAML file, got none; set TEMPLATES")
        read = template_sets.load(self.templates)
        return dataclasses.replace(read, columns={**read.columns, **self.columns})

    def _template(self, chosen: template_sets.TemplateSet, identity: str, reading: Reading) -> template_sets.Template:
        if self.template is not None:
            named = [template for template in chosen.templates if template.name == self.template]
            if not named:
                there = ", ".join(template.name for template in chosen.templates)
                raise UserError(f"Templated.template: {self.templates} has no template {self.template!r}; wanted one of {there}")
            return named[0]
        turned = self.turned_around and reading.training
        return template_sets.draw(chosen.templates if turned else self.asking(), identity, reading.seed)


def _table(path: str) -> Iterator[tuple[str, Any]]:
    """The lines of a TSV file below its header, each with the header."""
    header: list[str] | None = None
    for where, line in lines(path):
        if header is None:
            header = [cell.strip() for cell in text(where, line).split("\t")]
        else:
            yield where, (header, line)


def _cells(where: str, header: list[str], line: bytes) -> dict[str, Any]:
    cells = text(where, line).split("\t")
    if len(cells) != len(header):
        raise UserError(f"{where}: {len(cells)} columns, wanted {len(header)} as in the header ({', '.join(header)}); mend the row")
    return dict(zip(header, cells, strict=True))
