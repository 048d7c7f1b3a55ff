"""Chung et al. 2022 (Flan-PaLM and Flan-T5, arXiv:2210.11416): what its figures and claims are in our runs."""

from experiments import mini
from experiments.instructions import BASE
from paper_figures import drawing, instructions, results
from paper_figures.claims import Claim
from paper_figures.instructions import difference, marks, number, of_differences, printed

TITLE = "Chung et al. 2022: scaling instruction-finetuned language models"
_PAPER = "chung2022"
# Tasks in the first so many clusters: experiments/instructions.py.
_TASKS = {1: 5, 3: 14, 6: 24}
_NAMES = {base: f"{mini.PARAMETERS[base] / 1e6:.1f} million" for base in mini.BASES}


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return instructions.drawn((_tasks(), _sizes()))


def _tasks() -> drawing.Figure:
    ours = []
    for base, name in _NAMES.items():
        found = [(float(_TASKS[count]), instructions.tuned(_PAPER, base=base, clusters=count)) for count in _TASKS]
        if all(strata for _, strata in found):
            ours += marks(name, [(0.0, instructions.untuned(_PAPER, base=base)), *found])
    theirs = printed(
        results.published("chung2022_table3_number_of_tasks"), lambda row: f"PaLM {row['params']}", lambda row: number(row["method"])
    )
    caption = (
        "Figure 4 and table 3: score on held-out tasks by number of tasks tuned on, clusters added in turn; 0 is the base "
        "as it is. Theirs: normalized average of held-out benchmarks."
    )
    return drawing.Figure(
        "tasks",
        caption,
        [
            drawing.Panel("the world, by parameters of the base", "tasks tuned on", "accuracy", ours),
            drawing.Panel("table 3 of the paper", "tasks tuned on", "normalized average in %", theirs),
        ],
    )


def _sizes() -> drawing.Figure:
    ours = instructions.by_size(_PAPER)
    panels = [drawing.Panel("the world, held-out tasks", "parameters of the base", "accuracy", ours, log=True)]
    rows = results.published("chung2022_table5_flan_vs_base_by_size")
    for family, names in (("T5", ("T5-", "Flan-T5-")), ("PaLM", ("PaLM", "Flan-PaLM"))):
        kept = [row for row in rows if row["model"].startswith(names) and "cont" not in row["model"] and "U-" not in row["model"]]
        theirs = printed(
            kept, lambda row: "instruction tuning" if row["model"].startswith("Flan") else "frozen", lambda row: number(row["params"])
        )
        panels.append(drawing.Panel(f"table 5 of the paper: {family}", "parameters", "normalized average in %", theirs, log=True))
    caption = "Table 5: held-out score by size, tuned on instructions (24 tasks in ours, 1,836 in theirs) and as it is."
    return drawing.Figure("sizes", caption, panels)


def claims() -> list[Claim]:
    """What the paper says."""
    said = []
    for base, name in _NAMES.items():
        text = f"instruction finetuning helps the base of {name} parameters on tasks held out"
        said.append(
            Claim(
                text, "table 5: at every size", difference(instructions.tuned(_PAPER, base=base), instructions.untuned(_PAPER, base=base))
            )
        )
    for base in mini.BASES[:3]:
        most, fewest = (instructions.tuned(_PAPER, base=base, clusters=count) for count in (6, 1))
        said.append(
            Claim(
                f"24 tasks are better than 5 ({_NAMES[base]} parameters)",
                "table 3: at every size, 21.9 and 8.3 with 8B",
                difference(most, fewest),
            )
        )
    first, last = [[instructions.tuned(_PAPER, base=BASE, clusters=count) for count in pair] for pair in ((3, 1), (6, 3))]
    said.append(
        Claim(
            "the first clusters added gain more than the last (5 to 14 tasks, 14 to 24)",
            "section 3: most of the gain comes with 282 tasks",
            of_differences((first[0], first[1]), (last[0], last[1])),
        )
    )
    small, large = (instructions.tuned(_PAPER, base=base) for base in instructions.bases(_PAPER))
    said.append(
        Claim("larger bases are better after finetuning", "table 5: Flan-T5 from -3.1 with 80M to 23.7 with 11B", difference(large, small))
    )
    return said
