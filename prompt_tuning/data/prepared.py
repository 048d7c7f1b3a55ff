"""Examples that `python -m prompt_tuning.prepare` has tokenized and written, read in place of their sources.

The folder is one of SeqIO's task caches, which SeqIO itself reads with `use_cached`: `TASK_HASH/SPLIT.tfrecord-00000-of-00001`, with
`info.SPLIT.json` and `stats.SPLIT.json` beside it. `manifest.json` says what each task is and what its files hold. A task's name ends in a
hash of its settings and vocabulary, so that a folder for other settings has other names in it. Batches are those of the sources themselves.
"""

import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING, Any

from prompt_tuning.data import notes, token_cache
from prompt_tuning.data.mixtures import Source
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

MANIFEST = "manifest.json"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A source whose examples come from a prepared folder.

    Attributes:
      source: what was prepared.
      folder: where it is.
    """

    source: Source
    folder: str

    @property
    def task_names(self) -> tuple[str, ...]:
        """Those of the source."""
        return self.source.task_names

    @property
    def mixed(self) -> Source:
        """What says how its tasks are mixed."""
        return getattr(self.source, "mixed", self.source)

    def tasks(self, vocabulary: "seqio.Vocabulary") -> list[Any]:
        """The tasks; see `mixtures.Source`. Text without end was not prepared and comes as it is.

        Raises UserError where the folder was prepared for other settings, or a file of it is not as it was.
        """
        manifest = read_manifest(self.folder)
        if manifest["code"] != token_cache.package_code():
            notes.say(f"note: {self.folder} was prepared by another version of this code")
        return [
            task if getattr(task, "streaming", False) else _same(PreparedTask(task, self.folder, self._entry(task, manifest)))
            for task in self.source.tasks(vocabulary)
        ]

    def _entry(self, task: Any, manifest: dict[str, Any]) -> dict[str, Any]:
        tasks = manifest["tasks"]
        if task.name not in tasks:
            same = [name for name, entry in tasks.items() if entry["title"] == task.title]
            got = f"{same[0]} alone, made of other settings, files or vocabulary" if same else f"only {', '.join(sorted(tasks)[:5])}"
            raise UserError(f"{self.folder}: wanted {task.name}, got {got}; prepare it anew (python -m prompt_tuning.prepare)")
        entry: dict[str, Any] = tasks[task.name]
        for split in entry["splits"].values():
            path = pathlib.Path(self.folder) / task.name / split["file"]
            size = path.stat().st_size if path.is_file() else None
            if size != split["bytes"]:
                raise UserError(f"{path}: wanted {split['bytes']} bytes as the manifest says, got {size or 'no file'}; prepare it anew")
        return entry


class PreparedTask:
    """A task whose examples come from a prepared folder; it is the task itself otherwise.

    Attributes:
      folder: where it was prepared.
      splits: those that were prepared.
      settings: what decides its examples: the files' hashes.
    """

    read = None
    on_disk = True

    def __init__(self, task: Any, folder: str, entry: dict[str, Any]) -> None:
        self._task, self.folder = task, folder
        self.splits = tuple(entry["splits"])
        self.settings = ("prepared", sorted((split, found["sha256"]) for split, found in entry["splits"].items()))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._task, name)

    def get_dataset(self, *sizes: Any, **settings: Any) -> Any:
        """The examples as SeqIO reads them from its caches."""
        import seqio

        seqio.add_global_cache_dirs([self.folder])
        task = getattr(self._task, "seqio", self._task)
        return task.get_dataset(*sizes, **settings, use_cached=True)


_KNOWN: dict[Any, PreparedTask] = {}


def _same(task: PreparedTask) -> PreparedTask:
    """The task that stands for the same files, so that what is kept for it (`example_tables`) is found again."""
    return _KNOWN.setdefault((task.name, task.folder, repr(task.settings)), task)


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest of a folder. Raises UserError where there is none that can be read."""
    path = pathlib.Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"PREPARED: {path} is not there; wanted a folder that python -m prompt_tuning.prepare has finished") from error
    except (OSError, ValueError) as error:
        raise UserError(f"PREPARED: {path} cannot be read ({error}); prepare it anew") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else manifest
        raise UserError(f"PREPARED: {path}: wanted a manifest of format {FORMAT}, got {found!r}; prepare it anew")
    return manifest
