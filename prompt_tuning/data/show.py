"""Batches as a reader sees them: what each position holds, on which the loss is, how long examples are, how often each task comes.

Everything is plain values; `as_text` writes them for a terminal, in colour or not, and `as_html` as one page that needs nothing beside it.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jinja2
import numpy as np

from prompt_tuning import text_tables
from prompt_tuning.data.features import TOKEN_SLOT, Batch, Delimiters, Example, PromptLayout

# What a position is to the model: read, asked for (the loss is on it), a row of the prompt, or nothing.
Kind = Literal["read", "loss", "prompt", "padding"]
_COLOURS: dict[Kind, str] = {"read": "", "loss": "\x1b[32m", "prompt": "\x1b[35m", "padding": "\x1b[2m"}
_BINS = 8
_BAR = 40


@dataclasses.dataclass(frozen=True)
class Piece:
    """One token, or a run of prompt rows or of padding.

    Attributes:
      text: what it says.
      kind: see `Kind`.
      segment: which example of the row it belongs to, from 1; 0 for padding.
    """

    text: str
    kind: Kind
    segment: int


@dataclasses.dataclass(frozen=True)
class TaskShare:
    """How one task comes in a mixture.

    Attributes:
      name: the task's.
      examples: in its split; None for one without end.
      rate: as the mixture states it: 0 to 1.
      drawn: examples of it among those looked at.
    """

    name: str
    examples: int | None
    rate: float
    drawn: int


@dataclasses.dataclass(frozen=True)
class Lengths:
    """The lengths of one side of the examples looked at, in tokens.

    Attributes:
      side: `inputs` or `targets`.
      limit: what is longer is cut.
      tokens: of each example.
    """

    side: str
    limit: int
    tokens: tuple[int, ...]

    @property
    def cut_frac(self) -> float:
        """The share that is cut."""
        return float(np.mean(np.array(self.tokens) > self.limit))

    def quantile(self, share: float) -> int:
        """The least length that this share of examples does not pass."""
        return int(np.quantile(self.tokens, share, method="inverted_cdf"))

    def bins(self) -> list[tuple[int, int, int]]:
        """`(from, to, examples)`: lengths of even ranges, both ends included."""
        width = max(1, -(-max(self.tokens) // _BINS))
        counts = np.bincount((np.array(self.tokens) - 1).clip(0) // width, minlength=1)
        return [(place * width + 1, (place + 1) * width, int(count)) for place, count in enumerate(counts)]


@dataclasses.dataclass(frozen=True)
class View:
    """What is shown of a mixture: its tasks, the lengths of both sides, and rows as `(title, encoder, decoder)`."""

    title: str
    tasks: tuple[TaskShare, ...]
    lengths: tuple[Lengths, ...]
    rows: tuple[tuple[str, tuple[Piece, ...], tuple[Piece, ...]], ...]


def token_text(vocabulary: Any, token: int, delimiters: Delimiters) -> str:
    """A token as text, its leading space kept where the vocabulary has one; a number where it stands for no text of its own."""
    for name, own in (("</s>", delimiters.eos), ("<s>", delimiters.bos)):
        if token == own:
            return name
    pieces = getattr(vocabulary, "tokenizer", None)
    if pieces is not None and token < pieces.vocab_size():
        return str(pieces.id_to_piece(token))
    return str(vocabulary.decode([token])).replace("\ufffd", "") or f"<{token}>"


def pieces(batch: Batch, row: int, side: Literal["encoder", "decoder"], *, vocabulary: Any, layout: PromptLayout) -> tuple[Piece, ...]:
    """One side of a row of a batch: what it reads, and at the end of each of a decoder's segments the token that it is still asked for."""
    tokens, segments = batch[f"{side}_input_tokens"][row], batch[f"{side}_segment_ids"][row]
    slots = batch[f"{side}_prompt_slots"][row] if f"{side}_prompt_slots" in batch else np.full(len(tokens), TOKEN_SLOT)
    # A token is asked for at the position before it.
    asked = batch["decoder_loss_weights"][row] > 0 if side == "decoder" else np.zeros(len(tokens), bool)

    def said(token: int) -> str:
        return token_text(vocabulary, int(token), layout.delimiters)

    def each() -> Iterator[Piece]:
        for position, (token, segment, slot) in enumerate(zip(tokens, segments.tolist(), slots, strict=True)):
            first = position == 0 or segments[position - 1] != segment
            last = position == len(tokens) - 1 or segments[position + 1] != segment
            if segment == 0:
                yield Piece("", "padding", 0)
            elif slot != TOKEN_SLOT:
                yield Piece(str(slot), "prompt", segment)
            elif side == "decoder" and token == layout.delimiters.start and (first or slots[position - 1] != TOKEN_SLOT):
                yield Piece("<start>", "read", segment)
            else:
                yield Piece(said(token), "loss" if not first and asked[position - 1] else "read", segment)
            if last and asked[position]:
                yield Piece(said(batch["decoder_target_tokens"][row, position]), "loss", segment)

    return tuple(_runs(each()))


def _runs(found: Iterable[Piece]) -> Iterator[Piece]:
    """Prompt rows that follow each other, and padding, as one piece each."""
    for (kind, segment), run in itertools.groupby(found, key=lambda piece: (piece.kind, piece.segment)):
        if kind not in ("prompt", "padding"):
            yield from run
            continue
        group = list(run)
        if kind == "padding":
            yield Piece(f"[{len(group)} padding]", kind, segment)
        else:
            yield Piece(f"[prompt {group[0].text}-{group[-1].text}]", kind, segment)


