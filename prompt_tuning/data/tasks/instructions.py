"""Instruction data, one's own or published, named by files or splits of TFDS and a format (`data/instructions/`)."""

import collections
import dataclasses
import fnmatch
import functools
import os
import pathlib
import random
import re
import string
from typing import TYPE_CHECKING, Any, Literal

from prompt_tuning.data import notes, row_files, row_tasks, tfds_rows
from prompt_tuning.data.instructions import chat_templates
from prompt_tuning.data.instructions.alpaca import Alpaca
from prompt_tuning.data.instructions.chain_of_thought import ChainOfThought
from prompt_tuning.data.instructions.chat import Chat, wrapped
from prompt_tuning.data.instructions.few_shot import with_exemplars
from prompt_tuning.data.instructions.record import Counts, Format, Reading, Record, draw, records
from prompt_tuning.data.instructions.rendered import Rendered
from prompt_tuning.data.instructions.super_natural import SuperNaturalInstructions
from prompt_tuning.data.instructions.variations import inverted, with_options, with_suffix, without_options
from prompt_tuning.data.loss_masks import token_offsets
from prompt_tuning.data.provenance import Provenance
from prompt_tuning.data.rows import SPLITS, TextRow
from prompt_tuning.data.tasks.files import Files
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

# The formats that need no settings, by the names they go by; one with settings is given as itself.
FORMATS: dict[str, Format] = {
    "alpaca": Alpaca(),
    "chat": Chat(),
    "chain_of_thought": ChainOfThought(),
    "rendered": Rendered(),
    "super_natural": SuperNaturalInstructions(),
}
_FREE_TEXT = ("rougeL", "exact_match", "squad_f1")
_SHARES = 1_000_000
_OPTIONS = ("as_is", "suffix", "none", "listed", "lettered", "varied")


