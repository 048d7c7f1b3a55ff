"""Wei et al. 2021 (FLAN, arXiv:2109.01652): what its figures and claims are in our runs."""

from experiments import mini
from experiments.instructions import BASE
from paper_figures import drawing, instructions, results, statistics
from paper_figures.claims import Claim
from paper_figures.instructions import difference, marks, number, of_differences, printed

TITLE = "Wei et al. 2021 (FLAN): finetuned language models are zero-shot learners"
_PAPER = "flan2021"
_CLUSTERS = (1, 3, 6)
_FORMS = {"none": "nothing", "name": "names of tasks", "instructions": "instructions"}
_THEIR_FORMS = {"no template": "nothing", "task/dataset name": "names of tasks", "natural instructions (FLAN)": "instructions"}
_HELD_OUT = {"inference": "inference", "fact": "facts", "arithmetic": "arithmetic"}
_EXAMPLES = {"32": "32", "2000": ""}
_PROMPTED = {"prompt tuning": "", "prompt on instruction tuning": "instructions"}


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return instructions.drawn((_clusters(), _sizes(), _roles(), _by_cluster(), _prompts()))


def _clusters() -> drawing.Figure:
    ours = marks("instruction tuning", ((count, instructions.tuned(_PAPER, clusters=count)) for count in _CLUSTERS))
    if ours:
        ours += marks("frozen", ((count, instructions.untuned(_PAPER)) for count in _CLUSTERS))
    theirs = printed(results.published("flan2021_fig6_number_of_clusters"), "instruction tuning", lambda row: number(row["method"]))
    caption = (
        f"Figure 6: score on held-out clusters by number of clusters tuned on, beside the base as it is. Ours: {BASE}, "
        "mean over 11 tasks of inference, facts and arithmetic; theirs: LaMDA-PT 137B, mean of inference, closed-book "
        "questions and commonsense."
    )
    return drawing.Figure(
        "clusters",
        caption,
        [
            drawing.Panel("the world, held-out clusters", "clusters tuned on", "accuracy", ours),
            drawing.Panel("figure 6 of the paper", "clusters tuned on", "accuracy in %", theirs),
        ],
    )


def _sizes() -> drawing.Figure:
    bases = [(mini.PARAMETERS[base], base) for base in mini.BASES]
    ours = instructions.by_size(_PAPER)
    gains = [(size, difference(instructions.tuned(_PAPER, base=base), instructions.untuned(_PAPER, base=base))) for size, base in bases]
    gained = [drawing.Mark("gain", size, gain.value, gain.low, gain.high, gain.runs) for size, gain in gains if gain]
    _, largest = instructions.bases(_PAPER)
    caption = (
        "Figure 7: held-out score by size of the base, tuned on six clusters and as it is, the difference, and the largest "
        "base by cluster. The paper prints no values: tuning helps its models of 68B and 137B and hurts those of 422M to 8B."
    )
    return drawing.Figure(
        "sizes",
        caption,
        [
            drawing.Panel("held-out tasks", "parameters of the base", "accuracy", ours, log=True),
            drawing.Panel("what tuning on instructions gains", "parameters of the base", "difference in accuracy", gained, log=True),
            drawing.Panel(f"the largest, {largest}", "cluster held out", "accuracy", _kinds(largest), kind="bars"),
        ],
    )


def _roles() -> drawing.Figure:
    asked = marks("asked by instructions", ((name, instructions.tuned(_PAPER, form=form)) for form, name in _FORMS.items()))
    asked += marks("asked as tuned", ((_FORMS[form], instructions.tuned(_PAPER, form=form, test=form)) for form in ("none", "name")))
    theirs = []
    for row in results.published("flan2021_fig8_table3_role_of_instructions"):
        series = "asked by instructions" if row["task"].endswith("natural instructions") else "asked as tuned"
        theirs += printed([row], series, lambda row: _THEIR_FORMS[row["method"].removeprefix("finetune with: ")])
    caption = (
        "Figure 8: what the rows tuned on say of their task, and the held-out score when asked by instructions or in the "
        f"form tuned on. Ours: {BASE}, six clusters; theirs: mean of four clusters."
    )
    return drawing.Figure(
        "roles",
        caption,
        [
            drawing.Panel("the world, held-out clusters", "rows tuned on say", "accuracy", asked, kind="bars"),
            drawing.Panel("figure 8 of the paper", "rows tuned on say", "accuracy in %", theirs, kind="bars"),
        ],
    )


def _kinds(base: str) -> list[drawing.Mark]:
    """A base as it is and tuned, with and without exemplars, by cluster."""
    as_it_is = {"as_it_is": "yes", "trained_on": ""}
    tuned = {"as_it_is": "", "trained_on": "6_clusters", "form": "instructions"}
    kinds = {
        "frozen": as_it_is | {"test": "instructions"},
        "few-shot": as_it_is | {"test": "few_shot"},
        "instruction tuning": tuned | {"exemplars": "", "test": "instructions"},
        "instruction tuning with exemplars": tuned | {"exemplars": "2", "test": "few_shot"},
    }
    found = []
    for series, wanted in kinds.items():
        rows = results.where(results.ours(_PAPER), metric="accuracy", base=base, **wanted)
        for prefix, cluster in _HELD_OUT.items():
            found += marks(series, [(cluster, results.mixture(row for row in rows if row["task"].startswith(prefix)))])
    return found


