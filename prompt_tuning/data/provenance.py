"""Where a task's data is from, and mixtures that hold out clusters of tasks with everything that shares their data.

FLAN (Wei et al. 2021, arXiv:2109.01652, section 2.2) evaluates a cluster of tasks with a model that saw none of it, and leaves related
clusters out as well. Names of clusters alone let data through: QNLI asks about SQuAD's paragraphs, BoolQ's questions are those of Natural
Questions, ReCoRD is made of CNN / Daily Mail. So a task is left out too where it shares a source with a held-out task.
"""

import dataclasses
import fnmatch
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from prompt_tuning.data.mixtures import Mixture, Source
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

    from prompt_tuning.data.text_tasks import TextTask


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where the data of a task is from.

    Attributes:
      cluster: the kind of task.
      sources: names of the data or texts it was made of; tasks that share one may share text.
      languages: of inputs and targets, as the data set calls them.
    """

    cluster: str
    sources: tuple[str, ...]
    languages: tuple[str, ...] = ("en",)


def _table() -> dict[str, Provenance]:
    """Public data sets by the names that gin files and template sets have for them: clusters as in FLAN's figure 3, sources as each data
    set's own paper states them."""
    clusters: dict[str, dict[str, tuple[str, ...]]] = {
        "nli": {
            "anli": ("anli", "wikipedia_paragraphs", "hotpot_qa"),
            "cb": ("commitment_bank",),
            "mnli": ("mnli", "open_american_national_corpus"),
            "qnli": ("squad",),
            "rte": ("pascal_rte",),
            "snli": ("snli", "flickr30k"),
            "wnli": ("winograd_schemas",),
        },
        "commonsense": {
            "commonsense_qa": ("commonsense_qa", "conceptnet"),
            "copa": ("copa",),
            "hellaswag": ("activitynet_captions", "wikihow"),
            "piqa": ("piqa", "instructables"),
            "story_cloze": ("roc_stories",),
        },
        "sentiment": {
            "imdb": ("imdb_reviews",),
            "rotten_tomatoes": ("rotten_tomatoes_reviews",),
            "sentiment140": ("sentiment140",),
            "sst2": ("rotten_tomatoes_reviews",),
            "yelp": ("yelp_reviews",),
        },
        "paraphrase": {
            "mrpc": ("msr_paraphrase_news",),
            "paws": ("paws", "wikipedia_sentences"),
            "qqp": ("quora_questions",),
            "stsb": ("semeval_sts",),
        },
        "closed_book_qa": {
            "arc": ("arc",),
            "nq_open": ("natural_questions",),
            "trivia_qa": ("trivia_qa",),
            "web_questions": ("web_questions",),
        },
        "struct_to_text": {
            "common_gen": ("common_gen", "conceptnet"),
            "dart": ("dart", "web_nlg", "e2e_nlg", "wiki_table_questions"),
            "e2e_nlg": ("e2e_nlg",),
            "web_nlg": ("web_nlg",),
        },
        "reading_comprehension": {
            "boolq": ("boolq", "natural_questions"),
            "drop": ("drop",),
            "multirc": ("multirc",),
            "openbookqa": ("openbookqa",),
            "squad": ("squad",),
        },
        "reading_comprehension_with_commonsense": {"cosmos_qa": ("cosmos_qa", "spinn3r_blogs"), "record": ("record", "cnn_dailymail")},
        "coreference": {
            "dpr": ("definite_pronouns",),
            "winogrande": ("winogrande",),
            "wsc": ("winograd_schemas",),
            "wsc273": ("winograd_schemas",),
        },
        "miscellaneous": {
            "coqa": ("coqa", "cnn_dailymail", "race", "mctest"),
            "cola": ("cola",),
            "quac": ("quac",),
            "fix_punct": ("paracrawl",),
            "math_dataset": ("math_dataset",),
            "trec": ("trec_questions",),
            "wic": ("wic", "wordnet"),
        },
        "summarization": {
            "aeslc": ("enron_mails",),
            "ag_news": ("ag_news",),
            "cnn_dailymail": ("cnn_dailymail",),
            "gigaword": ("gigaword",),
            "multi_news": ("multi_news",),
            "newsroom": ("newsroom",),
            "opinion_abstracts_idebate": ("idebate",),
            "opinion_abstracts_rotten_tomatoes": ("rotten_tomatoes_reviews",),
            "samsum": ("samsum",),
            "wiki_lingua": ("wikihow",),
            "xsum": ("bbc_news",),
        },
        "translation": {
            name: (name.rpartition("_")[0].rpartition("_")[0], name)
            for name in (
                *("paracrawl_en_es", "wmt14_en_fr", "wmt14_fr_en", "wmt16_en_cs", "wmt16_en_de", "wmt16_de_en", "wmt16_en_fi"),
                *("wmt16_en_ro", "wmt16_ro_en", "wmt16_en_ru", "wmt16_en_tr"),
            )
        },
    }
    return {
        name: Provenance(cluster, sources, tuple(name.split("_")[1:3]) if cluster == "translation" else ("en",))
        for cluster, members in clusters.items()
        for name, sources in members.items()
    }


