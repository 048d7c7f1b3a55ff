"""The pretraining text: endless passages of prose from all clusters, without a single formatted task.

A document is one passage. The two domains come equally often, so that the base has read the words and frames of the out-of-domain splits
too, though no task is ever trained on them; the clusters come as `SHARES` says.
"""

import random
from collections.abc import Iterator
from typing import Literal

from prompt_tuning.data.world import catalogue

# Passages of each cluster in a hundred: facts are soon known by heart, what must be worked out from the text takes many examples.
SHARES = {
    "arithmetic": 8,
    "comprehension": 12,
    "extraction": 14,
    "facts": 5,
    "inference": 13,
    "ordering": 13,
    "paraphrase": 10,
    "sentiment": 13,
    "summarising": 4,
    "words": 8,
}


def documents(split: Literal["train", "validation"] = "train", *, seed: int = 0) -> Iterator[str]:
    """Endless documents of a split, the same for the same arguments on any machine. The splits are draws apart, not sets apart."""
    rng = random.Random(f"corpus/{split}/{seed}")
    passages = catalogue.passage_makers()
    makers, weights = tuple(passages.values()), tuple(SHARES[cluster] for cluster in passages)
    while True:
        (passage,) = rng.choices(makers, weights)
        yield passage(rng, rng.choice(("in", "out")))
