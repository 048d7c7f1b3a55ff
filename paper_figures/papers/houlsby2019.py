"""Houlsby et al. 2019 (arXiv:1902.00751): what its figures and claims are in our runs."""

import re

from experiments import methods, mini
from experiments.houlsby2019 import sweep
from paper_figures import drawing, results
from paper_figures import tuning_methods as ours
from paper_figures.claims import Claim

TITLE = "Houlsby et al. 2019: parameter-efficient transfer learning for NLP"
_PAPER = "houlsby2019"


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return drawing.having_ours([_widths()])


def _of_width(width: int, test: str = "test") -> list[list[float]]:
    return ours.scores(_PAPER, "adapter", test=test, **({} if width == 64 else {"width": width}))


def _widths() -> drawing.Figure:
    panels = []
    for test, title in (("test", "in domain"), ("out", "out of domain")):
        marks = []
        for width in sweep.WIDTHS:
            if held := _of_width(width, test):
                count = ours.trained(_PAPER, "adapter", **({} if width == 64 else {"width": width}))
                marks.append(drawing.mark("adapters", 100 * count / mini.PARAMETERS[methods.BASE], held))
        for method in ("norms", "full"):
            if held := ours.scores(_PAPER, method, test=test):
                share = 100 * ours.trained(_PAPER, method) / mini.PARAMETERS[methods.BASE]
                marks.append(drawing.mark(ours.NAMES[method], share, held))
        panels.append(ours.panel(f"the world, {title}", "trained parameters, % of the base", marks, log=True))
    printed = []
    for row in results.published("houlsby2019_table1_glue"):
        share = re.search(r"trained per task ([\d.]+)%", row["note"])
        name = "model tuning" if "full" in row["method"] else "adapters"
        printed.append(drawing.printed(row, name, float(share[1]) if share else 100.0))
    panels.append(drawing.Panel("BERT-large, GLUE", "trained parameters, % of the base", "score, %", printed, kind="scatter", log=True))
    caption = (
        f"Figure 4 and table 1: parameters trained against score: adapters of width {', '.join(map(str, sweep.WIDTHS))}, layer norms "
        "alone, and model tuning. Bars are 95% intervals over seeds."
    )
    return ours.drawn("widths", caption, panels)


def claims() -> list[Claim]:
    """What the paper says."""
    full, widest = ours.scores(_PAPER, "full"), _of_width(64)
    few = [ours.scores(_PAPER, method, examples=methods.FEW) for method in ("adapter", "full")]
    return [
        Claim(
            "adapters are not worse than model tuning by more than 0.02 (the difference plus 0.02)",
            "80.0 against 80.4, GLUE (table 1)",
            ours.lead(widest, full, margin=0.02),
        ),
        Claim("adapters are above layer norms alone", "direction only (figure 4)", ours.lead(widest, ours.scores(_PAPER, "norms"))),
        Claim(
            f"width {sweep.WIDTHS[0]} is not worse than width 64 by more than 0.02 (the difference plus 0.02)",
            "direction only (section 3.6)",
            ours.lead(_of_width(sweep.WIDTHS[0]), widest, margin=0.02),
        ),
        Claim(f"with {methods.FEW} examples adapters are above model tuning", "not in the paper", ours.lead(*few)),
    ]
