"""Wang et al. 2022 (Super-NaturalInstructions, arXiv:2204.07705): what its figures and claims are in our runs."""

from experiments import mini
from experiments.instructions import BASE
from paper_figures import drawing, instructions, results
from paper_figures.claims import Claim
from paper_figures.instructions import difference, marks, number, of_differences, printed

TITLE = "Wang et al. 2022 (Super-NaturalInstructions): generalization via declarative instructions on 1600+ tasks"
_PAPER = "super_ni2022"
_TASKS = {4: "4", 12: "12", 24: ""}
_INSTANCES = {8: "8", 32: "32", 64: "64", 500: ""}
_ENCODINGS = {"name": "name", "definition": "definition", "definition_and_examples": "definition and 2 examples"}
_THEIRS = {"Task ID": "name", "Def": "definition", "Def+Pos(2)": "definition and 2 examples"}


def _definition(**wanted: str) -> list[list[float]]:
    return instructions.tuned(_PAPER, form="definition", test="definition", **wanted)


def _encoded(trained: str, test: str) -> list[list[float]]:
    """Runs of table 4 by what they were tuned on; the short ones are read again where inputs are long."""
    own = {"exemplars": "2"} if trained == "definition_and_examples" else {"as_it_is": "yes"}
    return instructions.tuned(_PAPER, form=trained.partition("_")[0], test=test, **own)


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return instructions.drawn((_scaling(), _table()))


def _scaling() -> drawing.Figure:
    ours = "instruction tuning"
    frozen = instructions.untuned(_PAPER, test="definition")
    tasks = marks(ours, ((count, _definition(tasks=value)) for count, value in _TASKS.items()))
    instances = marks(ours, ((count, _definition(instances=value)) for count, value in _INSTANCES.items()))
    tasks += marks("frozen", ((count, frozen) for count in _TASKS)) if tasks else []
    instances += marks("frozen", ((count, frozen) for count in _INSTANCES)) if instances else []
    sizes = marks(ours, ((mini.PARAMETERS[base], _definition(base=base)) for base in mini.BASES))
    sizes += marks("frozen", ((mini.PARAMETERS[base], instructions.untuned(_PAPER, test="definition", base=base)) for base in mini.BASES))
    panels = [
        drawing.Panel("tasks tuned on", "tasks", "accuracy", tasks, log=True),
        drawing.Panel("instances of each of 24 tasks", "instances", "accuracy", instances, log=True),
        drawing.Panel("size", "parameters of the base", "accuracy", sizes, log=True),
    ]
    rows = results.published("sni2022_figure5_scaling")
    for letter, column, label in (("a", "task", "tasks"), ("b", "task", "instances"), ("c", "params", "parameters")):
        theirs = [row for row in rows if row["table_or_figure"] == f"Figure 5{letter}"]
        found = printed(theirs, ours, lambda row, column=column: number(row[column]))
        panels.append(drawing.Panel(f"figure 5{letter} of the paper", label, "ROUGE-L", found, log=True))
    caption = (
        f"Figure 5: score on held-out tasks by tasks tuned on, instances of each, and size. Ours: {BASE} unless size "
        "varies, told and asked by the definition alone, 11 tasks ranked; theirs: Tk-Instruct 3B, definition and two "
        "examples, 119 tasks written out."
    )
    return drawing.Figure("scaling", caption, panels)


def _table() -> drawing.Figure:
    ours = [
        mark
        for trained, name in _ENCODINGS.items()
        for test, asked in _ENCODINGS.items()
        for mark in marks(name, [(asked, _encoded(trained, test))])
    ]
    ours += (
        [mark for test, asked in _ENCODINGS.items() for mark in marks("frozen", [(asked, instructions.untuned(_PAPER, test=test))])]
        if ours
        else []
    )
    theirs = printed(
        results.published("sni2022_table4_instruction_elements"),
        lambda row: _THEIRS[row["method"].removeprefix("train encoding: ")],
        lambda row: _THEIRS[row["task"].removeprefix("test encoding: ")],
    )
    whole = printed(
        [row for row in results.published("sni2022_table3_main") if row["table_or_figure"] == "Table 3"],
        "printed",
        lambda row: f"{row['model']} {row['params']}".strip(),
    )
    caption = (
        f"Table 4: what rows say of their task in tuning (colours) and in testing (groups). Ours: {BASE}, 24 tasks; "
        "theirs: Tk-Instruct 3B, where names are numbers of tasks; then table 3, unseen English tasks."
    )
    return drawing.Figure(
        "encodings",
        caption,
        [
            drawing.Panel("the world, held-out tasks", "asked by", "accuracy", ours, kind="bars"),
            drawing.Panel("table 4 of the paper", "asked by", "ROUGE-L", theirs, kind="bars"),
            drawing.Panel("table 3 of the paper", "model", "ROUGE-L", whole, kind="bars"),
        ],
    )


def claims() -> list[Claim]:
    """What the paper says."""
    both, alone = "definition_and_examples", "definition"
    tuned = _definition()
    smallest, largest = instructions.bases(_PAPER)
    more_tasks, more_instances = (tuned, _definition(tasks="4")), (tuned, _definition(instances="64"))
    return [
        Claim(
            "tuning on instructions is better than the base as it is (definition and two examples)",
            "table 3: 62.0 and 30.2, 11B",
            difference(_encoded(both, both), instructions.untuned(_PAPER, test=both)),
        ),
        Claim("more tasks help on tasks held out", "figure 5a: 54.3 with 757 and 43.7 with 8", difference(*more_tasks)),
        Claim(
            "64 instances of a task are better than 8",
            "figure 5b: 54.7 and 48.5",
            difference(_definition(instances="64"), _definition(instances="8")),
        ),
        Claim(
            "more tasks help more than more instances beyond 64", "figure 5a, b: +10.6 and -1.0", of_differences(more_tasks, more_instances)
        ),
        Claim(
            f"larger bases are better on tasks held out ({largest} against {smallest})",
            "figure 5c: 62.0 with 11B and 40.1 with 60M",
            difference(_definition(base=largest), _definition(base=smallest)),
        ),
        Claim(
            "a definition is better than a name, each asked as tuned",
            "table 4: 45.0 and 21.2",
            difference(_encoded(alone, alone), _encoded("name", "name")),
        ),
        Claim(
            "a definition with two examples is better than the definition alone",
            "table 4: 54.3 and 45.0",
            difference(_encoded(both, both), _encoded(alone, alone)),
        ),
    ]
