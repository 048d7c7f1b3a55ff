"""Flags, gin files and error lines of every command; the only module that imports gin.

A command is `cli.main(run, __doc__)` with `run(experiment, flags)`. Nothing heavy is imported before the flags are read, so `--help`
answers at once. The gin files are read twice: once here, which finds what gin lets pass or explains badly (a macro nobody uses, a
misspelt field, a value of the wrong type) and can name the line, and once by gin, which builds the experiment.
"""

import argparse
import collections.abc
import dataclasses
import difflib
import importlib.util  # gin's `include` uses importlib.util without importing it.
import io
import os
import pathlib
import re
import sys
import tokenize
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from prompt_tuning import environment, fields
from prompt_tuning.errors import UserError, one_line, reported

if TYPE_CHECKING:
    from prompt_tuning.experiment import Experiment

_PACKAGE = pathlib.Path(__file__).resolve().parent
_DEFAULTS = _PACKAGE / "defaults.gin"
# The whole configuration of a run, kept in its folder: a command that gets a work folder and no gin file reads it.
RUN_CONFIG = "config.gin"
_ADVICE = {"model": "configs/models/t5_mini.gin", "method": "configs/methods/prompt.gin", "data": "configs/data/world.gin"}


def main(
    run: Callable[["Experiment", argparse.Namespace], Any],
    description: str | None,
    *,
    extra_flags: Callable[[argparse.ArgumentParser], Any] | None = None,
    fallbacks: Sequence[str] = (),
    argv: Sequence[str] | None = None,
) -> None:
    """Reads the flags, builds the experiment, runs the command.

    A UserError prints as one line on stderr and exits with 2, as argparse does; an interrupt from the keyboard exits with 130.
    Anything else is a mistake of ours and keeps its traceback.

    Without a gin file, the configuration kept in the work folder (`config.gin`) is read, so that `--workdir` alone names a run.

    Args:
      run: the command. Its flags hold `workdir` (None where not given), those of `extra_flags`, and `gin_config`: the whole
        configuration as the text of one gin file, which a run folder keeps as `config.gin`.
      description: what `--help` says.
      extra_flags: adds the command's own flags to the parser.
      fallbacks: lines of gin on fields of Experiment that count where the files say nothing: what this command can do without.
      argv: the arguments; None: those of the process.
    """

    def loaded(flags: argparse.Namespace) -> None:
        if not flags.gin_file and flags.workdir and (pathlib.Path(flags.workdir) / RUN_CONFIG).is_file():
            flags.gin_file = [os.path.abspath(pathlib.Path(flags.workdir) / RUN_CONFIG)]
        experiment = load_experiment(flags.gin_file, flags.gin_bindings, search_paths=flags.gin_search_paths, fallbacks=fallbacks)
        flags.gin_config = config_text()
        run(experiment, flags)

    command(loaded, description, extra_flags=extra_flags, argv=argv)


