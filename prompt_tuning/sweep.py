"""Trains many runs: python -m prompt_tuning.sweep --gin_file=... --vary NAME=VALUE,VALUE --workdir=DIR

  python -m prompt_tuning.sweep --gin_file=configs/models/t5_mini.gin --gin_file=configs/methods/prompt.gin \\
      --gin_file=configs/data/world.gin --vary SEED=0,1,2 --vary LEARNING_RATE=0.1,0.3 --workdir=runs/rates

Several --vary make every combination; --vary gin_file=FILE,FILE tries gin files. --sweep=FILE names runs one by one instead: a [NAME], and
lines of gin below it; with --vary, each of them in every combination.

Runs that can share a program, over one copy of the base, are trained side by side, at most --together of them; the others in turn. Each
leaves a folder DIR/NAME as `train` does, with the results it would have alone. `DIR/results.csv` has a line a run. The same command goes on
where it was interrupted; with more runs, it trains those besides. SIGTERM saves and exits with 143.
"""

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prompt_tuning import cli, files, text_tables
from prompt_tuning.errors import Interrupted, UserError, one_line

if TYPE_CHECKING:
    from prompt_tuning.experiment import Experiment

RESULTS, DESCRIPTION = "results.csv", "sweep.json"
TOGETHER = 8
_GIN_FILE = "gin_file"
_FOLDER = re.compile(r"[\w+-][\w+.,=@ -]*")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      name: of its folder.
      experiment: its settings.
      gin_config: them as gin, which its folder keeps.
      varied: what makes it this run and no other, by name; columns of the results.
    """

    name: str
    experiment: "Experiment"
    gin_config: str = ""
    varied: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Variation:
    """What the gin of a run says besides: bindings by name, and gin files.

    Attributes:
      name: of the run.
      bindings: the text of values, by name.
      gin_files: read after those of all runs.
      where: it was given, for errors.
    """

    name: str = ""
    bindings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gin_files: tuple[str, ...] = ()
    where: str = "--vary"


def main(argv: list[str] | None = None) -> None:
    """The command."""
    cli.command(_run, __doc__, extra_flags=_flags, argv=argv)


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vary", action="append", default=[], metavar="NAME=VALUE,...", help="a macro or field of gin, and its values")
    parser.add_argument("--sweep", metavar="FILE", help="runs by name, each with lines of gin")
    parser.add_argument(
        "--together", type=int, default=TOGETHER, metavar="N", help=f"most runs in one program; 1 trains all in turn (default {TOGETHER})"
    )


def _run(flags: argparse.Namespace) -> None:
    if not flags.workdir:
        raise UserError("--workdir is missing; wanted the folder that holds the runs")
    if not flags.vary and not flags.sweep:
        raise UserError("nothing to vary; wanted --vary NAME=VALUE,VALUE or --sweep=FILE")
    wanted = combined(read_sweep(flags.sweep) if flags.sweep else [Variation()], [options(text) for text in flags.vary])
    runs = load(wanted, flags.gin_file, flags.gin_bindings, search_paths=flags.gin_search_paths)
    try:
        rows = train(runs, flags.workdir, together=flags.together, before=_refuse_overlaps)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(143)
    print(table(rows))
    if failed := [row for row in rows if row["state"] != "finished"]:
        raise UserError(f"{len(failed)} of {len(rows)} runs failed; the first, {failed[0]['run']}: {failed[0]['state']}")


def _refuse_overlaps(runs: Sequence[Run]) -> None:
    """Refuses what `train` refuses to train on, once for runs of the same data."""
    from prompt_tuning import contamination
    from prompt_tuning.experiment import digest

    different = {
        digest([getattr(run.experiment, name) for name in ("data", "evaluation_data", "evaluation", "overlaps", "vocabulary")]): run
        for run in runs
    }
    for run in different.values():
        contamination.refuse(run.experiment)


def options(text: str) -> list[Variation]:
    """The values of one `--vary`. Raises UserError where it is not NAME=VALUE,VALUE."""
    name, separator, values = (part.strip() for part in text.partition("="))
    given = _split(values)
    if not separator or not re.fullmatch(r"[\w./]+", name) or not all(given):
        raise UserError(f"--vary {text}: wanted NAME=VALUE,VALUE, as LEARNING_RATE=0.1,0.3")
    if name == _GIN_FILE:
        return [Variation(pathlib.PurePath(value).stem, {}, (value,)) for value in given]
    short = name.rpartition(".")[2]
    return [Variation(f"{short}={_in_a_name(value)}", {name: value}) for value in given]


def _split(text: str) -> list[str]:
    """What stands between the commas that are in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        if letter == "," and not quote and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _in_a_name(value: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", value).strip("-.") or "empty"


def read_sweep(path: str) -> list[Variation]:
    """The runs of a sweep file; lines above the first name are of all runs. Raises UserError, naming the line, for what is none."""
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--sweep {path}: cannot read it ({one_line(error)}); wanted a file of [NAME]s with lines of gin below") from error
    named: list[tuple[str, dict[str, str], list[str]]] = [("", {}, [])]
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if header := re.fullmatch(r"\[(.+)\]", line):
            named.append((header[1].strip(), {}, []))
        elif included := re.fullmatch(r"include\s+(['\"])(.+)\1", line):
            named[-1][2].append(included[2])
        elif binding := re.fullmatch(r"([\w./]+)\s*=\s*(.+)", line):
            named[-1][1][binding[1]] = binding[2]
        else:
            raise UserError(f"{path}:{number}: cannot read {line!r}; wanted [NAME], NAME = VALUE or include 'FILE', each on a line")
    (_, common, files), *runs = named
    if not runs:
        raise UserError(f"--sweep {path}: names no run; wanted a [NAME] above the lines of each")
    return [Variation(name, {**common, **own}, (*files, *more), f"{path}, run {name}") for name, own, more in runs]


def combined(runs: Sequence[Variation], varied: Sequence[Sequence[Variation]]) -> list[Variation]:
    """Each of the runs with every combination of what is varied. Raises UserError where two are called the same."""
    found = []
    for run, *others in itertools.product(runs, *varied):
        parts = [part for part in (run, *others) if part.name]
        found.append(
            Variation(
                ",".join(part.name for part in parts),
                {name: value for part in (run, *others) for name, value in part.bindings.items()},
                tuple(name for part in (run, *others) for name in part.gin_files),
                run.where,
            )
        )
    _check_names([variation.name for variation in found])
    return found


def _check_names(names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise UserError(f"two runs are called {name}; give each run of a sweep its own name and values")
        if not _FOLDER.fullmatch(name) or name in (RESULTS, DESCRIPTION):
            raise UserError(f"a run is called {name!r}; wanted a name for a folder: letters, digits and any of _ + - . , = @")


def load(
    variations: Sequence[Variation], gin_files: Sequence[str], bindings: Sequence[str] = (), *, search_paths: Sequence[str] = ()
) -> list[Run]:
    """The runs that gin describes, given what all have in common. Raises UserError, naming the run, for what gin cannot read."""
    runs: list[Run] = []
    for variation in variations:
        own = [f"{name} = {value}" for name, value in variation.bindings.items()]
        # What is to be noted of the first run is to be noted of all.
        quiet = contextlib.redirect_stderr(io.StringIO()) if runs else contextlib.nullcontext()
        try:
            with quiet:
                files = [*gin_files, *variation.gin_files]
                experiment = cli.load_experiment(files, [*bindings, *own], search_paths=search_paths)
        except UserError as error:
            if not any(str(error).startswith(f"--gin.{name}:") for name in variation.bindings):
                raise
            raise UserError(f"{variation.where}: {str(error).replace('--gin.', '')}") from error
        files_varied = {_GIN_FILE: ",".join(variation.gin_files)} if variation.gin_files else {}
        runs.append(Run(variation.name, experiment, cli.config_text(), {**variation.bindings, **files_varied}))
    return runs


def train(
    runs: Sequence[Run], workdir: str, *, together: int = TOGETHER, before: Callable[[Sequence[Run]], None] | None = None
) -> list[dict[str, Any]]:
    """Trains what is not finished, and gives the rows of `results.csv`.

    Args:
      runs: at least one, all different.
      workdir: the folder of their folders.
      together: most runs in one program.
      before: called with the runs that are not finished, before any of them is trained.

    Raises:
      UserError: for what the user gave wrong. A run that fails by itself is a row that says so.
      Interrupted: after SIGTERM, once the runs under way are saved.
    """
    if together < 1:
        raise UserError(f"--together: wanted 1 or more, got {together}")
    _claim(pathlib.Path(workdir), _checked(runs))
    return train_some(runs, workdir, together=together, before=before)


def train_some(
    runs: Sequence[Run], workdir: str, *, together: int = TOGETHER, before: Callable[[Sequence[Run]], None] | None = None
) -> list[dict[str, Any]]:
    """As `train`, in a folder that other runs may be in as well: its `results.csv` is of the runs given last."""
    from prompt_tuning import checkpoints, sweep_groups
    from prompt_tuning.progress import Progress
    from prompt_tuning.run_folder import RunFolder

    folder = pathlib.Path(workdir)
    settings = _checked(runs)
    folders = [RunFolder(folder / run.name) for run in runs]
    for run, own in zip(runs, folders, strict=True):
        own.claim(settings[run.name], run.gin_config)
    results: dict[str, Any] = {run.name: own.results for run, own in zip(runs, folders, strict=True)}
    todo = [number for number, run in enumerate(runs) if results[run.name] is None]
    if before is not None:
        before([runs[number] for number in todo])
    groups = [[todo[place] for place in group] for group in sweep_groups.grouped([runs[i].experiment for i in todo], most=together)]
    done = [checkpoints.latest_step(folders[number].path / "checkpoints") or 0 for number in todo]
    total = sum(runs[number].experiment.train_steps for number in todo)
    if todo:
        print(f"sweep: {len(todo)} of {len(runs)} runs to train, in {len(groups)} programs", flush=True)
    rows = _rows(runs, results)
    per_step = max((runs[number].experiment.batch_size for number in todo), default=1)
    with Progress(total, sum(done), examples_per_step=per_step, label="sweep") as progress:
        for group in groups:
            ended = _train_group([runs[number] for number in group], [folders[number] for number in group], progress)
            results |= {runs[number].name: outcome for number, outcome in zip(group, ended, strict=True)}
            rows = _rows(runs, results)
            files.write_csv(folder / RESULTS, rows)
    if not groups:
        files.write_csv(folder / RESULTS, rows)
    return rows


def _train_group(runs: Sequence[Run], folders: Sequence[Any], progress: Any) -> list[Any]:
    """The results of each run, or the UserError that it ended with."""
    from prompt_tuning import sweep_groups, training

    if len(runs) > 1:
        experiments, names = [run.experiment for run in runs], [run.name for run in runs]
        return sweep_groups.train_together(experiments, folders, names=names, progress=progress)
    (run,), (folder,) = runs, folders
    try:
        results = training.train(run.experiment, str(folder.path), gin_config=run.gin_config, label=run.name, progress=progress)
    except UserError as error:
        return [error]
    progress.skip(run.experiment.train_steps - results["steps"])
    return [results]


def _checked(runs: Sequence[Run]) -> dict[str, Any]:
    """The resolved settings of each run, by name. Raises UserError where names or settings are there twice."""
    from prompt_tuning.experiment import digest, resolved

    if not runs:
        raise UserError("a sweep without runs; wanted at least one")
    _check_names([run.name for run in runs])
    first: dict[str, str] = {}
    for run in runs:
        other = first.setdefault(digest(run.experiment), run.name)
        if other != run.name:
            raise UserError(f"runs {other} and {run.name} have the same settings; vary what the experiment has a use for")
    return {run.name: resolved(run.experiment) for run in runs}


def _claim(folder: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """Takes the folder for these runs, or finds it taken by a sweep of some of them."""
    from prompt_tuning.run_folder import RunFolder, first_difference

    described = folder / DESCRIPTION
    if described.exists():
        try:
            held = json.loads(described.read_text(encoding="utf-8"))["runs"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{described}: not readable as the description of a sweep ({error}); choose another --workdir") from error
        # Runs that have nothing to lose, say over a misspelt path, do not hold the folder.
        begun = {name: was for name, was in held.items() if RunFolder(folder / name).begun}
        if missing := [name for name in begun if name not in settings]:
            raise UserError(
                f"--workdir {folder} holds another sweep: its run {missing[0]} is not in this one; choose another --workdir, or give that "
                "sweep's runs and more"
            )
        if difference := first_difference(begun, {name: settings[name] for name in begun}):
            where, was, got = difference
            raise UserError(f"--workdir {folder} holds another sweep: {where} was {was!r} there, got {got!r}; choose another --workdir")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--workdir {folder} is there and holds no {DESCRIPTION}; wanted a new or empty folder; choose another --workdir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.atomic_write(described, json.dumps({"runs": settings}, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"--workdir {folder}: cannot write there ({error}); choose another --workdir") from error


def _rows(runs: Sequence[Run], results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a run: its state, what was varied, and what `results.json` holds."""
    rows = []
    for run in runs:
        found = results[run.name]
        row: dict[str, Any] = {"run": run.name, "state": "waiting", **run.varied}
        if isinstance(found, UserError):
            row["state"] = one_line(found)
        elif found is not None:
            best, final = found["best"], found["final"]
            row |= {"state": "finished", "split": found["split"], "score": best["score"], "step": best["step"]}
            row |= {"final_score": final["score"], "steps": found["steps"], "seconds": found["seconds"]}
            row["trained_parameters"] = found["trained_parameters"]
            row |= {f"{task}/{name}": value for task, values in best["metrics"].items() for name, value in values.items()}
        rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a run."""
    lines = [("run", "score", "at step", "of", "seconds", "state")]
    for row in rows:
        score = f"{row['score']:.4f}" if "score" in row else ""
        lines.append((row["run"], score, *(str(row.get(name, "")) for name in ("step", "steps", "seconds", "state"))))
    return text_tables.aligned(lines, "lrrrrl")


if __name__ == "__main__":
    main()
