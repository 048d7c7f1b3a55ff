"""What the figures of ATTEMPT and MPT share: the ways to tune a target with few examples from source tasks' prompts."""

from collections.abc import Mapping, Sequence

from paper_figures import drawing, paired, results, statistics

_TABLE = "mpt_attempt_spot_glue_superglue_t5base"
# Name in figures, and what its rows hold, of each way.
_WAYS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "prompt": ("prompt from scratch", {"method": "prompt", "taught": ""}),
    "attempt": ("ATTEMPT", {"method": "attempt"}),
    "attempt_together": ("ATTEMPT, targets together", {"method": "attempt"}),
    "mpt": ("MPT", {"method": "mpt", "taught": "yes"}),
    "mpt_untaught": ("MPT, no distillation", {"method": "mpt", "taught": "no"}),
    "mpt_together": ("MPT, targets together", {"method": "mpt", "taught": "yes"}),
    "full": ("model tuning", {"method": "full"}),
}

# Of each way, scores by target and seed, and how many parameters a target has of its own.
Scores = Mapping[str, tuple[dict[tuple[str, int], float], float]]


def of(paper: str) -> Scores:
    """The ways that a paper's results have."""
    found = {}
    for way, (_, columns) in _WAYS.items():
        rows = results.where(results.ours(paper), few="64", test="test", metric="accuracy", **columns)
        together = way.endswith("_together")
        rows = [row for row in rows if row["trained_on"].startswith("mixture_of_") == together]
        if rows:
            targets = len({row["task"] for row in rows}) if together else 1
            found[way] = (paired.values(rows), float(rows[0]["trained_parameters"]) / targets)
    return found


def lead(scores: Scores, first: str, second: str, *, margin: float = 0.0) -> statistics.Estimate | None:
    """A way's scores less another's, plus a margin; None where one was not run."""
    if first not in scores or second not in scores:
        return None
    return paired.difference(scores[first][0], scores[second][0], margin=margin)


def printed(first: str, second: str) -> str:
    """What a reprint says of two methods: GLUE and SuperGLUE averages."""
    rows = {(row["method"], row["task"]): float(row["value"]) for row in results.published(_TABLE)}
    pairs = [(rows[first, task], rows[second, task], name) for task, name in (("GLUE avg", "GLUE"), ("SuperGLUE(5) avg", "SuperGLUE"))]
    return "; ".join(f"{name} {one} against {other}" for one, other, name in pairs) + " (reprint)"


def figure(ways: Sequence[str], scores: Scores, methods: Sequence[str]) -> drawing.Figure | None:
    """Scores by way, beside what a reprint of the papers says; None where nothing was run.

    Args:
      ways: those shown, in order.
      scores: see `of`.
      methods: what the names of methods shown of the reprint begin with.
    """
    marks = [drawing.mark("accuracy", _WAYS[way][0], paired.strata(scores[way][0])) for way in ways if way in scores]
    if not marks:
        return None
    cost = [drawing.mark(_WAYS[way][0], scores[way][1], paired.strata(scores[way][0])) for way in ways if way in scores]
    theirs = [
        drawing.printed(row, row["task"], _short(row["method"]))
        for row in results.published(_TABLE)
        if row["method"].startswith(tuple(methods))
    ]
    caption = (
        "Targets of 64 examples each, and the prompts of some source tasks: mean accuracy with 95% intervals over seeds (left), by how "
        "many parameters a target trains for itself (middle). Right: averages of GLUE and SuperGLUE with T5 base on all examples, as "
        "reprinted."
    )
    panels = [
        drawing.Panel("ours, 64 examples of a target", "what is tuned", "accuracy", marks, kind="bars"),
        drawing.Panel("ours, by cost", "trained parameters a target", "accuracy", cost, kind="scatter", log=True),
        drawing.Panel("theirs (T5 base), all examples", "method", "score, %", theirs, kind="scatter"),
    ]
    return drawing.Figure("targets", caption, panels)


def _short(method: str) -> str:
    """A method of the reprint as a figure has room for."""
    return method.replace(" (ULPT authors' replication)", "").replace(" (transfer + multi-task)", " together").replace(" (transfer)", "")
