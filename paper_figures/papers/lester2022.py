"""Lester et al. 2022 (arXiv:2208.05577): what its figures and claims are in our runs."""

from experiments import mini
from experiments.lester2022 import sweep
from paper_figures import drawing, paired, results, statistics
from paper_figures.claims import Claim
from paper_figures.paired import Values

TITLE = "Lester et al. 2022: reducing retraining by recycling parameter-efficient prompts"
_MAPS = {"linear": "linear map", "combination": "combination of tokens", "network": "network"}


def _rows(base: str, **wanted: str) -> list[results.Row]:
    """The accuracies of runs on a base."""
    return results.where(
        results.ours("lester2022"),
        base=base.removesuffix("_early"),
        pretraining="lm_500" if base == sweep.EARLY else "",
        test="test",
        metric="accuracy",
        **wanted,
    )


def _tuned(base: str) -> Values:
    return paired.values(_rows(base, method="prompt", recycled_from="", as_it_is=""))


def _untuned(base: str) -> Values:
    return paired.every_seed(paired.values(_rows(base, as_it_is="yes")), mini.SEEDS)


def _recycled(source: str, target: str, by: str) -> Values:
    return paired.values(_rows(target, recycled_from=source, by=by))


def _name(base: str) -> str:
    return base.removeprefix("t5_").replace("_early", ", early")


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    marks = []
    for source, target in sweep.PAIRS:
        pair = f"{_name(source)} to {_name(target)}"
        kinds = {name: _recycled(source, target, by) for by, name in _MAPS.items()}
        if not any(kinds.values()):
            continue
        kinds |= {"frozen": _untuned(target), "prompt tuning": _tuned(target)}
        marks += [drawing.mark(name, pair, paired.strata(held)) for name, held in kinds.items() if held]
    if not marks:
        return []
    caption = (
        "Prompts of one base made into prompts of another by maps between their embeddings, without training there, beside the base as it "
        "is and a prompt tuned on it. Early: after 500 steps of LM adaptation. The paper's values could not be read."
    )
    panel = drawing.Panel("three tasks of the world", "from which base to which", "accuracy", marks, kind="scatter")
    return [drawing.Figure("pairs", caption, [panel])]


def _share(outperform: Values, than: Values) -> statistics.Estimate | None:
    """The share of prompts that are better than another, less one half."""
    shared = set(outperform) & set(than)
    if not shared:
        return None
    return statistics.mean(paired.strata({key: float(outperform[key] > than[key]) - 0.5 for key in shared}))


def _over_pairs(of: dict[tuple[str, str], Values]) -> Values:
    """Values of several pairs of bases, each with the tasks as its own."""
    return {(f"{'>'.join(pair)} {task}", seed): value for pair, values in of.items() for (task, seed), value in values.items()}


def claims() -> list[Claim]:
    """What the paper says."""
    (row,) = results.where(results.published("abstract_level_claims"), paper="Lester et al. 2022 Prompt Recycling (arXiv:2208.05577)")
    made = {by: _over_pairs({pair: _recycled(*pair, by) for pair in sweep.PAIRS}) for by in _MAPS}
    untuned = _over_pairs({pair: _untuned(pair[1]) for pair in sweep.PAIRS})
    tuned = _over_pairs({pair: _tuned(pair[1]) for pair in sweep.PAIRS})
    best = max(_MAPS, key=lambda by: statistics.mean(paired.strata(made[by])).value if made[by] else 0.0)
    return [
        Claim(
            f"most recycled prompts are better than the base without one ({_MAPS[best]}; the share less one half)",
            f"{row['value']}% of them with the best recycler (abstract)",
            _share(made[best], untuned),
        ),
        Claim("recycled prompts score above the base without one", "direction only", paired.difference(made[best], untuned)),
        Claim("a prompt tuned again on the new base is better still", "direction only", paired.difference(tuned, made[best])),
    ]
