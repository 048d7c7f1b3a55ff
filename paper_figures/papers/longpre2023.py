"""Longpre et al. 2023 (the Flan Collection, arXiv:2301.13688): what its figures and claims are in our runs."""

import collections

from experiments.instructions import BASE
from paper_figures import drawing, instructions, results, statistics
from paper_figures.claims import Claim
from paper_figures.instructions import difference, marks, number, printed

TITLE = "Longpre et al. 2023: the Flan Collection"
_PAPER = "longpre2023"
_SHARES = {
    0.0: {"as_it_is": "yes"},
    0.1: {"exemplars": "2", "few_shot_frac": "0.1"},
    0.5: {"exemplars": "2", "few_shot_frac": "0.5"},
    1.0: {"exemplars": "2"},
}
_TESTS = {"zero_shot": "zero-shot", "few_shot": "few-shot"}
_STARTS = {"model tuning": "", "model tuning after instructions": "instructions"}
# "Early": so many steps.
_EARLY = 60


def _mixed(share: float, test: str) -> list[list[float]]:
    return instructions.tuned(_PAPER, test=test, **_SHARES[share])


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return instructions.drawn((_mixing(), _targets()))


def _mixing() -> drawing.Figure:
    ours = [mark for test, name in _TESTS.items() for mark in marks(name, ((share * 100, _mixed(share, test)) for share in _SHARES))]
    theirs = printed(
        results.published("longpre2023_table1_method_ablation"),
        lambda row: f"{row['metric']}, " + ("without few-shot templates" if "Few Shot" in row["method"] else "mixed"),
        lambda row: row["task"],
    )
    caption = (
        f"Figure 4 and table 1: score by the share of tuning rows with exemplars. Ours: {BASE}, held-out tasks, two "
        "exemplars in a few-shot row. The paper prints no values for its figure: shares of 10 to 90% are best at both. "
        "Its table 1 has T5-XL with and without few-shot templates."
    )
    return drawing.Figure(
        "mixing",
        caption,
        [
            drawing.Panel("the world, held-out tasks", "tuning rows with exemplars, %", "accuracy", ours),
            drawing.Panel("table 1 of the paper", "evaluated on", "score in %", theirs, kind="bars"),
        ],
    )


def _curves(start: str) -> dict[int, list[list[float]]]:
    """Validation accuracy by step: a stratum for each task."""
    rows = results.where(results.ours(_PAPER), method="full", test="validation", metric="accuracy", start=start)
    by_step = collections.defaultdict(list)
    for row in rows:
        by_step[int(row["task"].rpartition("@")[2])].append(row)
    return {step: results.strata(by_step[step]) for step in sorted(by_step)}


def _targets() -> drawing.Figure:
    ours = [
        mark for series, start in _STARTS.items() for mark in marks(series, ((step, strata) for step, strata in _curves(start).items()))
    ]
    theirs = printed(results.published("gupta2023_quick_learners"), lambda row: row["model"], _samples)
    caption = (
        f"Figures 5 and 6: tuning on one task of a held-out cluster, from {BASE} as it is and after instructions: "
        "validation accuracy by step, mean of two tasks. The paper's figures print no values; beside ours Gupta et al. "
        "2023, where Tk-Instruct of 3B is tuned on so many examples of unseen tasks, with the best supervised score from "
        "before."
    )
    return drawing.Figure(
        "targets",
        caption,
        [
            drawing.Panel("two held-out tasks", "steps of 16 examples", "validation accuracy", ours),
            drawing.Panel("Gupta et al. 2023", "training examples", "ROUGE-L", theirs, log=True),
        ],
    )


def _samples(row: results.Row) -> float:
    """Training examples; the score from before is drawn at the most."""
    return number(row["method"]) if "samples" in row["method"] else 3200.0


def claims() -> list[Claim]:
    """What the paper says."""
    curves = {start: _curves(start) for start in _STARTS.values()}
    plain, after = curves[""], curves["instructions"]
    early = final = None
    if plain and plain.keys() == after.keys():
        last = max(plain)
        final = statistics.difference(after[last], plain[last])
        early = statistics.difference(_early(after), _early(plain))
    zero, few = ({share: _mixed(share, test) for share in _SHARES} for test in _TESTS)
    return [
        Claim("10% of few-shot rows in tuning raise the zero-shot score", "section 3.2: 5% are enough", difference(zero[0.1], zero[0.0])),
        Claim("half of them do", "table 1, MMLU: 50.3 and 47.3", difference(zero[0.5], zero[0.0])),
        Claim("a mixture is better few-shot than zero-shot rows alone", "table 1, MMLU: 52.4 and 38.7", difference(few[0.5], few[0.0])),
        Claim("a mixture is better few-shot than few-shot rows alone", "section 3.2: 10 to 90% are best", difference(few[0.5], few[1.0])),
        Claim("after instructions a task is learned faster: accuracy over the first 60 steps", "figure 6: direction only", early),
        Claim("and better in the end", "figure 5: direction only", final),
    ]


def _early(curve: dict[int, list[list[float]]]) -> list[list[float]]:
    """Run by run the mean over the first steps."""
    steps = [strata for step, strata in curve.items() if step <= _EARLY]
    return [[sum(values) / len(values) for values in zip(*tasks, strict=True)] for tasks in zip(*steps, strict=True)]
