"""What is drawn is what the CSV says: a figure of every kind, then every figure of every paper, redrawn from its committed results."""

import csv
import io
import math
import pathlib
import subprocess
import sys
import types
import warnings
from typing import Any

import numpy as np
import pytest

from paper_figures import __main__ as command
from paper_figures import drawing
from paper_figures.drawing import Figure, Mark, Panel

FIGURES = command.FIGURES


def values_of(ax: Any) -> list[float]:
    """The numbers that the artists of a pair of axes stand at: heights of points and bars, or the cells of a matrix."""
    if ax.images:
        return [float(cell) for cell in np.ma.filled(ax.images[0].get_array(), np.nan).ravel() if not math.isnan(cell)]
    found: list[float] = []
    for container in ax.containers:
        if type(container).__name__ == "BarContainer":
            found += [float(patch.get_height()) for patch in container.patches]
        elif not any(container is getattr(bars, "errorbar", None) for bars in ax.containers):
            found += [float(y) for y in container.lines[0].get_ydata()]
    return found


def bounds_of(ax: Any) -> list[tuple[float, float]]:
    """Lower and upper ends of all error bars."""
    found: list[tuple[float, float]] = []
    for container in ax.containers:
        if type(container).__name__ == "ErrorbarContainer":
            for collection in container.lines[2]:
                found += [(float(ends[0][1]), float(ends[1][1])) for ends in collection.get_segments()]
    return found


def ends(mark: Mark) -> tuple[float, float]:
    """Of a mark's error bar: none is a bar of no length, and none ends before the value."""
    if math.isnan(mark.low):
        return mark.value, mark.value
    return min(mark.low, mark.value), max(mark.high, mark.value)


def check(figure: Figure) -> None:
    """The artists of a figure stand where its marks do, with their intervals; each pair of axes says what it is of."""
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = drawing.draw(figure)
    try:
        assert len(drawn.axes) >= len(figure.panels) > 0
        for panel, ax in zip(figure.panels, drawn.axes, strict=False):
            assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == (panel.title, panel.x_label, panel.y_label)
            wanted = sorted(mark.value for mark in panel.marks if not math.isnan(mark.value))
            assert sorted(values_of(ax)) == pytest.approx(wanted)
            if panel.kind != "matrix":
                whiskers = [ends(mark) for mark in panel.marks]
                flat = [number for pair in sorted(bounds_of(ax)) for number in pair]
                assert flat == pytest.approx([number for pair in sorted(whiskers) for number in pair])
                legends = [*drawn.legends, *filter(None, [ax.get_legend()])]
                shown = {text.get_text() for legend in legends for text in legend.get_texts()}
                lines = {(mark.series, mark.source) for mark in panel.marks}
                assert len(lines) == 1 or {drawing._label(*line) for line in lines} <= shown
    finally:
        plt.close(drawn)


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


EVERY_KIND = [
    Panel("lines", "parameters", "accuracy", [Mark("a", 10.0, 0.5, 0.4, 0.6, 3), Mark("a", 1e6, 0.7), Mark("b", 1e3, 0.2, 0.1, 0.25, 2)],
          log=True, chance=0.5),
    Panel("by name", "task", "accuracy", [Mark("a", "one", 0.5), Mark("a", "two", 0.25)]),
    Panel("bars", "task", "accuracy", [Mark("a", "one", 0.5, 0.4, 0.55, 3), Mark("b", "one", -0.3, -0.4, -0.25, 3),
                                       Mark("a", "two", 0.1, 0.0, 0.15, 3)], kind="bars"),
    Panel("scatter", "similarity", "gain", [Mark("a", 0.1, 0.5, 0.3, 0.7, 4), Mark("a", 0.9, 0.4)], kind="scatter"),
    Panel("matrix", "target", "gain", [Mark("s", "t", 0.5), Mark("s", "u", -0.2), Mark("r", "t", 0.1)], kind="matrix"),
    Panel("theirs", "parameters", "score", [Mark("a", 1.0, 80.0, source=drawing.PRINTED), Mark("a", 2.0, 70.0, source=drawing.SECONDARY),
                                            Mark("a", 3.0, 75.0, 74.0, 76.0, 3)]),
]  # fmt: skip


@pytest.mark.parametrize("panel", EVERY_KIND, ids=lambda panel: panel.title)
def test_artists_stand_where_the_marks_do(panel: Panel) -> None:
    check(Figure("one", "", [panel]))


def test_panels_share_colours_and_a_series_keeps_its_own() -> None:
    check(Figure("all", "", EVERY_KIND))
    places = drawing._places(["x", "prompt tuning", "y", "model tuning"])
    assert places["prompt tuning"] == 0 and places["model tuning"] == 1 and len(set(places.values())) == 4


def test_what_is_printed_is_drawn_open() -> None:
    import matplotlib.pyplot as plt

    drawn = drawing.draw(Figure("one", "", [EVERY_KIND[-1]]))
    (ax,) = drawn.axes
    looks = {container.get_label(): container.lines[0] for container in ax.containers}
    plt.close(drawn)
    assert looks["a"].get_markerfacecolor() != "white"
    first, second = looks["a (published)"], looks["a (published, second hand)"]
    assert first.get_markerfacecolor() == second.get_markerfacecolor() == "white"
    assert first.get_alpha() == 1.0 > second.get_alpha()


