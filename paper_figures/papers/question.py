"""Prompt tuning against instruction tuning: which of nine ways to a task wins, and at what cost."""

import functools
import math

from experiments import methods, mini
from experiments.question import sweep
from paper_figures import drawing, results, statistics
from paper_figures.claims import Claim
from paper_figures.tables import Table

TITLE = "Prompt tuning or instruction tuning? Nine ways to a task, on one page"
PAPER = "question"
AMOUNTS = sweep.AMOUNTS
_UPON = {"method": "prompt", "start": "instructions", "trained_on": sweep.TASKS}
# What tells the rows of each way from the others'; those that take no examples of a task are the same for every amount.
WAYS: dict[str, dict[str, str | tuple[str, ...]]] = {
    "frozen": {"form": "instructions", "as_it_is": "yes"},
    "few-shot": {"exemplars": "4", "examples": "16"},
    "instruction tuning": {"form": "instructions", "as_it_is": "", "trained_on": "6_clusters"},
    "prompt tuning": {"method": "prompt", "start": "", "trained_on": sweep.TASKS},
    "prompt on instruction tuning": _UPON,
    "prefix tuning": {"method": "p_tuning_v2", "trained_on": sweep.TASKS},
    "IA3": {"method": "ia3", "trained_on": sweep.TASKS},
    "LoRA": {"method": "lora", "trained_on": sweep.TASKS},
    "model tuning": {"method": "full", "trained_on": sweep.TASKS},
}
WITHOUT_EXAMPLES = ("frozen", "few-shot", "instruction tuning")
_COUNTED = {"prompt tuning": "prompt", "prompt on instruction tuning": "prompt on instruction tuning", "prefix tuning": "p_tuning_v2",
            "IA3": "ia3", "LoRA": "lora", "model tuning": "full"}  # fmt: skip
_COSTS = results.ROOT / "experiments" / PAPER / "costs.csv"
_NAMES = {base: drawing.short(count) for base, count in mini.PARAMETERS.items()}


def _rows(way: str, base: str, examples: int, **wanted: str) -> list[results.Row]:
    told = dict(WAYS[way])
    if way not in WITHOUT_EXAMPLES:
        told["examples"] = "" if examples == methods.ALL else str(examples)
    return results.where(results.ours(PAPER), base=base, **{**told, **wanted})


@functools.cache
def scores(way: str, base: str, examples: int = methods.ALL, test: str = "test") -> tuple[tuple[float, ...], ...]:
    """A way's accuracies on the test rows, a stratum a task; none where some have not been run. The base as it is has one run of each."""
    found = results.strata(_rows(way, base, examples, test=test, metric="accuracy"))
    runs = 1 if way == "frozen" else len(mini.SEEDS)
    whole = len(found) == len(sweep.TASKS) and all(len(stratum) == runs for stratum in found)
    return tuple(map(tuple, found)) if whole else ()


