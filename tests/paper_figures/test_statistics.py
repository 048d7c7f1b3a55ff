"""Intervals and tests of the figures: held against SciPy, and against what an interval and a p-value promise."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_figures import statistics

VALUES = st.floats(-1, 1, width=32)


def test_a_mean_is_over_strata_and_not_over_runs() -> None:
    assert statistics.mean([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0]]).value == 0.5
    assert statistics.mean([[0.0, 0.0], [1.0, 1.0]]).runs == 4


@pytest.mark.parametrize("runs", [3, 5, 10])
def test_interval_is_the_bootstrap_of_one_run_less(runs: int) -> None:
    """SciPy's percentile bootstrap draws n of n. Its width shrinks by sqrt((n - 1) / n); drawing n - 1 makes up for it."""
    sample = np.random.default_rng(runs).normal(0.5, 0.1, runs)
    ours = statistics.mean([list(sample)])
    drawn = np.random.default_rng(1)
    theirs = scipy.stats.bootstrap(
        (sample,), lambda x, axis: np.mean(x[..., : runs - 1], axis=axis), method="percentile", n_resamples=20_000, rng=drawn
    ).confidence_interval
    # 10,000 and 20,000 resamples of few values: the quantiles of both are known to a few percent of the spread.
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * sample.std())


def test_variance_of_what_is_drawn_is_that_of_the_mean() -> None:
    """The standard error is s / sqrt(n) with s the unbiased deviation; of many runs the interval is a normal one's."""
    strata = np.random.default_rng(0).normal(0, 1, (4, 200)) * np.array([[1.0], [2.0], [0.5], [3.0]])
    found = statistics.mean(strata.tolist())
    error = math.sqrt(sum(row.var(ddof=1) / len(row) for row in strata)) / len(strata)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.03)  # 10,000 resamples know a 2.5% quantile to about 2%.


@pytest.mark.parametrize(("strata", "least"), [(1, 0.75), (5, 0.90)])
def test_coverage(strata: int, least: float) -> None:
    """Of three normal runs a stratum, as the figures have: one stratum's percentile interval cannot be wider than its runs and covers 3/4
    (the mean lies between the least and the largest of three with chance 1 - 2/8); five tasks together come near the 95% they promise."""
    rng = np.random.default_rng(strata)
    covered = 0
    for number in range(300):
        found = statistics.mean(rng.normal(0.0, 1.0, (strata, 3)).tolist(), seed=number)
        covered += found.low <= 0.0 <= found.high
    # Three standard errors of a share over 300 draws.
    assert covered / 300 > least - 3 * math.sqrt(least * (1 - least) / 300)
    assert covered / 300 < 0.99


def test_one_run_has_no_interval() -> None:
    found = statistics.mean([[0.5], [0.6, 0.7]])
    assert math.isnan(found.low) and math.isnan(found.high) and found.runs == 3


@settings(max_examples=25)
@given(st.lists(st.lists(VALUES, min_size=2, max_size=4), min_size=1, max_size=3))
def test_interval_lies_within_the_runs_and_holds_the_mean(strata: list[list[float]]) -> None:
    found = statistics.mean(strata)
    least, most = (float(np.mean([pick(each) for each in strata])) for pick in (min, max))
    assert least - 1e-6 <= found.low <= found.high <= most + 1e-6
    if len(strata) == 1 and len(strata[0]) == 2:
        assert (found.low, found.high) == pytest.approx((min(strata[0]), max(strata[0])))


@pytest.mark.parametrize("sizes", [(3,), (5, 5), (6, 4)])
def test_p_value_is_scipys_paired_permutation_test(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(sizes))
    first = [list(rng.normal(0.3, 1.0, size)) for size in sizes]
    second = [list(rng.normal(0.0, 1.0, size)) for size in sizes]
    ours = statistics.difference(first, second)
    assert ours.value == pytest.approx(np.mean([np.mean(a) - np.mean(b) for a, b in zip(first, second, strict=True)]))
    weights = np.concatenate([np.full(size, 1 / size / len(sizes)) for size in sizes])

    def statistic(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return np.sum(weights * (x - y), axis=axis)

    sides = (np.concatenate(first), np.concatenate(second))
    theirs = scipy.stats.permutation_test(sides, statistic, permutation_type="samples", vectorized=True, n_resamples=10_000, rng=1)
    # Up to 13 pairs both try all exchanges. SciPy doubles the smaller tail of a statistic that is symmetric here.
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-9)


def test_many_pairs_are_exchanged_at_random() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.normal(0.4, 1.0, (2, 15)), rng.normal(0.0, 1.0, (2, 15))
    ours = statistics.difference(first.tolist(), second.tolist())
    theirs = scipy.stats.permutation_test(
        (first.ravel(), second.ravel()), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=10_000, rng=1
    )
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.02)  # Two draws of 10,000: standard error 0.005 at p = 0.5, less elsewhere.


def test_p_values_are_even_where_nothing_differs() -> None:
    rng = np.random.default_rng(7)
    found = [statistics.difference(rng.normal(0, 1, (2, 5)).tolist(), rng.normal(0, 1, (2, 5)).tolist()).p for _ in range(200)]
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.001


def test_a_difference_wants_pairs() -> None:
    with pytest.raises(ValueError):
        statistics.difference([[1.0, 2.0]], [[1.0]])
    with pytest.raises(ValueError):
        statistics.difference([[1.0, 2.0]], [[1.0, 2.0], [1.0, 2.0]])


def test_the_same_runs_give_the_same_interval() -> None:
    strata = [[0.1, 0.4, 0.2], [0.9, 0.8, 0.7]]
    assert statistics.mean(strata) == statistics.mean(strata)
    assert statistics.difference(strata, strata).p == 1.0