@dataclasses.dataclass(frozen=True)
class Instructions:
    """Instruction data in files, or in TFDS where the format is `Templated`: one task, or a task a file.

    Attributes:
      name: the task's name in reports: letters, digits, underscores; with `by_file` what the names begin with.
      format: a name in FORMATS, or a format with its settings, such as `templated.Templated`.
      train_files: paths, glob patterns, or splits of TFDS as `tfds:NAME#SPLIT` (`tfds_rows.split_path`).
      validation_files: paths or glob patterns.
      test_files: paths or glob patterns.
      validation_frac: without validation files, the share of the training files' examples that are kept from training for validation, by a
        hash of each.
      held_out: a file of tasks' names, one a line, as Super-NaturalInstructions' splits are: training files called so are validation files.
      leave_out: patterns of names of files, without suffix, that are passed over.
      train_tasks: a file of names as `held_out`: of the training files that are not held out, only those called so are trained on.
      by_file: whether each file is a task of its own, as the files of Super-NaturalInstructions and P3 are.
      per_file: takes the first so many examples of each file; None takes all.
      num_train: takes so many training examples of each task, drawn with `seed`; None takes all.
      max_train: takes at most so many, where a task has more (FLAN's cap: 30,000); None takes all.
      max_per_template: takes at most so many training examples told by each template; of rows that come told, of each file.
      options: of an example with answer choices. `suffix` lists them behind every input (FLAN, section 2.3), `none` behind no input;
        `listed` does it in a drawn order under a drawn header; `lettered` also asks for the letter of one; `varied` draws one of the two
        (Flan 2022); `as_is` leaves what templates made.
      inverted_frac: the share of training examples that give the target and ask for the input (Flan 2022).
      exemplars: solved examples of the same task before each input: none of them the example itself.
      input_tokens: exemplars are added while an input has at most so many tokens; None adds them all.
      chat: a chat template's name, or the file of one, in which all is written; None: conversations are written plainly, the rest as it is.
      on_error: what is done with a row that is wrong: `raise` ends the command with its error, `skip` counts it and says so.
      origin: where the data is from, for `provenance.HeldOut`; None: the files or the task's name say so.
      metrics: names in `prompt_tuning.data.metrics`, the first the main one; None takes the format's, else ROUGE-L, exact match and F1.
      seed: of everything drawn.
    """

    name: str = "instructions"
    format: Format | str = "alpaca"
    train_files: tuple[str, ...] = ()
    validation_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    validation_frac: float = 0.0
    held_out: str | None = None
    train_tasks: str | None = None
    leave_out: tuple[str, ...] = ()
    by_file: bool = False
    per_file: int | None = None
    num_train: int | None = None
    max_train: int | None = None
    max_per_template: int | None = None
    options: Literal["as_is", "suffix", "none", "listed", "lettered", "varied"] = "as_is"
    inverted_frac: float = 0.0
    exemplars: int = 0
    input_tokens: int | None = None
    chat: str | None = None
    on_error: Literal["raise", "skip"] = "raise"
    origin: Provenance | None = None
    metrics: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        files = self._files
        for name in ("train_files", "validation_files", "test_files", "metrics"):
            object.__setattr__(self, name, getattr(files, name))
        if isinstance(self.format, str) and self.format not in FORMATS:
            raise UserError(f"FORMAT: wanted one of {', '.join(FORMATS)}, or a format with its settings, got {self.format!r}")
        if self.on_error not in ("raise", "skip"):
            raise UserError(f"ON_ERROR: wanted 'raise' or 'skip', got {self.on_error!r}")
        if not 0 <= self.validation_frac < 1:
            raise UserError(f"VALIDATION_FRAC: wanted 0 or more and less than 1, got {self.validation_frac}")
        if self.exemplars < 0:
            raise UserError(f"EXEMPLARS: wanted 0 or more, got {self.exemplars}")
        if not 0 <= self.inverted_frac <= 1:
            raise UserError(f"INVERTED_FRAC: wanted 0 to 1, got {self.inverted_frac}")
        if self.options not in _OPTIONS:
            raise UserError(f"OPTIONS: wanted one of {', '.join(_OPTIONS)}, got {self.options!r}")
        object.__setattr__(self, "leave_out", (self.leave_out,) if isinstance(self.leave_out, str) else tuple(self.leave_out))
        for name in ("exemplars", "inverted_frac"):
            if getattr(self, name) and isinstance(self._format, Chat):
                raise UserError(f"{name.upper()}: wanted 0 for conversations, whose turns follow each other, got {getattr(self, name)}")
        if self.exemplars and 0 < self.inverted_frac < 1:
            raise UserError("EXEMPLARS: wanted 0 with INVERTED_FRAC, for exemplars do not show what is turned round; set one of them to 0")
        for name in ("per_file", "max_train", "max_per_template"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name.upper()}: wanted at least 1 example, got {getattr(self, name)}")
        if self.chat is not None:
            chat_templates.load(self.chat)

    @property
    def _files(self) -> Files:
        """The settings that are the same as of other files, checked there."""
        return Files(self.name, self.train_files, self.validation_files, self.test_files, metrics=self.metrics, num_train=self.num_train)

    @property
    def _format(self) -> Format:
        return FORMATS[self.format] if isinstance(self.format, str) else self.format

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of its metrics."""
        return self.metrics or getattr(self._format, "metrics", ()) or _FREE_TEXT

    def paths(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """The files of each split of each task, by the tasks' names.

        Raises UserError for a pattern that matches nothing, no file at all, and two files of a task's name where each is a task.
        """
        found: dict[str, dict[str, tuple[str, ...]]] = collections.defaultdict(dict)
        for split, paths in self._paths_of_splits().items():
            if not self.by_file:
                found[self.name] |= {split: paths} if paths else {}
                continue
            for path in paths:
                stem = _stem(path)
                name = f"{self.name}_{re.sub(r'[^0-9A-Za-z]+', '_', stem)}"
                if split in found[name]:
                    raise UserError(f"{path}: another of {split.upper()}_FILES is called {stem!r} too; wanted a name each; rename one")
                found[name][split] = (path,)
        for splits in found.values():
            if self.validation_frac and "train" in splits and "validation" not in splits:
                splits["validation"] = splits["train"]
        if not any(found.values()):
            raise UserError("no instruction data: wanted paths of files; set --gin.TRAIN_FILES=\"'data.jsonl'\" and FORMAT")
        return dict(found)

    def _paths_of_splits(self) -> dict[str, tuple[str, ...]]:
        paths = {split: self._paths(split) for split in SPLITS}
        if self.held_out is not None:
            kept = self._named(paths["train"], self.held_out, called=False)
            paths |= {"train": kept, "validation": (*paths["validation"], *(path for path in paths["train"] if path not in kept))}
        if self.train_tasks is not None:
            paths |= {"train": self._named(paths["train"], self.train_tasks, called=True)}
        return paths

    def _named(self, paths: tuple[str, ...], listing: str, *, called: bool) -> tuple[str, ...]:
        """The paths that a file of names calls by name, or the others. Raises UserError where it names none of them."""
        names = {row_files.text(where, line).strip() for where, line in row_files.lines(listing)}
        found = tuple(path for path in paths if (_stem(path) in names) == called)
        if len(found) == (0 if called else len(paths)):
            raise UserError(f"{listing}: names none of TRAIN_FILES; wanted names of files, one a line, without suffix")
        return found

    def _paths(self, split: str) -> tuple[str, ...]:
        given = getattr(self, f"{split}_files")
        published = tuple(path for path in given if tfds_rows.named(path))
        own = tuple(path for path in given if path not in published)
        files: dict[str, Any] = {f"{split}_files": own}
        found = dataclasses.replace(self._files, **files).paths(split)
        return published + tuple(path for path in found if not any(fnmatch.fnmatchcase(_stem(path), name) for name in self.leave_out))

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks."""
        return tuple(self.paths()) if self.by_file else (self.name,)

    @property
    def provenance(self) -> tuple[Provenance | None, ...]:
        """Where the tasks are from, for `provenance.HeldOut`, where their files say so."""
        if self.origin is not None or not (self.by_file and isinstance(self._format, SuperNaturalInstructions)):
            return (self.origin,) * len(self.task_names)
        return tuple(self._format.provenance(paths[0]) for splits in self.paths().values() for paths in list(splits.values())[:1])

    def tasks(self, vocabulary: "seqio.Vocabulary") -> list[row_tasks.RowTask]:
        """The tasks; see `mixtures.Source`."""
        made = []
        for title, splits in self.paths().items():
            # A file that changes makes another task; what the other tasks are doesn't.
            stamps = [(split, path, *_stamp(path)) for split, paths in splits.items() for path in paths]
            alone = dataclasses.replace(self, train_files=(), validation_files=(), test_files=())
            read = functools.partial(text_rows, self, vocabulary, title, splits)
            made.append(
                row_tasks.register(
                    title,
                    settings=(alone, stamps),
                    vocabulary=vocabulary,
                    read=read,
                    splits=tuple(splits),
                    metric_names=self.metric_names,
                    # What TFDS has prepared is not among the files that are looked at.
                    on_disk=not any(tfds_rows.named(path) for paths in splits.values() for path in paths),
                )
            )
        return made


