"""Runs a model on text and writes one JSON line a row, in order.

Without --workdir the base model itself runs; with it, the run's best checkpoint (or --checkpoint=latest), with the run's own configuration
where no gin file is given:

  python -m prompt_tuning.infer --workdir=runs/sst2 --input=reviews.txt --output=answers.jsonl

Rows of several tasks, each answered by the run of its own task, in batches together:

  python -m prompt_tuning.infer --task sst2=runs/sst2 --task cb=runs/cb --input=rows.jsonl --output=answers.jsonl

The input is JSONL if its first line that is not blank starts with "{", else text, one input a line; blank lines are skipped and counted.
A JSON row has `inputs` (and `targets` with --score) and keeps its other fields in the output. Inputs are what the model reads, so they take
the form of the training data, template included. Where each task has a prompt of its own, a row names its task by number (`task`).

The output adds `prediction`; with --score, which generates nothing, `log_likelihood` (natural logarithm, summed over the target tokens, the
end token included) and `target_tokens`, their number. A file is written whole or not at all.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import pathlib
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from prompt_tuning import cli, evaluate
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    from prompt_tuning.evaluation import Evaluation
    from prompt_tuning.experiment import Experiment

_STANDARD = "-"
# Rows are read, sorted by length and run in groups of this many batches: enough to fill batches with rows of like length.
_BATCHES_AT_ONCE = 8


def main(argv: list[str] | None = None) -> None:
    """The command."""
    fallbacks = (*evaluate.FALLBACKS, "experiment.Experiment.data = None")
    cli.main(_run, __doc__, extra_flags=_flags, fallbacks=fallbacks, argv=argv)


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", default=_STANDARD, metavar="FILE", help="text lines or JSONL; '-' (the default) is standard input")
    parser.add_argument("--output", default=_STANDARD, metavar="FILE", help="JSONL; '-' (the default) is standard output")
    parser.add_argument("--score", action="store_true", help="write the log-likelihood of `targets` instead of generating")
    parser.add_argument(
        "--task",
        action=_Runs,
        default={},
        metavar="NAME=RUN",
        help="a run that answers the rows whose `task` is NAME; repeat it for runs of one method on one base: their rows share batches",
    )
    evaluate.add_checkpoint_flag(parser)


class _Runs(argparse.Action):
    """Collects runs by name; the first is also whose configuration is read where nothing else says one."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        name, _, folder = str(values).partition("=")
        if not name or not folder or name in namespace.task:
            parser.error(f"{option}: wanted NAME=RUN, each name once, as in --task sst2=runs/sst2, got {values!r}")
        namespace.task = namespace.task | {name: folder}
        namespace.workdir = namespace.workdir or folder


def _run(experiment: "Experiment", flags: argparse.Namespace) -> None:
    # The input is opened first: a mistyped name is said at once, not after the model has been read.
    with opened_input(flags.input) as lines, opened_output(flags.output, input_path=flags.input) as output:
        rows = read_rows(lines, name="stdin" if flags.input == _STANDARD else flags.input, score=flags.score)
        first = next(rows, None)
        if first is None:
            raise UserError(f"--input: {flags.input} holds no row; wanted text lines or JSONL")
        rows = itertools.chain([first], rows)
        if flags.task:
            loaded = evaluate.load_tasks(experiment, list(flags.task.values()), checkpoint=flags.checkpoint)
        else:
            loaded = evaluate.load(experiment, workdir=flags.workdir, checkpoint=flags.checkpoint)
        vocabulary = experiment.vocabulary.load()
        for row in answer(rows, loaded, settings=experiment.evaluation, vocabulary=vocabulary, score=flags.score, tasks=tuple(flags.task)):
            output.write(json.dumps(row, ensure_ascii=False) + "\n")


