"""Greedy generation of ours beside PyTorch + transformers + PEFT: the same weights, the same batch, the same two threads.

    python -m benchmarks.generate [--quick]

T5 v1.1 small with random weights writes 32 tokens for each of 16 inputs of 128 tokens, none of them padding and none an end token; with no
prompt, with one prompt of 100 vectors before all inputs, and with a prompt of its own for each row; in float32 and in bfloat16. PEFT has
no batches whose rows have prompts of their own: there PyTorch gets the prompts among the embedded inputs, put together by hand. Each
measurement is a process of its own, and those of the two sides take turns, round by round, so that a machine that slows down slows both.
Prints a table and writes `benchmarks/results/generate.csv`:

- seconds: of one batch, the median over all rounds, the first batch of each process left out;
- first: seconds from the start of the process to the end of its first batch, with imports, reading weights and compiling: in the first
  round, whose compilation cache is empty, and in later ones (median);
- peak memory: the largest resident set of the process;
- same tokens: the share of tokens that are those of PyTorch in float32. In float32 it must be all of them.

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

from benchmarks import models, train_step
from benchmarks.side_by_side import (
    DTYPES,
    SIDES,
    THREADS,
    arguments,
    first_again,
    in_turns,
    keep,
    median_seconds,
    since_started,
    table,
    with_memory,
)

MODULE = "benchmarks.generate"
RESULTS = pathlib.Path(__file__).parent / "results" / "generate.csv"


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: prompts ("none", "one" or "each", a row its own) by one side in one precision."""

    prompts: str
    side: str
    dtype: str
    batch_size: int = 16
    input_length: int = 128
    new_tokens: int = 32
    prompt_length: int = 100
    repeats: int = 5
    tiny: bool = False

    @property
    def weights(self) -> train_step.Case:
        """The case of the training benchmark that has the same model, inputs and first prompt."""
        return train_step.Case(
            "prompt",
            self.input_length,
            1,
            self.side,
            self.dtype,
            batch_size=self.batch_size,
            prompt_length=self.prompt_length,
            tiny=self.tiny,
        )

    def prompt_rows(self, folder: pathlib.Path) -> np.ndarray:
        """A prompt for each row of the batch [B, P, D]: the one in the folder, turned round by as many vectors as the row's number."""
        prompt_PD = np.load(folder / "prompt.npy")
        return np.stack([np.roll(prompt_PD, row if self.prompts == "each" else 0, axis=0) for row in range(self.batch_size)])


def ours(case: Case, folder: pathlib.Path) -> dict[str, Any]:
    """Batches of this package, as `prompt_tuning.infer` runs them."""
    from prompt_tuning import environment

    environment.settle()
    import jax
    from flax import nnx

    from prompt_tuning import assembly, decoding
    from prompt_tuning.data import features
    from prompt_tuning.data.vocabularies import Bytes
    from prompt_tuning.experiment import Experiment
    from prompt_tuning.methods.full import Full
    from prompt_tuning.methods.prompt import File, Prompt
    from prompt_tuning.optimizers import AdamW

    prompt = Prompt(length=case.prompt_length, initializer=File(str(folder / "prompt.npy")))
    experiment = Experiment(
        model=models.our_config("t5", case.weights.sizes, dtype=case.dtype, param_dtype=case.dtype),
        vocabulary=Bytes(),
        method=Full() if case.prompts == "none" else prompt,
        data=None,
        optimizer=AdamW(learning_rate=0.0),
        base_checkpoint=str(folder),
        input_length=case.input_length,
    )
    built = assembly.assemble(experiment)
    examples = [{"inputs": inputs, "targets": [features.EOS_ID]} for inputs in case.weights.batch()[0]]
    laid = features.layout(examples, input_length=case.input_length, target_length=1, prompt=experiment.method.layout)
    batch = {name: value for name, value in laid.items() if name.startswith("encoder_")}
    tuned, model_of = built.tuned, nnx.merge
    if case.prompts == "each":
        tuned, model_of = prompts_of_rows(built, case.prompt_rows(folder))

    @jax.jit
    def run(tuned: Any, frozen: Any, batch: Any) -> jax.Array:
        model = model_of(built.graphdef, tuned, frozen)
        return decoding.generate(model, batch, max_tokens=case.new_tokens, settings=decoding.Decoding(eos_ids=()))

    return timed(case, lambda: np.asarray(run(tuned, built.frozen, batch)))


def prompts_of_rows(built: Any, prompts_BPD: np.ndarray) -> tuple[Any, Any]:
    """What is tuned, with a prompt for each row, and what makes of it the model that runs row b with prompt b."""
    import jax.numpy as jnp

    from prompt_tuning import mixed_tasks, trainable

    (name,) = trainable.named(built.tuned)
    tuned = mixed_tasks.stacked([trainable.nested({name: jnp.asarray(prompt_PD)}) for prompt_PD in prompts_BPD])
    tasks_B = jnp.arange(len(prompts_BPD), dtype=jnp.int32)
    return tuned, lambda graphdef, tuned, frozen: mixed_tasks.MixedTasks(graphdef, tuned, frozen, tasks_B)


