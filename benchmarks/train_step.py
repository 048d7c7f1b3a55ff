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

import argparse
import dataclasses
import json
import math
import os
import pathlib
import platform
import resource
import statistics
import sys
import tempfile
import time

import numpy as np

from benchmarks.side_by_side import DTYPES, SIDES, STARTED, THREADS, keep, measure, table

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
    def sizes(self) -> dict[str, int]:
        """Of T5 v1.1 small, or of a model that only shows that everything runs."""
        if self.tiny:
            return {"d_model": 64, "d_ff": 128, "num_heads": 4, "d_kv": 16, "layers": 2, "vocab_size": 384}
        return {"d_model": 512, "d_ff": 1024, "num_heads": 6, "d_kv": 64, "layers": 8, "vocab_size": 32128}

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Input and target tokens."""
        rng = np.random.default_rng(0)
        high = self.sizes["vocab_size"]
        shapes = (self.batch_size, self.input_length), (self.batch_size, self.target_length)
        inputs, targets = (rng.integers(3, high, shape).astype(np.int32) for shape in shapes)
        return inputs, targets


def write_weights(case: Case, folder: pathlib.Path) -> None:
    """Random weights in Hugging Face's format, and the prompt's first values."""
    import safetensors.numpy

    s, rng = case.sizes, np.random.default_rng(0)
    inner = s["num_heads"] * s["d_kv"]
    state: dict[str, np.ndarray] = {}

    def draw(name: str, shape: tuple[int, ...], std: float) -> None:
        state[f"{name}.weight"] = (std * rng.standard_normal(shape)).astype(np.float32)

    def attention(name: str) -> None:
        draw(f"{name}.q", (inner, s["d_model"]), (s["d_model"] * s["d_kv"]) ** -0.5)
        for part in "kv":
            draw(f"{name}.{part}", (inner, s["d_model"]), s["d_model"] ** -0.5)
        draw(f"{name}.o", (s["d_model"], inner), inner**-0.5)

    draw("shared", (s["vocab_size"], s["d_model"]), 1.0)
    draw("lm_head", (s["vocab_size"], s["d_model"]), s["d_model"] ** -0.5)
    for stack, blocks in (("encoder", ("SelfAttention",)), ("decoder", ("SelfAttention", "EncDecAttention"))):
        for layer in range(s["layers"]):
            for number, block in enumerate((*blocks, "DenseReluDense")):
                place = f"{stack}.block.{layer}.layer.{number}"
                state[f"{place}.layer_norm.weight"] = np.ones(s["d_model"], np.float32)
                if block != "DenseReluDense":
                    attention(f"{place}.{block}")
                    continue
                for part in ("wi_0", "wi_1"):
                    draw(f"{place}.{block}.{part}", (s["d_ff"], s["d_model"]), s["d_model"] ** -0.5)
                draw(f"{place}.{block}.wo", (s["d_model"], s["d_ff"]), s["d_ff"] ** -0.5)
        draw(f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias", (32, s["num_heads"]), s["d_model"] ** -0.5)
        state[f"{stack}.final_layer_norm.weight"] = np.ones(s["d_model"], np.float32)
    safetensors.numpy.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "num_layers": s["layers"],
        "num_decoder_layers": s["layers"],
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
    }
    config |= {name: s[name] for name in ("d_model", "d_ff", "num_heads", "d_kv", "vocab_size")}
    (folder / "config.json").write_text(json.dumps(config))
    np.save(folder / "prompt.npy", rng.uniform(-0.5, 0.5, (case.prompt_length, s["d_model"])).astype(np.float32))


def ours(case: Case, folder: pathlib.Path) -> dict[str, float | list[float]]:
    """Steps of this package, as the train command takes them."""
    from prompt_tuning import environment

    environment.settle()
    import jax

    from prompt_tuning import assembly, training
    from prompt_tuning.data import features
    from prompt_tuning.data.vocabularies import Bytes
    from prompt_tuning.experiment import Experiment
    from prompt_tuning.methods.full import Full
    from prompt_tuning.methods.prompt import File, Prompt
    from prompt_tuning.models.t5 import T5Config
    from prompt_tuning.optimizers import Adafactor

    sizes = dict(case.sizes)
    layers = sizes.pop("layers")
    tunes_prompt = case.method == "prompt"
    half = case.dtype == "bfloat16"
    experiment = Experiment(
        # A frozen base may be held in bfloat16; weights that are trained stay in float32.
        model=T5Config(
            **sizes,
            num_encoder_layers=layers,
            num_decoder_layers=layers,
            dtype=case.dtype,
            param_dtype="bfloat16" if half and tunes_prompt else "float32",
        ),
        vocabulary=Bytes(),
        method=Prompt(length=case.prompt_length, initializer=File(str(folder / "prompt.npy"))) if tunes_prompt else Full(),
        data=None,
        optimizer=Adafactor(0.3, 1e-5) if tunes_prompt else Adafactor(1e-3, 0.0, multiply_by_parameter_scale=True),
        base_checkpoint=str(folder),
        batch_size=case.batch_size,
        input_length=case.input_length,
        target_length=case.target_length,
    )
    built = assembly.assemble(experiment)
    ready = training.trainer(experiment, built)
    examples = [{"inputs": inputs, "targets": targets} for inputs, targets in zip(*case.batch(), strict=True)]
    laid = features.layout(examples, input_length=case.input_length, target_length=case.target_length, prompt=experiment.method.layout)
    state, times = ready.state, []
    loss = math.nan
    for number in range(case.steps + 1):
        start = time.monotonic()
        state, metrics = ready.step(state, built.frozen, training.on_devices(laid, built.mesh))
        jax.block_until_ready((state, metrics))
        times.append(time.monotonic() - start)
        if number == 0:
            first, loss = time.monotonic() - float(os.environ[STARTED]), float(metrics["loss"])
    jaxpr = ready.step.trace(state, built.frozen, training.on_devices(laid, built.mesh)).jaxpr  # type: ignore[attr-defined]
    return {"first": first, "steps": times[1:], "loss": loss, "operations": float(_operations(jaxpr.jaxpr))}


def _operations(jaxpr) -> int:
    """Floating-point operations of the matrix products in a jaxpr, those of inner jaxprs times the number of their runs."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            width = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * width * math.prod(equation.outvars[0].aval.shape)
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    total += equation.params.get("length", 1) * _operations(inner)
    return total


