"""The demo's figure: score against trained parameters, a bar a condition, a dot a seed: python -m paper_figures.demo RESULTS.csv
FIGURE.png."""

import collections
import csv
import pathlib
import statistics
import sys
from typing import Any

# Okabe and Ito's palette, told apart by colour-blind readers.
_COLOURS = {
    "frozen": "#999999",
    "prompt": "#0072B2",
    "full": "#D55E00",
    "instruction": "#009E73",
    "instruction_prompt": "#CC79A7",
}
_LABELS = {
    "frozen": "frozen,\ninstructions",
    "prompt": "prompt\ntuning",
    "full": "model\ntuning",
    "instruction": "instruction\ntuning",
    "instruction_prompt": "prompt on\ninstruction",
}


def read(path: pathlib.Path) -> dict[str, list[dict[str, str]]]:
    """The rows of a results file by condition, in the order of the file."""
    found: dict[str, list[dict[str, str]]] = collections.defaultdict(list)
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row["condition"]].append(row)
    return dict(found)


def draw(results: pathlib.Path, target: pathlib.Path) -> None:
    """Draws a results file into a picture; the format follows the suffix."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = read(results)
    seeds = max(len(found) for found in rows.values())
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for panel, column, title in zip(panels, ("score", "score_out_of_domain"), ("in domain", "out of domain"), strict=True):
        for place, (condition, found) in enumerate(rows.items()):
            values = [float(row[column]) for row in found]
            panel.bar(place, statistics.mean(values), color=_COLOURS[condition], width=0.7, zorder=2)
            panel.scatter([place] * len(values), values, color="black", s=14, zorder=3)
            panel.annotate(_note(found), (place, 0.02), ha="center", va="bottom", fontsize=7, color="white", rotation=90, zorder=4)
        panel.set_xticks(range(len(rows)), [_LABELS[condition] for condition in rows], fontsize=8)
        panel.set_title(f"test accuracy, {title}", fontsize=10)
        panel.set_ylim(0, 1)
        panel.grid(axis="y", alpha=0.3, zorder=0)
        panel.spines[["top", "right"]].set_visible(False)
    tasks = next(iter(rows.values()))[0]["tasks"].replace(" ", ", ")
    figure.suptitle(f"Bundled T5 on {tasks}: mean over tasks; dots are {seeds} seeds", fontsize=10)
    figure.savefig(target, dpi=150)
    plt.close(figure)


def _note(found: list[dict[str, str]]) -> str:
    trained: Any = int(found[0]["trained_parameters"])
    return f"{trained:,} trained" if trained else "nothing trained"


if __name__ == "__main__":
    draw(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
