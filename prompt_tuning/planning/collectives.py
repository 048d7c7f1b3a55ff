"""What the chips of a compiled program send each other, read from its HLO text.

The body of a loop is counted as often as the loop runs. A collective that the compiler has split into a beginning, pieces woven into other
work, and an end stands several times in the text, each time with the same channel: it is counted once.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast", "ragged-all-to-all")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ({'|'.join(_KINDS)})(-start)?\(")
_CALLS = re.compile(r"\b(calls|to_apply|condition|body|branch_computations|true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)")
_ARRAY = re.compile(r"\b[a-z]+(\d*)\w*\[([\d,]+)\]")
_CONSTANT = re.compile(r"= [su]\d+\[\]\S* constant\((\d+)\)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of one kind.

    Attributes:
      count: how many are run.
      num_bytes: what they work on, on each chip: the larger of what goes in and what comes out.
      sent_bytes: the least that each chip sends.
    """

    count: int = 0
    num_bytes: int = 0
    sent_bytes: int = 0

    def __add__(self, other: "Collective") -> "Collective":
        return Collective(self.count + other.count, self.num_bytes + other.num_bytes, self.sent_bytes + other.sent_bytes)


def collectives(hlo: str, *, devices: int) -> dict[str, Collective]:
    """By kind, what a compiled program of this text runs in all; `devices` is how many it runs on."""
    computations, entry = _computations(hlo)
    runs = _runs(computations, entry)
    found: dict[tuple[str, str], Collective] = {}
    for name, lines in computations.items():
        for line in lines:
            if (match := _COLLECTIVE.match(line)) is None or not runs[name]:
                continue
            own, shape, kind, start = match.groups()
            group = _group(line, devices)
            if group == 1:
                continue
            held = _held(_num_bytes(shape), kind, group, started=bool(start))
            channel = re.search(r"channel_id=(\d+)", line)
            key = kind, channel[1] if channel else own
            new = Collective(runs[name], runs[name] * held, runs[name] * _sent(held, kind, group))
            found[key] = max(found.get(key, new), new, key=lambda each: each.num_bytes)
    totals: dict[str, Collective] = collections.defaultdict(Collective)
    for (kind, _), one in found.items():
        totals[kind] += one
    return {kind: totals[kind] for kind in _KINDS if kind in totals}


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation, and the name of the one that is run."""
    computations: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in hlo.splitlines():
        if head := _COMPUTATION.match(line):
            lines = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith(" "):
            lines.append(line)
    return computations, entry


def _runs(computations: dict[str, list[str]], entry: str) -> dict[str, int]:
    """How often each computation is run."""
    callees = {name: [call for line in lines for call in _called(line, computations)] for name, lines in computations.items()}
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name not in seen:
            seen.add(name)
            for callee, _ in callees[name]:
                visit(callee)
            order.append(name)

    visit(entry)
    runs = dict.fromkeys(computations, 0) | {entry: 1}
    for name in reversed(order):  # Callers before what they call.
        for callee, times in callees[name]:
            runs[callee] += runs[name] * times
    return runs


def _called(line: str, computations: dict[str, list[str]]) -> Iterator[tuple[str, int]]:
    calls = [(role, names) for role, names in _CALLS.findall(line)]
    condition = next((names.lstrip("%") for role, names in calls if role == "condition"), None)
    times = _trips(line, computations.get(condition, [])) if condition else 1
    for role, names in calls:
        for name in re.findall(r"[\w.\-]+", names):
            if name in computations:
                yield name, times if role in ("body", "condition") else 1


def _trips(line: str, condition: list[str]) -> int:
    """How often a loop runs: as the compiler says, or the bound that a counter is compared with; 1 where neither is there."""
    if known := _TRIPS.search(line):
        return int(known[1])
    return max((int(number) for text in condition for number in _CONSTANT.findall(text)), default=1)


def _num_bytes(shape: str) -> int:
    """Of all arrays of a shape, as `(f32[8,16]{1,0}, bf16[4]{0})`; scalars, which asynchronous collectives carry along, are left out."""
    # The number in the name of a dtype is that of its bits; only `pred` has none.
    return sum(math.prod(map(int, sizes.split(","))) * max(1, int(bits or 8) // 8) for bits, sizes in _ARRAY.findall(shape))


def _group(line: str, devices: int) -> int:
    """How many chips take part together."""
    if "source_target_pairs=" in line:
        return devices
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", line):
        sizes = dict(re.findall(r"('\w+')=(\d+)", named[1]))
        # A part of an axis is written with its own size, as 'x':(1)2.
        return math.prod(int(part or sizes[axis]) for axis, part in re.findall(r"('\w+')(?::\(\d+\)(\d+))?", named[2]))
    if listed := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(listed[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return len(listed[1].split(","))
    return devices


def _held(shown: int, kind: str, group: int, *, started: bool) -> int:
    """The larger of input and output, from the bytes of the shape that is shown: the output's, or both where it is a beginning."""
    if kind == "all-gather":
        return shown * group // (group + 1) if started else shown
    if kind == "reduce-scatter":
        return shown * group // (group + 1) if started else shown * group
    return shown // 2 if started and kind != "all-reduce" else shown


def _sent(held: int, kind: str, group: int) -> int:
    if kind in ("collective-permute", "collective-broadcast"):
        return held
    return (2 if kind == "all-reduce" else 1) * held * (group - 1) // group
