"""The papers as a static site: python -m paper_figures.site [--output=report]

An index of all papers with their verdicts, and a page for each: what it claims, the commands, verdicts, figures with the values that they
show, and every run with its folder. Made of the READMEs, the committed results and the committed figures; the pages need no network and no
script.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import jinja2

from experiments import points
from paper_figures import __main__ as papers
from paper_figures import claims, drawing, results
from paper_figures.tables import Table
from prompt_tuning import errors, files
from prompt_tuning.errors import UserError

TEMPLATES = pathlib.Path(__file__).parent / "site"
# By which a folder is known as a site of ours, whose files may be replaced.
_MADE_BY = '<meta name="generator" content="paper_figures.site">'
_VERDICTS = {"agrees": "✓", "disagrees": "✗", "undecided": "?", "not run": "–"}
# A table that is wider than a phone scrolls by itself, by keyboard too.
_WIDE = '<div class="wide" tabindex="0" role="region" aria-label="Table">'
# This project's own question stands before the papers.
_FIRST = "question"


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A figure of a page: its files beside the page, and its values as a table."""

    name: str
    caption: str
    stem: str
    rows: list[dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Run:
    """A point with results: its folder, its mean over tasks for each test, and what made it."""

    name: str
    scores: dict[str, str]
    made: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Page:
    """All that a paper's page shows; `before` and `after` are what its README says around the results, as HTML."""

    paper: str
    title: str
    before: str
    after: str
    claims: list[claims.Claim]
    tables: list[Table]
    figures: list[Drawn]
    runs: list[Run]
    tests: list[str]

    @property
    def counts(self) -> dict[str, int]:
        """How many claims have each verdict."""
        return {verdict: sum(claim.verdict == verdict for claim in self.claims) for verdict in _VERDICTS}


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("report"), help="the folder to write (default report)")
    output = parser.parse_args(argv).output
    with errors.reported():
        written = write(output)
    print(f"{len(written)} files; {output / 'index.html'}")


def write(output: pathlib.Path) -> list[pathlib.Path]:
    """Writes the site and gives its files; what an earlier site had besides is removed.

    Raises UserError where the folder holds anything but a site, and what `page` raises.
    """
    index = output / "index.html"
    earlier = [path for path in output.rglob("*") if path.is_file()] if output.is_dir() else []
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: is a file; wanted a folder")
    if earlier and not (index.exists() and _MADE_BY in index.read_text(encoding="utf-8")):
        raise UserError(f"--output {output}: holds files that are no site of papers; choose another folder")
    pages = [page(paper) for paper in sorted(papers.names(), key=lambda name: (name != _FIRST, name))]
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.globals |= {"marks": _VERDICTS, "said": claims.said, "made_by": _MADE_BY}
    made: dict[pathlib.Path, bytes] = {index: templates.get_template("index.html").render(pages=pages).encode()}
    for each in pages:
        made[output / f"{each.paper}.html"] = templates.get_template("paper.html").render(page=each).encode()
        for drawn in each.figures:
            for suffix in ("png", "pdf", "csv"):
                made[output / "figures" / f"{drawn.stem}.{suffix}"] = (papers.FIGURES / f"{drawn.stem}.{suffix}").read_bytes()
        if each.runs:
            made[output / "results" / f"{each.paper}.csv"] = (results.ROOT / "experiments" / each.paper / "results.csv").read_bytes()
    for path, data in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.atomic_write(path, data)
    for path in set(earlier) - set(made):
        path.unlink()
    return list(made)


def page(paper: str) -> Page:
    """What a paper's page shows. Raises UserError for a figure that has not been drawn, and a README that is not there."""
    module = papers.module(paper)
    if not papers.readme(paper).exists():
        raise UserError(f"{papers.readme(paper)}: is not there; write what the paper claims and how its runs are made")
    text = papers.readme(paper).read_text(encoding="utf-8")
    heading, _, text = text.partition("\n")
    before, after = papers.around(text)
    figures = [Drawn(figure.name, figure.caption, f"{paper}-{figure.name}", drawing.rows(figure)) for figure in module.figures()]
    for drawn in figures:
        if not (papers.FIGURES / f"{drawn.stem}.png").exists():
            raise UserError(f"{drawn.stem}: is not drawn yet; run python -m paper_figures {paper}")
    rows = results.ours(paper)
    tests = list(dict.fromkeys(row["test"] for row in rows))
    title, before, after = heading.lstrip("# "), html(before, paper), html(after, paper)
    return Page(paper, title, before, after, module.claims(), papers.tables(paper), figures, runs(rows), tests)


def runs(rows: Iterable[results.Row]) -> list[Run]:
    """The points that rows are of, in their order. A point's score on a test is the mean over tasks of the first metric of each."""
    by_point: dict[str, list[results.Row]] = {}
    for row in rows:
        by_point.setdefault(row["config"], []).append(row)
    found = []
    for own in by_point.values():
        first = own[0]
        factors = ((name, value) for name, value in first.items() if value and name not in (*points.SCORE, *points.COST, *points.MADE))
        scores: dict[str, dict[str, float]] = {}
        for row in own:
            scores.setdefault(row["test"], {}).setdefault(row["task"], float(row["value"]))
        means = {test: f"{sum(values.values()) / len(values):.3f}" for test, values in scores.items()}
        made = {name: first[name] for name in (*points.COST, *points.MADE)}
        found.append(Run(",".join(f"{name}={value}" for name, value in factors), means, made))
    return found


def html(markdown: str, paper: str) -> str:
    """Markdown as HTML, without raw HTML. Links within the repository lead to the site's pages; where there is none they are text."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(re.sub(r"<!--.*?-->", "", markdown, flags=re.DOTALL))
    for token in tokens:
        _mend_links(token.children or [], paper)
    text = str(parser.renderer.render(tokens, parser.options, {}))
    text = text.replace("<pre>", '<pre tabindex="0">')
    return text.replace("<table>", f"{_WIDE}<table>").replace("</table>", "</table></div>")


def _mend_links(tokens: list[Any], paper: str) -> None:
    tags: list[str] = []
    for token in tokens:
        if token.type == "link_open":
            target = str(token.attrs["href"])
            if not re.match(r"[a-z]+:|#", target):
                path = os.path.normpath(os.path.join("experiments", paper, target)).replace(os.sep, "/")
                known = re.fullmatch(r"experiments/(\w+)(?:/README\.md)?", path)
                if known and known[1] in papers.names():
                    token.attrs["href"] = f"{known[1]}.html"
                else:
                    token.tag, token.attrs = "span", {"title": target}
            tags.append(token.tag)
        elif token.type == "link_close":
            token.tag = tags.pop()


if __name__ == "__main__":
    sys.exit(main())
