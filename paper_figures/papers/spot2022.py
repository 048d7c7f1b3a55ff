"""Vu et al. 2022 (arXiv:2110.07904): what its figures and claims are in our runs."""

import statistics as plain

from experiments.spot2022 import sweep
from paper_figures import drawing, paired, results, statistics
from paper_figures.claims import Claim

TITLE = "Vu et al. 2022: SPoT, better frozen model adaptation through soft prompt transfer"
_TABLE6, _TABLE1 = "spot2022_table6_task_transfer", "spot2022_table1_source_mixtures"
_SCRATCH, _AVERAGE = "prompt tuning from scratch", "average of 10 target tasks"
_KINDS = {"mean_rows": "of mean rows", "pairs_of_rows": "mean over pairs of rows"}


def _begun_at(source: str) -> dict[tuple[str, int], float]:
    """Scores of targets begun at a source's prompt; the empty string: from scratch."""
    rows = results.where(results.ours("spot2022"), few="64", source=source, test="test", metric="accuracy", method="prompt")
    return paired.values(rows)


def _begun() -> dict[str, dict[tuple[str, int], float]]:
    """Those of every source that was run."""
    return {source: found for source in sweep.SOURCES if (found := _begun_at(source))}


def _of(values: dict[tuple[str, int], float], target: str) -> dict[tuple[str, int], float]:
    """Those of one target."""
    return {key: value for key, value in values.items() if key[0] == target}


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return [found for found in (_matrix(), _similarity(), _retrieval()) if found is not None]


def _matrix() -> drawing.Figure | None:
    scratch = _begun_at("")
    marks = []
    for source in sweep.SOURCES:
        begun = _begun_at(source)
        for target in sweep.TARGETS:
            gain = paired.difference(_of(begun, target), scratch)
            if gain is not None:
                marks.append(drawing.Mark(source, target, gain.value, gain.low, gain.high, gain.runs))
    if not marks:
        return None
    theirs = [
        drawing.Mark(source, target, value - _table6()[_SCRATCH][target], source=drawing.PRINTED)
        for source, found in _table6().items()
        if source != _SCRATCH
        for target, value in found.items()
    ]
    caption = (
        "Table 6, drawn as what a source's prompt (row) gains over a prompt from scratch on a target (column): ours in accuracy, on 64 "
        "examples, intervals beside the picture in its CSV; theirs in points, on all examples. Below zero a source hurts."
    )
    panels = [
        drawing.Panel("ours, accuracy", "target", "source", marks, kind="matrix"),
        drawing.Panel("theirs (T5 base), points", "target", "source", theirs, kind="matrix"),
    ]
    return drawing.Figure("matrix", caption, panels)


def _table6() -> dict[str, dict[str, float]]:
    """What the paper prints: scores by source, then target."""
    found: dict[str, dict[str, float]] = {}
    for row in results.published(_TABLE6):
        if row["task"] == _AVERAGE:
            continue
        found.setdefault(row["method"].removeprefix("SPoT source="), {})[row["task"]] = float(row["value"])
    return found


def _similar(kind: str) -> dict[tuple[str, str], float]:
    """How like each source's prompt is the one from scratch of seed 0, by target and source. Both begin at the same rows."""
    rows = results.where(results.ours("spot2022"), test="similarity", metric=kind, seed="0")
    return {(row["trained_on"], row["task"]): float(row["value"]) for row in rows}


def _similarity() -> drawing.Figure | None:
    scratch = _begun_at("")
    begun = _begun()
    panels = []
    for kind, title in _KINDS.items():
        marks = []
        for (target, source), alike in _similar(kind).items():
            gain = paired.difference(_of(begun.get(source, {}), target), scratch)
            if gain is not None:
                marks.append(drawing.Mark(target, alike, gain.value, gain.low, gain.high, gain.runs))
        if marks:
            panels.append(drawing.Panel(f"cosine {title}", "similarity of prompts", "gain over scratch, accuracy", marks, kind="scatter"))
    if not panels:
        return None
    caption = (
        "Gain of a target by how similar its own prompt (from scratch, seed 0) is to the source's, both begun at the same rows; a mark a "
        "source. The paper prints no values."
    )
    return drawing.Figure("similarity", caption, panels)


def _ways() -> dict[str, dict[tuple[str, int], float]]:
    """Scores of targets by where their prompt begins."""
    begun = _begun()
    alike = _similar("mean_rows")
    ways = {
        "scratch": _begun_at(""),
        "a source": paired.mean(list(begun.values())),
        "most similar": _most_similar(begun, alike),
        f"top {sweep.TOP}, weighted": _begun_at(f"top_{sweep.TOP}"),
        "mixture": _begun_at("mixed"),
        "best source": _best_elsewhere(begun),
    }
    return {name: found for name, found in ways.items() if found}


