"""Liu et al. 2021 (arXiv:2103.10385): what its figures and claims are in our runs."""

from experiments import methods
from paper_figures import drawing, results
from paper_figures import tuning_methods as ours
from paper_figures.claims import Claim

TITLE = "Liu et al. 2021: GPT understands, too (P-tuning)"
_PAPER = "ptuning2021"
_TUNED = {"p_tuning": "P-tuning", "prompt": "prompt, no network", "full": "model tuning"}
_AMOUNTS: dict[str, dict[str, int]] = {"2,000 examples": {}, f"{methods.FEW} examples": {"examples": methods.FEW}}


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return drawing.having_ours([_networks()])


def _networks() -> drawing.Figure:
    marks = [
        drawing.mark(amount, name, held)
        for amount, factors in _AMOUNTS.items()
        for method, name in _TUNED.items()
        if (held := ours.scores(_PAPER, method, **factors))
    ]
    if held := ours.scores(_PAPER, "p_tuning", network="mlp"):
        marks.append(drawing.mark("2,000 examples", "P-tuning, MLP", held))
    if held := ours.scores(_PAPER, "full", as_it_is="yes"):
        marks.append(drawing.mark("no example", "frozen", held))
    theirs = ours.printed(results.published("ptuning_v1_2021_tables3_4_5_superglue"), series="model", x="method")
    panels = [
        ours.panel("the world", "what is tuned", marks, kind="scatter"),
        drawing.Panel("SuperGLUE", "what is tuned", "average score, %", theirs, kind="scatter"),
    ]
    caption = (
        "Tables 3 to 5: a prompt that an LSTM makes, beside the prompt alone, model tuning and the base as it is. MP are the paper's "
        "manual prompts. There P-tuning trains the model too; here the base is frozen. Bars are 95% intervals over seeds."
    )
    return ours.drawn("networks", caption, panels)


def claims() -> list[Claim]:
    """What the paper says."""
    of = {(method, amount): ours.scores(_PAPER, method, **factors) for method in _TUNED for amount, factors in _AMOUNTS.items()}
    every, few = _AMOUNTS
    return [
        Claim(
            "P-tuning is above fine-tuning without prompts",
            "74.6 against 72.5, BERT-large; 75.6 against 63.1, GPT-2 medium (table 4)",
            ours.lead(of["p_tuning", every], of["full", every]),
        ),
        Claim(
            "P-tuning is above the model asked as it is",
            "74.6 against 45.0, BERT-large (table 4)",
            ours.lead(of["p_tuning", every], ours.scores(_PAPER, "full", as_it_is="yes")),
        ),
        Claim(
            "a network makes better prompts than training them as they are",
            "direction only (section 3.2)",
            ours.lead(of["p_tuning", every], of["prompt", every]),
        ),
        Claim(
            f"with {methods.FEW} examples a network makes better prompts than training them as they are",
            "direction only (section 3.2)",
            ours.lead(of["p_tuning", few], of["prompt", few]),
        ),
        Claim(
            f"with {methods.FEW} examples P-tuning is above the model asked as it is",
            "direction only (table 5)",
            ours.lead(of["p_tuning", few], ours.scores(_PAPER, "full", as_it_is="yes")),
        ),
    ]
