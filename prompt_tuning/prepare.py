"""Tokenizes an experiment's data once and writes it as TFRecord files, for many runs or machines to read.

    python -m prompt_tuning.prepare --gin_file=MODEL --gin_file=DATA --target=DIR [--processes=2] [--splits=train,validation]
    python -m prompt_tuning.train --gin_file=MODEL --gin_file=METHOD --gin_file=DATA --gin.PREPARED="'DIR'" --workdir=RUN

Every task of the data and of evaluation_data is prepared, each split in a process of its own, or with --beam on the workers of an Apache
Beam runner, which must see the files and DIR; the same command goes on where an earlier one stopped. DIR/manifest.json then says what each
task is: settings, source files with hash and licence where they state it, versions, examples, tokens, and each file's size and hash. Text
without end is not prepared.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from prompt_tuning import cli, environment, files
from prompt_tuning.contamination import ANY_MODEL
from prompt_tuning.errors import UserError
from prompt_tuning.evaluate import FALLBACKS

if TYPE_CHECKING:
    from prompt_tuning.experiment import Experiment

_VERSIONS = ("seqio", "tensorflow", "sentencepiece", "tokenizers", "jinja2")


@dataclasses.dataclass(frozen=True)
class Job:
    """One split of one task: the `number`th of what `source` gives for a vocabulary's settings, `title` in reports."""

    source: Any
    vocabulary: Any
    number: int
    title: str
    split: str
    folder: str


def main(argv: list[str] | None = None) -> None:
    """The command."""
    cli.main(_run, __doc__, extra_flags=_flags, fallbacks=FALLBACKS + ANY_MODEL, argv=argv)


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="DIR", help="the folder to fill; one that an earlier run has filled in part is gone on with")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="(default: as many as there are cores)")
    parser.add_argument("--beam", metavar="OPTIONS", help="write through Apache Beam, with its options, as '--runner=FlinkRunner ...'")
    parser.add_argument("--splits", type=lambda text: tuple(text.split(",")), help="(default: train and the split that is evaluated)")


def _run(experiment: "Experiment", flags: argparse.Namespace) -> None:
    if not flags.target:
        raise UserError("--target is missing; wanted the folder to fill")
    if flags.processes < 1:
        raise UserError(f"--processes: wanted 1 or more, got {flags.processes}")
    if experiment.prepared is not None:
        raise UserError(f"PREPARED: wanted None, for sources are read here, got {experiment.prepared!r}")
    splits = flags.splits or tuple(dict.fromkeys(("train", experiment.evaluation.split)))
    manifest = prepare(experiment, flags.target, splits=splits, processes=flags.processes, beam=flags.beam)
    rows = [split for task in manifest["tasks"].values() for split in task["splits"].values()]
    tokens = sum(row["inputs_tokens"] + row["targets_tokens"] for row in rows)
    print(f"prepared {len(manifest['tasks'])} tasks: {sum(row['examples'] for row in rows)} examples, {tokens} tokens; see {flags.target}")