def command(
    run: Callable[[argparse.Namespace], Any],
    description: str | None,
    *,
    extra_flags: Callable[[argparse.ArgumentParser], Any] | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """`main` for a command that builds its experiments itself, with `load_experiment`, from the flags' `gin_file`, `gin_bindings` and
    `gin_search_paths`."""
    parser = _parser(description, extra_flags)
    flags = parser.parse_args(_rewritten(sys.argv[1:] if argv is None else argv, parser))
    environment.settle(may_restart=argv is None)
    try:
        with reported():
            run(flags)
    except BrokenPipeError:  # The reader of our output, say `head`, has had enough; nothing more may be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def load_experiment(
    gin_files: Sequence[str], bindings: Sequence[str] = (), *, search_paths: Sequence[str] = (), fallbacks: Sequence[str] = ()
) -> "Experiment":
    """The experiment that `defaults.gin`, the fallbacks, the files in order and the bindings describe; what comes later wins.

    Args:
      gin_files: paths, absolute or relative to the working directory, one of `search_paths`, or the folder that holds `configs/`.
      bindings: lines of gin, as `TRAIN_STEPS = 10`.
      search_paths: more folders to look for files in.
      fallbacks: lines of gin on fields of Experiment.

    Raises UserError for a file that is not there or cannot be read, and for a name or value that fits nothing.
    """
    import gin

    roots = ["", *search_paths, str(_PACKAGE.parent)]
    scan = _Scan(roots)
    scan.file(str(_DEFAULTS), "the command")
    standard = set(scan.macros)
    for name in gin_files:
        scan.file(name, "--gin_file")
    for binding in bindings:
        scan.binding(binding)
    scan.check(standard)

    gin.clear_config()
    for root in roots[1:]:
        gin.add_config_file_search_path(root)
    imports = ["from __gin__ import dynamic_registration", *(statement.format() for statement in scan.imports.values())]
    try:
        gin.parse_config_file(str(_DEFAULTS))
        gin.parse_config(["from __gin__ import dynamic_registration", "from prompt_tuning import experiment", *fallbacks])
        for name in gin_files:
            gin.parse_config_file(_find(name, roots, "--gin_file"))
        gin.parse_config([*imports, *bindings])
    except (ValueError, NameError, AttributeError, SyntaxError, OSError) as error:  # What the scan let through.
        raise UserError(f"gin: {one_line(error)}") from error
    from prompt_tuning.experiment import Experiment

    try:
        return gin.get_configurable(Experiment)()
    except UserError as error:  # gin appends its own lines to the message.
        raise UserError(str(error).split("\n  In call to configurable")[0]) from error
    except TypeError as error:
        raise _unfit(error) from error