def paired(way: str, base: str, examples: int = methods.ALL, test: str = "test") -> tuple[tuple[float, ...], ...]:
    """As `scores`, where the base as it is stands beside each seed."""
    return tuple(stratum * (len(mini.SEEDS) // len(stratum)) for stratum in scores(way, base, examples, test))


def forgotten(way: str, base: str) -> list[list[float]]:
    """Nats per token of held-out prose that a way loses over the base as it is, with all examples, a stratum a task; none where some have
    not been run."""
    as_it_is = _rows("frozen", base, 0, test="prose")
    found = results.strata(_rows(way, base, methods.ALL, test="prose"), by="trained_on")
    tasks = 1 if way in WITHOUT_EXAMPLES else len(sweep.TASKS)
    if not as_it_is or len(found) != tasks or any(len(stratum) != len(mini.SEEDS) for stratum in found):
        return []
    return [[value - float(as_it_is[0]["value"]) for value in stratum] for stratum in found]


def bases() -> list[str]:
    """Those that any results are of."""
    return [base for base in mini.BASES if any(scores(way, base) for way in WAYS)]


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return [figure for figure in (_accuracy(), _costs(), _domains(), _prose()) if figure.panels]


def _accuracy() -> drawing.Figure:
    panels = []
    for base in bases():
        marks = [drawing.mark(way, float(examples), held) for way in WAYS for examples in AMOUNTS if (held := scores(way, base, examples))]
        panels.append(drawing.Panel(f"base of {_NAMES[base]} parameters", "training examples", "accuracy", marks, log=True))
    caption = (
        "Mean accuracy over three tasks by number of the task's examples, for each base. Frozen, few-shot and instruction tuning are "
        "level, for they train on no example of a task (few-shot shows four of 16). Bars are 95% intervals over seeds."
    )
    return drawing.Figure("accuracy", caption, panels)


def _costs() -> drawing.Figure:
    panels = []
    for base in bases():
        marks = [
            drawing.mark(way, float(_cost(way, base)["trained_parameters"]), held)
            for way in _COUNTED
            if (held := scores(way, base)) and _cost(way, base)
        ]
        if marks:
            title = f"base of {_NAMES[base]} parameters"
            panels.append(drawing.Panel(title, "trained parameters a task", "accuracy", marks, kind="scatter", log=True))
    return drawing.Figure("cost", "Accuracy with all 2,000 examples by what is trained for each task.", panels)


def _domains() -> drawing.Figure:
    marks = [
        drawing.mark(way, _NAMES[base], statistics.less(out, held))
        for way in WAYS
        for base in bases()
        if (held := scores(way, base)) and (out := scores(way, base, test="out"))
    ]
    caption = "Accuracy on rows of another lexicon and other sentence frames, less that on rows like those trained on (all 2,000 examples)."
    panels = [drawing.Panel("out of domain", "parameters of the base", "change of accuracy", marks, kind="bars")] if marks else []
    return drawing.Figure("domains", caption, panels)


def _prose() -> drawing.Figure:
    marks = [
        drawing.mark(way, _NAMES[base], held)
        for way in WAYS
        if way not in ("frozen", "few-shot")
        for base in bases()
        if (held := forgotten(way, base))
    ]
    caption = (
        "Nats per token of held-out prose beyond those of the base as it is, after training on all 2,000 examples and with what was tuned "
        "in its place. What is added (prompts, prefixes, IA3, LoRA) can be taken off, and then nothing is forgotten; model tuning cannot."
    )
    panels = [drawing.Panel("forgetting", "parameters of the base", "nats per token", marks, kind="bars")] if marks else []
    return drawing.Figure("forgetting", caption, panels)


def _cost(way: str, base: str) -> results.Row:
    counted = _COUNTED.get(way, way)
    return next((row for row in results.read(_COSTS) if row["base"] == base and row["way"] == counted), {})


def tables() -> list[Table]:
    """Which way wins where; then, for each base, every way with all that it costs."""
    found = [Table("Which way to take, by base and examples of the task at hand:", decisions())] if decisions() else []
    for base in bases():
        rows = [_told(way, base) for way in WAYS if any(scores(way, base, examples) for examples in AMOUNTS)]
        found.append(
            Table(f"Every way on the base of {_NAMES[base]} parameters (accuracy [95% interval]; — where it has not been run):", rows)
        )
    return found


def decisions() -> list[dict[str, str]]:
    """A row for each base and amount of data: the best way, those whose difference to it may be none, and of all these the smallest."""
    rows = []
    for base in bases():
        for examples in AMOUNTS:
            held = {way: found for way in WAYS if (found := scores(way, base, examples))}
            if set(held) != set(WAYS):
                continue
            means = {way: statistics.mean(found).value for way, found in held.items()}
            best = max(means, key=lambda way: means[way])
            others = {way: statistics.difference(paired(best, base, examples), paired(way, base, examples)) for way in WAYS if way != best}
            alike = [way for way, lead in others.items() if lead.low <= 0]
            smallest = min((best, *alike), key=lambda way: (_stored(way, base), -means[way]))
            rows.append(
                {
                    "base": _NAMES[base],
                    "examples": f"{examples:,}",
                    "best": f"{best} ({means[best]:.3f})",
                    "not told from it": ", ".join(f"{way} ({means[way]:.3f})" for way in alike) or "none",
                    "of these the least stored a task": f"{smallest} ({_bytes(_stored(smallest, base))})",
                }
            )
    return rows


def _stored(way: str, base: str) -> int:
    """Bytes that each further task needs: none where one model answers all tasks."""
    if way in WITHOUT_EXAMPLES:
        return 0
    return max((int(row["stored_bytes"]) for row in _rows(way, base, methods.ALL, test="test")), default=0)


def _told(way: str, base: str) -> dict[str, str]:
    cost = _cost(way, base)
    steps = int(cost.get("train_steps") or 0)
    out = statistics.less(scores(way, base, test="out"), scores(way, base)) if scores(way, base) and scores(way, base, test="out") else []
    lost = forgotten(way, base)
    return {
        "way": way,
        **{f"{examples:,} examples": _interval(scores(way, base, examples)) for examples in AMOUNTS},
        "out of domain": f"{statistics.mean(out).value:+.3f}" if out else "—",
        "forgotten, nats a token": f"{statistics.mean(lost).value:+.3f}"
        if lost and way != "frozen"
        else "0"
        if way in WITHOUT_EXAMPLES[:2]
        else "—",
        "trained parameters": f"{int(cost['trained_parameters']):,}" if cost else "—",
        "stored a task": _bytes(_stored(way, base)),
        "to train": _flops(steps * int(cost["train_step_flops"])) if cost else "—",
        "an answer": _flops(int(cost["answer_flops"])) if cost else "—",
    }


def _interval(held: statistics.Strata) -> str:
    if not held:
        return "—"
    found = statistics.mean(held)
    return f"{found.value:.3f}" if math.isnan(found.low) else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _bytes(count: int) -> str:
    return f"{count / 1024:,.1f} kB" if count >= 1024 else f"{count} B" if count else "0"


def _flops(count: int) -> str:
    return f"{count / 1e9:,.3g} GFLOP" if count else "0"


def _all(way: str, examples: int, test: str = "test", among: list[str] | None = None) -> list[tuple[float, ...]]:
    """The strata of all bases."""
    return [stratum for base in among or bases() for stratum in paired(way, base, examples, test)]


def _lead(first: str, second: str, examples: int) -> statistics.Estimate | None:
    both = [base for base in bases() if scores(first, base, examples) and scores(second, base, examples)]
    return statistics.difference(_all(first, examples, among=both), _all(second, examples, among=both)) if both else None


def claims() -> list[Claim]:
    """What is said of the two, by whom."""
    few, many = AMOUNTS[0], AMOUNTS[-1]
    on, alone, full = "prompt on instruction tuning", "prompt tuning", "model tuning"
    gains = {examples: (_all(on, examples), _all(alone, examples)) for examples in (few, many)}
    whole = all(len(on_it) == len(without) > 0 for on_it, without in gains.values())
    both = [base for base in bases() if all(scores(way, base, many, test) for way in (alone, full) for test in ("test", "out"))]
    drops = [statistics.less(_all(way, many, "out", both), _all(way, many, "test", both)) for way in (alone, full)]
    lost = [
        [stratum for base in bases() if forgotten(alone, base) and forgotten(full, base) for stratum in forgotten(way, base)]
        for way in (full, alone)
    ]
    sizes = [base for base in bases() if scores(full, base) and scores(alone, base)]
    leads = [statistics.less(scores(full, base), scores(alone, base)) for base in (sizes[0], sizes[-1])] if len(sizes) > 1 else []
    return [
        Claim(
            f"with {few} examples a prompt is worth more on an instruction-tuned base", "Wei et al. 2021, figure 10", _lead(on, alone, few)
        ),
        Claim(f"with all {many:,} examples too", "Wei et al. 2021, figure 10", _lead(on, alone, many)),
        Claim(
            "and it gains more with few examples than with all",
            "Wei et al. 2021, section 4.5",
            statistics.difference(statistics.less(*gains[few]), statistics.less(*gains[many])) if whole else None,
        ),
        Claim(
            "instruction tuning helps tasks of clusters that it has not seen",
            "Wei et al. 2021, figure 1",
            _lead("instruction tuning", "frozen", many),
        ),
        Claim(
            "prompt tuning loses less out of domain than model tuning",
            "Lester et al. 2021, table 1",
            statistics.difference(*drops) if both else None,
        ),
        Claim(
            "prompt tuning forgets less than model tuning",
            "Vu et al. 2022b",
            statistics.difference(*lost) if lost[0] else None,
            unit="nats",
        ),
        Claim(
            "model tuning's lead over prompt tuning is smaller on the largest base than on the smallest",
            "Lester et al. 2021, figure 1",
            statistics.difference(*leads) if leads else None,
        ),
    ]
