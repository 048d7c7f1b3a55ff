"""Li and Liang 2021 (arXiv:2101.00190): what its figures and claims are in our runs."""

from experiments import methods
from experiments.prefix2021 import sweep
from paper_figures import drawing, results
from paper_figures import tuning_methods as ours
from paper_figures.claims import Claim

TITLE = "Li and Liang 2021: prefix-tuning, optimizing continuous prompts for generation"
_PAPER = "prefix2021"
_NAMES = {"prefix": "prefixes", "p_tuning_v2": "no network", "prompt": "embeddings", "adapter": "adapters", "full": "model tuning"}
_TESTS = {"test": "in domain", "out": "out of domain"}


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return drawing.having_ours([_methods(), _lengths(), _low_data()])


def _printed(name: str, **wanted: str) -> list[drawing.Mark]:
    return ours.printed(results.where(results.published(name), **wanted), series="model", x="method")


def _methods() -> drawing.Figure:
    marks = [
        drawing.mark(title, name, held)
        for test, title in _TESTS.items()
        for method, name in _NAMES.items()
        if (held := ours.scores(_PAPER, method, test=test))
    ]
    seen = ours.printed(results.published("prefix2021_table2_3_xsum"), series="task", x="method")
    panels = [
        ours.panel("the world", "what is tuned", marks, kind="scatter"),
        drawing.Panel("GPT-2 medium, E2E", "what is tuned", "BLEU", _printed("prefix2021_table1_table_to_text"), kind="scatter"),
        drawing.Panel(
            "GPT-2 medium, E2E", "where vectors are tuned", "BLEU", _printed("prefix2021_table4_embedding_only_infix"), kind="scatter"
        ),
        drawing.Panel("BART-large, XSum, topics not trained on", "what is tuned", "ROUGE-L", seen, kind="scatter"),
    ]
    caption = (
        "Tables 1, 3 and 4: prefixes, prefixes trained without a network, embeddings alone (prompts), adapters and model tuning. "
        "The paper's tasks are generation, ours are classification by text. Bars are 95% intervals over seeds."
    )
    return ours.drawn("methods", caption, panels)


def _lengths() -> drawing.Figure:
    panels = []
    for test, title in _TESTS.items():
        marks = ours.line(_PAPER, "prefix", "prefix tuning", "length", sweep.LENGTHS, standard=20, test=test)
        panels.append(ours.panel(f"the world, {title}", "length of the prefix", marks, log=True))
    return ours.drawn("lengths", "Figure 4: score by length of the prefix; the paper prints no values.", panels)


def _low_data() -> drawing.Figure:
    marks = []
    for method in ("prefix", "full"):
        marks += ours.line(_PAPER, method, ours.NAMES[method], "examples", methods.EXAMPLES, standard=methods.ALL)
    caption = (
        "Figure 3: score by number of training examples; the paper prints no values. Every seed has the same examples; seeds are of order "
        "and first values."
    )
    return ours.drawn("low_data", caption, [ours.panel("the world", ours.EXAMPLES, marks, log=True)])


def claims() -> list[Claim]:
    """What the paper says."""
    of = {(method, test): ours.scores(_PAPER, method, test=test) for method in _NAMES for test in _TESTS}
    few = [ours.scores(_PAPER, method, examples=methods.EXAMPLES[0]) for method in ("prefix", "full")]
    short, long = (ours.scores(_PAPER, "prefix", length=length) for length in (sweep.LENGTHS[0], sweep.LENGTHS[-1]))
    middle = of["prefix", "test"]
    return [
        Claim(
            "prefixes are above embeddings alone",
            "BLEU 69.7 against 62.2 (table 4)",
            ours.lead(middle, of["prompt", "test"]),
        ),
        Claim(
            "with all examples prefixes are not worse than model tuning by more than 0.02 (the difference plus 0.02)",
            "BLEU 69.7 against 68.2 (table 1)",
            ours.lead(middle, of["full", "test"], margin=0.02),
        ),
        Claim("prefixes are above adapters", "BLEU 69.7 against 68.9 and 66.3 (table 1)", ours.lead(middle, of["adapter", "test"])),
        Claim(
            f"with few examples ({methods.EXAMPLES[0]}) prefixes are above model tuning",
            "by 2.9 BLEU over four sizes (section 6.3)",
            ours.lead(*few),
        ),
        Claim(
            "out of domain prefixes are above model tuning",
            "ROUGE-L 31.51 against 30.26 (table 3)",
            ours.lead(of["prefix", "out"], of["full", "out"]),
        ),
        Claim(
            "a network makes better prefixes than training them as they are",
            "direction only (section 4.3)",
            ours.lead(middle, of["p_tuning_v2", "test"]),
        ),
        Claim("length 20 is above length 1", "direction only (figure 4)", ours.lead(middle, short)),
        Claim("beyond a length scores fall: length 20 is above length 80", "direction only (figure 4)", ours.lead(middle, long)),
    ]