def _unfit(error: TypeError) -> Exception:
    """The line for a class that lacks a field or does not know one; any other TypeError is ours and stays."""
    text = str(error).split("\n")[0]
    if missing := re.match(r"(\w+)(?:\.__init__)?\(\) missing \d+ required [\w-]+ arguments?: (.*)", text):
        names = re.findall(r"'(\w+)'", missing[2])
        advice = " ".join(f"--gin_file={_ADVICE[name]}" for name in names if name in _ADVICE)
        return UserError(f"{missing[1]}: no value for {', '.join(names)}; " + (f"add for example {advice}" if advice else "set it in gin"))
    if unexpected := re.match(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'", text):
        return UserError(f"{unexpected[1]} has no field {unexpected[2]}; mend the name in gin")
    return error


def config_text() -> str:
    """The whole configuration of the experiment that was loaded last, as the text of one gin file."""
    import gin

    return gin.config_str()


def _parser(description: str | None, extra_flags: Callable[[argparse.ArgumentParser], Any] | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--gin_file", action="append", default=[], metavar="FILE", help="a gin file; repeat it, later files win")
    parser.add_argument(
        "--gin_bindings",
        action="append",
        default=[],
        metavar="'NAME = VALUE'",
        help="a line of gin that wins over the files; --gin.NAME=VALUE says the same (strings in quotes: --gin.NAME=\"'text'\")",
    )
    parser.add_argument(
        "--gin_search_paths", type=lambda text: text.split(","), default=[], metavar="DIR,...", help="more folders for gin files"
    )
    parser.add_argument("--workdir", metavar="DIR", help="the folder that holds everything the run makes")
    if extra_flags is not None:
        extra_flags(parser)
    return parser


def _rewritten(argv: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """`--gin.NAME=VALUE` as the binding it stands for, as in T5X."""
    for argument in argv:
        if argument.startswith("--gin.") and not re.match(r"--gin\.[^=\s]+=", argument):
            parser.error(f"{argument}: wanted --gin.NAME=VALUE in one word, as {argument.split()[0]}=10")
    return [re.sub(r"^--gin\.([^=\s]+)=(.*)$", r"--gin_bindings=\1 = \2", argument, flags=re.DOTALL) for argument in argv]


def _nearest(name: str, names: typing.Iterable[str]) -> str:
    """`; did you mean X?`, or nothing where no name is near."""
    near = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _find(name: str, roots: Sequence[str], asker: str) -> str:
    """The path of a gin file; raises UserError where it is not there or is no file."""
    candidates = [pathlib.Path(root) / name for root in roots]
    for path in candidates:
        if path.is_file():
            return str(path)
    for path in candidates:
        if path.is_dir():
            raise UserError(f"{asker}: {name} is a folder; wanted a gin file, as {name.rstrip('/')}/{_first_gin(path)}")
    near = {
        str(pathlib.Path(name).with_name(other.name)) for path in candidates if path.parent.is_dir() for other in path.parent.glob("*.gin")
    }
    looked = ", ".join(dict.fromkeys(str(pathlib.Path(root).resolve()) for root in roots))
    raise UserError(f"{asker}: no file {name}" + (_nearest(name, near) or f"; looked in {looked}"))


def _first_gin(folder: pathlib.Path) -> str:
    return next((path.name for path in sorted(folder.glob("*.gin"))), "NAME.gin")


@dataclasses.dataclass(frozen=True)
class _Macro:
    """`%NAME` as a value."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Reference:
    """`@name` or `@name()` as a value: not known before it is built."""

    selector: str


class _Delegate:
    """Gives gin's parser our own values for references and macros, so that parsing imports and registers nothing."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> _Reference:
        return _Reference(scoped_configurable_name)

    def macro(self, scoped_name: str) -> _Macro:
        return _Macro(scoped_name)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, collections.abc.Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


class _Scan:
    """Everything the gin files and bindings say, with where they say it."""

    def __init__(self, roots: Sequence[str]) -> None:
        self.roots = roots
        self.imports: dict[str, Any] = {}  # Name bound by an import -> gin's import statement, over all files.
        self.macros: dict[str, tuple[Any, str]] = {}  # Name -> the value that wins, and where it was set.
        self._used: dict[str, str] = {}  # Macro -> where it was first used.
        self._fields: list[tuple[type, str, Any, str]] = []  # Class or function, field, value, where.
        self._open: list[str] = []  # The files being read, to notice one that includes itself.

    def file(self, name: str, asker: str) -> None:
        path = _find(name, self.roots, asker)
        if path in self._open:
            raise UserError(f"{asker}: {name} includes itself")
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{asker}: cannot read {name}: {one_line(error)}") from error
        self._open.append(path)
        shown = "defaults.gin" if path == str(_DEFAULTS) else name
        self._statements(text, {}, lambda line: f"{shown}:{line}")
        self._open.pop()

    def binding(self, text: str) -> None:
        name, _, value = (part.strip() for part in text.partition("="))
        try:
            self._statements(text, self.imports, lambda _: f"--gin.{name}")
        except UserError as error:
            if not re.match(r"^--gin\.\S+: cannot read", str(error)):
                raise
            raise UserError(
                f"--gin.{name}: cannot read the value {value!r}; wanted a number, True, None, a list, or a string in quotes, "
                f"as --gin.{name}=\"'{value}'\""
            ) from error

    def _statements(self, text: str, symbols: dict[str, Any], where: Callable[[int], str]) -> None:
        from gin import config_parser

        line = 1
        try:
            for statement in config_parser.ConfigParser(io.StringIO(text), _Delegate()):
                line = statement.location.line_num
                self._statement(statement, symbols, where(line))
        except (SyntaxError, tokenize.TokenError) as error:
            last = len(text.splitlines())
            line = getattr(error, "lineno", None) or (last if isinstance(error, tokenize.TokenError) else line)
            content = (text.splitlines() or [""])[min(line, last) - 1].strip()
            message = getattr(error, "msg", None) or str(error.args[0])
            raise UserError(f"{where(line)}: cannot read {content!r}: {message}") from error

    def _statement(self, statement: Any, symbols: dict[str, Any], where: str) -> None:
        from gin import config_parser

        if isinstance(statement, config_parser.IncludeStatement):
            self.file(statement.filename, where)
        elif isinstance(statement, config_parser.ImportStatement):
            if not statement.module.startswith("__gin__."):
                self._module(statement.module, where)
                symbols[statement.bound_name()] = self.imports[statement.bound_name()] = statement
        elif isinstance(statement, config_parser.BlockDeclaration):
            self._resolve(statement.selector, symbols, where)
        else:
            for leaf in _leaves(statement.value):
                if isinstance(leaf, _Macro):
                    self._used.setdefault(leaf.name, where)
                elif isinstance(leaf, _Reference):
                    self._resolve(leaf.selector.split("/")[-1], symbols, where)
            if statement.arg_name:
                target = self._resolve(statement.selector, symbols, where)
                self._fields.append((target, statement.arg_name, statement.value, where))
            else:
                self.macros["/".join(part for part in (statement.scope, statement.selector) if part)] = (statement.value, where)

    def _module(self, name: str, where: str) -> Any:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise  # The module is there; one that it imports is not.
            raise UserError(
                f"{where}: no module {error.name}; an import in gin names a module of prompt_tuning or one of your own"
            ) from error

    def _resolve(self, selector: str, symbols: dict[str, Any], where: str) -> Any:
        """The class or function that a dotted name stands for."""
        first, *rest = selector.split(".")
        if first not in symbols:
            known = ", ".join(sorted(symbols)) or "nothing"
            raise UserError(f"{where}: {first!r} in {selector!r} is not imported (imported: {known}){_nearest(first, symbols)}")
        statement = symbols[first]
        value = self._module(statement.module if statement.is_from or statement.alias else first, where)
        for name in rest:
            if not hasattr(value, name):
                raise UserError(f"{where}: unknown name {selector!r}: {fields.name_of(value)} has no {name}{_nearest(name, dir(value))}")
            value = getattr(value, name)
        if not callable(value):
            raise UserError(f"{where}: {selector!r} is no class or function")
        return value

    def check(self, standard: set[str]) -> None:
        """Raises UserError for a macro without a value or without a use, an unknown field, a value of the wrong type.

        Args:
          standard: macros that every command knows: setting one that this experiment does not use is only said aloud.
        """
        for name, where in self._used.items():
            if name not in self.macros and not name.startswith("gin."):
                raise UserError(f"{where}: {name} has no value{_nearest(name, self.macros)}; set it with --gin.{name}=VALUE")
        for name, (_, where) in self.macros.items():
            # The configuration that a run keeps holds macros, too, that a binding has put out of use.
            if name in self._used or where.startswith("defaults.gin") or pathlib.Path(where.rpartition(":")[0]).name == RUN_CONFIG:
                continue
            if name in standard:
                if where.startswith("--gin."):
                    print(f"note: {name} is set, but this experiment has no use for it", file=sys.stderr)
                continue
            near = _nearest(name, {*self._used, *standard})
            raise UserError(f"{where}: nothing uses {name}{near or '; known: ' + ', '.join(sorted({*self._used, *standard}))}")
        for target, field, value, where in self._fields:
            names = fields.parameters(target)
            if names is not None and field not in names:
                raise UserError(
                    f"{where}: {fields.name_of(target)} has no field {field}{_nearest(field, names)} (fields: {', '.join(names)})"
                )
            source = where
            while isinstance(value, _Macro) and value.name in self.macros:
                value, source = self.macros[value.name]
            hint = fields.hints(target).get(field, Any)
            if not fields.fits(value, hint, opaque=(_Macro, _Reference)):
                raise UserError(f"{source}: {fields.name_of(target)}.{field} wanted {fields.describe(hint)}, got {value!r}")
