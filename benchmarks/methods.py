"""A training step of every method that PEFT has too, ours beside theirs: the same weights, the same batch, the same optimizer.

    python -m benchmarks.methods [--quick] [--device=gpu] [--dtype=bfloat16] [--only=t5-128-lora]

T5 v1.1 small (77M parameters; 16 examples of 128/16 and of 512/32 tokens) and a model of Llama's shape (106M; 16 rows of 128 and of 512
tokens, of which the last 16 and 32 are targets), with random weights and no padding; AdamW. Prompts have 100 vectors, prefixes and P-tuning
20, everything of low rank has rank 8 on queries and values. `full` is model tuning, plain PyTorch there. What a method begins from at
random is the same on both sides, and the losses before the first update must agree, or the benchmark stops.

Each measurement is a process of its own, and those of the two sides take turns, round by round. On a CPU a process has two threads; PyTorch
gets scaled-dot-product attention, a fused optimizer and the allocator settings that help it most. On a GPU, float32 products are
TensorFloat-32 on both sides. In bfloat16 a frozen base is held in it, and PyTorch computes under autocast. Prints a table and writes
`benchmarks/results/methods.csv` (`methods_gpu.csv`), a line a method:

- seconds a step: the median over all rounds, the first step of each process left out;
- memory: the largest resident set of the process, or the GPU's peak;
- trained: the numbers that are trained. P-tuning's LSTM has one more bias a gate in PyTorch, a redundant one;
- first step: seconds from the start of the process to the end of its first step, with imports, reading weights, PiSSA's decomposition and
  compiling: in the first round, whose compilation cache is empty, and in later ones (median).

The geometric means of the ratios are over all methods that compute the same thing. Prefix tuning of a T5 does not: PEFT prefixes the
decoder's self-attention alone, in which ours is measured as well, but its prefix takes relative positions before the sequence, where ours
has none, and its layer i takes the prefix of layer 2 i, so that half of what is trained is used. PEFT must be told `token_dim` 384, the
width of all heads.

Run it while nothing else does: PyTorch slows down tenfold on shared cores.
"""

import csv
import dataclasses
import json
import pathlib
import platform
import statistics
import tempfile
import zlib
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.side_by_side import (
    DEVICES,
    DTYPES,
    SIDES,
    THREADS,
    arguments,
    check_losses,
    first_again,
    in_turns,
    keep,
    median_seconds,
    our_steps,
    table,
    their_steps,
    with_memory,
)

