"""How sure a score is, and whether two differ: the bootstrap over examples and runs, and the paired randomisation test.

An interval is the percentile interval of resampled scores (Efron & Tibshirani 1993, chapter 13). Examples are drawn with replacement; of a
metric over groups the groups; and where a side has several runs (seeds, say) the runs as well, so that the interval covers both. Two sides
are compared on the same examples and in pairs of runs: both are resampled together. The test is approximate randomisation (Noreen 1989;
Riezler & Maxwell 2005): where the sides do not differ, an example's predictions may as well be exchanged between them. It takes the runs as
given.

Letters: R runs, N examples or groups, K resamples.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data import metrics

RESAMPLES = 1000
LEVEL = 0.95
# The mean over examples of what each is worth alone; the others are computed anew for each resample.
_MEANS = (
    *("accuracy", "exact_match", "tk_exact_match", "final_answer", "final_text", "final_number", "squad_f1"),
    *("rouge1", "rouge2", "rougeL", "referent_accuracy"),
)

Example = Mapping[str, Any]
Predictions = Sequence[str]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value and the bounds of its interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two sides on the same examples: each, the first less the second, and the test's p-value (two-sided)."""

    first: Interval
    second: Interval
    difference: Interval
    p: float


def interval(
    metric: str,
    examples: Sequence[Example],
    runs: Sequence[Predictions],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The mean score of some runs with its interval.

    Args:
      metric: a name in `metrics`.
      examples: as `metrics.compute_for_examples` takes them.
      runs: each run's prediction for every example.
      resamples: how many.
      level: of the interval: the share of resampled scores within it.
      seed: of the draws.
    """
    (found,) = _intervals(_Scores(metric, examples, [runs]), [[1]], resamples=resamples, level=level, seed=seed)
    return found


def compare(
    metric: str,
    examples: Sequence[Example],
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Comparison:
    """Two sides of as many runs each, paired in their order; arguments as of `interval`."""
    assert len(first) == len(second), "runs come in pairs"
    scores = _Scores(metric, examples, [first, second])
    one, other, difference = _intervals(scores, [[1, 0], [0, 1], [1, -1]], resamples=resamples, level=level, seed=seed)
    exchanged = np.random.default_rng([seed, 1]).random((resamples, scores.units)) < 0.5
    differences = np.array([np.subtract(*scores.exchanged(exchange)) for exchange in exchanged])
    # As many digits as scores have: an exchange that changes nothing is as large as what was observed.
    as_large = np.sum(np.abs(differences) >= abs(difference.value) - 1e-12)
    return Comparison(one, other, difference, float((as_large + 1) / (resamples + 1)))


def of_several(
    metric: str,
    told: Sequence[tuple[Sequence[Example], Predictions]],
    statistics: Sequence[Callable[[np.ndarray], Any]],
    *,
    together: bool = True,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> list[Interval]:
    """Statistics of several scores, such as the median over templates, with intervals over the examples; the templates are taken as given.

    Args:
      metric: a name in `metrics`.
      told: the examples of each score and a prediction for every one.
      statistics: functions of the scores, float64 [scores], that give a number.
      together: whether scores of as many examples are resampled together: the same rows in the same order, told in several ways.
      resamples: how many.
      level: as of `interval`.
      seed: of the draws.
    """
    every = [_Scores(metric, examples, [[predictions]]) for examples, predictions in told]
    alone = np.zeros(1, np.int64)
    rng = np.random.default_rng([seed, 0])

    def scores() -> np.ndarray:
        shares_N = rng.random(most)
        found = []
        for each in every:
            found.append(each.drawn(alone, (shares_N[: each.units] * each.units).astype(np.int64))[0])
            shares_N = shares_N if together else rng.random(most)
        return np.array(found)

    most = max(each.units for each in every)
    whole = np.array([each.drawn(alone, np.arange(each.units))[0] for each in every])
    drawn = [scores() for _ in range(resamples)]
    bounds = [np.quantile([statistic(each) for each in drawn], [(1 - level) / 2, (1 + level) / 2]) for statistic in statistics]
    return [Interval(float(statistic(whole)), float(low), float(high)) for statistic, (low, high) in zip(statistics, bounds, strict=True)]


def as_examples(rows: Sequence[dict[str, Any]]) -> list[Example]:
    """What was asked, of the rows that an evaluation writes (`evaluation.Report.predictions`)."""
    return [row | {"targets_pretokenized": row["target"], "answer_choices": row.get("choices")} for row in rows]


class _Scores:
    """The mean scores of one or two sides under any choice of runs and of units: examples, or groups of them."""

    def __init__(self, metric: str, examples: Sequence[Example], sides: Sequence[Sequence[Predictions]]) -> None:
        self._metric = metric
        self._examples = examples
        self._sides = [[list(predictions) for predictions in runs] for runs in sides]
        self.runs = len(self._sides[0])
        rows = _grouped(examples) if metric == "group_exact_match" else [[row] for row in range(len(examples))]
        self.units = len(rows)
        self._values: np.ndarray | None = None
        if metric in (*_MEANS, "group_exact_match"):
            self._values = np.array([[[self._score(run, unit) for unit in rows] for run in runs] for runs in self._sides])

    def _score(self, predictions: list[str], rows: Sequence[int]) -> float:
        chosen = [self._examples[row] for row in rows]
        return metrics.compute_for_examples([self._metric], chosen, [predictions[row] for row in rows])[self._metric]

    def drawn(self, runs_R: np.ndarray, units_N: np.ndarray) -> np.ndarray:
        """The score of each side with these runs and units, some of them perhaps several times."""
        if self._values is not None:
            return self._values[:, runs_R][:, :, units_N].mean(axis=(1, 2))
        return np.array([np.mean([self._score(side[run], units_N.tolist()) for run in runs_R]) for side in self._sides])

    def exchanged(self, exchange_N: np.ndarray) -> np.ndarray:
        """The score of each of two sides, the predictions of some units exchanged between them."""
        if self._values is not None:
            return np.where(exchange_N, self._values[::-1], self._values).mean(axis=(1, 2))
        everything = range(self.units)

        def mixed(side: list[list[str]], other: list[list[str]]) -> float:
            pairs = ([b if swap else a for a, b, swap in zip(*pair, exchange_N, strict=True)] for pair in zip(side, other, strict=True))
            return float(np.mean([self._score(run, everything) for run in pairs]))

        first, second = self._sides
        return np.array([mixed(first, second), mixed(second, first)])


def _intervals(scores: _Scores, sums: Sequence[Sequence[int]], *, resamples: int, level: float, seed: int) -> list[Interval]:
    """Of sums of the sides' scores, each score taken as often as stated, all over the same resamples."""
    rng = np.random.default_rng([seed, 0])
    whole = scores.drawn(np.arange(scores.runs), np.arange(scores.units))
    drawn = [
        scores.drawn(rng.integers(scores.runs, size=scores.runs), rng.integers(scores.units, size=scores.units)) for _ in range(resamples)
    ]
    values, drawn_KW = whole @ np.transpose(sums), np.stack(drawn) @ np.transpose(sums)
    lows, highs = np.quantile(drawn_KW, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [Interval(*map(float, each)) for each in zip(values, lows, highs, strict=True)]


def _grouped(examples: Sequence[Example]) -> list[list[int]]:
    """The rows of each group; an example without one is a group of its own."""
    rows: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        rows.setdefault(example.get("group") or f"\x00{row}", []).append(row)
    return list(rows.values())
