"""Draws the figures of the papers from their committed results: python -m paper_figures [PAPER ...]

Writes PNG, PDF and CSV into paper_figures/figures, in place of the paper's earlier ones, and the figures and verdicts into the README of
each paper, between its marks.
"""

import argparse
import importlib
import os
import pathlib
import pkgutil
import re
import sys
from collections.abc import Sequence
from types import ModuleType

from paper_figures import claims, drawing, papers, results
from paper_figures.tables import Table
from prompt_tuning import files

FIGURES = pathlib.Path(__file__).parent / "figures"
_BEGIN, _END = "<!-- results -->", "<!-- /results -->"


def names() -> list[str]:
    """Of all papers."""
    return sorted(found.name for found in pkgutil.iter_modules(papers.__path__))


def module(paper: str) -> ModuleType:
    """What says a paper's figures and claims."""
    return importlib.import_module(f"{papers.__name__}.{paper}")


def readme(paper: str) -> pathlib.Path:
    """A paper's page."""
    return results.ROOT / "experiments" / paper / "README.md"


def tables(paper: str) -> list[Table]:
    """The tables of a paper; most have none."""
    found: list[Table] = getattr(module(paper), "tables", list)()
    return found


def section(paper: str, figures: Sequence[drawing.Figure], said: Sequence[claims.Claim]) -> str:
    """The verdicts, then tables, then the figures with their captions, as Markdown."""
    parts = [claims.table(list(said)), *(table.markdown() for table in tables(paper))]
    folder = os.path.relpath(FIGURES, readme(paper).parent)
    parts += [f"![{figure.name}]({folder}/{paper}-{figure.name}.png)\n\n{figure.caption}" for figure in figures]
    return "\n\n".join(parts)


def around(page: str) -> tuple[str, str]:
    """What stands before and after the marks of a page. Raises ValueError where it has not one of each, in their order."""
    parts = re.split(f"{_BEGIN}|{_END}", page)
    if len(parts) != 3 or page.index(_BEGIN) > page.index(_END):
        raise ValueError(f"wanted {_BEGIN} and {_END} once each")
    return parts[0], parts[2]


def with_section(page: str, text: str) -> str:
    """The page, with the text between its marks. Raises what `around` raises."""
    before, after = around(page)
    return f"{before}{_BEGIN}\n{text}\n{_END}{after}"


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("papers", nargs="*", metavar="PAPER", help="(default all)")
    chosen = parser.parse_args(argv).papers or names()
    if unknown := [paper for paper in chosen if paper not in names()]:
        print(f"error: {unknown[0]}: no such paper; wanted some of {', '.join(names())}", file=sys.stderr)
        sys.exit(2)
    for paper in chosen:
        found = module(paper)
        figures, said = found.figures(), found.claims()
        drawn = {path for figure in figures for path in drawing.save(figure, FIGURES, paper)}
        for gone in set(FIGURES.glob(f"{paper}-*")) - drawn:
            gone.unlink()
        page = readme(paper)
        files.atomic_write(page, with_section(page.read_text(encoding="utf-8"), section(paper, figures, said)))
        print(f"{paper}: {len(figures)} figures, {len(said)} claims")


if __name__ == "__main__":
    main()