MODULE = "benchmarks.methods"
RESULTS = pathlib.Path(__file__).parent / "results" / "methods.csv"
METHODS = ("full", "prompt", "p_tuning", "mpt", "prefix", "lora", "rslora", "dora", "pissa", "ia3")
MEAN = "geometric mean"
RATE = 1e-4
# What these train begins at random values that change what the model says.
_STARTED = ("prompt", "p_tuning", "mpt", "prefix")
_LOW_RANK = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}, "pissa": {"init_lora_weights": "pissa"}}


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: one method on one model at one length, by one side, in one precision, on a device."""

    model: models.Kind
    method: str
    length: int
    target_length: int
    side: str
    dtype: str = "float32"
    device: str = "cpu"
    batch_size: int = 16
    prompt_length: int = 100
    prefix_length: int = 20
    rank: int = 8
    tasks: int = 4
    steps: int = 6
    tiny: bool = False

    @property
    def name(self) -> str:
        """As `--only` takes it."""
        return f"{self.model}-{self.length}-{self.method}"

    @property
    def sizes(self) -> models.Sizes:
        """Of the model."""
        return models.sizes(self.model, tiny=self.tiny)

    @property
    def input_length(self) -> int:
        """Tokens before the targets; in a decoder-only model both are one sequence."""
        return self.length if self.model == "t5" else self.length - self.target_length

    @property
    def same_function(self) -> bool:
        """Whether both sides compute the same."""
        return (self.model, self.method) != ("t5", "prefix")

    def batch(self) -> list[np.ndarray]:
        """Input and target tokens."""
        return models.tokens(self.sizes, (self.batch_size, self.input_length), (self.batch_size, self.target_length))


def first_values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """What both sides begin from, by our name of the parameter: uniform; small in networks, lest their outputs be huge."""
    bound = 0.5 if name.rpartition("/")[2] in ("rows", "inputs", "shared", "left", "right", "keys", "values") else 0.05
    return np.random.default_rng(zlib.crc32(name.encode())).uniform(-bound, bound, shape).astype(np.float32)


def our_method(case: Case) -> Any:
    """The method as this package has it."""
    from prompt_tuning.methods.dora import Dora
    from prompt_tuning.methods.full import Full
    from prompt_tuning.methods.ia3 import IA3
    from prompt_tuning.methods.lora import Lora
    from prompt_tuning.methods.mpt import MPT
    from prompt_tuning.methods.p_tuning import PTuning
    from prompt_tuning.methods.pissa import Pissa
    from prompt_tuning.methods.prefix import Prefix
    from prompt_tuning.methods.prompt import Prompt, Uniform

    match case.method:
        case "full":
            return Full()
        case "prompt":
            return Prompt(length=case.prompt_length, initializer=Uniform())
        case "p_tuning":
            return PTuning(length=case.prefix_length, initializer=Uniform())
        case "mpt":
            return MPT(length=case.prompt_length, initializer=Uniform(), tasks=case.tasks)
        case "prefix":
            return Prefix(length=case.prefix_length, targets=("decoder/.*self_attention/attention",), hidden=None)
        case "ia3":
            return IA3()
    kind = {"dora": Dora, "pissa": Pissa}.get(case.method, Lora)
    return kind(rank=case.rank, alpha=2.0 * case.rank, rank_stabilized=case.method == "rslora")


def ours(case: Case, folder: pathlib.Path) -> dict[str, Any]:
    """Steps of this package."""
    from prompt_tuning import environment

    environment.settle()
    import jax

    from prompt_tuning.data.vocabularies import Bytes
    from prompt_tuning.experiment import Experiment
    from prompt_tuning.optimizers import AdamW

    # A frozen base may be held in bfloat16; weights that are trained stay in float32.
    held = "float32" if case.method == "full" else case.dtype
    experiment = Experiment(
        model=models.our_config(case.model, case.sizes, dtype=case.dtype, param_dtype=held),
        vocabulary=Bytes(),
        method=our_method(case),
        data=None,
        optimizer=AdamW(learning_rate=RATE),
        base_checkpoint=str(folder / case.model),
        batch_size=case.batch_size,
        input_length=case.input_length,
        target_length=case.target_length,
    )
    examples = [
        {"inputs": inputs, "targets": targets, "task": row % case.tasks}
        for row, (inputs, targets) in enumerate(zip(*case.batch(), strict=True))
    ]
    found = our_steps(experiment, examples, steps=case.steps, started=first_values if case.method in _STARTED else None)
    return found | {"hardware": jax.local_devices()[0].device_kind}


def their_config(case: Case) -> Any:
    """The method as PEFT has it."""
    import peft

    decoder = case.model == "llama"
    task_type = peft.TaskType.CAUSAL_LM if decoder else peft.TaskType.SEQ_2_SEQ_LM
    prompts: dict[str, Any] = {"task_type": task_type, "num_transformer_submodules": 1}
    match case.method:
        case "prompt":
            return peft.PromptTuningConfig(num_virtual_tokens=case.prompt_length, **prompts)
        case "p_tuning":
            return peft.PromptEncoderConfig(num_virtual_tokens=case.prefix_length, encoder_reparameterization_type="LSTM", **prompts)
        case "mpt":
            return peft.MultitaskPromptTuningConfig(
                num_virtual_tokens=case.prompt_length, num_tasks=case.tasks, num_ranks=1, token_dim=case.sizes["d_model"], **prompts
            )
        case "prefix":
            heads = case.sizes["num_heads"]
            return peft.PrefixTuningConfig(
                task_type=task_type,
                num_virtual_tokens=case.prefix_length,
                num_layers=case.sizes["layers"],
                num_attention_heads=heads,
                token_dim=heads * case.sizes["d_kv"],
            )
        case "ia3":
            keys, values, last = ("k_proj", "v_proj", "down_proj") if decoder else ("k", "v", "wo")
            return peft.IA3Config(task_type=task_type, target_modules=[keys, values, last], feedforward_modules=[last])
    return peft.LoraConfig(
        task_type=task_type,
        r=case.rank,
        lora_alpha=2 * case.rank,
        target_modules=["q_proj", "v_proj"] if decoder else ["q", "v"],
        **_LOW_RANK[case.method],
    )


def start_theirs(case: Case, encoder: Any) -> None:
    """Gives the module that makes PEFT's prompt or prefix the values that ours begins from."""
    import torch

    def put(parameter: Any, value: np.ndarray) -> None:
        assert parameter.shape == value.shape, (parameter.shape, value.shape)
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def drawn(name: str, like: Any) -> np.ndarray:
        return first_values(f"embed/prompt/{name}", tuple(like.shape))

    with torch.no_grad():
        if case.method == "prefix":
            s = case.sizes
            shape = (s["layers"], s["num_heads"], case.prefix_length, s["d_kv"])
            place = "decoder/layers/self_attention/attention/prefix"
            both = np.stack([first_values(f"{place}/{part}", shape) for part in ("keys", "values")])
            put(encoder.embedding.weight, both.transpose(3, 1, 0, 2, 4).reshape(case.prefix_length, -1))
            return
        rows = {"prompt": "rows", "p_tuning": "inputs", "mpt": "shared"}[case.method]
        put(encoder.embedding.weight, drawn(rows, encoder.embedding.weight))
        if case.method == "mpt":
            for ours, theirs in (("left", encoder.prefix_task_cols), ("right", encoder.prefix_task_rows)):
                put(theirs, drawn(ours, theirs))
        if case.method == "p_tuning":
            for layer in range(encoder.lstm_head.num_layers):
                for suffix, direction in (("", "forward"), ("_reverse", "backward")):
                    for part, name in (("weight_ih", "wi"), ("weight_hh", "wh"), ("bias_ih", "bias")):
                        parameter = getattr(encoder.lstm_head, f"{part}_l{layer}{suffix}")
                        put(parameter, drawn(f"{direction}/layer_{layer}/{name}", parameter.T).T)
                    getattr(encoder.lstm_head, f"bias_hh_l{layer}{suffix}").zero_()
            for number, linear in enumerate(each for each in encoder.mlp_head if isinstance(each, torch.nn.Linear)):
                put(linear.weight, drawn(f"linear/layer_{number}/kernel", linear.weight.T).T)
                put(linear.bias, drawn(f"linear/layer_{number}/bias", linear.bias))


