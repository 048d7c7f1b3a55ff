"""The runs of a paper in miniature: what each is called, what makes it, what it is scored on, and where its scores are kept.

A paper's `sweep.py` lists points and calls `main`:

    python -m experiments.lester2021.sweep [--only=REGEX] [--list] [--workdir=runs/papers]

Papers that have a run in common share its folder: a name stands for one run. Points are trained through the sweep, so that those of one
form share a program, and scored on test rows. Every score is a line of the paper's `results.csv`, with the point's factors (base, method,
seed ...), the run's cost, the commit, the machine, and a hash of all that the point says. What stands there with that hash is not run
again; a run that was interrupted goes on.
"""

import argparse
import contextlib
import csv
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prompt_tuning import environment, files
from prompt_tuning.errors import Interrupted, UserError, one_line, reported

ROOT = pathlib.Path(__file__).parents[1]
RUNS = pathlib.Path("runs/papers")
# Beside a point's factors.
COST = ("trained_parameters", "stored_bytes", "steps", "seconds")
MADE = ("config", "commit", "machine")
SCORE = ("test", "task", "metric", "value")

Row = dict[str, str]
Tests = Mapping[str, Mapping[str, Any]]
# Of a point and its run's folder: metrics by task.
Measure = Callable[["Point", Any, pathlib.Path], Mapping[str, Mapping[str, float]]]


@dataclasses.dataclass(frozen=True)
class Point:
    """One run, or the base as it is.

    Attributes:
      factors: what makes it this run and no other, by name; columns of the results, and the name of its folder.
      gin_files: of its experiment.
      bindings: values in gin by name. `{NAME}` in one is the folder of the point that `after` calls so.
      tests: sets of test rows by name, each as the fields of the data source that differ from what is trained on.
      measures: what else is measured of the run, by name, where a set of test rows would stand.
      after: points that are trained before, by name.
      trained: False scores the base, on which nothing is tuned.
    """

    factors: Mapping[str, Any]
    gin_files: tuple[str, ...]
    bindings: Mapping[str, str]
    tests: Tests = dataclasses.field(default_factory=lambda: {"test": {}})
    measures: Mapping[str, Measure] = dataclasses.field(default_factory=dict)
    after: Mapping[str, "Point"] = dataclasses.field(default_factory=dict)
    trained: bool = True

    @property
    def name(self) -> str:
        """Of the run's folder."""
        return ",".join(f"{name}={value}" for name, value in self.factors.items())

    @property
    def training(self) -> str:
        """A hash of all that decides the run, the weights of a bundled base among it; the same on any machine."""
        after = {name: point.training for name, point in self.after.items()}
        return _hash([self.name, self.gin_files, dict(self.bindings), self.trained, after, [_weights(name) for name in self.gin_files]])

    @property
    def config(self) -> str:
        """A hash of all that the point says: of the run and of what it is scored on."""
        return _hash([self.training, {name: dict(fields) for name, fields in self.tests.items()}, sorted(self.measures)])

    def depth(self) -> int:
        """How many points are trained before it, one after another."""
        return 1 + max((point.depth() for point in self.after.values()), default=-1)

    def text(self, workdir: pathlib.Path) -> list[str]:
        """Its bindings, with the folders of the points before it."""
        lines = []
        for name, value in self.bindings.items():
            for told, point in self.after.items():
                value = value.replace(f"{{{told}}}", str(workdir / point.name))
            lines.append(f"{name} = {value}")
        return lines


@functools.cache
def _weights(gin_file: str) -> str:
    """A hash of the weights of the bundled base that a gin file names; empty for any other file."""
    path = ROOT / "prompt_tuning" / "assets" / pathlib.PurePath(gin_file).stem / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if gin_file.startswith("configs/models/") and path.exists() else ""


