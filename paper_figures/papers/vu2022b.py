"""Vu et al. 2022b (arXiv:2205.12647): what its figures and claims are in our runs."""

from experiments import mini
from experiments.vu2022b import sweep
from paper_figures import drawing, paired, results
from paper_figures.claims import Claim
from paper_figures.paired import Values

TITLE = "Vu et al. 2022b: overcoming catastrophic forgetting in zero-shot cross-lingual generation"
_TUNED = {"prompt": "prompt tuning", "full": "model tuning"}


def _scores(method: str, base: str, *, test: str, metric: str = "rougeL", length: int = 20, language: str = "english") -> Values:
    rows = results.where(
        results.ours("vu2022b"),
        base=base,
        method=method,
        language=language,
        length=str(length) if method == "prompt" else "",
        as_it_is="",
        test=test,
        metric=metric,
    )
    return paired.values(rows)


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return [found for found in (_sizes(), _lengths()) if found is not None]


# What is measured: a set of test rows, the metric there, a title, what the axis says.
_SHOWN = (
    ("english", "rougeL", "English, trained on", "ROUGE-L"),
    ("tavi", "rougeL", "Tavi, never trained on", "ROUGE-L"),
    ("spoken", "tavi_share_tavi", "language of what is written on Tavi", "share of words in Tavi"),
)


def _sizes() -> drawing.Figure | None:
    panels = []
    for test, metric, title, label in _SHOWN:
        marks = [
            drawing.mark(name, mini.PARAMETERS[base], paired.strata(held))
            for method, name in _TUNED.items()
            for base in sweep.BASES
            if (held := _scores(method, base, test=test, metric=metric))
        ]
        if len({mark.x for mark in marks}) > 1:
            panels.append(drawing.Panel(title, "parameters of the base", label, marks, log=True))
    if not panels:
        return None
    caption = (
        "Conclusions are trained in English and tested in English and in Tavi, by size of the base; bars are 95% intervals over seeds. The "
        "paper's values are printed nowhere that we could read."
    )
    return drawing.Figure("sizes", caption, panels)


def _lengths() -> drawing.Figure | None:
    panels = []
    for test, metric, title, label in _SHOWN:
        marks = [
            drawing.mark("prompt tuning", length, paired.strata(held))
            for length in sweep.LENGTHS
            if (held := _scores("prompt", sweep.MIDDLE, test=test, metric=metric, length=length))
        ]
        if marks and (held := _scores("full", sweep.MIDDLE, test=test, metric=metric)):
            marks += [drawing.mark("model tuning", length, paired.strata(held)) for length in (sweep.LENGTHS[0], sweep.LENGTHS[-1])]
        if marks and (held := _scores("prompt", sweep.MIDDLE, test=test, metric=metric, language="tavi")):
            marks.append(drawing.mark("prompt tuned on Tavi", 20, paired.strata(held)))
        if marks:
            panels.append(drawing.Panel(title, "prompt length", label, marks, log=True))
    if not panels:
        return None
    caption = f"The same by length of the prompt, on {sweep.MIDDLE}; model tuning as a line, and what a prompt tuned on Tavi reaches."
    return drawing.Figure("lengths", caption, panels)


def _gap(method: str, base: str, length: int = 20) -> Values:
    """What is lost from English to Tavi."""
    english, tavi = (_scores(method, base, test=test, length=length) for test in ("english", "tavi"))
    return {key: english[key] - tavi[key] for key in set(english) & set(tavi)}


def claims() -> list[Claim]:
    """What the paper says."""
    told = "direction only (abstract)"
    largest, smallest = sweep.BASES[-1], sweep.BASES[0]
    tavi = {method: _scores(method, sweep.MIDDLE, test="tavi") for method in _TUNED}
    spoken = {method: _scores(method, sweep.MIDDLE, test="spoken", metric="tavi_share_tavi") for method in _TUNED}
    english = {method: _scores(method, sweep.MIDDLE, test="english") for method in _TUNED}
    short, long = sweep.LENGTHS[0], sweep.LENGTHS[-1]
    spoken_by_length = [_scores("prompt", sweep.MIDDLE, test="spoken", metric="tavi_share_tavi", length=length) for length in (short, long)]
    return [
        Claim(
            "tuned on English alone, prompt tuning is better than model tuning in Tavi",
            told,
            paired.difference(tavi["prompt"], tavi["full"]),
        ),
        Claim(
            "model tuning forgets to write Tavi: it writes less of it than prompt tuning",
            told,
            paired.difference(spoken["prompt"], spoken["full"]),
        ),
        Claim("in English model tuning is better", told, paired.difference(english["full"], english["prompt"])),
        Claim(f"the fewer vectors are tuned, the more Tavi is written: {short} against {long}", told, paired.difference(*spoken_by_length)),
        Claim(
            "with prompts, less is lost from English to Tavi on the largest base than on the smallest",
            told,
            paired.difference(_gap("prompt", smallest), _gap("prompt", largest)),
        ),
        Claim(
            "what tuning on Tavi itself reaches is not reached",
            told,
            paired.difference(_scores("prompt", sweep.MIDDLE, test="tavi", language="tavi"), _scores("prompt", sweep.MIDDLE, test="tavi")),
        ),
    ]