def _by_cluster() -> drawing.Figure:
    ours = _kinds(BASE)
    theirs = [
        mark
        for row in results.published("flan2021_fig1_zero_shot_by_cluster")
        for mark in printed([row], f"{row['model']} {row['method']}", lambda row: row["task"].partition(" (")[0])
    ]
    caption = (
        "Figure 1 and section 4.4: score by held-out cluster, with and without two solved examples before each row (those "
        f"of a held-out task are its own). Ours: {BASE}, tuned on zero-shot rows or on rows with exemplars, each tested as "
        "tuned; theirs: FLAN 137B and GPT-3."
    )
    return drawing.Figure(
        "by_cluster",
        caption,
        [
            drawing.Panel("the world", "cluster held out", "accuracy", ours, kind="bars"),
            drawing.Panel("figure 1 of the paper", "cluster held out", "accuracy in %", theirs, kind="bars"),
        ],
    )


def _prompted(examples: str, start: str, *, test: str = "test") -> statistics.Strata:
    wanted = {"method": "prompt", "metric": "accuracy", "base": BASE, "examples": examples, "start": start, "test": test}
    return results.strata(results.where(results.ours(_PAPER), **wanted))


def _prompts() -> drawing.Figure:
    panels = []
    for test, title in (("test", "in domain"), ("out", "out of domain")):
        found = [
            mark
            for series, start in _PROMPTED.items()
            for count, examples in _EXAMPLES.items()
            for mark in marks(series, [(count, list(map(list, _prompted(examples, start, test=test))))])
        ]
        panels.append(drawing.Panel(f"two held-out tasks, {title}", "training examples", "accuracy", found, kind="bars"))
    caption = (
        f"Figure 10: a prompt of 20 vectors tuned for a task of a held-out cluster, on {BASE} as it is and tuned on "
        "instructions, from 32 examples or all 2,000. The paper prints no values for its figure: the tuned model is "
        "better in every case, often by more than ten points with few examples."
    )
    return drawing.Figure("prompts", caption, panels)


def claims() -> list[Claim]:
    """What the paper says."""

    def gain(base: str) -> tuple[list[list[float]], list[list[float]]]:
        return instructions.tuned(_PAPER, base=base), instructions.untuned(_PAPER, base=base)

    def prompts(examples: str) -> statistics.Estimate | None:
        sides = [_prompted(examples, start) for start in ("instructions", "")]
        return statistics.difference(*sides) if all(sides) else None

    tuned = instructions.tuned(_PAPER)
    few = instructions.tuned(_PAPER, exemplars="2", test="few_shot")
    smallest, largest = instructions.bases(_PAPER)
    return [
        Claim(
            "six clusters are better than one on clusters held out",
            "figure 6: 61.9 and 49.9",
            difference(tuned, instructions.tuned(_PAPER, clusters=1)),
        ),
        Claim(
            f"tuning on instructions helps the largest base ({largest}) on tasks held out",
            "figure 7: 68B and more, direction only",
            difference(*gain(largest)),
        ),
        Claim(f"it hurts the smallest ({smallest})", "figure 7: 8B and less, direction only", difference(*reversed(gain(smallest)))),
        Claim(
            "it gains more on the largest base than on the smallest",
            "figure 7: direction only",
            of_differences(gain(largest), gain(smallest)),
        ),
        Claim(
            "asked by instructions, a model tuned on instructions is better than one tuned on bare rows",
            "figure 8: 55.2 and 37.3",
            difference(tuned, instructions.tuned(_PAPER, form="none")),
        ),
        Claim(
            "and than one tuned on names of tasks", "figure 8: 55.2 and 46.6", difference(tuned, instructions.tuned(_PAPER, form="name"))
        ),
        Claim(
            "also where that is asked by names",
            "figure 8: 55.2 and 47.0",
            difference(tuned, instructions.tuned(_PAPER, form="name", test="name")),
        ),
        Claim("exemplars in tuning and testing help", "figure 9: direction only", difference(few, tuned)),
        Claim(
            "without any, the tuned model is better than the untuned one with exemplars",
            "figure 1: FLAN and few-shot GPT-3, 56.2 and 53.2, 77.4 and 72.6, 56.6 and 55.7",
            difference(tuned, instructions.untuned(_PAPER, test="few_shot")),
        ),
        Claim("a prompt learns more on the tuned base, from all examples", "figure 10: direction only", prompts("")),
        Claim(
            "a prompt learns more on the tuned base, from 32 examples",
            "figure 10: direction only; often more than 10 points",
            prompts("32"),
        ),
        Claim("the tuned base's lead is larger with 32 examples than with all", "section 4.5: direction only", _low_resource()),
    ]


def _low_resource() -> statistics.Estimate | None:
    few, every = ([_prompted(examples, start) for start in ("instructions", "")] for examples in ("32", ""))
    if not all((*few, *every)):
        return None
    return statistics.difference(statistics.less(*few), statistics.less(*every))
