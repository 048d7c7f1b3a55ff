"""Columns stand side by side, each cell at its side."""

import pytest

from prompt_tuning.text_tables import aligned

LINES = [("task", "n", "metric"), ("a", "100", "accuracy"), ("longer", "7", "")]


@pytest.mark.parametrize(
    ("sides", "wanted"),
    [
        ("l", ["task    n    metric", "a       100  accuracy", "longer  7"]),
        ("lr", ["task      n    metric", "a       100  accuracy", "longer    7"]),
        ("rlr", ["  task  n      metric", "     a  100  accuracy", "longer  7"]),
    ],
)
def test_cells_stand_at_the_side_of_their_column(sides: str, wanted: list[str]) -> None:
    assert aligned(LINES, sides).splitlines() == wanted
