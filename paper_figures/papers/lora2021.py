"""Hu et al. 2021 (arXiv:2106.09685): what its figures and claims are in our runs."""

import re
from collections.abc import Iterable

from experiments import methods
from experiments.lora2021 import sweep
from paper_figures import drawing, results
from paper_figures import tuning_methods as ours
from paper_figures.claims import Claim

TITLE = "Hu et al. 2021: LoRA, low-rank adaptation of large language models"
_PAPER = "lora2021"
_COMPARED = ("full", "lora", "adapter", "p_tuning_v2", "prompt")
_MATRICES = {"q": "queries, rank 16", "qv": "queries and values, rank 8", "qkvo": "all four, rank 4"}
_LEAST = methods.FEW
# What the paper calls what is ours under another name.
_OURS = {"full fine-tuning": "model tuning", "PrefixEmbed": "prompt tuning", "PrefixLayer": "P-tuning v2", "AdapterH": "adapters"}


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return drawing.having_ours([_cost(), _low_data(), _ranks(), _matrices()])


def _family(rows: Iterable[results.Row]) -> list[dict[str, str]]:
    """Rows with `family`: the method without its settings, as ours are called."""
    found = []
    for row in rows:
        name = row["method"].partition(" (")[0]
        found.append({**row, "family": _OURS.get(name, name)})
    return found


def _cost() -> drawing.Figure:
    budgets = results.published("lora2021_table15_hyperparameter_budget")
    alone = [row for row in results.published("lora2021_table4_gpt3") if row["method"] in ("full fine-tuning", "BitFit")]
    gpt3 = ours.printed(_family([*alone, *budgets]), series="family", x="note")
    roberta = ours.printed(_family(results.published("lora2021_table2_glue")), series="family", x="note")
    caption = (
        "Tables 2, 4 and 15: parameters trained against score. Bars are 95% intervals over seeds. The paper's PrefixEmbed trains "
        "embeddings, its PrefixLayer activations in every layer."
    )
    panels = [
        ours.cost(_PAPER, "the world, 2,000 examples", _COMPARED),
        drawing.Panel("GPT-3 175B, MNLI-m", ours.PARAMETERS, "accuracy, %", gpt3, kind="scatter", log=True),
        drawing.Panel("RoBERTa base, GLUE", ours.PARAMETERS, "average score, %", roberta, kind="scatter", log=True),
    ]
    return ours.drawn("cost", caption, panels)


def _low_data() -> drawing.Figure:
    marks = []
    for method in ("lora", "full", "p_tuning_v2", "prompt"):
        marks += ours.line(_PAPER, method, ours.NAMES[method], "examples", methods.EXAMPLES, standard=methods.ALL)
    theirs = _family(results.published("lora2021_table16_low_data_mnli"))
    for row in theirs:
        (number, thousands) = re.search(r"n=(\d+)(k?)", row["task"]).groups()  # type: ignore[union-attr]
        row["examples"] = str(int(number) * (1000 if thousands else 1))
    printed = [drawing.printed(row, row["family"], float(row["examples"])) for row in theirs]
    caption = (
        "Table 16: score by number of training examples. Ours have the same examples for every seed; seeds are of order and first values."
    )
    panels = [
        ours.panel("the world", ours.EXAMPLES, marks, log=True),
        drawing.Panel("GPT-3 175B, MNLI-m", ours.EXAMPLES, "accuracy, %", printed, log=True),
    ]
    return ours.drawn("low_data", caption, panels)


def _ranks() -> drawing.Figure:
    marks = ours.line(_PAPER, "lora", "queries and values", "rank", sweep.RANKS, standard=8)
    theirs = []
    for row in results.published("lora2021_table5_6_18_rank"):
        if found := re.fullmatch(r"LoRA (\S+) rank (\d+)", row["method"]):
            matrices = {"Wq,Wv": "queries and values", "Wq": "queries", "Wq,Wk,Wv,Wo": "all four"}[found[1]]
            theirs.append(drawing.printed(row, matrices, float(found[2])))
    panels = [
        ours.panel("the world", "rank", marks, log=True),
        drawing.Panel("GPT-3 175B, MNLI", "rank", "accuracy, %", theirs, log=True),
    ]
    return ours.drawn("ranks", "Table 6: score by rank.", panels)


def _matrices() -> drawing.Figure:
    marks = [drawing.mark("LoRA", label, held) for name, label in _MATRICES.items() if (held := _of_matrices(name))]
    theirs = []
    for row in results.where(results.published("lora2021_table5_6_18_rank"), table_or_figure="Table 5"):
        label = row["method"].removeprefix("LoRA ").removesuffix(" (18M)")
        theirs.append(drawing.printed(row, "LoRA", label))
    panels = [
        ours.panel("the world", "matrices", marks, kind="scatter"),
        drawing.Panel("GPT-3 175B, MNLI", "matrices", "accuracy, %", theirs, kind="scatter"),
    ]
    return ours.drawn("matrices", "Table 5: which matrices are tuned with one number of trained parameters.", panels)


def _of_matrices(name: str) -> list[list[float]]:
    if name == "qv":
        return ours.scores(_PAPER, "lora")
    return ours.scores(_PAPER, "lora", matrices=name, rank=sweep.MATRICES[name][1])


def claims() -> list[Claim]:
    """What the paper says."""
    lora = ours.scores(_PAPER, "lora")
    few = {method: ours.scores(_PAPER, method, examples=_LEAST) for method in ("lora", "full", "prompt", "p_tuning_v2")}
    low, high = (ours.scores(_PAPER, "lora", rank=rank) for rank in (sweep.RANKS[0], sweep.RANKS[-1]))
    return [
        Claim("LoRA is above model tuning", "MNLI-m 91.7 against 89.5 (table 4)", ours.lead(lora, ours.scores(_PAPER, "full"))),
        Claim("LoRA is above adapters", "MNLI-m 91.7 against 91.5 (table 4)", ours.lead(lora, ours.scores(_PAPER, "adapter"))),
        Claim(
            "LoRA is above prefixes in every layer",
            "MNLI-m 91.7 against 89.5 (table 4)",
            ours.lead(lora, ours.scores(_PAPER, "p_tuning_v2")),
        ),
        Claim("LoRA is above prompts in the input", "MNLI-m 91.7 against 88.6 (table 4)", ours.lead(lora, ours.scores(_PAPER, "prompt"))),
        Claim(
            f"with the fewest examples ({_LEAST}) LoRA is above model tuning",
            "63.8 against 60.2 with 100 (table 16)",
            ours.lead(few["lora"], few["full"]),
        ),
        Claim(
            f"with the fewest examples ({_LEAST}) LoRA is above prompts",
            "63.8 against 37.6 with 100 (table 16)",
            ours.lead(few["lora"], few["prompt"]),
        ),
        Claim(
            f"rank {sweep.RANKS[0]} is not worse than rank {sweep.RANKS[-1]} by more than 0.02 (the difference plus 0.02)",
            "91.3 against 91.4, rank 1 and 64 (table 6)",
            ours.lead(low, high, margin=0.02),
        ),
        Claim(
            "of one number of parameters, queries and values are better than queries alone",
            "91.3 against 91.0 (table 5)",
            ours.lead(_of_matrices("qv"), _of_matrices("q")),
        ),
        Claim(
            "of one number of parameters, all four matrices are better than queries alone",
            "91.7 against 91.0 (table 5)",
            ours.lead(_of_matrices("qkvo"), _of_matrices("q")),
        ),
    ]
