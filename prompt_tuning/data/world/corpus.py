"""The pretraining text: endless passages of prose from all clusters, without a single formatted task.

A document is one passage. The clusters and the two domains come equally often, so that the base has read the words and frames of the
out-of-domain splits too, though no task is ever trained on them.
"""

import random
from collections.abc import Iterator
from typing import Literal

from prompt_tuning.data.world import catalogue


def documents(split: Literal["train", "validation"] = "train", *, seed: int = 0) -> Iterator[str]:
    """Endless documents of a split, the same for the same arguments on any machine. The splits are draws apart, not sets apart."""
    rng = random.Random(f"corpus/{split}/{seed}")
    modules = catalogue.cluster_modules()
    while True:
        yield rng.choice(modules).passages(rng, rng.choice(("in", "out")))
