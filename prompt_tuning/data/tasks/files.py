"""The user's own data: TSV, CSV or JSON files with a header or keys, named columns, and a template.

By suffix (`.gz` may follow): `.tsv` is split at tabs and knows no quoting; `.csv` is quoted as RFC 4180 has it; both have a header line.
`.jsonl` holds an object a line, `.json` one array of objects. All are UTF-8. What is wrong with a file is reported with its name and line.
"""

import csv
import dataclasses
import functools
import glob
import gzip
import io
import os
import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prompt_tuning.data import metrics, row_files, row_tasks
from prompt_tuning.data.rows import SPLITS, TextRow
from prompt_tuning.data.templates import Template, field_names
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

_READ_ERRORS = (OSError, EOFError)


@dataclasses.dataclass(frozen=True)
class Files:
    """One task read from files.

    Attributes:
      name: the task's name in reports: letters, digits, underscores.
      train_files: paths or glob patterns.
      validation_files: paths or glob patterns.
      test_files: paths or glob patterns.
      input_column: the column that is the input where there is no template.
      target_column: the column that holds the target: with answer choices one of them or its index, else the text to write (in JSON also a
        list of accepted texts, of which training takes the first).
      answer_choices: the label words in label order, or None for free text.
      template: None takes the input column as it is; else text with the columns' names in braces, `{options}` for the list of choices.
      metrics: names in `prompt_tuning.data.metrics`, the first the main one; None takes accuracy and macro F1 with choices, else exact
        match, SQuAD's F1 and ROUGE-L.
      delimiter: between the columns of TSV and CSV files; None goes by suffix.
      num_train: takes this many training rows, drawn with `seed`; None takes all.
      seed: of that draw.
    """

    name: str = "files"
    train_files: tuple[str, ...] = ()
    validation_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    input_column: str | None = None
    target_column: str | None = None
    answer_choices: tuple[str, ...] | None = None
    template: str | None = None
    metrics: tuple[str, ...] | None = None
    delimiter: str | None = None
    num_train: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train_files", "validation_files", "test_files"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value or ()))
        for name in ("answer_choices", "metrics"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise UserError(f"Files.{name}: wanted a list of strings or None, got the string {value!r}; write ['...', '...']")
            if value is not None:
                object.__setattr__(self, name, tuple(map(str, value)))
        if not self.name.isidentifier():
            raise UserError(f"Files.name: wanted letters, digits and underscores, got {self.name!r}")
        if self.answer_choices is not None and (len(self.answer_choices) < 2 or len(set(self.answer_choices)) < len(self.answer_choices)):
            raise UserError(
                f"ANSWER_CHOICES: wanted at least two different choices, or None for free text, got {list(self.answer_choices)}"
            )
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise UserError(f"Files.delimiter: wanted one character, got {self.delimiter!r}")
        if self.num_train is not None and self.num_train < 1:
            raise UserError(f"Files.num_train: wanted at least 1 row, got {self.num_train}")
        metrics.check(self.metrics or (), "Files.metrics")

    @property
    def task_names(self) -> tuple[str, ...]:
        """The name of the task."""
        return (self.name,)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of its metrics."""
        if self.metrics is not None:
            return self.metrics
        return ("accuracy", "f1_macro") if self.answer_choices else ("exact_match", "squad_f1", "rougeL")

    def paths(self, split: str) -> tuple[str, ...]:
        """The files of a split, patterns resolved, each pattern's in alphabetical order. Raises UserError for one that matches nothing."""
        found: list[str] = []
        for pattern in getattr(self, f"{split}_files"):
            matches = sorted(glob.glob(os.path.expanduser(pattern), recursive=True)) or [pattern]
            for path in matches:
                if not os.path.isfile(path):
                    what = "is a folder" if os.path.isdir(path) else "no such file"
                    raise UserError(f"{path}: {what}; wanted a TSV, CSV or JSONL file for {split.upper()}_FILES; mend the path")
                _suffix(path)
            found += matches
        return tuple(found)

    def tasks(self, vocabulary: "seqio.Vocabulary") -> list[row_tasks.RowTask]:
        """The task; see `mixtures.Source`. Raises UserError for missing files or columns that are not named."""
        paths = {split: self.paths(split) for split in SPLITS}
        splits = tuple(split for split, found in paths.items() if found)
        if not splits:
            raise UserError(
                "no data files: wanted paths of TSV, CSV or JSONL files; set --gin.TRAIN_FILES=\"'train.tsv'\" and VALIDATION_FILES"
            )
        if self.target_column is None:
            raise UserError("TARGET_COLUMN is not set; wanted the name of the column that holds the target")
        if self.input_column is None and self.template is None:
            raise UserError(
                "neither INPUT_COLUMN nor TEMPLATE is set; wanted the name of the column to read, or a text with columns in braces"
            )
        # A file that changes makes another task.
        stamps = [(path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for found in paths.values() for path in found]
        return [
            row_tasks.register(
                self.name,
                settings=(self, stamps),
                vocabulary=vocabulary,
                read=functools.partial(text_rows, self),
                splits=splits,
                metric_names=self.metric_names,
                on_disk=True,
            )
        ]


def text_rows(settings: Files, split: str) -> list[TextRow]:
    """The rows of a split as text, in the order of the files. Raises UserError with file and line for whatever is wrong in them."""
    template = _template(settings)
    found: list[TextRow] = []
    for path in settings.paths(split):
        before = len(found)
        for where, row in read_rows(path, delimiter=settings.delimiter):
            _check_columns(settings, row, where)
            if settings.answer_choices is None:
                texts = _free_texts(row[settings.target_column or ""], where, settings)
                rendered = template.render(row | {"answer": texts[0]})
                found.append(TextRow(rendered.inputs, texts[0], references=texts if len(texts) > 1 else ()))
            else:
                label = _label(row, where, settings, template)
                rendered = template.render(row | {"label": label})
                found.append(TextRow(rendered.inputs, rendered.targets, rendered.answer_choices or ()))
        if len(found) == before:
            raise UserError(f"{path}: no data rows; wanted at least one row below the header; check the file")
    if split == "train" and settings.num_train is not None:
        if settings.num_train > len(found):
            raise UserError(f"Files.num_train: wanted {settings.num_train} training rows, the files hold {len(found)}")
        found = random.Random(f"files/{settings.seed}").sample(found, settings.num_train)
    return found


def read_rows(path: str, *, delimiter: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file: `("file:line", row)`, a row as column name to value. Raises UserError for whatever cannot be read."""
    suffix = _suffix(path)
    if suffix in (".json", ".jsonl"):
        yield from ((where, row_files.json_object(where, row)) for where, row in row_files.json_rows(path))
    else:
        yield from _delimited(path, read_text(path), delimiter or ("\t" if suffix == ".tsv" else ","), quoted=suffix == ".csv")


def _suffix(path: str) -> str:
    suffix = os.path.splitext(path.removesuffix(".gz"))[1].lower()
    if suffix not in (".tsv", ".csv", ".jsonl", ".json"):
        raise UserError(
            f"{path}: suffix {suffix!r} is not known; wanted .tsv, .csv, .jsonl or .json, each also with .gz; convert or rename it"
        )
    return suffix


def read_text(path: str) -> str:
    """The text of a file; `.gz` is unpacked. Raises UserError for one that cannot be read, or is not UTF-8."""
    try:
        with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as file:
            data = file.read()
    except _READ_ERRORS as error:
        raise UserError(f"{path}: cannot be read: {error}; check the file") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: not UTF-8: byte 0x{data[error.start]:02x}; wanted UTF-8; convert the file, as with iconv -f latin1 -t utf-8"
        ) from error


def _delimited(path: str, text: str, delimiter: str, *, quoted: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
    )
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            where, start = f"{path}:{start}", reader.line_num + 1
            if header is None:
                header = [cell.strip() for cell in cells]
                doubles = {name for name in header if header.count(name) > 1}
                if doubles:
                    raise UserError(f"{where}: the header names column {min(doubles)!r} twice; wanted different names; mend the header")
            elif len(cells) == len(header):
                yield where, dict(zip(header, cells, strict=True))
            elif cells:
                raise UserError(f"{where}: {len(cells)} columns, wanted {len(header)} as in the header ({', '.join(header)}); mend the row")
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not readable as columns: {error}; wanted RFC 4180 quoting; mend the line") from error
    if header is None:
        raise UserError(f"{path}: the file is empty; wanted a header line and rows")


def _template(settings: Files) -> Template:
    choices = settings.answer_choices
    inputs = settings.template
    if inputs is None:
        inputs = "{_input}"  # Under a name of its own, for a column may be called what cannot stand in braces.
    field_names(inputs, "TEMPLATE")
    return Template(inputs, "{answer}", None if choices is None else tuple(map(str, choices)), name="TEMPLATE")


def _check_columns(settings: Files, row: dict[str, Any], where: str) -> None:
    """Finds the columns the settings name, and makes values text."""
    made = {"answer", "options", "label"}
    wanted = [("TARGET_COLUMN", settings.target_column or "")]
    if settings.input_column is not None:
        wanted.append(("INPUT_COLUMN", settings.input_column))
    if settings.template is not None:
        wanted += [("TEMPLATE", name) for name in field_names(settings.template, "TEMPLATE") if name not in made]
    for macro, name in wanted:
        if name not in row:
            raise UserError(f"{where}: no column {name!r}; it has {', '.join(map(repr, row))}; mend {macro} or the file")
    for _, name in wanted[1:]:
        if row[name] is None:
            raise UserError(f"{where}: column {name!r} is null; wanted text; drop the row or fill it")
        if isinstance(row[name], bool):
            row[name] = "true" if row[name] else "false"
    if settings.template is None:
        row["_input"] = row[settings.input_column or ""]


def _free_texts(value: Any, where: str, settings: Files) -> tuple[str, ...]:
    texts = tuple(str(entry) for entry in value) if isinstance(value, list) else (str(value),)
    if value is None or not texts or not all(text.strip() for text in texts):
        raise UserError(f"{where}: column {settings.target_column!r} is empty; wanted the text to write; drop the row or fill it")
    return texts


def _label(row: Mapping[str, Any], where: str, settings: Files, template: Template) -> int:
    """The index of the row's choice: a choice's text comes first, then an index as number or digits; true and false count as 1 and 0."""
    value = row[settings.target_column or ""]
    text = ("true" if value else "false") if isinstance(value, bool) else str(value).strip()
    choices = template.answer_choices or ()
    if any("{" in choice for choice in choices):
        choices = template.render(dict(row) | {"label": 0}).answer_choices or choices
    for index, choice in enumerate(choices):
        if text == choice.strip():
            return index
    number = int(value) if isinstance(value, bool) else int(text) if text.isdecimal() else -1
    if 0 <= number < len(choices):
        return number
    raise UserError(
        f"{where}: column {settings.target_column!r} is {value!r}, wanted one of {list(choices)} or an index 0..{len(choices) - 1}; "
        "mend the row or ANSWER_CHOICES"
    )