def pytorch(case: Case, folder: pathlib.Path) -> dict[str, float | list[float]]:
    """Steps of transformers, with PEFT for the prompt."""
    import contextlib

    import safetensors.torch
    import torch
    import transformers
    from transformers.optimization import Adafactor

    torch.set_num_threads(THREADS)
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder, attn_implementation="sdpa")
    # transformers 5 ties the head of every T5 whatever its configuration says.
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(safetensors.torch.load_file(folder / "model.safetensors")["lm_head.weight"])
    settings = {"relative_step": False, "warmup_init": False}
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
    half = case.dtype == "bfloat16"
    times, first_loss = [], math.nan
    for number in range(case.steps + 1):
        start = time.monotonic()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
            loss = model(input_ids=inputs, attention_mask=mask, labels=targets).loss
        loss.backward()
        optimizer.step()
        times.append(time.monotonic() - start)
        if number == 0:
            first, first_loss = time.monotonic() - float(os.environ[STARTED]), loss.item()
    return {"first": first, "steps": times[1:], "loss": first_loss}


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
    print(json.dumps(found | {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


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
    seconds = statistics.median(second for run in runs for second in run["steps"])
    return {
        "method": case.method,
        "tokens": f"{case.batch_size}x{case.input_length}/{case.target_length}",
        "side": case.side,
        "dtype": case.dtype,
        "seconds_per_step": round(seconds, 4),
        "to_pytorch_float32": "" if reference is None else round(seconds / reference, 3),
        "first_step_seconds": round(runs[0]["first"], 2),
        "first_step_again_seconds": round(statistics.median(run["first"] for run in runs[1:]), 2) if runs[1:] else "",
        "peak_memory_gb": round(max(run["memory"] for run in runs) / 1e9, 2),
        "share_of_peak": round(operations / seconds / peak, 3),
        "loss": round(runs[0]["loss"], 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model, two steps, one round: shows that it runs, measures nothing")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each case (default 3)")
    parser.add_argument("--only", default="", help="only cases whose name, as prompt-128-float32, starts with this")
    parser.add_argument(
        "--output", type=pathlib.Path, default=None, help=f"CSV (default {RESULTS.parent.name}/{RESULTS.name}; none if quick)"
    )
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker is not None:
        work(flags.worker, flags.folder)
        return
    chosen = [case for case in cases(flags.quick) if f"{case.method}-{case.input_length}-{case.dtype}".startswith(flags.only)]
    rounds = 1 if flags.quick else flags.rounds
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_weights(chosen[0], folder)
        peak = {dtype: max(measure(MODULE, {"side": side, "dtype": dtype}, folder)["rate"] for side in SIDES) for dtype in DTYPES}
        runs: dict[Case, list[dict]] = {case: [] for case in chosen}
        for number in range(rounds):
            for case in chosen if number % 2 == 0 else reversed(chosen):
                runs[case].append(measure(MODULE, dataclasses.asdict(case), folder))
                last = runs[case][-1]
                line = f"round {number + 1}: {case.method} {case.input_length}/{case.target_length} {case.side} {case.dtype}"
                print(f"{line}: {statistics.median(last['steps']):.3f} s a step, loss {last['loss']:.5f}", file=sys.stderr, flush=True)
    rows = []
    for case in chosen:
        same = [other for other in chosen if (other.method, other.input_length) == (case.method, case.input_length)]
        operations = next(run["operations"] for other in same for run in runs[other] if "operations" in run)
        losses = [runs[other][0]["loss"] for other in same if other.dtype == case.dtype]
        tolerance = 1e-4 if case.dtype == "float32" else 2e-2
        if max(losses) - min(losses) > tolerance * max(losses):
            raise SystemExit(f"the sides do not compute the same: {case.method} {case.dtype} losses {losses}")
        plain = [
            second
            for other in same
            if (other.side, other.dtype) == ("PyTorch", "float32")
            for run in runs[other]
            for second in run["steps"]
        ]
        rows.append(row(case, runs[case], operations, peak[case.dtype], statistics.median(plain) if plain else None))
    print(table(rows))
    rates = ", ".join(f"{dtype} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in peak.items())
    print(f"{platform.machine()}, {THREADS} threads; {PRODUCT}-cubed product at best: {rates}")
    output = flags.output or (None if flags.quick else RESULTS)
    if output is not None:
        keep([line | {"peak_gflops": round(peak[str(line["dtype"])] / 1e9)} for line in rows], output)


if __name__ == "__main__":
    main()
