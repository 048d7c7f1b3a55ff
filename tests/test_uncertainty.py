"""Intervals and the paired test against SciPy's, and what they promise: coverage, and no difference where there is none."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import uncertainty
from prompt_tuning.data import metrics


def examples(targets: list[str], **more: list) -> list[dict]:
    rows = [{"targets_pretokenized": target} for target in targets]
    for name, values in more.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def answers(right: np.ndarray) -> list[str]:
    return ["yes" if each else "no" for each in right]


def drawn(share: float, count: int, seed: int) -> list[str]:
    return answers(np.random.default_rng(seed).random(count) < share)


def test_the_interval_of_an_accuracy_is_scipys() -> None:
    right = np.random.default_rng(0).random(300) < 0.7
    found = uncertainty.interval("accuracy", examples(["yes"] * 300), [answers(right)], resamples=4000)
    theirs = scipy.stats.bootstrap((right.astype(float),), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert found.value == right.mean()
    # The bounds of 4000 draws scatter by about the spacing of quantiles, 0.002.
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


@pytest.mark.parametrize("metric", ["f1_macro", "matthews"])
def test_metrics_that_are_no_means_are_computed_for_each_resample(metric: str) -> None:
    rng = np.random.default_rng(0)
    targets = answers(rng.random(120) < 0.4)
    predictions = [each if keep else "no" for each, keep in zip(targets, rng.random(120) < 0.8, strict=True)]
    found = uncertainty.interval(metric, examples(targets), [predictions], resamples=300)
    assert found.value == pytest.approx(metrics.compute([metric], targets, predictions)[metric])
    theirs = scipy.stats.bootstrap(
        (np.arange(120),),
        lambda rows: metrics.compute([metric], [targets[row] for row in rows], [predictions[row] for row in rows])[metric],
        n_resamples=300,
        vectorized=False,
        method="percentile",
        rng=1,
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.05)


@pytest.mark.parametrize("metric", ["accuracy", "matthews"])
@pytest.mark.parametrize(("shares", "low", "high"), [((0.95, 0.65), 0.0, 0.01), ((0.8, 0.78), 0.1, 1.0)])
def test_the_paired_test_is_scipys(metric: str, shares: tuple[float, float], low: float, high: float) -> None:
    count = 100
    targets = drawn(0.5, count, 9)
    sides = [
        [
            target if right == "yes" else {"yes": "no", "no": "yes"}[target]
            for target, right in zip(targets, drawn(share, count, seed), strict=True)
        ]
        for seed, share in enumerate(shares)
    ]
    found = uncertainty.compare(metric, examples(targets), [sides[0]], [sides[1]], resamples=200)
    both = sides[0] + sides[1]

    def difference(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.subtract(*(metrics.compute([metric], targets, [both[row] for row in side])[metric] for side in (first, second))))

    theirs = scipy.stats.permutation_test(
        (np.arange(count), np.arange(count) + count), difference, permutation_type="samples", n_resamples=200, rng=1
    )
    assert found.difference.value == pytest.approx(theirs.statistic)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.15)  # Three standard errors of 200 draws on each side, at p = 0.5.
    assert low <= found.p <= high


def test_one_side_beside_itself_does_not_differ() -> None:
    predictions = drawn(0.6, 50, 0)
    found = uncertainty.compare("accuracy", examples(["yes"] * 50), [predictions], [predictions], resamples=100)
    assert found.difference == uncertainty.Interval(0.0, 0.0, 0.0)
    assert found.p == 1.0


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = [
        found.low <= 0.7 <= found.high
        for seed in range(200)
        for found in [uncertainty.interval("accuracy", examples(["yes"] * 60), [drawn(0.7, 60, seed)], resamples=200, seed=seed)]
    ]
    # 95% less what a percentile interval of 60 examples falls short, give or take three standard errors of 200 trials.
    assert 0.88 <= np.mean(covered) <= 0.99


def test_runs_that_differ_widen_the_interval() -> None:
    made = examples(["yes"] * 400)
    alike = uncertainty.interval("accuracy", made, [drawn(0.7, 400, seed) for seed in range(4)])
    apart = uncertainty.interval("accuracy", made, [drawn(share, 400, seed) for seed, share in enumerate((0.4, 0.6, 0.8, 1.0))])
    assert apart.high - apart.low > 3 * (alike.high - alike.low)


def test_groups_are_drawn_whole() -> None:
    groups = [str(row // 4) for row in range(40)]
    predictions = answers(np.arange(40) // 4 < 7)
    made = examples(["yes"] * 40, group=groups)
    found = uncertainty.interval("group_exact_match", made, [predictions])
    assert found.value == pytest.approx(0.7)
    by_group = uncertainty.interval("accuracy", examples(["yes"] * 10), [answers(np.arange(10) < 7)])
    assert (found.low, found.high) == (by_group.low, by_group.high)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 30), runs=st.integers(1, 3))
def test_the_value_is_the_mean_over_runs_and_lies_in_its_interval_of_everything(seed: int, count: int, runs: int) -> None:
    rng = np.random.default_rng(seed)
    targets = answers(rng.random(count) < 0.5)
    sides = [[answers(rng.random(count) < 0.5) for _ in range(runs)] for _ in range(2)]
    found = uncertainty.compare("accuracy", examples(targets), *sides, resamples=50, level=1.0)
    for side, each in zip(sides, (found.first, found.second), strict=True):
        assert each.value == pytest.approx(np.mean([metrics.accuracy(targets, run) for run in side]))
    assert found.difference.value == pytest.approx(found.first.value - found.second.value)
    assert 0 < found.p <= 1
    other = uncertainty.compare("accuracy", examples(targets), sides[1], sides[0], resamples=50, level=1.0)
    assert (other.p, other.difference.low) == pytest.approx((found.p, -found.difference.high))


def test_the_mean_of_several_scores_resamples_their_common_rows_together() -> None:
    rng = np.random.default_rng(0)
    right_TN = rng.random((3, 200)) < np.array([[0.5], [0.6], [0.9]])
    told = [(examples(["yes"] * 200), answers(right)) for right in right_TN]
    mean, median, best = uncertainty.of_several("accuracy", told, [np.mean, np.median, np.max], resamples=2000)
    scores = right_TN.mean(axis=1)
    assert (mean.value, median.value, best.value) == (pytest.approx(scores.mean()), np.median(scores), scores.max())
    theirs = scipy.stats.bootstrap((right_TN.mean(axis=0),), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    # As above; 2000 draws scatter a little more.
    assert (mean.low, mean.high) == pytest.approx((theirs.low, theirs.high), abs=0.008)


def test_several_scores_of_different_numbers_of_rows_have_intervals_too() -> None:
    told = [(examples(["yes"] * count), drawn(0.5, count, count)) for count in (40, 60)]
    found = uncertainty.of_several("f1_macro", told, [np.mean], resamples=50)[0]
    alone = [metrics.compute(["f1_macro"], ["yes"] * count, said)["f1_macro"] for count, (_, said) in zip((40, 60), told, strict=True)]
    assert found.low < found.value == pytest.approx(np.mean(alone))
    assert found.value < found.high
