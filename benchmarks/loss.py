"""The loss a few tokens at a time beside the loss of all logits at once: where it begins to pay, in time and in memory.

    python -m benchmarks.loss [--quick] [--only=t5]

Forward and backward of the head and the loss alone, float32, 16 rows: the head of T5 v1.1 small (512 x 32,128) and of Gemma 3 270M (640 x
262,144), frozen or trained. Columns: bytes of all logits; bytes of a chunk's, 0 for all at once; the medians of wall seconds and of
processor seconds, which say more where other programs run; and the largest temporary memory that XLA plans for. Prints a table and writes
`benchmarks/results/loss.csv`.
"""

import argparse
import dataclasses
import itertools
import math
import pathlib
import statistics
import sys
import time
from typing import Any

from benchmarks.side_by_side import keep, table

RESULTS = pathlib.Path(__file__).parent / "results" / "loss.csv"
ROWS = 16
HEADS = {"t5": (512, 32128), "gemma": (640, 262144)}


@dataclasses.dataclass(frozen=True)
class Case:
    """One size, computed at once (`chunk_mb` 0) or in chunks."""

    head: str
    length: int
    trained: bool
    chunk_mb: float
    tiny: bool = False

    @property
    def sizes(self) -> tuple[int, int]:
        """Width and vocabulary."""
        return (8, 64) if self.tiny else HEADS[self.head]

    @property
    def logit_bytes(self) -> int:
        """Of all logits."""
        return 4 * ROWS * self.length * self.sizes[1]


def measured(case: Case, *, steps: int) -> dict[str, object]:
    """A line of the results."""
    import jax
    import jax.numpy as jnp

    from prompt_tuning import losses
    from prompt_tuning.models.layers import product

    width, vocabulary = case.sizes
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (ROWS, case.length, width))
    kernel = jax.random.normal(keys[1], (width, vocabulary)) * width**-0.5
    targets = jax.random.randint(keys[2], (ROWS, case.length), 0, vocabulary)
    weights = jnp.ones(targets.shape)
    chunks = math.ceil(case.logit_bytes / (case.chunk_mb * 2**20)) if case.chunk_mb else 1

    def loss(x: Any, kernel: Any) -> Any:
        settings: Any = {"weights_BT": weights, "z_loss": 1e-4}
        if chunks == 1:
            return losses.per_token(product(x, kernel), targets, **settings)[0]
        return losses.per_token_in_chunks(lambda part: product(part, kernel), x, targets, chunks=min(chunks, case.length), **settings)[0]

    step = jax.jit(jax.value_and_grad(loss, (0, 1) if case.trained else 0)).lower(x, kernel).compile()
    walls, processors = [], []
    value = None
    for _ in range(steps + 1):
        wall, processor = time.monotonic(), time.process_time()
        value, _ = jax.block_until_ready(step(x, kernel))
        walls.append(time.monotonic() - wall)
        processors.append(time.process_time() - processor)
    memory = step.memory_analysis()
    return {
        "head": case.head,
        "trained": case.trained,
        "tokens": ROWS * case.length,
        "logits_mb": round(case.logit_bytes / 2**20, 1),
        "chunk_mb": case.chunk_mb,
        "chunks": min(chunks, case.length),
        "seconds": round(statistics.median(walls[1:]), 4),
        "processor_seconds": round(statistics.median(processors[1:]), 4),
        "temporary_mb": round(memory.temp_size_in_bytes / 2**20, 1),
        "loss": round(float(value), 5),
    }


def cases(*, tiny: bool) -> list[Case]:
    """What is measured."""
    if tiny:
        return [Case("t5", 4, trained, chunk, tiny=True) for trained in (False, True) for chunk in (0, 1 / 256)]
    sizes = [("t5", 128), ("gemma", 32)]
    return [Case(*size, trained, chunk) for size, trained, chunk in itertools.product(sizes, (False, True), (0, 32, 64, 128))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    parser.add_argument("--only", default="", help="the beginning of a head's name and the target length, such as t5-128")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--output", type=pathlib.Path)
    flags = parser.parse_args()
    chosen = [case for case in cases(tiny=flags.quick) if f"{case.head}-{case.length}".startswith(flags.only)]
    if not chosen:
        parser.error(f"--only={flags.only}: no case; wanted the beginning of a name such as t5-128")
    rows = []
    for case in chosen:
        rows.append(measured(case, steps=flags.steps))
        print(*rows[-1].values(), file=sys.stderr, flush=True)
    print(table(rows))
    output = flags.output or (None if flags.quick else RESULTS)
    if output is not None:
        keep(rows, output)


if __name__ == "__main__":
    main()
