"""The training mixture of FLAN (Wei et al. 2021, arXiv:2109.01652): 62 data sets in 12 clusters (figure 3), ten templates each.

`TASKS` is the figure as a table. A data set may be several tasks, as the released code has it (ANLI's rounds, ARC's halves). Each task says
which split of TFDS it is trained on, scored on while training, and tested on; the splits are those of the released code: where a data set
has no validation split, 200 rows of its training split are one, and a test split without labels gives way to the validation split.

What the paper leaves open or contradicts, and what stands here:
- The figure's heading counts 8 translation data sets, which makes 62, while its list names 9 pairs, and figure 6 counts 9; here are the
  8 of the released code. A pair is asked for from English; its turned-around templates ask for the way back.
- SQuAD is version 1.1; the released code has 2.0 besides. WSC273 has a test split only and is never trained on.
- The wordings are this project's own. A row's template is drawn; the released code goes by its position.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from prompt_tuning.data import template_sets, tfds_rows
from prompt_tuning.data.instructions.templated import Templated
from prompt_tuning.data.mixtures import Mixture
from prompt_tuning.data.provenance import DATASETS
from prompt_tuning.data.tasks.instructions import Instructions
from prompt_tuning.errors import UserError

CAP = 30_000  # Training examples of a data set (section 2.4).
MAXIMUM = 3_000  # Mixing rate maximum: more examples add no weight (section 2.4).
_LAST_200 = ("train[:-200]", "train[-200:]", "validation")
_LAST_200_AND_TEST = ("train[:-200]", "train[-200:]", "test")
_OWN = ("train", "validation[:200]", "test")


@dataclasses.dataclass(frozen=True)
class Task:
    """One task of the mixture.

    Attributes:
      name: in reports.
      dataset: of the figure, a name in `provenance.DATASETS`.
      tfds: the data set's name, configuration and version in TFDS.
      rows: training rows as the released code counts them, in tens; 0 where there are none.
      splits: of training, validation and test; None where there is none.
      templates: a set in `template_sets.BUNDLED`.
      columns: where TFDS has a template's field; what is not named is where the set has it.
      unlabelled: whether some rows carry no label; they are skipped and counted.
      by_hand: whether TFDS must be given files that its user has downloaded.
    """

    name: str
    dataset: str
    tfds: str
    rows: int
    splits: tuple[str | None, str | None, str | None]
    templates: str
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unlabelled: bool = False
    by_hand: bool = False

    @property
    def cluster(self) -> str:
        """The cluster of the figure."""
        return DATASETS[self.dataset].cluster

    @property
    def names(self) -> tuple[str, str, str]:
        """What it can be asked for by."""
        return self.name, self.dataset, self.cluster

    def files(self, cap: int) -> dict[str, tuple[str, ...]]:
        """The splits as `Instructions` takes them, the first `cap` rows of training; TFDS stores rows in an order that it has drawn."""
        train, validation, test = self.splits
        if train is not None and self.rows > cap:
            train = f"{train.partition('[')[0]}[:{cap}]"
        named = {"train_files": train, "validation_files": validation, "test_files": test}
        return {name: () if split is None else (tfds_rows.split_path(self.tfds, split),) for name, split in named.items()}


def _task(
    dataset: str, tfds: str, rows: int, splits: Sequence[str | None] = _LAST_200, templates: str = "", name: str = "", **more: Any
) -> Task:
    first, second, third = splits
    return Task(name or dataset, dataset, tfds, rows, (first, second, third), templates or dataset, **more)


def _last(rows: int, test: str = "validation") -> tuple[str, str, str]:
    return f"train[:-{rows}]", f"train[-{rows}:]", test


def _pair(dataset: str, tfds: str, rows: int, splits: Sequence[str | None] = _OWN, *, to_english: bool = False, **more: Any) -> list[Task]:
    """The task of a pair of languages from English and, where the paper evaluates it, into English, for testing only."""
    first, second = DATASETS[dataset].languages
    tasks = [_task(dataset, tfds, rows, splits, columns={"source": first, "target": second}, **more)]
    if to_english:
        back = f"{dataset.partition('_')[0]}_{second}_{first}"
        tasks.append(_task(dataset, tfds, 0, (None, None, splits[2]), back, back, columns={"source": second, "target": first}))
    return tasks


TASKS: tuple[Task, ...] = (
    # Natural language inference: 7 data sets.
    *(
        _task("anli", f"anli/{name}:0.1.0", rows, _OWN, name=f"anli_{name}", columns={"premise": "context"})
        for name, rows in (("r1", 16_940), ("r2", 45_460), ("r3", 100_450))
    ),
    _task("cb", "super_glue/cb:1.0.2", 200, _last(50)),
    _task("mnli", "glue/mnli:2.0.0", 392_500, (*_LAST_200[:2], "validation_matched")),
    _task("mnli", "glue/mnli:2.0.0", 0, (None, None, "validation_mismatched"), name="mnli_mismatched"),
    _task("qnli", "glue/qnli:2.0.0", 104_540),
    _task("rte", "super_glue/rte:1.0.2", 2_290),
    _task("snli", "snli:1.1.0", 549_360, _OWN, "mnli", unlabelled=True),
    _task("wnli", "glue/wnli:2.0.0", 600, _last(30)),
    # Commonsense: 4.
    _task("copa", "super_glue/copa:1.0.2", 350, _last(50)),
    _task("hellaswag", "hellaswag:1.1.0", 39_700),
    _task("piqa", "piqa:1.0.0", 16_010, _last(100)),
    _task("story_cloze", "story_cloze/2016:1.0.0", 1_670, ("validation[:-200]", "validation[-200:]", "test"), by_hand=True),
    # Sentiment: 4.
    _task("imdb", "imdb_reviews/plain_text:1.0.0", 24_800, _LAST_200_AND_TEST),
    _task("sentiment140", "sentiment140:1.0.0", 1_599_800, _LAST_200_AND_TEST),
    _task("sst2", "glue/sst2:2.0.0", 67_140),
    _task("yelp", "yelp_polarity_reviews:0.2.0", 559_800, _LAST_200_AND_TEST),
    # Paraphrase: 4.
    _task("mrpc", "glue/mrpc:2.0.0", 3_460),
    _task("paws", "paws_wiki:1.1.0", 49_400, _OWN),
    _task("qqp", "glue/qqp:2.0.0", 363_640),
    _task("stsb", "glue/stsb:2.0.0", 5_640, _last(100)),
    # Closed-book question answering: 3.
    _task("arc", "ai2_arc/ARC-Easy:1.0.0", 2_040, _LAST_200_AND_TEST, name="arc_easy"),
    _task("arc", "ai2_arc/ARC-Challenge:1.0.0", 910, _LAST_200_AND_TEST, name="arc_challenge"),
    _task("nq_open", "natural_questions_open:1.0.0", 87_720),
    _task("trivia_qa", "trivia_qa/unfiltered.nocontext:1.1.0", 87_420),
    # Structure to text: 4.
    _task("common_gen", "gem/common_gen:1.1.0", 67_180),
    _task("dart", "gem/dart:1.1.0", 62_450),
    _task("e2e_nlg", "gem/e2e_nlg:1.1.0", 33_320),
    _task("web_nlg", "gem/web_nlg_en:1.1.0", 35_220),
    # Reading comprehension: 5.
    _task("boolq", "super_glue/boolq:1.0.2", 9_220),
    _task("drop", "drop:2.0.0", 77_200, _last(200, "dev")),
    _task("multirc", "super_glue/multirc:1.0.2", 27_040),
    _task("openbookqa", "openbookqa:0.1.0", 4_950, _OWN),
    _task("squad", "squad/v1.1:3.0.0", 87_390),
    # Reading comprehension with commonsense: 2.
    _task("cosmos_qa", "cosmos_qa:1.0.0", 25_060),
    _task("record", "super_glue/record:1.0.2", 100_520),
    # Coreference: 3.
    _task("dpr", "definite_pronoun_resolution:1.1.0", 1_120, _LAST_200_AND_TEST),
    _task("winogrande", "winogrande:1.2.0", 40_190, ("train_xl[:-200]", "train_xl[-200:]", "validation")),
    _task("wsc273", "wsc273:1.0.0", 0, (None, None, "test")),
    # Miscellaneous: 7.
    _task("coqa", "coqa:1.0.0", 7_090, _last(100, "test")),
    _task("cola", "glue/cola:2.0.0", 8_350),
    _task("fix_punct", "para_crawl/enda:1.2.0", 28_070, ("train[30200:60200]", "train[60200:60400]", "train[-3000:]")),
    _task("math_dataset", "math_dataset/algebra__linear_1d:1.0.0", 1_999_780, _LAST_200_AND_TEST),
    _task("quac", "quac:1.0.0", 83_360),
    _task("trec", "trec:1.0.0", 5_250, _LAST_200_AND_TEST),
    _task("wic", "super_glue/wic:1.0.2", 5_220),
    # Translation: 8.
    *_pair("paracrawl_en_es", "para_crawl/enes:1.2.0", 30_000, ("train[:30000]", "train[-1200:-1000]", "train[-1000:]")),
    *_pair("wmt14_en_fr", "wmt14_translate/fr-en:1.0.0", 40_835_840, to_english=True),
    *_pair("wmt16_en_cs", "wmt16_translate/cs-en:1.0.0", 52_335_360, by_hand=True),
    *_pair("wmt16_en_de", "wmt16_translate/de-en:1.0.0", 4_548_800, to_english=True),
    *_pair("wmt16_en_fi", "wmt16_translate/fi-en:1.0.0", 2_073_360),
    *_pair("wmt16_en_ro", "wmt16_translate/ro-en:1.0.0", 610_320, to_english=True),
    *_pair("wmt16_en_ru", "wmt16_translate/ru-en:1.0.0", 2_516_160),
    *_pair("wmt16_en_tr", "wmt16_translate/tr-en:1.0.0", 205_750),
    # Summarisation: 11.
    _task("aeslc", "aeslc:1.0.0", 14_430, _OWN),
    _task("ag_news", "ag_news_subset:1.0.0", 119_800, _LAST_200_AND_TEST),
    _task("cnn_dailymail", "cnn_dailymail:3.4.0", 287_040, _OWN),
    _task("gigaword", "gigaword:1.2.0", 2_044_370, _OWN),
    _task("multi_news", "multi_news:2.1.0", 44_960, _OWN),
    _task("newsroom", "newsroom:1.0.0", 994_560, _OWN, by_hand=True),
    *(
        _task(name, f"opinion_abstracts/{name.removeprefix('opinion_abstracts_')}:1.0.0", rows, _parts)
        for _parts in [("train[:-600]", "train[-600:-500]", "train[-500:]")]
        for name, rows in (("opinion_abstracts_idebate", 1_650), ("opinion_abstracts_rotten_tomatoes", 3_130))
    ),
    _task("samsum", "samsum:1.0.0", 14_730, _OWN, by_hand=True),
    _task("wiki_lingua", "gem/wiki_lingua_english_en:1.1.0", 99_000, _OWN),
    _task("xsum", "xsum:1.1.0", 203_560, _OWN, by_hand=True),
)


def mixture(
    *,
    datasets: Collection[str] | None = None,
    cap: int = CAP,
    maximum: int | None = MAXIMUM,
    options: str = "suffix",
    exemplars: int = 0,
    input_tokens: int | None = 1024,
    max_per_template: int | None = None,
    data_dir: str | None = None,
    seed: int = 0,
    suffix: str = "",
) -> Mixture:
    """The mixture, in proportion to the examples of each task; every default is the paper's.

    Args:
      datasets: the figure's data sets, tasks or clusters to take; None takes all.
      cap: training rows of a task, before templates drop some.
      maximum: more examples than that add no weight; None: all count.
      options, exemplars, input_tokens, max_per_template, seed: see `Instructions`.
      data_dir: the TFDS folder; None is TFDS's own, where missing data is downloaded.
      suffix: of the tasks' names, where several such mixtures are mixed.

    Raises UserError for a data set that the figure does not have.
    """
    chosen = [task for task in TASKS if datasets is None or set(task.names) & set(datasets)]
    known = {name for task in TASKS for name in task.names}
    if unknown := sorted(set(datasets or ()) - known):
        raise UserError(f"DATASETS: FLAN has no data set or cluster {unknown[0]!r}; wanted some of {', '.join(sorted(known))}")
    sources = [
        Instructions(
            name=f"{task.name}{suffix}",
            format=Templated(task.templates, task.columns, data_dir=data_dir),
            max_per_template=max_per_template,
            options=options,  # type: ignore[arg-type]  # Checked there.
            exemplars=exemplars,
            input_tokens=input_tokens,
            on_error="skip" if task.unlabelled else "raise",
            origin=DATASETS[task.dataset],
            seed=seed,
            **task.files(cap),  # type: ignore[arg-type]
        )
        for task in chosen
        if task.splits[0] is not None or not suffix  # A part of another mixture is there to be trained on.
    ]
    return Mixture(tuple(sources), cap=maximum)


def table(cap: int = CAP) -> str:
    """The tasks in Markdown, as docs/flan.md has them."""
    head = ("cluster", "data set", "task", "TFDS", "templates", "training rows", "taken")
    lines = [head, ("---",) * len(head)]
    for task in TASKS:
        tfds = f"`{task.tfds}`{', by hand' if task.by_hand else ''}"
        rows = (f"{task.rows:,}", f"{min(task.rows, cap):,}") if task.rows else ("none", "tested on only")
        lines.append((task.cluster, task.dataset, task.name, tfds, f"`{template_sets.BUNDLED[task.templates].file}.yaml`", *rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
