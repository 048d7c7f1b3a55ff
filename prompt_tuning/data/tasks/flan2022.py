"""The Flan 2022 collection (Chung et al. 2022, arXiv:2210.11416; Longpre et al. 2023, arXiv:2301.13688), a mixture of mixtures.

Five parts, each mixed with a weight, and within a part in proportion to the examples of its tasks up to a maximum of the part. The weights
and maxima are those of the released code. A part is told in up to four ways, all equally often: with and without solved examples, with and
without the list of choices.

| part | what | read from |
|---|---|---|
| flan2021 | FLAN's 62 data sets | TFDS, as `flan2021` says |
| t0_sf | T0's training data without what FLAN has | P3 as rendered, a file a template |
| niv2 | Super-NaturalInstructions without its tasks from MMLU | a JSON file a task |
| cot | nine data sets of chains of thought | a TSV a data set |
| dialog | QReCC and WikiDialog | TFDS |

Of chains of thought and dialogues a share is inverted: the target is given and the input asked for, with the weight 0.3 beside 1.

Program synthesis, a sixth part in the papers, was not published and is not here. What else differs: exemplars of templated tasks come
each in a template of its own, and an inverted example asks in words of this project.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from prompt_tuning.data import tfds_rows
from prompt_tuning.data.instructions.chain_of_thought import ChainOfThought
from prompt_tuning.data.instructions.rendered import Rendered
from prompt_tuning.data.instructions.super_natural import SuperNaturalInstructions
from prompt_tuning.data.instructions.templated import Templated
from prompt_tuning.data.mixtures import Mixture
from prompt_tuning.data.tasks import flan2021
from prompt_tuning.data.tasks.instructions import Instructions
from prompt_tuning.errors import UserError

WEIGHTS = {"flan2021": 0.4, "t0_sf": 0.32, "niv2": 0.2, "cot": 0.05, "dialog": 0.03}
MAXIMA = {"flan2021": 30_000, "t0_sf": 20_000, "niv2": 5_000, "cot": 100_000, "dialog": 200_000}
INVERTED = 0.3  # The weight of what is inverted beside what is not.
# Templates of P3 by the data sets that FLAN has too, and those that score one choice at a time.
IN_FLAN = (
    *("ag_news*", "ai2_arc*", "anli*", "cnn_dailymail*", "common_gen*", "cosmos_qa*", "gigaword*", "glue_mrpc*", "glue_qqp*", "hellaswag*"),
    *("imdb*", "multi_news*", "openbookqa*", "paws*", "piqa*", "rotten_tomatoes*", "samsum*", "squad_v2*", "super_glue*", "trec*"),
    *("trivia_qa*", "winogrande*", "xsum*", "yelp_review*", "*_score_eval*"),
)
# The released code leaves out tasks 685 to 737, which lets some of MMLU through, as anatomy (665); the paper evaluates on MMLU.
FROM_MMLU = ("task*_mmmlu_*", *(f"task{number}_*" for number in range(685, 738)))
DIALOGUES = {"qrecc": ("q_re_cc:1.0.0", 10_170), "wiki_dialog": ("wiki_dialog/OQ:1.0.0", 11_264_000)}


@dataclasses.dataclass(frozen=True)
class Way:
    """A way of telling a part: the end of its tasks' names, whether solved examples come first, and how choices are listed."""

    suffix: str
    few_shot: bool
    options: str


WAYS = (
    Way("_zs_opt", False, "varied"),
    Way("_fs_opt", True, "varied"),
    Way("_zs_noopt", False, "none"),
    Way("_fs_noopt", True, "none"),
)