def _hash(said: Any) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def main(points: Sequence[Point], folder: str | os.PathLike[str], *, argv: Sequence[str] | None = None, doc: str | None = None) -> None:
    """The command of a paper: runs what its results lack.

    Args:
      points: all of the paper's.
      folder: of its results.
      argv: None for the command line's.
      doc: its help.
    """
    folder = pathlib.Path(folder)
    parser = argparse.ArgumentParser(description=doc or __doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, default=RUNS, help=f"the folder of the runs of all papers (default {RUNS})")
    parser.add_argument(
        "--output", type=pathlib.Path, default=folder / "results.csv", help="the CSV to add to (default: the committed one)"
    )
    parser.add_argument("--only", default="", metavar="REGEX", help="points whose name it is found in, and what they need")
    parser.add_argument("--together", type=int, default=8, metavar="N", help="most runs in one program (default 8)")
    parser.add_argument("--again", action="store_true", help="also what the results have")
    parser.add_argument("--prune", action="store_true", help="drop the results of points that are gone or have changed, and run nothing")
    parser.add_argument("--list", action="store_true", help="say what there is to do, and do nothing")
    flags = parser.parse_args(argv)
    environment.settle(may_restart=argv is None)
    try:
        with reported():
            check_names(points)
            chosen = [point for point in points if _pattern(flags.only).search(point.name)]
            if not chosen:
                raise UserError(f"--only={flags.only}: no point is called so; --list names them")
            if flags.prune:
                prune(flags.output, points)
            elif flags.list:
                done = finished(flags.output)
                print("\n".join(f"{'done' if point.config in done else 'to do':5} {point.name}" for point in chosen))
            else:
                run(chosen, flags.workdir, flags.output, order=points, together=flags.together, again=flags.again)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(143)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"--only={text}: no regular expression ({error})") from error


def run(
    chosen: Sequence[Point],
    workdir: pathlib.Path,
    output: pathlib.Path,
    *,
    order: Sequence[Point] | None = None,
    together: int = 8,
    again: bool = False,
) -> None:
    """Trains and scores those of the points whose scores are not in `output`, and adds them there, in the order of `order`.

    Raises UserError where a run failed, after the others are done: all but those that come after it.
    """
    if together < 1:
        raise UserError(f"--together: wanted 1 or more, got {together}")
    done = set() if again else finished(output)
    todo = [point for point in chosen if point.config not in done]
    wanted = {point.name: point for point in todo}
    needed = {point.name: point for point in with_needed(todo)} | wanted
    failed: list[str] = []
    for depth in sorted({point.depth() for point in needed.values()}):
        wave = [point for point in needed.values() if point.depth() == depth]
        failed += [point.name for point in wave if any(before.name in failed for before in point.after.values())]
        wave = [point for point in wave if point.name not in failed]
        failed += _train([point for point in wave if point.trained], workdir, together=together)
        for number, point in enumerate(wave, start=1):
            if point.name in wanted and point.name not in failed:
                print(f"scoring {number} of {len(wave)}: {point.name}", flush=True)
                try:
                    rows = score(point, workdir, again=again)
                except UserError as error:
                    print(f"{point.name}: {one_line(error)}", flush=True)
                    failed.append(point.name)
                    continue
                with _alone(workdir):
                    _add(rows, point, output, order or chosen)
    if failed:
        raise UserError(f"{len(failed)} runs failed, {failed[0]} first; see above")
    print(f"{len(todo)} points run, {len(chosen) - len(todo)} were there; {output}")


def with_needed(points: Iterable[Point]) -> list[Point]:
    """The points and all that are trained before them, each once, those first that others need."""
    found: dict[str, Point] = {}
    for point in points:
        for each in (*with_needed(point.after.values()), point):
            found.setdefault(each.name, each)
    return list(found.values())


def check_names(points: Sequence[Point]) -> None:
    """Raises UserError where two different points have one name, or a factor is called as another column of the results."""
    trained: dict[str, str] = {}
    for point in (*with_needed(points), *points):
        if taken := [name for name in point.factors if name in (*SCORE, *COST, *MADE)]:
            raise UserError(f"a factor of {point.name} is called {taken[0]}, as a column of the results is; give it another name")
        if trained.setdefault(point.name, point.training) != point.training:
            raise UserError(f"two points are called {point.name}; give them factors that tell them apart")
    scored: dict[str, str] = {}
    for point in points:
        if scored.setdefault(point.name, point.config) != point.config:
            raise UserError(f"{point.name} is there twice with other tests; give one point all of them")


def experiment(point: Point, workdir: pathlib.Path) -> Any:
    """The point's experiment. Raises UserError for what gin cannot read."""
    from prompt_tuning import cli

    return cli.load_experiment(point.gin_files, point.text(workdir))


