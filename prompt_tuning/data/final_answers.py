"""The answer at the end of a written chain of thought.

Chains of thought close with "The answer is X." (Wei et al. 2022, arXiv:2201.11903); GSM8K's worked answers with a line "#### X" (Cobbe et
al. 2021, arXiv:2110.14168). Where a text has neither, its last number counts.
"""

import collections
import decimal
import re
from collections.abc import Sequence

_MARK = re.compile(r"(?:\bthe answer is\b|####)\s*:?", re.IGNORECASE)
# 5, 1,200, .5, -3.25; a minus right after a number is no sign, and the digits of a name (x5) are no number.
_NUMBER = re.compile(r"(?<![\w.])-?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![\w.])-?\$?\.[0-9]+")


def final_answer(text: str) -> str:
    """What follows the last "the answer is" or "####", to the end of its line, without a closing full stop; without either, the text."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return text.strip()
    lines = text[marks[-1].end() :].strip().splitlines()
    return lines[0].strip().removesuffix(".").rstrip() if lines else ""


def final_number(text: str) -> decimal.Decimal | None:
    """The first number of a marked answer, else the last number of the text; None where there is none. Commas and dollars don't count."""
    marked = _MARK.search(text) is not None
    numbers = _NUMBER.findall(final_answer(text))
    return decimal.Decimal(re.sub(r"[$,]", "", numbers[0 if marked else -1])) if numbers else None


def majority(texts: Sequence[str], *, numbers: bool) -> str:
    """The first of the texts that conclude what most of them do (the first such, of equals); self-consistency's vote, unweighted.

    Args:
      texts: at least one.
      numbers: whether the final numbers are compared; else the final answers, case and runs of space and a closing mark apart.

    A text that concludes nothing has no vote unless all do.
    """

    def concluded(text: str) -> object:
        return final_number(text) if numbers else " ".join(final_answer(text).lower().rstrip(".!?").split()) or None

    votes = collections.Counter(found for found in map(concluded, texts) if found is not None)
    return next((text for text in texts if votes and concluded(text) == votes.most_common(1)[0][0]), texts[0])