def looked_at(examples: Sequence[Example], *, input_length: int, target_length: int) -> tuple[Lengths, ...]:
    """The lengths of some examples."""
    sides = (("inputs", input_length), ("targets", target_length))
    return tuple(Lengths(side, limit, tuple(len(example[side]) for example in examples)) for side, limit in sides)


def as_text(view: View, *, colour: bool) -> str:
    """The view for a terminal."""
    parts = [_task_table(view.tasks), *map(_histogram, view.lengths)]
    for title, encoder, decoder in view.rows:
        lines = [title] + [f"  {name:8}{_line(side, colour=colour)}" for name, side in (("encoder", encoder), ("decoder", decoder)) if side]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _task_table(tasks: Sequence[TaskShare]) -> str:
    total = max(1, sum(task.drawn for task in tasks))
    lines = [("task", "examples", "rate", "drawn")]
    for task in tasks:
        examples = "no end" if task.examples is None else f"{task.examples:,}"
        lines.append((task.name, examples, f"{task.rate:.4f}", f"{task.drawn / total:.4f} ({task.drawn})"))
    return text_tables.aligned(lines, "lr")


def _histogram(lengths: Lengths) -> str:
    middle, most, longest = (lengths.quantile(share) for share in (0.5, 0.95, 1.0))
    head = f"{lengths.side}: median {middle} tokens, 95% within {most}, longest {longest}; {lengths.cut_frac:.1%} cut at {lengths.limit}"
    bins = lengths.bins()
    highest = max(count for _, _, count in bins)
    width = len(str(bins[-1][1]))
    return "\n".join(
        [head, *(f"  {low:>{width}}-{high:<{width}}  {'█' * round(_BAR * count / highest)} {count}" for low, high, count in bins)]
    )


def _line(side: Sequence[Piece], *, colour: bool) -> str:
    shown = []
    for place, piece in enumerate(side):
        if place and piece.segment != side[place - 1].segment:
            shown.append("|")
        # Without colours the loss needs a sign of its own.
        plain = f"*{piece.text}" if piece.kind == "loss" else piece.text
        coloured = f"{_COLOURS[piece.kind]}{piece.text}\x1b[0m" if _COLOURS[piece.kind] else piece.text
        shown.append(coloured if colour else plain)
    return " ".join(shown)


def as_html(view: View) -> str:
    """The view as a page: what stands in it is text, whatever it holds."""
    total = max(1, sum(task.drawn for task in view.tasks))
    charts: list[Mapping[str, Any]] = [
        {"lengths": each, "bins": each.bins(), "highest": max(count for _, _, count in each.bins())} for each in view.lengths
    ]
    return _PAGE.render(view=view, total=total, charts=charts)


_PAGE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ view.title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse } td, th { padding: .2em .9em .2em 0; text-align: right }
td:first-child, th:first-child, td.left { text-align: left }
.bar { background: #4477aa; height: .9em; display: inline-block; vertical-align: middle }
.row { border-top: 1px solid #ddd; padding: .6em 0 } .side { color: #666; font-size: 13px }
.tokens { font: 14px/1.9 ui-monospace, monospace; overflow-wrap: anywhere }
.tokens span { padding: .1em .15em; border-radius: .2em; white-space: pre-wrap }
.read { background: #eef0f3 } .loss { background: #ccebc5; font-weight: 600 } .prompt { background: #e5d0ee } .padding { color: #888 }
.even { border-bottom: 2px solid #bb8833 }
</style>
</head>
<body>
<h1>{{ view.title }}</h1>
<p class="tokens"><span class="read">read</span> <span class="loss">the loss is on it</span> <span class="prompt">rows of the prompt</span>
<span class="padding">padding</span></p>
<h2>Tasks</h2>
<table>
<tr><th>task</th><th>examples</th><th>rate</th><th>drawn</th></tr>
{% for task in view.tasks %}
<tr><td>{{ task.name }}</td><td>{{ "no end" if task.examples is none else "{:,}".format(task.examples) }}</td>
<td>{{ "%.4f" % task.rate }}</td><td>{{ "%.4f" % (task.drawn / total) }}</td></tr>
{% endfor %}
</table>
<h2>Lengths</h2>
{% for chart in charts %}
<h3>{{ chart.lengths.side }}</h3>
<p>Median {{ chart.lengths.quantile(0.5) }} tokens, 95% within {{ chart.lengths.quantile(0.95) }},
longest {{ chart.lengths.quantile(1.0) }}; {{ "%.1f" % (100 * chart.lengths.cut_frac) }}% cut at {{ chart.lengths.limit }}.</p>
<table>
{% for low, high, count in chart.bins %}
<tr><td>{{ low }}-{{ high }}</td><td class="left">
<span class="bar" style="width: {{ (300 * count / chart.highest) | round | int }}px"></span> {{ count }}</td></tr>
{% endfor %}
</table>
{% endfor %}
<h2>Rows</h2>
{% for title, encoder, decoder in view.rows %}
<div class="row"><strong>{{ title }}</strong>
{% for name, side in (("encoder", encoder), ("decoder", decoder)) if side %}
<div class="side">{{ name }}</div>
<div class="tokens">
{% for piece in side %}
<span class="{{ piece.kind }}{{ " even" if piece.segment and piece.segment % 2 == 0 }}">{{ piece.text }}</span>
{% endfor %}
</div>
{% endfor %}
</div>
{% endfor %}
</body>
</html>
"""
)
