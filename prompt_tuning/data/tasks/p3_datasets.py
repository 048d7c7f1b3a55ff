"""The data sets of T0 (Sanh et al. 2021, arXiv:2110.08207, section 3 and figure 2), by the names that P3's files begin with.

Twelve tasks. T0 trains on eight of them; natural language inference, coreference resolution, sentence completion and word sense
disambiguation are held out. T0+ adds the data sets that GPT-3 was evaluated on, T0++ those of SuperGLUE but RTE and CB.
"""

import dataclasses
from typing import Literal

Mixture = Literal["t0", "t0+", "t0++"]
MIXTURES: tuple[Mixture, ...] = ("t0", "t0+", "t0++")
CAP = 500_000  # A data set with more training rows counts as so many (section 5.2).
HELD_OUT_TASKS = ("natural_language_inference", "coreference", "sentence_completion", "word_sense")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
      name: of data set and subset, as P3 has it before a template's name, with an underscore for whatever is no letter or digit.
      task: which of the twelve it is an example of.
      rows: published training examples; 0 where none is trained on.
      first_in: the smallest mixture that trains on it; None for none.
      evaluated: whether the paper evaluates on it where it is not trained on.
    """

    name: str
    task: str
    rows: int
    first_in: Mixture | None
    evaluated: bool = False

    def trained_in(self, mixture: Mixture) -> bool:
        """Whether the mixture trains on it."""
        return self.first_in is not None and MIXTURES.index(self.first_in) <= MIXTURES.index(mixture)


def _table() -> tuple[Dataset, ...]:
    trained: dict[tuple[Mixture, str], dict[str, int]] = {
        ("t0", "paraphrase"): {"glue_mrpc": 3_668, "glue_qqp": 363_846, "paws_labeled_final": 49_401},
        ("t0", "closed_book_qa"): {"kilt_tasks_hotpotqa": 88_869, "wiki_qa": 20_360},
        ("t0", "extractive_qa"): {
            "adversarial_qa_dbidaf": 10_000, "adversarial_qa_dbert": 10_000, "adversarial_qa_droberta": 10_000, "duorc_SelfRC": 60_721,
            "duorc_ParaphraseRC": 69_524, "ropes": 10_924, "quoref": 19_399,
        },
        ("t0", "multiple_choice_qa"): {
            "cos_e_v1_11": 9_741, "cosmos_qa": 25_262, "dream": 6_116, "qasc": 8_134, "quail": 10_246, "quarel": 1_941, "quartz": 2_696,
            "sciq": 11_679, "social_i_qa": 33_410, "wiki_hop_original": 43_738, "wiqa": 29_808,
        },
        ("t0", "sentiment"): {
            "amazon_polarity": 3_600_000, "app_reviews": 288_065, "imdb": 25_000, "rotten_tomatoes": 8_530, "yelp_review_full": 650_000,
        },
        ("t0", "structure_to_text"): {"common_gen": 67_389, "wiki_bio": 582_659},
        ("t0", "summarization"): {
            "cnn_dailymail_3_0_0": 287_113, "gigaword": 3_803_957, "multi_news": 44_972, "samsum": 14_732, "xsum": 204_045,
        },
        ("t0", "topic_classification"): {"ag_news": 120_000, "dbpedia_14": 560_000, "trec": 5_452},
        ("t0+", "closed_book_qa"): {
            "ai2_arc_ARC_Challenge": 1_119, "ai2_arc_ARC_Easy": 2_251, "trivia_qa_unfiltered": 87_622, "web_questions": 3_778,
        },
        ("t0+", "extractive_qa"): {"squad_v2": 130_319},
        ("t0+", "multiple_choice_qa"): {"openbookqa_main": 4_957, "race_high": 62_445, "race_middle": 25_421, "piqa": 16_113},
        ("t0+", "sentence_completion"): {"hellaswag": 39_905},
        ("t0++", "coreference"): {"super_glue_wsc_fixed": 554},
        ("t0++", "extractive_qa"): {"super_glue_record": 100_730},
        ("t0++", "multiple_choice_qa"): {"super_glue_boolq": 9_427, "super_glue_multirc": 27_243},
        ("t0++", "sentence_completion"): {"super_glue_copa": 400},
        ("t0++", "word_sense"): {"super_glue_wic": 5_428},
    }  # fmt: skip
    never = {
        "coreference": ("winogrande_winogrande_xl",),
        "natural_language_inference": ("super_glue_cb", "super_glue_rte", "anli"),
        "sentence_completion": ("story_cloze_2016",),
    }
    found = [
        Dataset(name, task, rows, mixture, evaluated=task in HELD_OUT_TASKS)
        for (mixture, task), members in trained.items()
        for name, rows in members.items()
    ]
    return (*found, *(Dataset(name, task, 0, None, evaluated=True) for task, names in never.items() for name in names))


DATASETS = _table()


def of_file(stem: str) -> tuple[Dataset, str] | None:
    """The data set of a file `DATASET_TEMPLATE` and the template's name; None where it is none of T0's. The longest name counts."""
    found = [dataset for dataset in DATASETS if stem.startswith(f"{dataset.name}_")]
    if not found:
        return None
    longest = max(found, key=lambda dataset: len(dataset.name))
    return longest, stem.removeprefix(f"{longest.name}_")


def table() -> str:
    """The data sets as a table in Markdown."""
    lines = ["| task | data set | training rows | trained on in | held out in |", "| --- | --- | --- | --- | --- |"]
    for dataset in sorted(DATASETS, key=lambda dataset: dataset.task):
        trained = [mixture for mixture in MIXTURES if dataset.trained_in(mixture)]
        held_out = [mixture for mixture in MIXTURES if mixture not in trained] if dataset.evaluated else []
        rows = f"{dataset.rows:,}" if trained else "none"
        capped = ", capped" if dataset.rows > CAP else ""
        lines.append(f"| {dataset.task} | {dataset.name} | {rows}{capped} | {', '.join(trained)} | {', '.join(held_out)} |")
    return "\n".join(lines)
