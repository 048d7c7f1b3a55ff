"""Large models on one NVIDIA GPU, a training step of ours beside PyTorch + transformers + PEFT: the same weights and the same batch.

    python -m benchmarks.gpu [--quick] [--rounds=2] [--only=t5_xl-prompt] [--unrolled] [--add]

T5 v1.1 large and XL, with a prompt of 100 vectors and with all weights trained, 32 examples of 512/64 tokens; and a model of Llama 2 7B's
shape, with a prompt and with LoRA, 8 rows of 1024 tokens of which the last 128 are targets. Random weights, no padding, all computed in
bfloat16: a frozen base is held in it, and weights that are trained in float32. T5's steps are Adafactor's, Llama's AdamW's. PyTorch gets
scaled-dot-product attention, a fused AdamW, and autocast where trained weights are float32; it is not compiled (`torch.compile`).

Layers are scanned, as is the default; `--unrolled` measures prompts with unrolled layers as well. Each measurement is a process of its own,
and those of the two sides take turns, round by round. The losses before the first update must agree, or the benchmark stops. Prints a table
and writes `benchmarks/results/gpu.csv`, anew after each model:

- seconds a step: the median over all rounds, the first two steps of each process left out; tokens a second: inputs and targets over that;
- share of peak: the operations of our step's matrix products and attention over the seconds and the best 8192-cubed bfloat16 product of
  either side, measured in the same run. Both sides are credited with the same operations, whatever more they do;
- memory: the GPU's peak;
- first step: seconds from the start of the process, with imports, reading weights and compiling: the first round, then later ones (median).

`--quick` takes tiny models and runs on a CPU too.
"""

