"""A training step of ours beside PyTorch + transformers + PEFT: the same weights, the same batch, the same two threads.

    python -m benchmarks.train_step [--quick]

T5 v1.1 small with random weights; 16 examples of 128/16 and of 512/32 tokens, none of them padding; prompt tuning with 100 vectors and
model tuning, both with Adafactor; float32, and bfloat16 (autocast in PyTorch, bfloat16 activations here). Each measurement is a process of
its own, and those of the two sides take turns, round by round, so that a machine that slows down slows both. PyTorch gets
scaled-dot-product attention and the allocator settings that help it most. Prints a table and writes `benchmarks/results/train_step.csv`:

- seconds a step: the median over all rounds, the first step of each process left out;
- first step: seconds from the start of the process to the end of its first step, with imports, reading weights and compiling: in the first
  round, whose compilation cache is empty, and in later ones (median);
- peak memory: the largest resident set of the process;
- share of peak: matrix-product operations of the step, counted in our jaxpr, over its seconds and the best 2048-cubed product measured
  here in that precision, by either side;
- loss: before the first update, which must agree.

Run it while nothing else does: PyTorch slows down tenfold on shared cores.
"""

import dataclasses
import json
import pathlib
import platform
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.side_by_side import (
    DTYPES,
    SIDES,
    THREADS,
    arguments,
    check_losses,
    first_again,
    in_turns,
    keep,
    measure,
    median_seconds,
    our_steps,
    table,
    their_steps,
    with_memory,
)

