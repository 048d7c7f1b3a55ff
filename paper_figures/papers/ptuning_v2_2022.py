"""Liu et al. 2022 (arXiv:2110.07602): what its figures and claims are in our runs."""

from experiments import mini
from experiments.ptuning_v2_2022 import sweep
from paper_figures import drawing, results
from paper_figures import tuning_methods as ours
from paper_figures.claims import Claim

TITLE = "Liu et al. 2022: P-tuning v2, prompt tuning across scales and tasks"
_PAPER = "ptuning_v2_2022"
_COMPARED = ("p_tuning_v2", "prompt", "full")


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return drawing.having_ours([_sizes(), _lengths()])


def _sizes() -> drawing.Figure:
    marks = [
        drawing.mark(ours.NAMES[method], mini.PARAMETERS[base], held)
        for method in _COMPARED
        for base in sweep.BASES
        if (held := ours.scores(_PAPER, method, base=base))
    ]
    theirs = ours.printed(results.published("ptuningv2_repo_reproduced"), series="model", x="task")
    panels = [
        ours.panel("the world", "parameters of the base", marks, log=True),
        drawing.Panel("P-tuning v2, SuperGLUE", "task", "score, %", theirs, kind="scatter"),
    ]
    caption = (
        "Tables 2 and 3: deep prompts, prompts in the input alone, and model tuning, by size of the base. Of the paper's own we have the "
        "scores that its code states as reproduced, which are of P-tuning v2 alone. Bars are 95% intervals over seeds."
    )
    return ours.drawn("sizes", caption, panels)


def _lengths() -> drawing.Figure:
    panels = []
    for test, title in (("test", "in domain"), ("out", "out of domain")):
        marks = ours.line(_PAPER, "p_tuning_v2", "P-tuning v2", "length", sweep.LENGTHS, standard=20, test=test)
        panels.append(ours.panel(f"the world, {title}", "length", marks, log=True))
    return ours.drawn("lengths", "Score by length of the prompts; the paper draws it for single tasks and prints no values.", panels)


def claims() -> list[Claim]:
    """What the paper says."""
    found = []
    for base in sweep.BASES:
        deep, shallow, full = (ours.scores(_PAPER, method, base=base) for method in _COMPARED)
        size = f"{mini.PARAMETERS[base]:,} parameters"
        found.append(
            Claim(
                f"deep prompts are above prompts in the input, base of {size}", "direction only (tables 2 and 3)", ours.lead(deep, shallow)
            )
        )
        found.append(
            Claim(
                f"deep prompts are not worse than model tuning by more than 0.02 (the difference plus 0.02), base of {size}",
                "direction only (tables 2 and 3)",
                ours.lead(deep, full, margin=0.02),
            )
        )
    return found
