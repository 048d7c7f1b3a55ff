"""What is shown of data: every position of a row once, the loss where it is, and a page in which text stays text."""

import html.parser
import itertools
import pathlib

import numpy as np
import pytest
import seqio
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.data import __main__ as command
from prompt_tuning.data import features, show

VOCABULARY = seqio.ByteVocabulary()


def example(inputs: str, targets: str) -> dict:
    return {"inputs": [*VOCABULARY.encode(inputs), features.EOS_ID], "targets": [*VOCABULARY.encode(targets), features.EOS_ID]}


def laid(examples: list[dict], layout: features.PromptLayout = features.NO_PROMPT, *, packed: bool = False) -> features.Batch:
    return features.layout_rows([examples], input_length=60, target_length=40, prompt=layout, packed=packed)


def shown(batch: features.Batch, side: str, layout: features.PromptLayout = features.NO_PROMPT) -> tuple[show.Piece, ...]:
    return show.pieces(batch, 0, side, vocabulary=VOCABULARY, layout=layout)  # type: ignore[arg-type]


def test_prompt_tokens_end_and_padding_are_told_apart() -> None:
    layout = features.PromptLayout(encoder_length=3)
    batch = laid([example("ab", "c")], layout)
    assert shown(batch, "encoder", layout) == (
        show.Piece("[prompt 0-2]", "prompt", 1),
        *(show.Piece(text, "read", 1) for text in ("a", "b", "</s>")),
        show.Piece("[57 padding]", "padding", 0),
    )
    decoder = [show.Piece(text, kind, 1) for text, kind in (("<start>", "read"), ("c", "loss"), ("</s>", "loss"))]
    assert shown(batch, "decoder", layout) == (*decoder, show.Piece("[38 padding]", "padding", 0))


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.tuples(st.text("abc", min_size=1, max_size=6), st.text("xyz", min_size=1, max_size=5)), min_size=1, max_size=4),
    lengths=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    placement=st.sampled_from(["before", "after_first", "suffix"]),
)
def test_every_position_of_a_packed_row_is_shown_once(texts: list, lengths: tuple[int, int], placement: features.Placement) -> None:
    layout = features.PromptLayout(*lengths, placement=placement)
    batch = laid([example(*pair) for pair in texts], layout, packed=True)
    for side, own in (("encoder", 0), ("decoder", 1)):
        found = shown(batch, side, layout)
        width = batch[f"{side}_input_tokens"].shape[1]
        runs = [piece for piece in found if piece.kind in ("prompt", "padding")]
        counted = {"prompt": 0, "padding": 0}
        for piece in runs:
            inside = piece.text.strip("[]").split()
            counted[piece.kind] += int(inside[0]) if piece.kind == "padding" else int(np.ptp([int(n) for n in inside[1].split("-")])) + 1
        # What a decoder is asked for last stands behind what it reads.
        assert sum(counted.values()) + len(found) - len(runs) == width + own * len(texts)
        by_segment = itertools.groupby((piece for piece in found if piece.segment), key=lambda piece: piece.segment)
        for (_, segment), pair in zip(by_segment, texts, strict=True):
            kind = "loss" if side == "decoder" else "read"
            said = "".join(piece.text for piece in segment if piece.kind == kind)
            assert said == pair[own] + "</s>"


def test_a_loss_mask_shows_what_is_read_only() -> None:
    row = example("q", "abc") | {"loss_mask": [True, False, False, True]}
    found = shown(laid([row]), "decoder")
    assert [(piece.text, piece.kind) for piece in found if piece.segment] == [
        ("<start>", "read"),
        ("a", "loss"),
        ("b", "read"),
        ("c", "read"),
        ("</s>", "loss"),
    ]


def test_lengths_are_counted_binned_and_cut() -> None:
    rows = [{"inputs": [5] * length, "targets": [5]} for length in (1, 2, 3, 16)]
    inputs, targets = show.looked_at(rows, input_length=10, target_length=4)
    assert (inputs.quantile(0.5), inputs.quantile(1.0), inputs.cut_frac) == (2, 16, 0.25)
    assert sum(count for _, _, count in inputs.bins()) == 4
    assert [(low, high) for low, high, _ in inputs.bins()][:2] == [(1, 2), (3, 4)] and inputs.bins()[-1] == (15, 16, 1)
    assert targets.bins() == [(1, 1, 4)]


class _Text(html.parser.HTMLParser):
    """The tags of a page and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_stays_text_in_the_page() -> None:
    wicked = "<script>alert(1)</script>"
    piece = show.Piece(wicked, "read", 1)
    lengths = show.looked_at([{"inputs": [3], "targets": [3]}], input_length=1, target_length=1)
    view = show.View(wicked, (show.TaskShare(wicked, None, 1.0, 1),), lengths, ((wicked, (piece,), ()),))
    page = _Text()
    page.feed(show.as_html(view))
    assert page.open == [] and "script" not in page.tags
    assert page.text.count(wicked) == 5
    assert "no end" in page.text


WORLD = ["--gin_file=configs/data/world.gin", "--gin.NUM_TRAIN=40", "--gin_file=configs/models/t5_mini.gin"]


def test_the_command_prints_what_training_reads(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    tasks = "--gin.TASKS=('sentiment_review', 'word_reverse')"
    command.main([*WORLD, tasks, "--rows=2", "--examples=50", f"--html={page}", "--gin_file=configs/methods/prompt.gin"])
    said = capsys.readouterr().out
    assert "[prompt 0-99]" in said and "\x1b[" not in said and said.count("encoder") == 2
    shares = {line.split()[0]: line.split() for line in said.splitlines()[1:3]}
    assert shares["word_reverse"][1:3] == ["40", "0.5000"]
    assert sum(int(each[4].strip("()")) for each in shares.values()) == 50
    assert "[prompt 0-99]" in page.read_text()
    command.main([*WORLD, tasks, "--task=word_reverse", "--color=always", "--gin.experiment.Experiment.packed=True"])
    said = capsys.readouterr().out
    assert "\x1b[32m" in said and "sentiment_review," not in said.partition("row 1")[2]


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--task=nothing", "--task=nothing: no such task; wanted one of sentiment_review"), ("--rows=0", "--rows: wanted 1 or more, got 0")],
)
def test_wrong_flags_are_one_line(capsys: pytest.CaptureFixture[str], flag: str, message: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main([*WORLD, flag])
    assert message in capsys.readouterr().err
