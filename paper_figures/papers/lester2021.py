"""Lester et al. 2021 (arXiv:2104.08691): what its figures and claims are in our runs."""

import math
from collections.abc import Iterable, Sequence

from experiments import mini
from paper_figures import drawing, results, statistics
from paper_figures.claims import Claim
from paper_figures.statistics import Estimate, Strata

TITLE = "Lester et al. 2021: the power of scale for parameter-efficient prompt tuning"
PAPER = "lester2021"
# As in experiments/lester2021/sweep.py, which needs more than figures do.
TASKS, ALL = ("arithmetic_change", "fact_town_choice", "sentiment_review"), "all_three"
LENGTHS = (1, 5, 20, 100)
ABLATED, ABLATED_TASKS = ("t5_500k", "t5_mini"), ("arithmetic_change", "sentiment_review")
ADAPTED, ADAPTED_STEPS = "t5_500k", (0, 500, 1500, 6000, 18_000)
ENSEMBLED, ENSEMBLED_TASKS = "t5_mini", ("arithmetic_change",)
_FACTORS = ("exemplars", "length", "begins", "pretraining", "members")
_TUNED = {"prompt": "prompt tuning", "full": "model tuning"}
_MULTITASK, _FEW_SHOT = "multi-task", "few-shot"
_T5 = {"small": 76_961_152, "base": 247_577_856, "large": 783_150_080, "xl": 2_849_757_184, "xxl": 11_135_332_352}
_PRINTED = {
    "prompt tuning": "prompt tuning", "model tuning": "model tuning", "multi-task model tuning": _MULTITASK,
    "prompt design (GPT-3)": "few-shot GPT-3",
}  # fmt: skip


def _rows(**wanted: str | Sequence[str]) -> list[results.Row]:
    """Accuracies of our runs, of the common seeds; a factor that is not named was not set."""
    chosen = {"metric": "accuracy", "test": "test", "seed": tuple(map(str, mini.SEEDS)), **dict.fromkeys(_FACTORS, ""), **wanted}
    return results.where(results.ours(PAPER), **chosen)


def _one_task(*, tasks: Sequence[str] = TASKS, **wanted: str | Sequence[str]) -> Strata:
    """Runs of one task each, a stratum a task; none before all are there."""
    found = results.strata(_rows(trained_on=tuple(tasks), **wanted))
    return found if list(map(len, found)) == [len(mini.SEEDS)] * len(tasks) else []


def _all_tasks(**wanted: str | Sequence[str]) -> Strata:
    """Runs that did all tasks."""
    return results.mixture(_rows(trained_on=ALL, **wanted))


def _length(base: str, length: int) -> Strata:
    return _one_task(tasks=ABLATED_TASKS, method="prompt", base=base, length="" if length == 20 else str(length))


def _begins(base: str, way: str) -> Strata:
    return _one_task(tasks=ABLATED_TASKS, method="prompt", base=base, begins=way)


def _pretrained(name: str) -> Strata:
    return _one_task(method="prompt", base=ADAPTED, pretraining=name)


def _ensembles(metric: str) -> Strata:
    return _one_task(tasks=ENSEMBLED_TASKS, metric=metric, members="5")


def _marks(cells: Iterable[tuple[str, float | str, Strata]]) -> list[drawing.Mark]:
    return [drawing.mark(series, x, strata) for series, x, strata in cells if strata]


def _several(marks: Sequence[drawing.Mark]) -> bool:
    """Whether there is an axis to scale."""
    return len({each.x for each in marks}) > 1


def figures() -> list[drawing.Figure]:
    """All figures; a panel of ours stands once its runs are there."""
    made = (_sizes(), _ablations(), _transfer(), _ensembling(), _parameters())
    shown = [drawing.Figure(each.name, each.caption, [panel for panel in each.panels if panel.marks]) for each in made]
    return [figure for figure in shown if figure.panels]


