"""What a paper says, and whether our runs say so too: a difference with its interval decides."""

import dataclasses
import math
from typing import Literal

from paper_figures.statistics import Estimate

Verdict = Literal["agrees", "undecided", "disagrees", "not run"]


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement of a paper.

    Attributes:
      text: the statement, such that it holds where the difference is above zero.
      theirs: what the paper prints for it, with table or figure; "direction only" where it prints no number.
      ours: the difference in our runs; None where they have not been run.
      unit: of the difference, for tables.
    """

    text: str
    theirs: str
    ours: Estimate | None
    unit: str = ""

    @property
    def verdict(self) -> Verdict:
        """Agrees where the whole interval is above zero, disagrees where it is below; without an interval, undecided."""
        if self.ours is None:
            return "not run"
        if math.isnan(self.ours.low):
            return "undecided"
        if self.ours.low > 0:
            return "agrees"
        return "disagrees" if self.ours.high < 0 else "undecided"


def table(claims: list[Claim] | tuple[Claim, ...]) -> str:
    """The claims as Markdown."""
    lines = ["| the paper says | its figure | ours: difference [95% interval] | verdict |", "|---|---|---|---|"]
    lines += [f"| {claim.text} | {claim.theirs} | {said(claim)} | **{claim.verdict}** |" for claim in claims]
    return "\n".join(lines)


def said(claim: Claim) -> str:
    """Our difference in words."""
    if claim.ours is None:
        return "not run"
    estimate = claim.ours
    unit = f" {claim.unit}" if claim.unit else ""
    bounds = "no interval" if math.isnan(estimate.low) else f"[{estimate.low:+.3f}, {estimate.high:+.3f}]"
    p, kind = ("", "run") if math.isnan(estimate.p) else (f", p = {estimate.p:.3f}", "pair")
    return f"{estimate.value:+.3f}{unit} {bounds}{p}, {estimate.runs} {kind}{'' if estimate.runs == 1 else 's'}"
