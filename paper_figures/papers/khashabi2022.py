"""Khashabi et al. 2022 (arXiv:2112.08348): what its figures and claims are in our runs."""

from experiments import mini
from experiments.khashabi2022 import sweep
from paper_figures import drawing, paired, results
from paper_figures.claims import Claim

TITLE = "Khashabi et al. 2022: prompt waywardness"
_TEXTS = {"own": "its own definition", "other": "another task's definition", "prose": "prose on something else"}
# Of the best prompt of the same size, in accuracy (abstract).
_MARGIN = 0.02


def _wayward(which: str, gamma: float, *, base: str = sweep.BASE, metric: str = "accuracy") -> dict[tuple[str, int], float]:
    test = "test" if metric == "accuracy" else "projection"
    rows = results.ours("khashabi2022")
    return paired.values(results.where(rows, method="wayward", base=base, text=which, gamma=str(gamma), test=test, metric=metric))


def _free(base: str = sweep.BASE) -> dict[tuple[str, int], float]:
    rows = results.where(results.ours("khashabi2022"), method="prompt", base=base, test="test", metric="accuracy")
    return paired.values(rows)


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return [found for found in (_penalty(), _texts(), _sizes()) if found is not None]


def _penalty() -> drawing.Figure | None:
    # On a logarithmic axis no penalty has no place: gamma by name.
    marks, near = [], []
    for gamma in sweep.GAMMAS:
        if held := _wayward("other", gamma):
            marks.append(drawing.mark("begun at a text", f"{gamma:g}", paired.strata(held)))
            near.append(drawing.mark("begun at a text", f"{gamma:g}", paired.strata(_wayward("other", gamma, metric="token_f1"))))
    if len(marks) < 2:  # By gamma there is something to see from two of them on.
        return None
    if free := _free():
        marks += [drawing.mark("free prompt", mark.x, paired.strata(free)) for mark in marks]
    caption = (
        "Prompts that begin at the definition of another task and pay gamma times their squared distance from it: score, and how much of "
        "the text the nearest tokens of the prompt give back (F1), by gamma; the paper's is 0.01."
    )
    panels = [
        drawing.Panel("score", "gamma", "accuracy", marks, kind="scatter"),
        drawing.Panel("projection", "gamma", "token F1 with the text", near, kind="scatter"),
    ]
    return drawing.Figure("penalty", caption, panels)


def _texts() -> drawing.Figure | None:
    marks, near = [], []
    for which, name in _TEXTS.items():
        if held := _wayward(which, sweep.GAMMA):
            marks.append(drawing.mark("wayward prompt", name, paired.strata(held)))
            near.append(drawing.mark("wayward prompt", name, paired.strata(_wayward(which, sweep.GAMMA, metric="token_f1"))))
    if not marks:
        return None
    if free := _free():
        marks.append(drawing.mark("free prompt", "no text", paired.strata(free)))
    caption = f"Score and projection (token F1) by the text that a prompt is held to, with gamma {sweep.GAMMA:g}."
    panels = [
        drawing.Panel("score", "the text", "accuracy", marks, kind="scatter"),
        drawing.Panel("projection", "the text", "token F1 with the text", near, kind="scatter"),
    ]
    return drawing.Figure("texts", caption, panels)


def _sizes() -> drawing.Figure | None:
    score, near = [], []
    for base in sweep.SIZES:
        if held := _wayward("other", sweep.GAMMA, base=base):
            f1 = _wayward("other", sweep.GAMMA, base=base, metric="token_f1")
            score.append(drawing.mark("wayward prompt", mini.PARAMETERS[base], paired.strata(held)))
            near.append(drawing.mark("wayward prompt", mini.PARAMETERS[base], paired.strata(f1)))
        if held := _free(base):
            score.append(drawing.mark("prompt tuning", mini.PARAMETERS[base], paired.strata(held)))
    if len(near) < 2:
        return None
    caption = "Score and projection by size of the base; what the paper prints of it could not be read."
    panels = [
        drawing.Panel("score", "parameters of the base", "accuracy", score, log=True),
        drawing.Panel("projection", "parameters of the base", "token F1 with the text", near, log=True),
    ]
    return drawing.Figure("sizes", caption, panels)


def claims() -> list[Claim]:
    """What the paper says."""
    (row,) = results.where(results.published("abstract_level_claims"), paper="Khashabi et al. 2022 Prompt Waywardness (arXiv:2112.08348)")
    near = {which: _wayward(which, sweep.GAMMA, metric="token_f1") for which in _TEXTS}
    unpaid = _wayward("other", 0.0, metric="token_f1")
    small, large = sweep.SIZES[0], sweep.SIZES[-1]
    return [
        Claim(
            f"held to another task's definition, a prompt is worse than a free one by less than {_MARGIN} (the difference plus {_MARGIN})",
            f"within {row['value']}% of the best prompt (abstract)",
            paired.difference(_wayward("other", sweep.GAMMA), _free(), margin=_MARGIN),
        ),
        Claim(
            "it projects to most of that text (token F1 less one half)",
            "direction only",
            paired.difference(near["other"], dict.fromkeys(near["other"], 0.5)),
        ),
        Claim(
            "what holds it there is the penalty: without it less of the text is found",
            "direction only",
            paired.difference(near["other"], unpaid),
        ),
        Claim(
            "it does not matter which text: its own definition is better than another's by less than 0.02 (0.02 less the difference)",
            "direction only",
            paired.difference(_wayward("other", sweep.GAMMA), _wayward("own", sweep.GAMMA), margin=_MARGIN),
        ),
        Claim(
            "on the largest base the drop is smaller than on the smallest",
            "larger models are more wayward (abstract)",
            paired.difference(_drop(small), _drop(large)),
        ),
    ]


def _drop(base: str) -> dict[tuple[str, int], float]:
    """What is lost by being held to another task's definition."""
    free, held = _free(base), _wayward("other", sweep.GAMMA, base=base)
    return {key: free[key] - held[key] for key in set(free) & set(held)}