def pytorch(case: Case, folder: pathlib.Path) -> dict[str, Any]:
    """Steps of transformers with PEFT."""
    import torch

    on_gpu = case.device == "gpu"
    if on_gpu:
        torch.set_float32_matmul_precision("high")
    else:
        torch.set_num_threads(THREADS)
    model = models.their_model(case.model, folder / case.model)
    model.config.use_cache = False
    if case.method != "full":
        import peft

        model = peft.get_peft_model(model.to(getattr(torch, case.dtype)), their_config(case))
        if case.method in _STARTED and case.same_function:
            start_theirs(case, model.prompt_encoder["default"])
    device = "cuda" if on_gpu else "cpu"
    model = model.to(device).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)
    inputs, targets = (torch.from_numpy(tokens).long() for tokens in case.batch())
    more = {"task_ids": torch.arange(case.batch_size, device=device) % case.tasks} if case.method == "mpt" else {}

    def loss_of() -> Any:
        given, wanted = inputs.to(device), targets.to(device)
        if case.model == "t5":
            return model(input_ids=given, attention_mask=torch.ones_like(given), labels=wanted, **more).loss
        whole = models.their_row(given, wanted)
        logits = model(input_ids=whole, logits_to_keep=case.target_length, **more).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten())

    found = their_steps(loss_of, optimizer, steps=case.steps, dtype=case.dtype, device=case.device)
    return found | {"hardware": torch.cuda.get_device_name() if on_gpu else "cpu"}


def cases(*, quick: bool, device: str, dtype: str) -> list[Case]:
    """All cases; those to be compared stand side by side."""
    lengths = ((24, 4),) if quick else ((128, 16), (512, 32))
    small: dict[str, Any] = {"batch_size": 6, "prompt_length": 5, "prefix_length": 3, "rank": 2, "steps": 2, "tiny": True}
    settings = small if quick else {"steps": 6 if device == "cpu" else 30}
    kinds: tuple[models.Kind, ...] = ("t5", "llama")
    return [
        Case(kind, method, *length, side, dtype, device, **settings)
        for kind in kinds
        for length in lengths
        for method in METHODS
        for side in SIDES
    ]


