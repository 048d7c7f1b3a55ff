"""Verdicts follow from intervals."""

import math

import pytest

from paper_figures import claims
from paper_figures.statistics import Estimate


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.3, "agrees"),
        (-0.3, -0.1, "disagrees"),
        (-0.1, 0.3, "undecided"),
        (0.0, 0.3, "undecided"),
        (-0.3, 0.0, "undecided"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_verdict_is_where_the_interval_lies(low: float, high: float, verdict: str) -> None:
    assert claims.Claim("a > b", "table 1", Estimate(0.0, low, high, 3)).verdict == verdict


def test_what_was_not_run_has_no_verdict() -> None:
    assert claims.Claim("a > b", "table 1", None).verdict == "not run"


def test_table_says_difference_interval_p_and_pairs() -> None:
    lines = claims.table(
        [
            claims.Claim("a > b", "table 1", Estimate(0.25, 0.1, 0.375, 15, p=0.0123), unit="accuracy"),
            claims.Claim("c > d", "direction only", Estimate(-0.5, -0.6, -0.4, 3)),
            claims.Claim("e > f", "figure 2", Estimate(0.5, math.nan, math.nan, 1)),
            claims.Claim("g > h", "figure 3", None),
        ]
    ).splitlines()
    assert lines[2:] == [
        "| a > b | table 1 | +0.250 accuracy [+0.100, +0.375], p = 0.012, 15 pairs | **agrees** |",
        "| c > d | direction only | -0.500 [-0.600, -0.400], 3 runs | **disagrees** |",
        "| e > f | figure 2 | +0.500 no interval, 1 run | **undecided** |",
        "| g > h | figure 3 | not run | **not run** |",
    ]
    assert {line.count("|") for line in lines} == {5}