DATASETS: Mapping[str, Provenance] = _table()
# Clusters that FLAN leaves out for each other (section 2.2 and its footnotes).
RELATED: tuple[tuple[str, str], ...] = (
    ("nli", "paraphrase"),
    ("reading_comprehension", "reading_comprehension_with_commonsense"),
    ("commonsense", "reading_comprehension_with_commonsense"),
)
_PREFIXES = ("super_glue_", "superglue_", "glue_")


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """A source in which some clusters of tasks are evaluated on, and trained on is what is neither related to them nor shares their data.

    Attributes:
      source: all of it.
      clusters: the clusters held out.
      part: `both`, what may be trained on with its training split alone, and the tasks of the clusters without theirs; `training` or
        `held_out`, one of the two with all splits.
      related: pairs of clusters that are left out for each other.
      shared: whether what shares data with a held-out task is left out; FLAN goes by clusters alone.
      known: where tasks are from that neither say so themselves nor are in DATASETS: rows of a pattern for task names, as `my_*`, a
        cluster and sources.
    """

    source: Source
    clusters: tuple[str, ...] = ()
    part: Literal["both", "training", "held_out"] = "both"
    related: tuple[tuple[str, str], ...] = RELATED
    shared: bool = True
    known: tuple[tuple[str, str, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "clusters", tuple(self.clusters))
        if self.part not in ("both", "training", "held_out"):
            raise UserError(f"HeldOut.part: wanted 'both', 'training' or 'held_out', got {self.part!r}")
        there = {self._origin(name, own).cluster for name, own in _stated(self.source)}
        if unknown := [cluster for cluster in self.clusters if cluster not in there]:
            raise UserError(f"HeldOut.clusters: no task is of cluster {unknown[0]!r}; wanted some of {', '.join(sorted(there))}")
        if not self._trained_on:
            raise UserError(f"HeldOut: nothing is left to train on without the clusters {', '.join(self.clusters)}")

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks of the part."""
        return self.mixed.task_names

    def tasks(self, vocabulary: "seqio.Vocabulary") -> "list[TextTask]":
        """The tasks of the part; see `mixtures.Source`."""
        tasks = self.mixed.tasks(vocabulary)
        if self.part != "both":
            return tasks
        trained_on = self._trained_on
        return [_with_splits(task, name in trained_on) for name, task in zip(self.task_names, tasks, strict=True)]

    @property
    def mixed(self) -> Source:
        """The source with the tasks of the part alone, mixed as before."""
        kept = {"training": self._trained_on, "held_out": self._held, "both": self._trained_on | self._held}[self.part]
        found = _only(self.source, kept)
        return _Chosen(self.source, ()) if found is None else found

    @property
    def evaluated(self) -> Source:
        """What is evaluated on: the source of the part, and where it has both parts, of the tasks of the clusters alone."""
        return dataclasses.replace(self, part="held_out").mixed if self.part == "both" else self.mixed

    @property
    def _held(self) -> set[str]:
        return {name for name, own in _stated(self.source) if self._origin(name, own).cluster in self.clusters}

    @property
    def _trained_on(self) -> set[str]:
        return set(self.source.task_names) - set(self.left_out())

    def left_out(self) -> dict[str, str]:
        """The tasks that may not be trained on, each with the reason."""
        origins = {name: self._origin(name, own) for name, own in _stated(self.source)}
        held = self._held
        sources = {source: name for name in sorted(held, reverse=True) for source in origins[name].sources}
        reasons: dict[str, str] = {}
        for name, origin in origins.items():
            pairs = [pair for pair in self.related if origin.cluster in pair and set(pair) & set(self.clusters)]
            shared = [source for source in origin.sources if self.shared and source in sources]
            if name in held:
                reasons[name] = f"of cluster {origin.cluster}"
            elif pairs:
                reasons[name] = f"of cluster {origin.cluster}, related to {next(other for other in pairs[0] if other in self.clusters)}"
            elif shared:
                reasons[name] = f"shares {shared[0]} with {sources[shared[0]]}"
        return reasons

    def _origin(self, name: str, own: Provenance | None) -> Provenance:
        for pattern, cluster, sources in self.known:
            if fnmatch.fnmatchcase(name, pattern):
                return Provenance(cluster, tuple(sources))
        if own is not None:
            return own
        plain = next((name.removeprefix(prefix) for prefix in _PREFIXES if name.startswith(prefix)), name)
        if plain not in DATASETS:
            raise UserError(f"HeldOut: task {name} does not say where it is from; add ('{name}', CLUSTER, (SOURCE, ...)) to HeldOut.known")
        return DATASETS[plain]


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """Some tasks of a source."""

    source: Source
    names: tuple[str, ...]

    @property
    def task_names(self) -> tuple[str, ...]:
        return self.names

    def tasks(self, vocabulary: "seqio.Vocabulary") -> "list[TextTask]":
        pairs = zip(self.source.task_names, self.source.tasks(vocabulary), strict=True)
        return [task for name, task in pairs if name in self.names]


class _Part:
    """A task with some of its splits."""

    def __init__(self, task: "TextTask", splits: tuple[str, ...]) -> None:
        self._task = task
        self.splits = splits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


@functools.lru_cache(maxsize=4096)  # The same task each time: its examples are kept by it.
def _with_splits(task: "TextTask", training: bool) -> Any:
    return _Part(task, tuple(split for split in task.splits if (split == "train") == training))


def _stated(source: Source) -> list[tuple[str, Provenance | None]]:
    """The tasks of a source with what it says of them: `provenance`, in the order of `task_names`, where it has that."""
    if isinstance(source, Mixture):
        return [pair for inner in source.sources for pair in _stated(inner)]
    own: Sequence[Provenance | None] = getattr(source, "provenance", (None,) * len(source.task_names))
    return list(zip(source.task_names, own, strict=True))


def _only(source: Source, kept: set[str]) -> Source | None:
    """The source with these tasks alone; None where it has none of them."""
    if not isinstance(source, Mixture):
        names = tuple(name for name in source.task_names if name in kept)
        return source if names == source.task_names else _Chosen(source, names) if names else None
    parts = [_only(inner, kept) for inner in source.sources]
    rates = source.rates
    if not isinstance(rates, str):
        rates = tuple(rate for rate, part in zip(rates, parts, strict=True) if part is not None)
    left = tuple(part for part in parts if part is not None)
    return dataclasses.replace(source, sources=left, rates=rates) if left else None