def row(case: Case, our_runs: list[dict], their_runs: list[dict]) -> dict[str, object]:
    """A line of the results."""
    sides = {"our": our_runs, "their": their_runs}
    seconds = {side: median_seconds(runs) for side, runs in sides.items()}
    memory = {side: max(run["memory"] for run in runs) for side, runs in sides.items()}
    return {
        "model": case.model,
        "tokens": f"{case.batch_size}x{case.length}",
        "method": case.method,
        "dtype": case.dtype,
        **{f"{side}_seconds": f"{each:.4g}" for side, each in seconds.items()},
        "seconds_ratio": round(seconds["our"] / seconds["their"], 3),
        **{f"{side}_memory_gb": round(each / 1e9, 3) for side, each in memory.items()},
        "memory_ratio": round(memory["our"] / memory["their"], 3),
        **{f"{side}_trained": runs[0]["trained"] for side, runs in sides.items()},
        **{f"{side}_first": round(runs[0]["first"], 2) for side, runs in sides.items()},
        **{f"{side}_first_again": first_again(runs) for side, runs in sides.items()},
        **{f"{side}_loss": round(runs[0]["loss"], 5) for side, runs in sides.items()},
        "same_function": case.same_function,
        "hardware": our_runs[0]["hardware"],
    }


def mean(rows: list[dict[str, object]]) -> dict[str, object]:
    """The line of the geometric means of the ratios, over the rows whose sides compute the same."""
    counted = [line for line in rows if str(line["same_function"]) == "True"]

    def over(column: str) -> object:
        return round(statistics.geometric_mean(float(str(line[column])) for line in counted), 3) if counted else ""

    ratios = {column: over(column) for column in ("seconds_ratio", "memory_ratio")}
    return dict.fromkeys(rows[0], "") | {"method": MEAN} | ratios


def joined(old: list[dict[str, object]], new: list[dict[str, object]]) -> list[dict[str, object]]:
    """Rows of earlier measurements, but for those that were measured again, then the new ones."""

    def measured(line: dict[str, object]) -> list[object]:
        return [line[name] for name in ("model", "tokens", "method", "dtype")]

    again = [measured(line) for line in new]
    return [line for line in old if line["method"] != MEAN and measured(line) not in again] + new


def main() -> None:
    parser = arguments(__doc__, RESULTS, only="t5-128-lora")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="an NVIDIA GPU, or the CPU with two threads (default)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the activations (default float32)")
    parser.add_argument("--add", action="store_true", help="keep what the CSV holds of other cases; the means are then over all")
    flags = parser.parse_args()
    if flags.worker is not None:
        case = Case(**flags.worker)
        print(json.dumps(with_memory((pytorch if case.side == "PyTorch" else ours)(case, flags.folder))))
        return
    chosen = [case for case in cases(quick=flags.quick, device=flags.device, dtype=flags.dtype) if case.name.startswith(flags.only)]
    if not chosen:
        parser.error(f"--only={flags.only}: no case; wanted the beginning of a name such as t5-128-lora or llama-512-prefix")

    def said(case: Case, run: dict) -> str:
        return f"{case.name} {case.side} {case.dtype}: {median_seconds([run]):.4g} s a step, loss {run['loss']:.5f}"

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for kind in dict.fromkeys(case.model for case in chosen):
            models.write(kind, models.sizes(kind, tiny=flags.quick), folder / kind)
        runs = in_turns(MODULE, chosen, folder, rounds=1 if flags.quick else flags.rounds, said=said)
    rows: list[dict[str, object]] = []
    for our_case, their_case in zip(chosen[::2], chosen[1::2], strict=True):
        if our_case.same_function:
            losses = [runs[case][0]["loss"] for case in (our_case, their_case)]
            check_losses(losses, dtype=flags.dtype, device=flags.device, what=our_case.name)
        rows.append(row(our_case, runs[our_case], runs[their_case]))
    named = RESULTS if flags.device == "cpu" else RESULTS.with_stem("methods_gpu")
    output = flags.output or (None if flags.quick else named)
    if flags.add and output is not None and output.exists():
        with open(output, newline="", encoding="utf-8") as file:
            rows = joined(list(csv.DictReader(file)), rows)
    rows.append(mean(rows))
    print(table(rows))
    print(f"{platform.machine()}, {rows[0]['hardware']}" + (f", {THREADS} threads" if flags.device == "cpu" else ""))
    if output is not None:
        keep(rows, output)


if __name__ == "__main__":
    main()
