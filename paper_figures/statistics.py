"""How sure a mean over runs is, and whether two kinds of run differ.

Runs come in strata: the runs of one task, which differ in their seed. A mean is the mean over strata of the means of their runs. Its
interval is the percentile interval of the bootstrap stratum by stratum; of n runs n - 1 are drawn, so that the variance is not too small by
n - 1 in n (Rao & Wu 1988). Tasks and test rows are taken as given. Differences are of paired runs (same task, same seed); their p-value is
that of the paired permutation test (two-sided), which exchanges the sides of a pair over all strata. The two may disagree: where each
task's difference is sure and tasks differ in sign or size, the interval is narrow and the p-value is not small.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
# All exchanges of so many pairs are tried; of more, RESAMPLES are drawn.
_EXACT = 13

Strata = Sequence[Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean and the bounds of its interval, which are NaN where a stratum has one run.

    Attributes:
      value: the mean.
      low: lower bound.
      high: upper bound.
      runs: in all strata.
      p: of a difference: the paired test's; NaN of a mean.
    """

    value: float
    low: float
    high: float
    runs: int
    p: float = float("nan")


def mean(strata: Strata, *, seed: int = 0) -> Estimate:
    """The mean over strata, with its interval."""
    runs = sum(map(len, strata))
    value = float(np.mean([np.mean(stratum) for stratum in strata]))
    if min(map(len, strata)) < 2:
        return Estimate(value, float("nan"), float("nan"), runs)
    rng = np.random.default_rng(seed)
    drawn = np.zeros(RESAMPLES)
    for stratum in strata:
        drawn += rng.choice(np.asarray(stratum, np.float64), (RESAMPLES, len(stratum) - 1)).mean(axis=1)
    low, high = np.quantile(drawn / len(strata), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), runs)


def less(first: Strata, second: Strata) -> list[list[float]]:
    """The first less the second, run by run. Raises ValueError where they do not come in pairs."""
    return [[a - b for a, b in zip(one, other, strict=True)] for one, other in zip(first, second, strict=True)]


def difference(first: Strata, second: Strata, *, seed: int = 0) -> Estimate:
    """The first less the second, run by run. Raises ValueError where they do not come in pairs."""
    paired = less(first, second)
    found = mean(paired, seed=seed)
    return dataclasses.replace(found, p=_exchanged(paired, seed))


def _exchanged(paired: Strata, seed: int) -> float:
    """The share of exchanges within pairs after which the mean is as far from zero; the strata weigh alike."""
    weighted = np.concatenate([np.asarray(stratum) / len(stratum) for stratum in paired])
    pairs = len(weighted)
    if pairs <= _EXACT:
        signs = 1 - 2 * ((np.arange(2**pairs)[:, None] >> np.arange(pairs)) & 1)
    else:
        signs = np.random.default_rng([seed, 1]).choice([-1, 1], (RESAMPLES, pairs))
        signs[0] = 1
    return float(np.mean(np.abs(signs @ weighted) >= abs(weighted.sum()) - 1e-12))