def _train(points: Sequence[Point], workdir: pathlib.Path, *, together: int) -> list[str]:
    """Trains what is not finished; the names of the runs that failed."""
    from prompt_tuning import cli, sweep

    if not points:
        return []
    runs = []
    for point in points:
        loaded = experiment(point, workdir)
        runs.append(sweep.Run(point.name, loaded, cli.config_text(), {name: str(value) for name, value in point.factors.items()}))
    rows = sweep.train_some(runs, str(workdir), together=together)
    failed = [row for row in rows if row["state"] != "finished"]
    if failed:
        print(sweep.table(failed))
    return [row["run"] for row in failed]


def score(point: Point, workdir: pathlib.Path, *, again: bool = False) -> list[dict[str, Any]]:
    """A row for each metric of each task of each of the point's tests and measures; kept in the run's folder, for the other papers that
    have the point."""
    from experiments import scoring

    loaded = experiment(point, workdir)
    folder = workdir / point.name
    kept = folder / f"scores-{point.config}.json"
    if kept.exists() and not again:
        return list(json.loads(kept.read_text(encoding="utf-8")))
    cost: dict[str, Any] = dict.fromkeys(COST, 0)
    if point.trained:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        cost = {name: results[name] for name in COST}
    made = {"config": point.config, "commit": commit(), "machine": machine()}
    rows = []
    found: dict[str, Mapping[str, Mapping[str, float]]] = {}
    if point.tests:
        sources = {name: dataclasses.replace(loaded.data, **fields) for name, fields in point.tests.items()}
        found |= scoring.test_scores(loaded, folder, sources, trained=point.trained)
    for name, measure in point.measures.items():
        found[name] = measure(point, loaded, folder)
    for test, by_task in found.items():
        for task, values in by_task.items():
            for metric, value in values.items():
                scored = {"test": test, "task": task, "metric": metric, "value": f"{value:.6g}"}
                rows.append({**point.factors, **scored, **cost, **made})
    folder.mkdir(parents=True, exist_ok=True)
    files.atomic_write(kept, json.dumps(rows) + "\n")
    return rows


def read(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a results file; none where there is no file."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def finished(output: pathlib.Path) -> set[str]:
    """Hashes of the points that a results file has."""
    return {row["config"] for row in read(output)}


def prune(output: pathlib.Path, points: Sequence[Point]) -> None:
    """Takes rows out of a results file whose hash is no point's any more."""
    rows, there = read(output), {point.config for point in points}
    kept = [row for row in rows if row["config"] in there]
    if rows:
        files.write_csv(output, kept, list(rows[0]))
    print(f"{len(rows) - len(kept)} of {len(rows)} rows dropped; {output}")


def factors_of(row: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """The factors of the point that a row of results is of; the columns of points that have others are empty in it."""
    return frozenset((name, value) for name, value in row.items() if value and name not in (*SCORE, *COST, *MADE))


@contextlib.contextmanager
def _alone(workdir: pathlib.Path) -> Iterator[None]:
    """Lets one process at a time write results, of all that use a folder of runs."""
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _add(rows: Sequence[Mapping[str, Any]], point: Point, output: pathlib.Path, order: Sequence[Point]) -> None:
    """Puts a point's rows into the file, in place of its earlier ones; points come in the order given, those that are gone are left out."""
    by_factors: dict[Any, list[Mapping[str, Any]]] = {}
    for row in read(output):
        by_factors.setdefault(factors_of(row), []).append(row)
    by_factors[_told(point)] = list(rows)
    columns = [*dict.fromkeys(name for each in order for name in each.factors), *SCORE, *COST, *MADE]
    places = dict.fromkeys(_told(each) for each in order)
    kept = [{name: row.get(name, "") for name in columns} for place in places for row in by_factors.get(place, ())]
    output.parent.mkdir(parents=True, exist_ok=True)
    files.write_csv(output, kept, columns)


def _told(point: Point) -> frozenset[tuple[str, str]]:
    return frozenset((name, str(value)) for name, value in point.factors.items())


def commit() -> str:
    """The commit whose code runs, with + where files differ from it; empty where there is no repository."""
    try:
        said = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.stdout.strip()


def machine() -> str:
    """The processor, and how many of its cores this process may use."""
    import jax

    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{jax.device_count()} x {device.device_kind}"
    try:
        named = re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text())
    except OSError:
        named = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{named[1].strip() if named else platform.processor() or platform.machine()}, {cores} core{'' if cores == 1 else 's'}"