def mixture(
    *,
    weights: Sequence[float] = tuple(WEIGHTS.values()),
    p3_files: Sequence[str] | str = (),
    natural_files: Sequence[str] | str = (),
    cot_files: Sequence[str] | str = (),
    datasets: Collection[str] | None = None,
    exemplars: int = 5,
    few_shot_frac: float = 0.5,
    input_tokens: int | None = 1024,
    data_dir: str | None = None,
    seed: int = 0,
) -> Mixture:
    """The collection; every default is the released code's.

    Args:
      weights: of flan2021, t0_sf, niv2, cot and dialog; a part of weight 0 is left out.
      p3_files, natural_files, cot_files: paths or glob patterns of the parts that are read from files.
      datasets: of flan2021, see `flan2021.mixture`.
      exemplars: most solved examples where there are some, taken while an input has at most `input_tokens` tokens.
      few_shot_frac: the share of what is drawn of a part that has some, from 0 to 1 (Longpre et al. 2023, section 3.2).
      data_dir: the TFDS folder; None is TFDS's own, where missing data is downloaded.
      seed: of everything drawn.

    Raises UserError for a part that has a weight and no files, and for a share that is none.
    """
    if not 0 <= few_shot_frac <= 1:
        raise UserError(f"FEW_SHOT_FRAC: wanted 0 to 1, got {few_shot_frac}")
    if len(weights) != len(WEIGHTS):
        raise UserError(f"WEIGHTS: wanted one of each of {', '.join(WEIGHTS)}, got {list(weights)}; 0 leaves a part out")
    common: dict[str, Any] = {"input_tokens": input_tokens, "seed": seed}
    files = {"t0_sf": p3_files, "niv2": natural_files, "cot": cot_files}
    # Half of a part's ways have solved examples, be they two or four.
    rates = {way: few_shot_frac if way.few_shot else 1 - few_shot_frac for way in WAYS}
    parts = []
    for name, weight in zip(WEIGHTS, weights, strict=True):
        if weight and name in files and not files[name]:
            macro = {"t0_sf": "P3_FILES", "niv2": "NATURAL_FILES", "cot": "COT_FILES"}[name]
            raise UserError(f"{macro}: {name} has the weight {weight} and no files; name them, or leave the part out with a weight of 0")
        shots = {way: exemplars if way.few_shot else 0 for way in WAYS}
        ways = [way for way in (WAYS if name in ("flan2021", "t0_sf") else WAYS[:2]) if rates[way]]
        told: list[Mixture] = []
        if not weight:
            continue
        if name == "flan2021":
            told = [
                flan2021.mixture(
                    datasets=datasets,
                    maximum=MAXIMA[name],
                    options=way.options,
                    exemplars=shots[way],
                    data_dir=data_dir,
                    suffix=way.suffix,
                    **common,
                )
                for way in ways
            ]
        elif name == "t0_sf":
            rendered = Instructions(format=Rendered(), train_files=p3_files, by_file=True, leave_out=IN_FLAN, **common)  # type: ignore[arg-type]
            told = [_part(name, way, [rendered], exemplars=shots[way], options=way.options) for way in ways]
        elif name == "niv2":
            told = [_part(name, way, [_natural(natural_files, way, exemplars, input_tokens, common)]) for way in ways]
        else:
            sources = [_cot(cot_files, common)] if name == "cot" else _dialogues(data_dir, common)
            told = [_with_inverted(name, way, sources, shots[way]) for way in ways]
        parts.append((weight, told[0] if len(told) == 1 else Mixture(tuple(told), rates=tuple(rates[way] for way in ways))))
    return Mixture(tuple(part for _, part in parts), rates=tuple(weight for weight, _ in parts))


def _part(name: str, way: Way, sources: Sequence[Instructions], *, ending: str = "", **changes: Any) -> Mixture:
    """The tasks of a part told in one way, each with a name of its own."""
    prefix = f"{name}{ending}{way.suffix}"
    named = [
        dataclasses.replace(source, name=prefix if source.by_file else f"{source.name}{ending}{way.suffix}", **changes)
        for source in sources
    ]
    return Mixture(tuple(named), cap=MAXIMA[name])


def _with_inverted(name: str, way: Way, sources: Sequence[Instructions], exemplars: int) -> Mixture:
    plain = _part(name, way, sources, exemplars=exemplars)
    turned = _part(name, way, sources, ending="_inverted", exemplars=exemplars, inverted_frac=1.0)
    return Mixture((plain, turned), rates=(1.0, INVERTED))


def _natural(files: Sequence[str] | str, way: Way, exemplars: int, input_tokens: int | None, common: dict[str, Any]) -> Instructions:
    format = SuperNaturalInstructions(positive=exemplars if way.few_shot else 0, input_tokens=input_tokens)
    return Instructions(format=format, train_files=files, by_file=True, leave_out=FROM_MMLU, **common)  # type: ignore[arg-type]


def _cot(files: Sequence[str] | str, common: dict[str, Any]) -> Instructions:
    # The templates that are turned around are what the part has its inverted share for.
    return Instructions(format=ChainOfThought(turned_around=False), train_files=files, by_file=True, **common)  # type: ignore[arg-type]


def _dialogues(data_dir: str | None, common: dict[str, Any]) -> list[Instructions]:
    found = []
    for name, (tfds, rows) in DIALOGUES.items():
        split = "train" if rows <= MAXIMA["dialog"] else f"train[:{MAXIMA['dialog']}]"
        format = Templated(name, turned_around=False, data_dir=data_dir)
        found.append(Instructions(name=name, format=format, train_files=(tfds_rows.split_path(tfds, split),), **common))
    return found