def _most_similar(begun: dict[str, dict[tuple[str, int], float]], alike: dict[tuple[str, str], float]) -> dict[tuple[str, int], float]:
    """The score of each target begun at the source whose prompt is most similar."""
    found: dict[tuple[str, int], float] = {}
    for target in {target for target, source in alike if source in begun}:
        nearest = max((source for other, source in alike if other == target and source in begun), key=lambda source: alike[target, source])
        found |= _of(begun[nearest], target)
    return found


def _best_elsewhere(begun: dict[str, dict[tuple[str, int], float]]) -> dict[tuple[str, int], float]:
    """The score begun at the source that is best over the other seeds, so that what is chosen by is not what is reported."""
    found = {}
    for target, seed in set.intersection(*(set(each) for each in begun.values())) if begun else ():
        means = {}
        for source, each in begun.items():
            others = [value for key, value in each.items() if key[0] == target and key[1] != seed]
            if others:
                means[source] = plain.mean(others)
        if means:
            found[target, seed] = begun[max(means, key=lambda source: means[source])][target, seed]
    return found


def _retrieval() -> drawing.Figure | None:
    marks = [drawing.mark("prompt tuning", name, paired.strata(found)) for name, found in _ways().items()]
    if not marks:
        return None
    theirs = [
        drawing.printed(row, row["task"], row["method"].removeprefix("SPoT source "))
        for row in results.published(_TABLE1)
        if any(name in row["method"] for name in _SHOWN)
    ]
    caption = (
        "Where a target's prompt begins: drawn from the vocabulary; at one source's (mean over sources); at the most similar one's; at the "
        "mean of the most similar ones, weighted; at that of a prompt tuned on all sources; at the source that is best on the other "
        "seeds. Right: Table 1, sources of the paper."
    )
    panels = [
        drawing.Panel("ours, 64 examples of a target", "the prompt begins at", "accuracy", marks, kind="bars"),
        drawing.Panel("theirs (T5 base)", "source", "score, %", theirs, kind="scatter"),
    ]
    return drawing.Figure("retrieval", caption, panels)


_SHOWN = ("prompt tuning (30K", "source GLUE (8", "source MNLI", "source SuperGLUE", "source C4", "source all", "source summarization")


def _correlation() -> statistics.Estimate | None:
    """Spearman's correlation over sources of similarity and score, for each target and seed."""
    from scipy import stats

    begun = _begun()
    alike = _similar("mean_rows")
    shared = set.intersection(*(set(each) for each in begun.values())) if begun else set()
    found = {}
    for target, seed in shared:
        if all((target, source) in alike for source in begun):
            scores = [each[target, seed] for each in begun.values()]
            # Of scores that are all the same nothing can be said.
            if len(set(scores)) > 1:
                found[target, seed] = float(stats.spearmanr([alike[target, source] for source in begun], scores).statistic)
    return statistics.mean(paired.strata(found)) if found else None


def claims() -> list[Claim]:
    """What the paper says."""
    ways, printed = _ways(), _table6()
    scratch = ways.get("scratch", {})
    alone = printed.pop(_SCRATCH)
    gains = [value - alone[target] for found in printed.values() for target, value in found.items()]
    averages = [row["value"] for row in results.published(_TABLE6) if row["task"] == _AVERAGE]
    table1 = {(row["method"], row["task"]): float(row["value"]) for row in results.published(_TABLE1)}
    short = table1["prompt tuning (30K steps)", "GLUE"]
    return [
        Claim(
            "a prompt begun at another task's is better than one from scratch, over all pairs",
            f"{sum(gain > 0 for gain in gains)} of {len(gains)} pairs are above zero (table 6)",
            paired.difference(ways.get("a source", {}), scratch),
        ),
        Claim(
            "with the best source of each target it is better (chosen on other seeds here)",
            f"{averages[1]} against {averages[0]} on average, the best of 48 prompts for each target (table 6)",
            paired.difference(ways.get("best source", {}), scratch),
        ),
        Claim(
            "begun at a prompt of many source tasks it is better than from scratch",
            f"GLUE {table1['SPoT source GLUE (8 tasks)', 'GLUE']} against {short} (table 1)",
            paired.difference(ways.get("mixture", {}), scratch),
        ),
        Claim(
            "the more similar the prompts of two tasks, the better the transfer (Spearman's correlation over sources)",
            "direction only (section 3.2)",
            _correlation(),
        ),
        Claim(
            f"the {sweep.TOP} most similar sources, weighted, are better than a source taken at random",
            "direction only (section 3.3)",
            paired.difference(ways.get(f"top {sweep.TOP}, weighted", {}), ways.get("a source", {})),
        ),
    ]
