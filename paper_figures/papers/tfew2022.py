"""Liu et al. 2022 (arXiv:2205.05638): what its figures and claims are in our runs."""

from collections.abc import Iterable

from experiments import methods
from experiments.tfew2022 import sweep
from paper_figures import drawing, results
from paper_figures import tuning_methods as ours
from paper_figures.claims import Claim

TITLE = "Liu et al. 2022: few-shot parameter-efficient fine-tuning is better and cheaper than in-context learning"
_PAPER = "tfew2022"
_TABLE_4 = "tfew2022_table4_peft_methods_t0_3b"
_TABLES_5_TO_7 = "tfew2022_table5_6_7_loss_ablation_avg"
# As ours are called.
_OURS = {
    "Full Model Fine-tuning": "model tuning", "LayerNorm": "layer norms", "Adapter": "adapters", "Prompt tuning (10)": "prompt tuning",
    "Prefix tuning": "prefix tuning", "LoRA (rank 4)": "LoRA", "(IA)3": "IA3",
}  # fmt: skip
_WITH = {"Table 5": "length-normalised", "Table 6": "unlikelihood", "Table 7": "neither"}
_LOSSES = ("neither", "unlikelihood", "length-normalised", "both")


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return drawing.having_ours([_cost(), _losses()])


def _named(rows: Iterable[results.Row]) -> list[dict[str, str]]:
    return [{**row, "named": _OURS.get(row["method"], row["method"])} for row in rows]


def _cost() -> drawing.Figure:
    theirs = [row for row in _named(results.published(_TABLE_4)) if row["named"] in _OURS.values()]
    printed = ours.printed(theirs, series="named", x="note")
    caption = (
        "Table 4 and figure 2: parameters trained against score, of each method with few examples and with all; the last panel is the "
        "paper's, with 20 to 70 examples a data set and T-Few's losses for every method; its means are of the medians that table 4 prints. "
        "Bars are 95% intervals over seeds."
    )
    panels = [
        ours.cost(_PAPER, f"the world, {methods.FEW} examples", sweep.COMPARED, examples=methods.FEW),
        ours.cost(_PAPER, "the world, 2,000 examples", sweep.COMPARED),
        drawing.Panel("T0-3B, 11 data sets", ours.PARAMETERS, "mean of medians, %", printed, kind="scatter", log=True),
    ]
    return ours.drawn("cost", caption, panels)


def _of(losses: str) -> list[list[float]]:
    return ours.scores(_PAPER, "tfew", examples=methods.FEW, **({} if losses == "both" else {"losses": losses}))


def _losses() -> drawing.Figure:
    marks = [drawing.mark("IA3", losses, held) for losses in _LOSSES if (held := _of(losses))]
    theirs = [{**row, "losses": _WITH[row["table_or_figure"]]} for row in results.published(_TABLES_5_TO_7)]
    theirs += [{**row, "losses": "both"} for row in results.published(_TABLE_4)]
    theirs = [row for row in _named(theirs) if row["named"] in ("IA3", "LoRA")]
    order = sorted(theirs, key=lambda row: _LOSSES.index(row["losses"]))
    caption = (
        "Tables 5 to 7: what the losses of answer choices add to that of the right answer, ours with IA3; the paper's means with both "
        "losses are of the medians that table 4 prints. Bars are 95% intervals over seeds."
    )
    panels = [
        ours.panel(f"the world, {methods.FEW} examples", "losses added", marks, kind="scatter"),
        drawing.Panel(
            "T0-3B, 11 data sets", "losses added", "mean of medians, %", ours.printed(order, series="named", x="losses"), kind="scatter"
        ),
    ]
    return ours.drawn("losses", caption, panels)


def claims() -> list[Claim]:
    """What the paper says."""
    few = {method: ours.scores(_PAPER, method, examples=methods.FEW) for method in sweep.COMPARED}
    base = ours.scores(_PAPER, "full", as_it_is="yes")
    told = {
        "full": ("model tuning", "64.6 against 63.3 (table 4)"),
        "lora": ("LoRA", "64.6 against 62.8 (table 4)"),
        "adapter": ("adapters", "64.6 against 61.6 (table 4)"),
        "p_tuning_v2": ("prefixes", "64.6 against 57.8 (table 4)"),
        "prompt": ("prompt tuning", "64.6 against 50.9 (table 4)"),
    }
    found = [
        Claim(f"with {methods.FEW} examples IA3 is above {name}", theirs, ours.lead(few["ia3"], few[method]))
        for method, (name, theirs) in told.items()
    ]
    found.append(
        Claim(
            f"with {methods.FEW} examples T-Few is above the base as it is",
            "72.4 against 66.9, T0 11B (table 1)",
            ours.lead(_of("both"), base),
        )
    )
    found.append(
        Claim("both losses together are above neither", "64.6 against 61.7 (tables 4 and 7)", ours.lead(_of("both"), _of("neither")))
    )
    found.append(
        Claim("unlikelihood alone is above neither", "64.1 against 61.7 (tables 6 and 7)", ours.lead(_of("unlikelihood"), _of("neither")))
    )
    found.append(
        Claim(
            "length-normalised scores alone are above neither",
            "64.1 against 61.7 (tables 5 and 7)",
            ours.lead(_of("length-normalised"), _of("neither")),
        )
    )
    return found