def test_a_bar_without_its_interval_has_none() -> None:
    (row, *_) = drawing.rows(Figure("one", "", [Panel("p", "x", "y", [Mark("a", "t", 0.5)])]))
    assert row == {"panel": "p", "series": "a", "source": "ours", "x": "t", "value": "0.5", "low": "", "high": "", "runs": "0"}


def test_saved_files_hold_the_rows_and_are_the_same_again(tmp_path: pathlib.Path) -> None:
    figure = Figure("all", "", EVERY_KIND)
    first = {path: path.read_bytes() for path in drawing.save(figure, tmp_path / "new", "paper")}
    assert [path.name for path in first] == ["paper-all.csv", "paper-all.png", "paper-all.pdf"]
    assert lines_of((tmp_path / "new" / "paper-all.csv").read_text()) == drawing.rows(figure)
    assert {path: path.read_bytes() for path in drawing.save(figure, tmp_path / "new", "paper")} == first


PAPERS = command.names()


@pytest.mark.parametrize("paper", PAPERS)
def test_every_figure_of_the_papers(paper: str) -> None:
    """Redrawn from the committed results, the values are those of the committed CSV, and the artists stand there."""
    figures = command.module(paper).figures()
    for figure in figures:
        committed = FIGURES / f"{paper}-{figure.name}.csv"
        assert committed.exists(), f"python -m paper_figures {paper}"
        assert lines_of(committed.read_text(encoding="utf-8")) == drawing.rows(figure), f"python -m paper_figures {paper}"
        assert figure.caption.strip()
        for suffix in ("png", "pdf"):
            assert committed.with_suffix(f".{suffix}").stat().st_size > 1000
        check(figure)
        ours = [mark for panel in figure.panels for mark in panel.marks if mark.source == drawing.OURS and panel.kind in ("lines", "bars")]
        assert all(mark.runs for mark in ours), "the number of runs stands on the figure"


def test_no_figure_is_left_over() -> None:
    wanted = {f"{paper}-{figure.name}" for paper in PAPERS for figure in command.module(paper).figures()}
    assert {path.stem for path in FIGURES.glob("*.*")} == wanted


@pytest.mark.slow
@pytest.mark.parametrize("paper", PAPERS)
def test_committed_pictures_are_what_is_drawn(paper: str, tmp_path: pathlib.Path) -> None:
    import matplotlib.image

    for figure in command.module(paper).figures():
        _, png, _ = drawing.save(figure, tmp_path, paper)
        ours, theirs = (matplotlib.image.imread(path) for path in (png, FIGURES / png.name))
        assert ours.shape == theirs.shape
        # Another build of FreeType may set letters a little differently; a moved mark changes whole areas.
        assert float(np.mean(np.abs(ours - theirs) > 0.25)) < 0.005, f"python -m paper_figures {paper}"


def test_figures_need_no_jax() -> None:
    code = (
        "import sys; from paper_figures import __main__ as m, drawing\n"
        "for paper in m.names():\n"
        "    found = m.module(paper); figures = found.figures(); found.claims()\n"
        "    [drawing.draw(figure) for figure in figures[:1]]\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('jax', 'flax', 'tensorflow', 'gin')))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=command.results.ROOT)
    assert said.stdout.strip() == "[]"


def test_the_command_draws_writes_the_page_and_removes_what_is_gone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = Figure("one", "A caption.", [EVERY_KIND[0]])
    module = types.SimpleNamespace(figures=lambda: [figure], claims=list)
    page = tmp_path / "README.md"
    page.write_text("# Title\n\n<!-- results -->\nold\n<!-- /results -->\nrest\n")
    monkeypatch.setattr(command, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(command, "names", lambda: ["paper", "paper_too"])
    monkeypatch.setattr(command, "module", lambda paper: module)
    monkeypatch.setattr(command, "readme", lambda paper: page)
    (tmp_path / "figures").mkdir()
    for name in ("paper-gone.png", "paper_too-one.png"):
        (tmp_path / "figures" / name).write_bytes(b"")
    command.main(["paper"])
    assert capsys.readouterr().out == "paper: 1 figures, 0 claims\n"
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "paper-one.csv", "paper-one.png", "paper-one.pdf", "paper_too-one.png",
    }  # fmt: skip
    text = page.read_text()
    assert text.startswith("# Title\n\n<!-- results -->\n| the paper says") and text.endswith("A caption.\n<!-- /results -->\nrest\n")
    assert "old" not in text and "![one](figures/paper-one.png)" in text


@pytest.mark.parametrize("page", ["no marks", "<!-- results -->", "<!-- /results --><!-- results -->"])
def test_a_page_without_its_marks_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        command.with_section(page, "text")


def test_an_unknown_paper_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["nobody2099"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: nobody2099: no such paper; wanted some of ")