def pytorch(case: Case, folder: pathlib.Path) -> dict[str, Any]:
    """Batches of transformers, with PEFT for the one prompt."""
    import torch

    torch.set_num_threads(THREADS)
    model = models.their_model("t5", folder)
    model = model.to(getattr(torch, case.dtype)).eval()
    model.generation_config.eos_token_id = None
    tokens = torch.from_numpy(case.weights.batch()[0]).long()
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if case.prompts == "one":
        import peft

        wanted = peft.PromptTuningConfig(
            task_type=peft.TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=case.prompt_length, num_transformer_submodules=1
        )
        model = peft.get_peft_model(model, wanted)
        with torch.no_grad():
            model.prompt_encoder["default"].embedding.weight.copy_(torch.from_numpy(case.prompt_rows(folder)[0]))
    elif case.prompts == "each":
        with torch.no_grad():
            embedded = model.get_input_embeddings()(tokens)
        whole = torch.cat([torch.from_numpy(case.prompt_rows(folder)).to(embedded.dtype), embedded], dim=1)
        inputs = {"inputs_embeds": whole, "attention_mask": torch.ones(whole.shape[:2], dtype=torch.long)}

    def run() -> np.ndarray:
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=case.new_tokens, do_sample=False, num_beams=1, decoder_start_token_id=0)
        return made[:, 1:].numpy()

    return timed(case, run)


def timed(case: Case, run: Any) -> dict[str, Any]:
    """Seconds of the first batch since the process was asked for, of each later batch, and the tokens."""
    tokens_BT = run()
    first, times = since_started(), []
    assert tokens_BT.shape == (case.batch_size, case.new_tokens), tokens_BT.shape
    for _ in range(case.repeats):
        start = time.monotonic()
        run()
        times.append(time.monotonic() - start)
    return {"first": first, "seconds": times, "tokens": tokens_BT.tolist()}


def cases(quick: bool) -> list[Case]:
    """All cases; those to be compared stand side by side."""
    small = {"batch_size": 3, "input_length": 8, "new_tokens": 4, "prompt_length": 5, "repeats": 1, "tiny": True} if quick else {}
    return [Case(prompts, side, dtype, **small) for prompts in ("none", "one", "each") for dtype in DTYPES for side in SIDES]


def row(case: Case, runs: list[dict], reference: dict[str, Any] | None) -> dict[str, object]:
    """A line of the results; `reference` is the seconds and the tokens of PyTorch in float32."""
    seconds = median_seconds(runs, of="seconds")
    same = "" if reference is None else float(np.mean(np.array(runs[0]["tokens"]) == np.array(reference["tokens"])))
    return {
        "prompts": case.prompts,
        "tokens": f"{case.batch_size}x{case.input_length}+{case.new_tokens}",
        "side": case.side,
        "dtype": case.dtype,
        "seconds": round(seconds, 4),
        "to_pytorch_float32": "" if reference is None else round(seconds / reference["seconds"], 3),
        "tokens_per_second": round(case.batch_size * case.new_tokens / seconds, 1),
        "first_seconds": round(runs[0]["first"], 2),
        "first_again_seconds": first_again(runs),
        "peak_memory_gb": round(max(run["memory"] for run in runs) / 1e9, 2),
        "same_tokens": same,
    }


def main() -> None:
    parser = arguments(__doc__, RESULTS, only="one-float32")
    flags = parser.parse_args()
    if flags.worker is not None:
        case = Case(**flags.worker)
        print(json.dumps(with_memory((pytorch if case.side == "PyTorch" else ours)(case, flags.folder))))
        return
    chosen = [case for case in cases(flags.quick) if f"{case.prompts}-{case.dtype}".startswith(flags.only)]
    if not chosen:
        parser.error(
            f"--only={flags.only}: no case; wanted the beginning of {', '.join(f'{c.prompts}-{c.dtype}' for c in cases(True)[::2])}"
        )

    def said(case: Case, run: dict) -> str:
        return f"{case.prompts} {case.side} {case.dtype}: {median_seconds([run], of='seconds'):.3f} s a batch"

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        train_step.write_weights(chosen[0].weights, folder)
        runs = in_turns(MODULE, chosen, folder, rounds=1 if flags.quick else flags.rounds, said=said)
    rows = []
    for case in chosen:
        plain = next(
            (runs[other] for other in chosen if (other.prompts, other.side, other.dtype) == (case.prompts, "PyTorch", "float32")), None
        )
        reference = None if plain is None else {"seconds": median_seconds(plain, of="seconds"), "tokens": plain[0]["tokens"]}
        rows.append(row(case, runs[case], reference))
        if case.dtype == "float32" and rows[-1]["same_tokens"] not in (1.0, ""):
            raise SystemExit(f"the sides do not write the same: {case.prompts} {case.side}, {rows[-1]['same_tokens']:.3f} of the tokens")
    print(table(rows))
    print(f"{platform.machine()}, {THREADS} threads")
    output = flags.output or (None if flags.quick else RESULTS)
    if output is not None:
        keep(rows, output)


if __name__ == "__main__":
    main()