def answer(
    rows: Iterable[dict[str, Any]],
    loaded: "evaluate.Loaded",
    *,
    settings: "Evaluation",
    vocabulary: Any,
    score: bool,
    tasks: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """The rows, in order, each with its `prediction`, or with `log_likelihood` and `target_tokens` where scores are asked for.

    Reads some batches of rows at a time, however many rows there are. Where `tasks` are given, each row's `task` names one of them.
    Raises UserError for a row of no such task.
    """
    import tqdm

    from prompt_tuning import evaluation

    group = settings.batch_size * _BATCHES_AT_ONCE
    rows, done, marks = iter(rows), 0, loaded.lengths.prompt.delimiters
    with tqdm.tqdm(unit="row", file=sys.stderr, disable=None) as progress:  # None: off where there is no terminal.
        while chunk := list(itertools.islice(rows, group)):
            # A decoder-only model that goes on from its inputs is not told that they have ended.
            goes_on = settings.decoding.start_id is None and not score
            ends = {"inputs": [marks.eos] if marks.inputs_end and not goes_on else [], "targets": [marks.eos]}
            fields = ("inputs", "targets") if score else ("inputs",)
            examples = [{field: [*vocabulary.encode(row[field]), *ends[field]] for field in fields} | _task_of(row, tasks) for row in chunk]
            if score:
                sums, counts = evaluation.log_likelihoods(loaded.parts, examples, lengths=loaded.lengths, batch_size=settings.batch_size)
                if not all(map(math.isfinite, sums)):
                    raise UserError("the model gives a log-likelihood that is not finite; its weights have diverged")
                added: list[dict[str, Any]] = [
                    {"log_likelihood": float(s), "target_tokens": int(c)} for s, c in zip(sums, counts, strict=True)
                ]
            else:
                texts = evaluation.generate_texts(
                    loaded.parts, examples, lengths=loaded.lengths, settings=settings, vocabulary=vocabulary, first_row=done
                )
                added = [{"prediction": text} for text in texts]
            for row, more in zip(chunk, added, strict=True):
                yield row | more
            done += len(chunk)
            progress.update(len(chunk))
    print(f"{done} rows", file=sys.stderr)


def _task_of(row: dict[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    """The number of a row's task where tasks have names, else what the row says itself."""
    if not tasks:
        return {"task": row["task"]} if "task" in row else {}
    if row.get("task") not in tasks:
        got = f"task {row['task']!r}" if "task" in row else "a row without a task"
        raise UserError(f'--task: wanted rows whose "task" is one of {", ".join(tasks)}, got {got}: {row["inputs"][:60]!r}')
    return {"task": tasks.index(row["task"])}


def read_rows(lines: Iterable[bytes], *, name: str, score: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a stream of UTF-8 lines, JSONL or text as the first line that is not blank says; each has `inputs`, a string.

    Args:
      lines: with or without their line ends.
      name: of the stream, for errors.
      score: whether every row must have `targets`, a string.

    Raises:
      UserError: names the stream and the line, for text that is not UTF-8, bad JSON, and `inputs` or `targets` missing or no string.
    """
    as_json: bool | None = None
    blank = 0
    for number, raw in enumerate(lines, start=1):
        where = f"{name}:{number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start}); convert the file to UTF-8") from error
        if not line.strip():
            blank += 1
            continue
        if as_json is None:
            as_json = line.lstrip().startswith("{")
            if score and not as_json:
                raise UserError(f'{where}: --score wants JSONL rows with "inputs" and "targets", got a line of text')
        yield _json_row(line, where, score) if as_json else {"inputs": line}
    if blank:
        print(f"{name}: skipped {blank} blank line{'s' if blank > 1 else ''}", file=sys.stderr)


def _json_row(line: str, where: str, score: bool) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: bad JSON: {error.msg} at column {error.colno}; wanted one object a line") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: wanted a JSON object, got {type(row).__name__}")
    for field in ("inputs", "targets") if score else ("inputs",):
        if field not in row:
            raise UserError(f'{where}: no "{field}" in the row; it has {sorted(row)}')
        if not isinstance(row[field], str):
            raise UserError(f'{where}: "{field}" is {type(row[field]).__name__}, wanted a string')
    return row


@contextlib.contextmanager
def opened_input(path: str) -> Iterator[IO[bytes]]:
    """Standard input for "-", else the file. Raises UserError where it cannot be opened."""
    if path == _STANDARD:
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
        except OSError as error:
            raise UserError(
                f"--input: cannot read {path}: {error.strerror}; wanted a file of text lines or JSONL, or - for standard input"
            ) from error
        yield file


@contextlib.contextmanager
def opened_output(path: str, *, input_path: str) -> Iterator[IO[str]]:
    """Standard output for "-", else a file that takes its name only when everything is written.

    An interrupted run leaves what was there before. A pipe or device is written directly.
    Raises UserError where it cannot be written, or is the input.
    """
    if path == _STANDARD:
        yield sys.stdout
        sys.stdout.flush()
        return
    target = pathlib.Path(os.path.realpath(path))
    if input_path != _STANDARD and target.exists() and os.path.samefile(target, input_path):
        raise UserError(f"--output: {path} is the input file; name another")
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        if target.is_dir():
            raise UserError(f"--output: {path} is a folder; wanted a file, as {path.rstrip('/')}/predictions.jsonl")
        with open(target, "w", encoding="utf-8") as file:
            yield file
        return
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:
        raise UserError(f"--output: cannot write {path}: {error.strerror}; wanted a file in a folder that exists") from error
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0o022)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


if __name__ == "__main__":
    main()