def text_rows(
    settings: Instructions, vocabulary: "seqio.Vocabulary", title: str, splits: dict[str, tuple[str, ...]], split: str
) -> list[TextRow]:
    """The rows of a task's split as text, in the order of the files. Says on stderr what was skipped or dropped."""
    found = _examples(settings, vocabulary, title, splits, split)
    if settings.exemplars:
        pool = found if split == "train" or "train" not in splits else _examples(settings, vocabulary, title, splits, "train")
        found = with_exemplars(
            found,
            pool,
            count=settings.exemplars,
            seed=settings.seed,
            input_tokens=settings.input_tokens,
            count_tokens=functools.partial(_count_tokens, vocabulary),
        )
    rows = [record.row for record in found]
    if settings.chat is None:
        return rows
    template = chat_templates.load(settings.chat)
    if not isinstance(settings._format, Chat):
        rows = [wrapped(template, row) for row in rows]
    return [_without_end(row, vocabulary) for row in rows]


def _examples(
    settings: Instructions, vocabulary: "seqio.Vocabulary", title: str, splits: dict[str, tuple[str, ...]], split: str
) -> list[Record]:
    counts = Counts()
    reading = Reading(
        task=title,
        training=split == "train",
        seed=settings.seed,
        chat=None if settings.chat is None else chat_templates.load(settings.chat),
        count_tokens=functools.partial(_count_tokens, vocabulary),
    )
    found: list[Record] = []
    shared = settings.validation_frac > 0 and splits.get("train") == splits.get("validation")
    for path in splits[split]:
        found += _of_file(path, settings, reading, counts, part=split if shared else None)
    if counts.skipped or counts.dropped:
        notes.say(f"note: {title}, {split}: {counts}")
    if not found:
        raise UserError(f"{title}: the files hold no example for {split}: {counts}")
    if split == "train" and settings.num_train is not None and settings.num_train > len(found):
        raise UserError(f"NUM_TRAIN: wanted {settings.num_train} training examples of {title}, the files hold {len(found)}")
    if split == "train" and settings.max_per_template is not None:
        found = _capped(found, settings.max_per_template, settings.seed)
    most = min(settings.num_train or len(found), settings.max_train or len(found))
    if split == "train" and most < len(found):
        found = random.Random(f"instructions/{settings.seed}").sample(found, most)
    if settings.options == "suffix":
        found = [with_suffix(record) for record in found]
    elif settings.options == "none":
        found = [without_options(record) for record in found]
    elif settings.options != "as_is":
        ways = {"listed": (False,), "lettered": (True,), "varied": (False, True)}[settings.options]
        found = [
            with_options(
                record, lettered=ways[draw(record.identity, "lettered", settings.seed, len(_fitting(record, ways)))], seed=settings.seed
            )
            for record in found
        ]
    turned = split == "train" and settings.inverted_frac > 0
    return inverted(found, frac=settings.inverted_frac, seed=settings.seed) if turned else found