def prepare(experiment: "Experiment", target: str, *, splits: Iterable[str], processes: int = 1, beam: str | None = None) -> dict[str, Any]:
    """Writes what is not written yet, then the manifest, and gives it: in some processes here, or with options of Beam on its runner.

    Raises UserError where nothing can be prepared, for what is wrong with a source, and for a target that cannot be written.
    """
    from prompt_tuning.data import notes, prepared

    jobs, tasks = _jobs(experiment, target, tuple(splits))
    try:
        for name in tasks:
            (pathlib.Path(target) / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--target {target}: cannot write there ({error.strerror}); choose another") from error
    missing = [job for name, split, job in jobs if not _done(target, name, split)]
    if len(missing) < len(jobs):
        notes.say(f"note: {len(jobs) - len(missing)} of {len(jobs)} splits are there already")
    for title, split in _written(missing, processes) if beam is None else _through_beam(missing, beam):
        print(f"wrote {title} {split}", file=sys.stderr)
    for name in tasks:
        files.atomic_write(pathlib.Path(target) / name / "COMPLETED", "")  # What SeqIO looks for.
    manifest = _manifest(experiment, target, jobs, tasks) | {"format": prepared.FORMAT}
    files.atomic_write(pathlib.Path(target) / prepared.MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def _jobs(experiment: "Experiment", target: str, splits: tuple[str, ...]) -> tuple[list[tuple[str, str, Job]], dict[str, Any]]:
    """`(task name, split, job)` of all that is prepared, and the tasks by name."""
    from prompt_tuning.data import notes

    vocabulary = experiment.vocabulary.load()
    jobs: dict[tuple[str, str], Job] = {}
    tasks: dict[str, Any] = {}
    for source in filter(None, (experiment.data, experiment.evaluation_data)):
        for number, task in enumerate(source.tasks(vocabulary)):
            if getattr(task, "streaming", False):
                notes.say(f"note: {task.title} is text without end and stays as it is")
                continue
            for split in splits:
                if split in task.splits:
                    tasks[task.name] = task
                    jobs[task.name, split] = Job(
                        source, experiment.vocabulary, number, task.title, split, os.path.join(os.path.abspath(target), task.name)
                    )
    if not jobs:
        raise UserError(f"nothing to prepare: no task has a split among {', '.join(splits)}; name others with --splits")
    return [(*key, job) for key, job in jobs.items()], tasks


def _written(jobs: list[Job], processes: int) -> Iterator[tuple[str, str]]:
    """Writes each split; gives titles and splits as they are done."""
    if processes == 1 or len(jobs) < 2:
        yield from map(write, jobs)
        return
    # Not forked: TensorFlow's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=environment.settle) as pool:
        running = [pool.submit(write, job) for job in jobs]
        try:
            for each in concurrent.futures.as_completed(running):
                yield each.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _through_beam(jobs: list[Job], options: str) -> list[tuple[str, str]]:
    """Writes each split on a worker of Beam's runner; gives titles and splits once all are done."""
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(f"--beam: Apache Beam is not at hand ({error}); docs/preparation.md says which environment has it") from error
    try:
        with apache_beam.Pipeline(options=PipelineOptions(shlex.split(options))) as pipeline:
            # Reshuffled, lest the runner fuses all splits into one piece of work.
            _ = pipeline | apache_beam.Create(jobs) | apache_beam.Reshuffle() | apache_beam.Map(write)
    except Exception as error:
        # Beam wraps what a worker raises, and says it over many lines.
        if told := re.search(r"UserError: (.*?)(?: \[while running|\n|$)", f"{type(error).__name__}: {error}"):
            raise UserError(told[1]) from error
        raise
    return [(job.title, job.split) for job in jobs]


def write(job: Job) -> tuple[str, str]:
    """Writes one split: its records under a name of their own until they are whole, then what SeqIO reads beside them, statistics last."""
    import seqio
    import tensorflow as tf

    from prompt_tuning.data import example_tables

    task = job.source.tasks(job.vocabulary.load())[job.number]
    inside = getattr(task, "seqio", task)
    if not inside.supports_caching:
        raise UserError(f"task {task.title}: its pipeline tokenizes by itself and cannot be prepared; leave it out")
    folder, split = pathlib.Path(job.folder), job.split
    record = folder / _record(split)
    stats: dict[str, Any] = {"examples": 0, "inputs_tokens": 0, "targets_tokens": 0, "inputs_max_tokens": 0, "targets_max_tokens": 0}
    info: dict[str, Any] = {"num_shards": 1, "features": {}, "seqio_version": seqio.__version__}
    temporary = folder / f".{record.name}.{os.getpid()}.tmp"
    digest, dataset = hashlib.sha256(), inside.preprocess_precache(inside.source.get_dataset(split, shuffle=False))
    try:
        with tf.io.TFRecordWriter(str(temporary)) as file:
            for example in dataset:
                content = seqio.dict_to_tfexample(example).SerializeToString(deterministic=True)
                file.write(content)
                digest.update(content)
                stats["examples"] += 1
                for name in ("inputs", "targets"):
                    length = int(example[name].shape[0])
                    stats[f"{name}_tokens"] += length
                    stats[f"{name}_max_tokens"] = max(stats[f"{name}_max_tokens"], length)
                info["features"] = info["features"] or {name: _described(value) for name, value in example.items()}
        if not stats["examples"]:
            raise example_tables.no_example(task, split)
        with open(temporary, "rb+") as whole:
            os.fsync(whole.fileno())
        os.replace(temporary, record)
    finally:
        temporary.unlink(missing_ok=True)
    files.atomic_write(folder / f"info.{split}.json", json.dumps(info, indent=1))
    stats |= {"bytes": record.stat().st_size, "sha256": digest.hexdigest()}
    files.atomic_write(folder / f"stats.{split}.json", json.dumps(stats, indent=1))
    return task.title, split


def _record(split: str) -> str:
    return f"{split}.tfrecord-00000-of-00001"


def _described(value: Any) -> dict[str, Any]:
    shape = value.shape.as_list()
    return {"shape": [None, *shape[1:]] if shape else [], "dtype": value.dtype.name}


def _done(target: str, name: str, split: str) -> bool:
    """Whether a split is written whole."""
    folder = pathlib.Path(target) / name
    stats, record = folder / f"stats.{split}.json", folder / _record(split)
    return stats.is_file() and record.is_file() and record.stat().st_size == json.loads(stats.read_text())["bytes"]


def _manifest(experiment: "Experiment", target: str, jobs: list[tuple[str, str, Job]], tasks: dict[str, Any]) -> dict[str, Any]:
    import importlib.metadata

    from prompt_tuning.data import token_cache
    from prompt_tuning.experiment import resolved

    entries: dict[str, Any] = {}
    for name, task in tasks.items():
        named = sorted(set(token_cache.named_files(getattr(task, "settings", None))))
        entries[name] = {
            "title": task.title,
            "sources": [{"file": path, "sha256": _digest(path), "licence": _licence(path)} for path in named],
            "splits": {},
        }
    for name, split, _ in jobs:
        stats = json.loads((pathlib.Path(target) / name / f"stats.{split}.json").read_text())
        entries[name]["splits"][split] = {"file": _record(split), **stats}
    return {
        "code": token_cache.package_code(),
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
        "vocabulary": resolved(experiment.vocabulary),
        "data": resolved(experiment.data),
        "evaluation_data": resolved(experiment.evaluation_data),
        "tasks": entries,
    }


@functools.cache
def _digest(path: str) -> str:
    from prompt_tuning.data import token_cache

    return token_cache.file_digest(path)


@functools.cache
def _licence(path: str) -> str | None:
    """The licence that a file states, as those of Super-NaturalInstructions do; None where it states none."""
    if not path.endswith(".json"):
        return None
    from prompt_tuning.data import row_files

    content = row_files.json_file(path)
    stated = content.get("Instance License") if isinstance(content, dict) else None
    return ", ".join(map(str, stated)) if isinstance(stated, list) else stated


if __name__ == "__main__":
    main()