def _sizes() -> drawing.Figure:
    cells: list[tuple[str, float | str, Strata]] = []
    for base in mini.BASES:
        x = mini.PARAMETERS[base]
        cells += [(name, x, _one_task(method=method, base=base)) for method, name in _TUNED.items()]
        cells.append((_MULTITASK, x, [list(each) for each in _all_tasks(method="full", base=base)]))
        cells.append((_FEW_SHOT, x, _all_tasks(base=base, exemplars="4")))
    printed = [
        drawing.printed(row, _PRINTED[row["method"]], _T5[row["task"].rpartition(" ")[2]])
        for row in results.published("spot2022_table4_superglue_by_size")
        if row["method"] in _PRINTED
    ]
    panels = [
        drawing.Panel("ours: three tasks of the world", "parameters of the base", "accuracy", (ours := _marks(cells)), log=_several(ours)),
        drawing.Panel("printed: SuperGLUE, dev", "parameters of T5 1.1", "score", printed, log=True),
    ]
    caption = (
        "Figure 1: mean accuracy over three tasks by size of the base, beside the same on T5 as Vu et al. 2022 print it (table 4; "
        "the lighter rows were overprinted there and separated by hand, and its few-shot is GPT-3 of like size). Our few-shot is the base "
        "as it is with four solved examples in its input; its intervals are over three draws of test rows, the others' over seeds."
    )
    return drawing.Figure("sizes", caption, panels)


def _ablations() -> drawing.Figure:
    lengths = [(base, length, _length(base, length)) for base in ABLATED for length in LENGTHS]
    ways = {"uniform": "uniform", "": "sampled vocabulary", "labels": "class labels"}
    begun = [(base, name, _begins(base, way)) for base in ABLATED for way, name in ways.items()]
    objectives = {"span": "span corruption", "span_and_sentinel": "span and sentinel", "": "LM adaptation"}
    pretrained = [("prompt tuning", name, _pretrained(way)) for way, name in objectives.items()]
    adapted = [("prompt tuning", steps, _pretrained("" if steps == ADAPTED_STEPS[-1] else f"lm_{steps}")) for steps in ADAPTED_STEPS]
    panels = [
        drawing.Panel("(a) prompt length", "rows of the prompt", "accuracy", _marks(lengths), log=True),
        drawing.Panel("(b) initialisation", "first values", "accuracy", _marks(begun), kind="bars"),
        drawing.Panel("(c) pretraining objective", f"pretraining of {ADAPTED}", "accuracy", _marks(pretrained), kind="bars"),
        drawing.Panel("(d) LM adaptation", "steps of LM adaptation", "accuracy", _marks(adapted)),
    ]
    caption = (
        "Figure 3: prompt tuning by length, by first values (rows past the class labels begin from any words), by pretraining "
        "objective at equal steps in all, and by steps of LM adaptation after 800 of span corruption. The paper prints no numbers."
    )
    return drawing.Figure("ablations", caption, panels)


def _transfer() -> drawing.Figure:
    cells = [
        (f"{name}, {place}", mini.PARAMETERS[base], _one_task(method=method, base=base, test=test))
        for method, name in _TUNED.items()
        for test, place in (("test", "in domain"), ("out", "out of domain"))
        for base in mini.BASES
    ]
    printed = [
        drawing.printed(row, "prompt less model tuning", row["task"])
        for row in results.published("lester2021_table1_mrqa_domain_transfer")
        if row["method"] == "delta prompt-model"
    ]
    paraphrases = [
        drawing.printed(row, row["method"], f"{row['task']} {row['metric']}")
        for row in results.published("lester2021_table2_paraphrase_transfer")
    ]
    panels = [
        drawing.Panel("ours: in and out of domain", "parameters of the base", "accuracy", (ours := _marks(cells)), log=_several(ours)),
        drawing.Panel("printed: SQuAD, then other domains", "tested on", "difference of F1", printed, kind="bars"),
        drawing.Panel("printed: paraphrase", "trained on -> tested on", "score [%]", paraphrases, kind="bars"),
    ]
    caption = (
        "Tables 1, 2: trained in one domain, tested there and in another. Ours has other words and sentence frames, theirs are questions "
        "about Wikipedia (SQuAD) and other texts, by what prompt tuning scores more than model tuning, and two sets of paraphrases."
    )
    return drawing.Figure("transfer", caption, panels)