MODULE = "benchmarks.train_step"
RESULTS = pathlib.Path(__file__).parent / "results" / "train_step.csv"
PRODUCT = 2048


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: one method at one length, by one side in one precision."""

    method: str
    input_length: int
    target_length: int
    side: str
    dtype: str
    batch_size: int = 16
    prompt_length: int = 100
    steps: int = 6
    tiny: bool = False

    @property
    def sizes(self) -> models.Sizes:
        """Of T5 v1.1 small, or of a model that only shows that everything runs."""
        return models.sizes("t5", tiny=self.tiny)

    def batch(self) -> list[np.ndarray]:
        """Input and target tokens."""
        return models.tokens(self.sizes, (self.batch_size, self.input_length), (self.batch_size, self.target_length))


def write_weights(case: Case, folder: pathlib.Path) -> None:
    """Random weights in Hugging Face's format, and the prompt's first values."""
    models.write("t5", case.sizes, folder)
    shape = (case.prompt_length, case.sizes["d_model"])
    np.save(folder / "prompt.npy", np.random.default_rng(1).uniform(-0.5, 0.5, shape).astype(np.float32))


def ours(case: Case, folder: pathlib.Path) -> dict[str, Any]:
    """Steps of this package."""
    from prompt_tuning import environment

    environment.settle()
    from prompt_tuning.data.vocabularies import Bytes
    from prompt_tuning.experiment import Experiment
    from prompt_tuning.methods.full import Full
    from prompt_tuning.methods.prompt import File, Prompt
    from prompt_tuning.optimizers import Adafactor

    tunes_prompt = case.method == "prompt"
    # A frozen base may be held in bfloat16; weights that are trained stay in float32.
    held = case.dtype if tunes_prompt else "float32"
    experiment = Experiment(
        model=models.our_config("t5", case.sizes, dtype=case.dtype, param_dtype=held),
        vocabulary=Bytes(),
        method=Prompt(length=case.prompt_length, initializer=File(str(folder / "prompt.npy"))) if tunes_prompt else Full(),
        data=None,
        optimizer=Adafactor(0.3, 1e-5) if tunes_prompt else Adafactor(1e-3, 0.0, multiply_by_parameter_scale=True),
        base_checkpoint=str(folder),
        batch_size=case.batch_size,
        input_length=case.input_length,
        target_length=case.target_length,
    )
    examples = [{"inputs": inputs, "targets": targets} for inputs, targets in zip(*case.batch(), strict=True)]
    return our_steps(experiment, examples, steps=case.steps)


def pytorch(case: Case, folder: pathlib.Path) -> dict[str, Any]:
    """Steps of transformers, with PEFT for the prompt."""
    import torch
    from transformers.optimization import Adafactor

    torch.set_num_threads(THREADS)
    model = models.their_model("t5", folder)
    settings: dict[str, Any] = {"relative_step": False, "warmup_init": False}
    if case.method == "prompt":
        import peft

        wanted = peft.PromptTuningConfig(
            task_type=peft.TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=case.prompt_length, num_transformer_submodules=1
        )
        model = peft.get_peft_model(model, wanted)
        with torch.no_grad():
            model.prompt_encoder["default"].embedding.weight.copy_(torch.from_numpy(np.load(folder / "prompt.npy")))
        settings |= {"lr": 0.3, "scale_parameter": False, "weight_decay": 1e-5}
    else:
        settings |= {"lr": 1e-3, "scale_parameter": True}
    model.train()
    optimizer = Adafactor([parameter for parameter in model.parameters() if parameter.requires_grad], **settings)
    inputs, targets = (torch.from_numpy(tokens).long() for tokens in case.batch())
    mask = torch.ones_like(inputs)
    return their_steps(
        lambda: model(input_ids=inputs, attention_mask=mask, labels=targets).loss, optimizer, steps=case.steps, dtype=case.dtype
    )


def product_rate(side: str, dtype: str) -> float:
    """Operations a second of a 2048-cubed matrix product, the best of ten."""
    times = []
    if side == "PyTorch":
        import torch

        torch.set_num_threads(THREADS)
        a = torch.randn(PRODUCT, PRODUCT).to(getattr(torch, dtype))
        for _ in range(10):
            start = time.monotonic()
            a @ a
            times.append(time.monotonic() - start)
    else:
        import jax
        import jax.numpy as jnp

        a = jax.random.normal(jax.random.key(0), (PRODUCT, PRODUCT)).astype(dtype)
        product = jax.jit(lambda a: jnp.dot(a, a, preferred_element_type=jnp.float32))
        product(a).block_until_ready()
        for _ in range(10):
            start = time.monotonic()
            product(a).block_until_ready()
            times.append(time.monotonic() - start)
    return 2 * PRODUCT**3 / min(times)


def work(what: dict, folder: pathlib.Path) -> None:
    """The measuring process."""
    if "method" not in what:
        print(json.dumps({"rate": product_rate(**what)}))
        return
    case = Case(**what)
    found = (pytorch if case.side == "PyTorch" else ours)(case, folder)
    print(json.dumps(with_memory(found)))


def cases(quick: bool) -> list[Case]:
    """All cases; those to be compared stand side by side."""
    lengths = ((16, 4),) if quick else ((128, 16), (512, 32))
    small = {"batch_size": 2, "prompt_length": 4, "steps": 2, "tiny": True} if quick else {}
    return [
        Case(method, *length, side, dtype, **small)
        for method in ("prompt", "full")
        for length in lengths
        for dtype in DTYPES
        for side in SIDES
    ]


def row(case: Case, runs: list[dict], operations: float, peak: float, reference: float | None) -> dict[str, object]:
    """A line of the results; `reference` is the seconds a step of PyTorch in float32."""
    seconds = median_seconds(runs)
    return {
        "method": case.method,
        "tokens": f"{case.batch_size}x{case.input_length}/{case.target_length}",
        "side": case.side,
        "dtype": case.dtype,
        "seconds_per_step": round(seconds, 4),
        "to_pytorch_float32": "" if reference is None else round(seconds / reference, 3),
        "first_step_seconds": round(runs[0]["first"], 2),
        "first_step_again_seconds": first_again(runs),
        "peak_memory_gb": round(max(run["memory"] for run in runs) / 1e9, 2),
        "share_of_peak": round(operations / seconds / peak, 3),
        "loss": round(runs[0]["loss"], 5),
    }


def main() -> None:
    flags = arguments(__doc__, RESULTS, only="prompt-128-float32").parse_args()
    if flags.worker is not None:
        work(flags.worker, flags.folder)
        return
    chosen = [case for case in cases(flags.quick) if f"{case.method}-{case.input_length}-{case.dtype}".startswith(flags.only)]

    def said(case: Case, run: dict) -> str:
        name = f"{case.method} {case.input_length}/{case.target_length} {case.side} {case.dtype}"
        return f"{name}: {median_seconds([run]):.3f} s a step, loss {run['loss']:.5f}"

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_weights(chosen[0], folder)
        peak = {dtype: max(measure(MODULE, {"side": side, "dtype": dtype}, folder)["rate"] for side in SIDES) for dtype in DTYPES}
        runs = in_turns(MODULE, chosen, folder, rounds=1 if flags.quick else flags.rounds, said=said)
    rows = []
    for case in chosen:
        same = [other for other in chosen if (other.method, other.input_length) == (case.method, case.input_length)]
        operations = next(run["operations"] for other in same for run in runs[other] if "operations" in run)
        check_losses([runs[other][0]["loss"] for other in same if other.dtype == case.dtype], dtype=case.dtype, what=case.method)
        plain = [run for other in same if (other.side, other.dtype) == ("PyTorch", "float32") for run in runs[other]]
        rows.append(row(case, runs[case], operations, peak[case.dtype], median_seconds(plain) if plain else None))
    print(table(rows))
    rates = ", ".join(f"{dtype} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in peak.items())
    print(f"{platform.machine()}, {THREADS} threads; {PRODUCT}-cubed product at best: {rates}")
    output = flags.output or (None if flags.quick else RESULTS)
    if output is not None:
        keep([line | {"peak_gflops": round(peak[str(line["dtype"])] / 1e9)} for line in rows], output)


if __name__ == "__main__":
    main()
