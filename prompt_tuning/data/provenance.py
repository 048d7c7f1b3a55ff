"""Where a task's data is from, and mixtures that hold out clusters of tasks with everything that shares their data.

FLAN (Wei et al. 2021, arXiv:2109.01652, section 2.2) evaluates a cluster of tasks with a model that saw none of it, and leaves related
clusters out as well. Names of clusters alone let data through: QNLI asks about SQuAD's paragraphs, BoolQ's questions are those of Natural
Questions, ReCoRD is made of CNN / Daily Mail. So a task is left out too where it shares a source with a held-out task.
"""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

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
            "samsum": ("samsum",),
            "wiki_lingua": ("wikihow",),
            "xsum": ("bbc_news",),
        },
        "translation": {
            name: (name.rpartition("_")[0].rpartition("_")[0], name)
            for name in ("wmt14_en_fr", "wmt14_fr_en", "wmt16_en_de", "wmt16_de_en", "wmt16_en_ro", "wmt16_ro_en")
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
    """A source without some clusters of tasks and all that is related to them or shares their data; or those clusters alone.

    Attributes:
      source: all of it.
      clusters: the clusters held out.
      part: `training`, what may be trained on; `held_out`, the tasks of the clusters.
      related: pairs of clusters that are left out for each other.
      known: where tasks are from that neither say so themselves nor are in DATASETS: rows of a pattern for task names, as `my_*`, a
        cluster and sources.
    """

    source: Source
    clusters: tuple[str, ...] = ()
    part: Literal["training", "held_out"] = "training"
    related: tuple[tuple[str, str], ...] = RELATED
    known: tuple[tuple[str, str, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "clusters", tuple(self.clusters))
        if self.part not in ("training", "held_out"):
            raise UserError(f"HeldOut.part: wanted 'training' or 'held_out', got {self.part!r}")
        there = {self._origin(name, own).cluster for name, own in _stated(self.source)}
        if unknown := [cluster for cluster in self.clusters if cluster not in there]:
            raise UserError(f"HeldOut.clusters: no task is of cluster {unknown[0]!r}; wanted some of {', '.join(sorted(there))}")
        if not self.task_names:
            raise UserError(f"HeldOut: nothing is left for {self.part!r} with the clusters {', '.join(self.clusters) or '()'}")

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks of the part."""
        return self.mixed.task_names

    def tasks(self, vocabulary: "seqio.Vocabulary") -> "list[TextTask]":
        """The tasks of the part; see `mixtures.Source`."""
        return self.mixed.tasks(vocabulary)

    @property
    def mixed(self) -> Source:
        """The source with the tasks of the part alone, mixed as before."""
        if self.part == "held_out":
            kept = {name for name, own in _stated(self.source) if self._origin(name, own).cluster in self.clusters}
        else:
            kept = set(self.source.task_names) - set(self.left_out())
        found = _only(self.source, kept)
        return _Chosen(self.source, ()) if found is None else found

    def left_out(self) -> dict[str, str]:
        """The tasks that may not be trained on, each with the reason."""
        origins = {name: self._origin(name, own) for name, own in _stated(self.source)}
        held = {name for name, origin in origins.items() if origin.cluster in self.clusters}
        sources = {source: name for name in sorted(held, reverse=True) for source in origins[name].sources}
        reasons: dict[str, str] = {}
        for name, origin in origins.items():
            pairs = [pair for pair in self.related if origin.cluster in pair and set(pair) & set(self.clusters)]
            shared = [source for source in origin.sources if source in sources]
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