def _ensembling() -> drawing.Figure:
    names = {"mean": "average", "best": "best", "vote": "majority vote"}
    ours = [(name, ENSEMBLED_TASKS[0], _ensembles(metric)) for metric, name in names.items()]
    printed = [
        drawing.printed(row, name, row["task"])
        for row in results.published("lester2021_table3_prompt_ensembling")
        for metric, name in names.items()
        if {"mean": "average", "best": "best", "vote": "5-prompt"}[metric] == row["method"].split()[0]
    ]
    panels = [
        drawing.Panel(f"ours: {ENSEMBLED}", "task", "accuracy", _marks(ours), kind="bars"),
        drawing.Panel("printed: T5 1.1 XXL", "SuperGLUE, dev", "main score [%]", printed, kind="bars"),
    ]
    caption = (
        "Table 3: five prompts of one task on one frozen base: their average, the best of them by its test score, and their majority vote. "
        "Ours: three ensembles of a task, no two of which share a prompt."
    )
    return drawing.Figure("ensembling", caption, panels)


def _parameters() -> drawing.Figure:
    cells: list[tuple[str, float | str, Strata]] = []
    shares: list[drawing.Mark] = []
    for base in mini.BASES:
        for length in LENGTHS:
            if strata := _length(base, length):
                trained = _trained(method="prompt", base=base, length="" if length == 20 else str(length))
                cells.append((f"prompt on {base}", trained, strata))
                shares.append(_share(length, mini.PARAMETERS[base], trained))
        cells.append(("model tuning", mini.PARAMETERS[base], _one_task(method="full", base=base)))
    for row in results.published("lester2021_table4_prompt_param_counts"):
        if row["metric"] == "trainable parameters":
            length, trained = int(row["task"].split()[-1]), float(row["value"])
            size = _T5[row["model"].split()[-1].lower()]
            if length in LENGTHS:
                shares.append(_share(length, size, trained, source=drawing.source(row["verified"])))
    panels = [
        drawing.Panel("ours: parameters of a task", "trained parameters", "accuracy", _marks(cells), kind="scatter", log=True),
        drawing.Panel(
            "share of the model that is trained", "parameters of the base", "log10 of trained / all", shares, kind="scatter", log=True
        ),
    ]
    caption = (
        "Trained parameters against score, and their share of the model by prompt length: ours to the left, T5's of table 4 to the right "
        "(its count for small and 20 rows, 10,420, is a misprint of 10,240)."
    )
    return drawing.Figure("parameters", caption, panels)


def _share(length: int, size: int, trained: float, *, source: str = drawing.OURS) -> drawing.Mark:
    return drawing.Mark(f"{length} rows", size, math.log10(trained / (size + trained)), source=source)


def _trained(**wanted: str) -> int:
    return int(_rows(trained_on=ABLATED_TASKS, **wanted)[0]["trained_parameters"])


def _less(first: Strata, second: Strata) -> Strata:
    """The differences run by run; none where a side has no runs."""
    if not first or not second:
        return []
    return statistics.less(first, second)


def _claim(text: str, theirs: str, first: Strata, second: Strata) -> Claim:
    found: Estimate | None = statistics.difference(first, second) if first and second else None
    return Claim(text, theirs, found)


def _as_mixture(strata: Strata) -> Strata:
    """Runs of one task each as runs that did all: the mean over tasks of each seed."""
    return [[sum(values) / len(values) for values in zip(*strata, strict=True)]] if strata else []


def _largest() -> tuple[str, str]:
    """The smallest base, and the largest that prompt tuning has been run on."""
    there = [base for base in mini.BASES if _one_task(method="prompt", base=base) and _one_task(method="full", base=base)]
    return mini.BASES[0], there[-1] if there else mini.BASES[-1]


