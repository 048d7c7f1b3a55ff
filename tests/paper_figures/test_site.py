"""The site of the papers: what stands on its pages, and how a real browser lays them out, with no network and no script."""

import html.parser
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import types
from typing import Any

import pytest

from paper_figures import __main__ as papers
from paper_figures import claims, drawing, results, site, statistics
from paper_figures.tables import Table
from prompt_tuning import files
from prompt_tuning.errors import UserError

_VOID = {"meta", "link", "img", "br", "hr"}
WIDE, NARROW = 1280, 390


class Checked(html.parser.HTMLParser):
    """A page's tags, with an error where one is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        return [str(attrs[attribute]) for _, attrs in self.tags if attribute in attrs]


README = """# Someone 2021: <b>small</b> & large

They claim *much*; see [the other](../other2020/README.md), [the code](../../docs/papers.md) and [the paper](https://example.org/paper).

    python -m experiments.made_up.sweep

<!-- results -->
what the command wrote
<!-- /results -->

## What agrees and what does not

| a | b |
|---|---|
| one | two |
"""

_MADE = {"trained_parameters": "2560", "stored_bytes": "10240", "steps": "300", "seconds": "3.5", "commit": "abc", "machine": "m"}
RESULTS = [
    {"base": "t5_2m", "method": "prompt", "seed": str(seed), "test": test, "task": task, "metric": metric, "value": str(value)}
    | {**_MADE, "config": f"c{seed}"}
    for seed in (0, 1)
    for test in ("test", "out")
    for task, value in (("one", 0.5 + seed / 10), ("two", 0.7 + seed / 10))
    for metric in ("accuracy", "f1_macro")
]


@pytest.fixture
def made_up(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The only paper there is; gives the folder to write the site into."""
    figure = drawing.Figure(
        "scores", "What <i>they</i> say & we.", [drawing.Panel("p", "x", "y", [drawing.Mark("a", "t", 0.5, 0.4, 0.6, 3)])]
    )
    module = types.SimpleNamespace(
        figures=lambda: [figure],
        claims=lambda: [
            claims.Claim("a > b & <c>", "table 1", statistics.Estimate(0.25, 0.1, 0.4, 6, p=0.03)),
            claims.Claim("d > e", "figure 2", None),
        ],
        tables=lambda: [Table("What to take:", [{"way": "prompt", "cost": "10 kB"}])],
    )
    folder = tmp_path / "experiments" / "made_up"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(README)
    files.write_csv(folder / "results.csv", RESULTS)
    drawing.save(figure, tmp_path / "figures", "made_up")
    monkeypatch.setattr(papers, "names", lambda: ["made_up"])
    monkeypatch.setattr(papers, "module", lambda paper: module)
    monkeypatch.setattr(papers, "readme", lambda paper: folder / "README.md")
    monkeypatch.setattr(papers, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    results.ours.cache_clear()
    yield tmp_path / "report"
    results.ours.cache_clear()


def check_whole(folder: pathlib.Path) -> None:
    """Every page is well formed, is reached from the index, and needs nothing from elsewhere."""
    pages = {path.name: Checked(path.read_text(encoding="utf-8")) for path in folder.glob("*.html")}
    reached = {"index.html", *(href for href in pages["index.html"].values("href") if href.endswith(".html"))}
    assert reached == set(pages)
    for name, page in pages.items():
        text = (folder / name).read_text(encoding="utf-8")
        assert not {"script", "iframe", "object"} & {tag for tag, _ in page.tags} and "@import" not in text and "url(" not in text
        for target in [*page.values("src"), *page.values("href")]:
            if target.startswith(("https:", "http:")):
                assert any(tag == "a" and attrs.get("href") == target for tag, attrs in page.tags), "only links lead elsewhere"
            elif not target.startswith(("#", "data:")):
                assert (folder / target).is_file(), f"{name}: {target}"
        assert [tag for tag, _ in page.tags].count("h1") == 1
        assert all("alt" in attrs for tag, attrs in page.tags if tag == "img")
        assert ("html", {"lang": "en"}) in page.tags and any(attrs.get("name") == "viewport" for _, attrs in page.tags)
        headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert all(after - before <= 1 for before, after in itertools.pairwise(headings)), headings


def test_a_page_says_claims_verdicts_figures_commands_and_runs(made_up: pathlib.Path) -> None:
    site.write(made_up)
    check_whole(made_up)
    page = Checked((made_up / "made_up.html").read_text(encoding="utf-8"))
    said = re.sub(r"\s+", " ", page.text)
    assert "Someone 2021: <b>small</b> & large" in said and "a > b & <c>" in said and "What <i>they</i> say & we." in said
    assert "+0.250 [+0.100, +0.400], p = 0.030, 6 pairs" in said and "✓ agrees" in said and "– not run" in said
    assert "python -m experiments.made_up.sweep" in said and "What agrees and what does not" in said and "10 kB" in said
    assert "what the command wrote" not in said, "what the page shows itself stands there once"
    assert "base=t5_2m,method=prompt,seed=1" in said and "0.700" in said, "the mean over tasks of the first metric"
    assert page.values("src") == ["figures/made_up-scores.png"]
    assert (made_up / "results" / "made_up.csv").exists()


def test_links_lead_to_pages_or_are_text(made_up: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(papers, "names", lambda: ["made_up", "other2020"])
    text = site.html(README.partition("\n")[2], "made_up")
    assert '<a href="other2020.html">the other</a>' in text and '<a href="https://example.org/paper">' in text
    assert '<span title="../../docs/papers.md">the code</span>' in text
    assert "<b>" not in site.html("a <b>bold</b> word", "made_up") and "<!--" not in text


def test_written_again_it_is_the_same_and_what_is_gone_is_gone(made_up: pathlib.Path) -> None:
    before = {path: path.read_bytes() for path in site.write(made_up)}
    (made_up / "gone2019.html").write_text("an earlier paper")
    assert {path: path.read_bytes() for path in site.write(made_up)} == before
    assert {path for path in made_up.rglob("*") if path.is_file()} == set(before)


def test_a_folder_of_something_else_is_left_alone(made_up: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up.mkdir()
    (made_up / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        site.main([f"--output={made_up}"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "holds files that are no site" in error and error.count("\n") == 1
    assert [path.name for path in made_up.iterdir()] == ["thesis.txt"]


def test_a_figure_that_is_not_drawn_is_said(made_up: pathlib.Path) -> None:
    (papers.FIGURES / "made_up-scores.png").unlink()
    with pytest.raises(UserError, match="run python -m paper_figures made_up"):
        site.write(made_up)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The site of all papers."""
    folder = tmp_path_factory.mktemp("report")
    site.main([f"--output={folder}"])
    return folder


def test_every_paper_has_a_whole_page(report: pathlib.Path) -> None:
    check_whole(report)
    assert {path.stem for path in report.glob("*.html")} == {"index", *papers.names()}
    for paper in papers.names():
        said = re.sub(r"\s+", " ", Checked((report / f"{paper}.html").read_text(encoding="utf-8")).text)
        for claim in papers.module(paper).claims():
            assert re.sub(r"\s+", " ", claim.text) in said and claim.verdict in said


# Loads a page in a frame of a given width and writes down what it finds there. The page itself has no script.
_PROBE = """<!DOCTYPE html><body>
<iframe id="frame" style="width:{width}px;height:800px;border:0" src="{page}"></iframe><pre id="found"></pre>
<script>
document.getElementById("frame").onload = event => {{
  const page = event.target.contentDocument;
  const images = [...page.images].filter(image => image.loading !== "lazy" && !image.naturalWidth).length;
  const details = [...page.querySelectorAll("details")];
  const opened = details.every(each => {{ const before = each.scrollHeight; each.open = true; return each.scrollHeight > before; }});
  const reachable = [...page.querySelectorAll("a[href], summary, [tabindex]")].filter(one => one.getClientRects().length);
  const focused = reachable.every(one => {{ one.focus(); return page.activeElement === one; }});
  const small = [...page.querySelectorAll("p, td, li, figcaption")].filter(one => parseFloat(getComputedStyle(one).fontSize) < 12).length;
  document.getElementById("found").textContent = "FOUND" + JSON.stringify({{
    overflow: page.documentElement.scrollWidth - {width}, images, opened, focused, reachable: reachable.length, small,
    height: page.documentElement.scrollHeight }}) + "END";
}};
</script>"""


def browser(*arguments: str, profile: pathlib.Path) -> str:
    """What Chromium prints; skips where there is none."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--allow-file-access-from-files", f"--user-data-dir={profile}"]  # fmt: skip
    done = subprocess.run([binary, *flags, *arguments], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def probe(page: pathlib.Path, width: int, folder: pathlib.Path) -> dict[str, Any]:
    (folder / "probe.html").write_text(_PROBE.format(width=width, page=page.as_uri()))
    dom = browser("--dump-dom", "--virtual-time-budget=5000", (folder / "probe.html").as_uri(), profile=folder / "profile")
    found = re.search("FOUND(.*?)END", dom.partition("<script>")[0])
    assert found, dom[-500:]
    return dict(json.loads(found[1]))


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_in_a_browser(made_up: pathlib.Path, width: int, tmp_path: pathlib.Path) -> None:
    """Nothing sticks out on a screen or a phone, pictures are there, details open, and the keyboard reaches every link and table."""
    site.write(made_up)
    for name in ("index", "made_up"):
        found = probe(made_up / f"{name}.html", width, tmp_path)
        assert found["overflow"] <= 0 and found["images"] == 0 and found["small"] == 0, (name, found)
        assert found["opened"] and found["focused"] and found["reachable"] > 0, (name, found)


@pytest.mark.slow
def test_every_page_in_a_browser(report: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for page in sorted(report.glob("*.html")):
        found = probe(page, NARROW, tmp_path)
        assert found["overflow"] <= 0 and found["images"] == 0 and found["small"] == 0 and found["opened"], (page.name, found)


@pytest.mark.slow
def test_prints(made_up: pathlib.Path, tmp_path: pathlib.Path) -> None:
    site.write(made_up)
    target = tmp_path / "page.pdf"
    browser(f"--print-to-pdf={target}", "--no-pdf-header-footer", (made_up / "made_up.html").as_uri(), profile=tmp_path / "profile")
    assert target.read_bytes().startswith(b"%PDF") and target.stat().st_size > 10_000