def _of_file(path: str, settings: Instructions, reading: Reading, counts: Counts, *, part: str | None) -> list[Record]:
    """The examples of a file; of one that two splits share, those of the split `part`: a hash of each says whose it is."""
    here: list[Record] = []
    empty = True
    for record in records(path, settings._format, reading, counts=counts, on_error=settings.on_error):
        empty = False
        held_out = draw(record.identity, "split", settings.seed, _SHARES) < settings.validation_frac * _SHARES
        if part is None or held_out == (part == "validation"):
            here.append(record)
        if len(here) == settings.per_file:
            break
    if empty and settings.on_error == "raise":
        raise UserError(f"{path}: holds no example; wanted at least one; check the file, or leave it out with ON_ERROR='skip'")
    return here


def _without_end(row: TextRow, vocabulary: "seqio.Vocabulary") -> TextRow:
    """A row whose texts do not end with the vocabulary's own EOS, which is appended later: of a model whose EOS ends its turns."""
    if (end := _end(row.targets, vocabulary)) is None:
        return row
    choices = tuple(choice[: _end(choice, vocabulary)] for choice in row.answer_choices)
    spans = tuple((begin, min(stop, end)) for begin, stop in row.loss_spans)
    return dataclasses.replace(row, targets=row.targets[:end], answer_choices=choices, loss_spans=spans)


def _end(text: str, vocabulary: "seqio.Vocabulary") -> int | None:
    """Where the EOS that a text spells out at its end begins; None where it spells none."""
    ids = vocabulary.encode(text)
    return token_offsets(vocabulary, text)[-1][0] if ids and ids[-1] == vocabulary.eos_id else None


def _fitting(record: Record, ways: tuple[bool, ...]) -> tuple[bool, ...]:
    """The ways of listing choices from which one is drawn: lettered only where there are letters enough."""
    return ways if len(record.row.answer_choices) <= len(string.ascii_uppercase) else ways[:1]


def _capped(found: list[Record], most: int, seed: int) -> list[Record]:
    """At most so many records of each template, drawn, in their order."""
    places: dict[str, list[int]] = collections.defaultdict(list)
    for place, record in enumerate(found):
        places[record.template or record.where.rpartition(":")[0]].append(place)
    kept = {
        place
        for template, here in places.items()
        for place in (here if len(here) <= most else random.Random(f"instructions/{seed}/{template}").sample(here, most))
    }
    return [record for place, record in enumerate(found) if place in kept]


def _stamp(path: str) -> tuple[int, ...]:
    """What changes with the content of a file; splits of TFDS say their version in their names."""
    return () if tfds_rows.named(path) else (os.stat(path).st_size, os.stat(path).st_mtime_ns)


def _stem(path: str) -> str:
    return pathlib.Path(path.removesuffix(".gz")).stem


def _count_tokens(vocabulary: "seqio.Vocabulary", text: str) -> int:
    return len(vocabulary.encode(text)) + 1