def claims() -> list[Claim]:
    """What the paper says."""
    small, large = _largest()
    smaller, base = ABLATED
    prompt = {base: _one_task(method="prompt", base=base) for base in mini.BASES}
    full = {base: _one_task(method="full", base=base) for base in mini.BASES}
    shown = {base: _all_tasks(base=base, exemplars="4") for base in mini.BASES}
    gaps = {base: _less(full[base], prompt[base]) for base in mini.BASES}
    many = {base: _less(_all_tasks(method="full", base=base), _as_mixture(prompt[base])) for base in mini.BASES}
    first_rows = {each: _less(_length(each, 20), _length(each, 1)) for each in ABLATED}
    more_rows = _less(_length(base, 100), _length(base, 20))
    words = {each: _less(_begins(each, ""), _begins(each, "uniform")) for each in ABLATED}
    out, within = ([_one_task(method=method, base=large, test=test) for method in ("prompt", "full")] for test in ("out", "test"))
    length, begins, objective, lm = (f"figure 3({panel}), direction only" for panel in "abcd")
    return [
        _claim(
            f"model tuning's lead over prompt tuning is smaller on the largest base ({large}) than on the smallest",
            "figure 1; 3.0 points on small, 1.1 on XXL (Vu et al. 2022, table 4)",
            gaps[small],
            gaps[large],
        ),
        _claim(
            f"prompt tuning gets better with size: {large} over {small}",
            "figure 1; 59.8 on small, 88.8 on XXL (Vu et al. 2022, table 4)",
            prompt[large],
            prompt[small],
        ),
        _claim(
            f"multi-task model tuning's lead over prompt tuning is smaller on the largest base ({large}) than on the smallest",
            "figure 1; 4.8 points on small, 1.3 on XXL (Vu et al. 2022, table 4)",
            many[small],
            many[large],
        ),
        _claim(
            f"prompt tuning beats few-shot prompting of the same base ({large})",
            "figure 1, direction only",
            _as_mixture(prompt[large]),
            shown[large],
        ),
        _claim(
            "prompt tuning beats few-shot prompting of a base 16 times as large (t5_500k, t5_8m)",
            "section 1: T5 small matches a GPT-3 of over 16 times its size",
            _as_mixture(prompt["t5_500k"]),
            shown["t5_8m"],
        ),
        _claim(f"20 rows are better than one ({base})", length, _length(base, 20), _length(base, 1)),
        _claim(f"from 1 to 20 rows gains more than from 20 to 100 ({base})", length, first_rows[base], more_rows),
        _claim(f"what 20 rows gain over one is less on the larger base ({base})", length, first_rows[smaller], first_rows[base]),
        _claim(f"words are a better start than noise ({base})", begins, _begins(base, ""), _begins(base, "uniform")),
        _claim(
            f"class labels are a better start than noise ({base})",
            begins,
            _begins(base, "labels"),
            _begins(base, "uniform"),
        ),
        _claim(f"what words gain over noise as a start is less on the larger base ({base})", begins, words[smaller], words[base]),
        _claim("LM adaptation makes a better base than span corruption alone", objective, _pretrained(""), _pretrained("span")),
        _claim(
            "LM adaptation makes a better base than span corruption with a sentinel before the targets",
            objective,
            _pretrained(""),
            _pretrained("span_and_sentinel"),
        ),
        _claim(
            f"LM adaptation is better when it is longer: {ADAPTED_STEPS[-1]:,} steps over {ADAPTED_STEPS[1]}",
            lm,
            _pretrained(""),
            _pretrained("lm_500"),
        ),
        _claim(f"prompt tuning beats model tuning out of domain ({large})", "table 1; 12.5 points on TextbookQA, -1.8 on DROP", *out),
        _claim(
            f"prompt tuning's lead is larger out of domain than in domain ({large})",
            "table 1; -0.1 points in domain",
            _less(*out),
            _less(*within),
        ),
        _claim("a majority vote of five prompts beats their average", "table 3; 91.3 over 90.5", _ensembles("vote"), _ensembles("mean")),
        _claim("a majority vote of five prompts beats the best of them", "table 3; 91.3 over 91.0", _ensembles("vote"), _ensembles("best")),
    ]