import csv
import dataclasses
import json
import pathlib
import statistics
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.side_by_side import (
    SIDES,
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

MODULE = "benchmarks.gpu"
RESULTS = pathlib.Path(__file__).parent / "results" / "gpu.csv"
PRODUCT = 8192
_WARM = 2

_T5 = {"d_kv": 64, "layers": 24, "vocab_size": 32128}
_SIZES: dict[str, models.Sizes] = {
    "t5_large": _T5 | {"d_model": 1024, "d_ff": 2816, "num_heads": 16},
    "t5_xl": _T5 | {"d_model": 2048, "d_ff": 5120, "num_heads": 32},
    "llama_7b": {"d_model": 4096, "d_ff": 11008, "num_heads": 32, "d_kv": 128, "layers": 32, "vocab_size": 32000},
}
_METHODS = {"t5_large": ("prompt", "full"), "t5_xl": ("prompt", "full"), "llama_7b": ("prompt", "lora")}


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: one method on one model, by one side."""

    model: str
    method: str
    batch_size: int
    input_length: int
    target_length: int
    side: str
    device: str = "gpu"
    prompt_length: int = 100
    rank: int = 8
    unrolled: bool = False
    steps: int = 8
    tiny: bool = False

    @property
    def name(self) -> str:
        """As `--only` takes it."""
        return f"{self.model}-{self.method}"

    @property
    def kind(self) -> models.Kind:
        """The family."""
        return "llama" if self.model.startswith("llama") else "t5"

    @property
    def sizes(self) -> models.Sizes:
        """Of the model."""
        return models.sizes(self.kind, tiny=True) if self.tiny else _SIZES[self.model]

    @property
    def held(self) -> str:
        """The dtype in which both sides hold the base."""
        return "float32" if self.method == "full" else "bfloat16"

    def batch(self) -> list[np.ndarray]:
        """Input and target tokens."""
        return models.tokens(self.sizes, (self.batch_size, self.input_length), (self.batch_size, self.target_length))


def write_weights(kind: models.Kind, s: models.Sizes, folder: pathlib.Path) -> None:
    """Random weights in bfloat16, drawn where there is room and speed for billions of them."""
    import safetensors.torch
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    state = {}
    for name, (shape, std) in models.parameters(kind, s).items():
        value = torch.empty(shape, dtype=torch.bfloat16, device=device)
        state[name] = (value.normal_(0.0, std) if std else value.fill_(1.0)).cpu()
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(models.description(kind, s)))


def ours(case: Case, folder: pathlib.Path) -> dict[str, Any]:
    """Steps of this package."""
    from prompt_tuning import environment

    environment.settle()
    import jax

    from prompt_tuning.data.vocabularies import Bytes
    from prompt_tuning.experiment import Experiment
    from prompt_tuning.methods.full import Full
    from prompt_tuning.methods.lora import Lora
    from prompt_tuning.methods.prompt import File, Prompt
    from prompt_tuning.optimizers import Adafactor, AdamW

    methods = {
        "prompt": Prompt(length=case.prompt_length, initializer=File(str(folder / "prompt.npy"))),
        "full": Full(),
        "lora": Lora(rank=case.rank, alpha=2.0 * case.rank),
    }
    factored = Adafactor(0.3, 1e-5) if case.method == "prompt" else Adafactor(1e-3, 0.0, multiply_by_parameter_scale=True)
    config = models.our_config(case.kind, case.sizes, dtype="bfloat16", param_dtype=case.held)
    experiment = Experiment(
        model=dataclasses.replace(config, unroll_layers=case.unrolled),
        vocabulary=Bytes(),
        method=methods[case.method],
        data=None,
        optimizer=factored if case.kind == "t5" else AdamW(learning_rate=1e-4),
        base_checkpoint=str(folder / "base"),
        batch_size=case.batch_size,
        input_length=case.input_length,
        target_length=case.target_length,
    )
    examples = [{"inputs": inputs, "targets": targets} for inputs, targets in zip(*case.batch(), strict=True)]
    return our_steps(experiment, examples, steps=case.steps) | {"hardware": jax.local_devices()[0].device_kind}


def pytorch(case: Case, folder: pathlib.Path) -> dict[str, Any]:
    """Steps of transformers with PEFT."""
    import torch
    from transformers.optimization import Adafactor

    model = models.their_model(case.kind, folder / "base").to(getattr(torch, case.held))
    model.config.use_cache = False
    if case.method != "full":
        import peft

        task_type = peft.TaskType.SEQ_2_SEQ_LM if case.kind == "t5" else peft.TaskType.CAUSAL_LM
        if case.method == "lora":
            wanted = peft.LoraConfig(task_type=task_type, r=case.rank, lora_alpha=2 * case.rank, target_modules=["q_proj", "v_proj"])
        else:
            wanted = peft.PromptTuningConfig(task_type=task_type, num_virtual_tokens=case.prompt_length, num_transformer_submodules=1)
        model = peft.get_peft_model(model, wanted)
        if case.method == "prompt":
            with torch.no_grad():
                model.prompt_encoder["default"].embedding.weight.copy_(torch.from_numpy(np.load(folder / "prompt.npy")))
    device = "cuda" if case.device == "gpu" else "cpu"
    model = model.to(device).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if case.kind == "llama":
        optimizer: Any = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=True)
    else:
        prompts = {"lr": 0.3, "scale_parameter": False, "weight_decay": 1e-5}
        settings = prompts if case.method == "prompt" else {"lr": 1e-3, "scale_parameter": True}
        optimizer = Adafactor(trained, relative_step=False, warmup_init=False, **settings)
    inputs, targets = (torch.from_numpy(tokens).long().to(device) for tokens in case.batch())

    def loss_of() -> Any:
        if case.kind == "t5":
            shifted = torch.nn.functional.pad(targets[:, :-1], (1, 0))
            logits = model(input_ids=inputs, attention_mask=torch.ones_like(inputs), decoder_input_ids=shifted).logits
        else:
            logits = model(input_ids=models.their_row(inputs, targets), logits_to_keep=case.target_length).logits
        # In bfloat16, as `labels` would have it over such a base, the loss has three digits.
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    # A prompt over a base in bfloat16 needs no autocast, which would only add casts.
    dtype = "float32" if case.method == "prompt" else "bfloat16"
    found = their_steps(loss_of, optimizer, steps=case.steps, dtype=dtype, device=case.device)
    return found | {"hardware": torch.cuda.get_device_name() if device == "cuda" else "cpu"}


def product_rate(side: str, *, size: int, device: str) -> float:
    """Operations a second of a cubed bfloat16 product of random matrices, the median of twenty."""
    if side == "PyTorch":
        import torch

        place = "cuda" if device == "gpu" else "cpu"
        a = torch.randn(size, size, device=place).to(torch.bfloat16)

        def multiply() -> None:
            a @ a
            if device == "gpu":
                torch.cuda.synchronize()
    else:
        import jax

        b = jax.random.normal(jax.random.key(0), (size, size)).astype("bfloat16")
        product = jax.jit(lambda b: b @ b)

        def multiply() -> None:
            product(b).block_until_ready()

    times = []
    for _ in range(23):
        start = time.monotonic()
        multiply()
        times.append(time.monotonic() - start)
    return 2 * size**3 / statistics.median(times[3:])


def cases(*, quick: bool, unrolled: bool = False) -> list[Case]:
    """All cases; those to be compared stand side by side."""
    small: dict[str, Any] = {"device": "cpu", "prompt_length": 4, "rank": 2, "steps": 3, "tiny": True} if quick else {}
    shapes = {"t5": (32, 512, 64), "llama": (8, 896, 128)} if not quick else {"t5": (2, 16, 4), "llama": (2, 12, 4)}
    found = []
    for model, methods in _METHODS.items():
        for method in methods:
            both = [Case(model, method, *shapes["llama" if model.startswith("llama") else "t5"], side, **small) for side in SIDES]
            found += both + ([dataclasses.replace(both[0], unrolled=True)] if unrolled and method == "prompt" else [])
    return found


def row(case: Case, runs: list[dict], *, operations: float, peak: float, reference: float) -> dict[str, object]:
    """A line of the results; `reference` is the seconds a step of PyTorch."""
    seconds = _seconds(runs)
    return {
        "model": case.model,
        "method": case.method,
        "tokens": f"{case.batch_size}x{case.input_length}/{case.target_length}",
        "side": case.side,
        "layers": "" if case.side == "PyTorch" else "unrolled" if case.unrolled else "scanned",
        "seconds_per_step": f"{seconds:.4g}",
        "to_pytorch": round(seconds / reference, 3),
        "tokens_per_second": round(case.batch_size * (case.input_length + case.target_length) / seconds),
        "share_of_peak": round(operations / seconds / peak, 3),
        "peak_tflops": round(peak / 1e12),
        "memory_gb": round(max(run["memory"] for run in runs) / 1e9, 2),
        "trained": runs[0]["trained"],
        "first_step_seconds": round(runs[0]["first"], 1),
        "first_step_again_seconds": first_again(runs),
        "loss": round(runs[0]["loss"], 4),
        "hardware": runs[0]["hardware"],
    }


def _seconds(runs: list[dict]) -> float:
    return median_seconds([run | {"steps": run["steps"][_WARM - 1 :]} for run in runs])


def main() -> None:
    parser = arguments(__doc__, RESULTS, only="t5_xl-prompt")
    parser.add_argument("--unrolled", action="store_true", help="prompts with unrolled layers too, which take minutes to compile")
    parser.add_argument("--add", action="store_true", help="keep what the CSV holds of other cases")
    flags = parser.parse_args()
    if flags.worker is not None:
        if "method" not in flags.worker:
            print(json.dumps({"rate": product_rate(**flags.worker)}))
            return
        case = Case(**flags.worker)
        print(json.dumps(with_memory((pytorch if case.side == "PyTorch" else ours)(case, flags.folder / case.model))))
        return
    chosen = [case for case in cases(quick=flags.quick, unrolled=flags.unrolled) if case.name.startswith(flags.only)]
    if not chosen:
        parser.error(f"--only={flags.only}: no case; wanted the beginning of a name such as t5_xl-prompt")

    def said(case: Case, run: dict) -> str:
        found = f"{_seconds([run]):.4g} s a step, {run['memory'] / 1e9:.1f} GB, loss {run['loss']:.4f}"
        return f"{case.name} {case.side}{' unrolled' if case.unrolled else ''}: {found}"

    output = flags.output or (None if flags.quick else RESULTS)
    rows: list[dict[str, object]] = []
    if flags.add and output is not None and output.exists():
        with open(output, newline="", encoding="utf-8") as file:
            again = {(case.model, case.method) for case in chosen}
            rows = [line for line in csv.DictReader(file) if (line["model"], line["method"]) not in again]
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        product = {"size": 256 if flags.quick else PRODUCT, "device": chosen[0].device}
        peak = max(measure(MODULE, product | {"side": side}, folder)["rate"] for side in SIDES)
        for model in dict.fromkeys(case.model for case in chosen):
            same = [case for case in chosen if case.model == model]
            rng, first = np.random.default_rng(0), same[0]
            (folder / model).mkdir()
            write_weights(first.kind, first.sizes, folder / model / "base")
            prompt = rng.uniform(-0.5, 0.5, (first.prompt_length, first.sizes["d_model"])).astype(np.float32)
            np.save(folder / model / "prompt.npy", prompt)
            runs = in_turns(MODULE, same, folder, rounds=1 if flags.quick else flags.rounds, said=said)
            for method in dict.fromkeys(case.method for case in same):
                compared = [case for case in same if case.method == method]
                check_losses([runs[case][0]["loss"] for case in compared], dtype="bfloat16", device=first.device, what=compared[0].name)
                counted, reference = runs[compared[0]][0]["operations"], _seconds(runs[compared[1]])
                rows += [row(case, runs[case], operations=counted, peak=peak, reference=reference) for case in compared]
            (folder / model / "base" / "model.safetensors").unlink()
            if output is not None:
                keep(rows, output)
    print(table(rows))


if __name__ == "__main__":
    main()
