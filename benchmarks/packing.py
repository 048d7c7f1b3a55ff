"""Prompt tuning on a mixture of short examples: ours packed, each example with its own copy of the prompt, beside PEFT's padded batches.

    python -m benchmarks.packing [--quick] [--data=DIR] [--rounds=1] [--only=20-packed]

T5 v1.1 small with random weights, float32, AdamW, a prompt of 20 or of 100 vectors. With --data the examples are real: SST-2, TREC, RTE, CB
and COPA in equal parts, from `text_classification/{sst2,trec}/train.txt` and `superglue/{RTE,CB,COPA}/train.json` under DIR, and the 32k
vocabulary `t5x_prompt_tuning/test_data/t5_vocab`; without, tasks of the bundled world. Inputs are cut to 256 tokens. The ways:

- packed: ours, 16 rows of 256 tokens (and of one prompt's length), as many examples as fit;
- bucketed: ours, 16 examples of similar length (`data/length_buckets.py`), padded to 256, 128, 64 or 32 tokens: the mean over a window;
- padded: ours, 16 examples, each padded to the longest of the mixture;
- longest: PEFT, 16 examples, each padded to the longest of the mixture;
- batch: PEFT, 16 examples, each padded to the longest of its batch: another length each time, the mean over six batches.

Examples a second is the number of examples in the batches over the seconds of their steps. The loss of the packed examples before the first
update, computed by PEFT as well, must agree, or the benchmark stops. Each measurement is a process of its own with two threads; the sides
take turns. Prints a table and writes `benchmarks/results/packing.csv`. Run it while nothing else does.
"""

import dataclasses
import itertools
import json
import pathlib
import random
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.methods import first_values
from benchmarks.side_by_side import THREADS, arguments, check_losses, in_turns, keep, our_steps, table, their_steps, with_memory

MODULE = "benchmarks.packing"
RESULTS = pathlib.Path(__file__).parent / "results" / "packing.csv"
WAYS = ("packed", "bucketed", "padded", "longest", "batch")
OURS = ("packed", "bucketed", "padded")
BUCKETS = 4
RATE = 1e-4
BATCHES = 6
# A choice of the world's tasks for which no data need be at hand: short ones and stories.
WORLD = ("sentiment_review", "arithmetic_more", "inference_entailment", "story_title", "word_reverse")

Example = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: one way to lay out the examples, at one length of the prompt."""

    way: str
    prompt_length: int
    data: str
    rows: int = 16
    input_length: int = 256
    target_length: int = 64
    steps: int = 4
    tiny: bool = False

    @property
    def name(self) -> str:
        """As `--only` takes it."""
        return f"{self.prompt_length}-{self.way}"

    @property
    def side(self) -> str:
        """Whose process it is."""
        return "prompt_tuning" if self.way in OURS else "PyTorch"

    @property
    def sizes(self) -> models.Sizes:
        """Of the model."""
        return models.sizes("t5", tiny=self.tiny)


def real_texts(data: pathlib.Path) -> list[list[tuple[str, str]]]:
    """Inputs and targets of each task, as a prompt is trained on them: no instruction, the label's name as target."""
    tasks = []
    for name, encoding in (("sst2", "utf-8"), ("trec", "latin-1")):
        lines = (data / "text_classification" / name / "train.txt").read_text(encoding=encoding).splitlines()
        tasks.append([(text, label) for label, _, text in (line.partition(" ") for line in lines)])
    for name in ("RTE", "CB", "COPA"):
        rows = json.loads((data / "superglue" / name / "train.json").read_text(encoding="utf-8"))
        tasks.append([(row["sentence"], row["label"]) for row in rows])
    return tasks


def examples_of(case: Case) -> Iterator[dict[str, Any]]:
    """Endless examples, a task after the other, rows of a task in a drawn order: the same in every process."""
    from prompt_tuning.data.vocabularies import SentencePiece

    if case.data:
        tasks = real_texts(pathlib.Path(case.data))
        vocabulary = SentencePiece(str(pathlib.Path(case.data) / "t5x_prompt_tuning" / "test_data" / "t5_vocab")).load()
    else:
        from prompt_tuning.data.tasks.world import World, text_rows

        settings = World(task_list=WORLD, num_train=400)
        tasks = [[(row.inputs, row.targets) for row in text_rows(task, settings, "train")] for task in settings.world_tasks()]
        vocabulary = SentencePiece("bundled:world.model").load()
    for task in tasks:
        random.Random(0).shuffle(task)
    for each in zip(*map(itertools.cycle, tasks), strict=True):
        for inputs, targets in each:
            tokens = {"inputs": vocabulary.encode(inputs), "targets": vocabulary.encode(targets)}
            # A tiny model has few embeddings.
            known = {name: [3 + number % (case.sizes["vocab_size"] - 3) for number in ids] for name, ids in tokens.items()}
            yield {
                "inputs": np.array([*known["inputs"][: case.input_length - 1], 1], np.int32),
                "targets": np.array([*known["targets"][: case.target_length - 1], 1], np.int32),
            }


def packed_rows(case: Case) -> list[list[Any]]:
    """The examples of the rows of one packed batch. The first rows out are the fullest: they are those after the first batch."""
    from prompt_tuning.data import features
    from prompt_tuning.methods.prompt import Prompt, Uniform

    layout = Prompt(length=case.prompt_length, initializer=Uniform()).layout
    rows = features.pack(examples_of(case), prompt=layout, input_length=case.input_length, target_length=case.target_length)
    return list(itertools.islice(rows, case.rows, 2 * case.rows))


def padded_batches(case: Case) -> list[list[dict[str, Any]]]:
    """Examples of successive batches of 16."""
    stream = examples_of(case)
    return [list(itertools.islice(stream, case.rows)) for _ in range(BATCHES)]


def bucketed_batches(case: Case) -> list[tuple[int, list[Any]]]:
    """The bucket and the examples of each batch of the first window."""
    from prompt_tuning.data import features, length_buckets

    found = length_buckets.batches(
        examples_of(case),
        start_step=0,
        batch_size=case.rows,
        seed=0,
        buckets=BUCKETS,
        input_length=case.input_length,
        target_length=case.target_length,
        prompt=features.PromptLayout(case.prompt_length),
    )
    return [(bucket, list(examples)) for bucket, examples in itertools.islice(found, length_buckets.WINDOW_BATCHES)]


def ours(case: Case, folder: pathlib.Path) -> dict[str, Any]:
    """Steps of this package."""
    from prompt_tuning import environment

    environment.settle()
    from prompt_tuning.data import features, length_buckets
    from prompt_tuning.data.vocabularies import Bytes
    from prompt_tuning.experiment import Experiment
    from prompt_tuning.methods.prompt import Prompt, Uniform
    from prompt_tuning.optimizers import AdamW

    method = Prompt(length=case.prompt_length, initializer=Uniform())
    whole = {"input_length": case.input_length, "target_length": case.target_length}

    def steps_on(rows: list[list[Any]], lengths: Mapping[str, int]) -> dict[str, Any]:
        experiment = Experiment(
            model=models.our_config("t5", case.sizes, dtype="float32", param_dtype="float32"),
            vocabulary=Bytes(),
            method=method,
            data=None,
            optimizer=AdamW(learning_rate=RATE),
            base_checkpoint=str(folder / "t5"),
            batch_size=case.rows,
            **lengths,
        )
        batch = features.layout_rows(rows, prompt=method.layout, packed=case.way == "packed", **lengths)
        found = our_steps(experiment, batch, steps=case.steps, started=first_values)
        return found | {"seconds": statistics.median(found["steps"])}

    if case.way == "bucketed":
        window = bucketed_batches(case)
        first = {bucket: [[example] for example in examples] for bucket, examples in reversed(window)}
        found = {bucket: steps_on(rows, length_buckets.lengths(bucket, **whole)) for bucket, rows in first.items()}
        seconds = statistics.mean(found[bucket]["seconds"] for bucket, _ in window)
        tokens = statistics.mean(tokens_in(examples) for _, examples in window)
        return found[window[0][0]] | {"examples": case.rows, "tokens": tokens, "seconds": seconds}
    rows = packed_rows(case) if case.way == "packed" else [[example] for example in padded_batches(case)[0]]
    made = steps_on(rows, whole if case.way == "packed" else longest(case))
    return made | {"examples": sum(map(len, rows)), "tokens": tokens_in(itertools.chain(*rows))}


def tokens_in(examples: Any) -> int:
    """Tokens of inputs and targets, prompts not counted."""
    return sum(len(example["inputs"]) + len(example["targets"]) for example in examples)


def longest(case: Case) -> dict[str, int]:
    """The lengths of the longest among the first thousand examples."""
    some = list(itertools.islice(examples_of(case), 1000))
    return {f"{name[:-1]}_length": max(len(example[name]) for example in some) for name in ("inputs", "targets")}


def theirs(case: Case, folder: pathlib.Path) -> dict[str, Any]:
    """Steps of transformers with PEFT."""
    import peft
    import torch

    torch.set_num_threads(THREADS)
    model = models.their_model("t5", folder / "t5")
    model.config.use_cache = False
    kind = peft.TaskType.SEQ_2_SEQ_LM
    config = peft.PromptTuningConfig(task_type=kind, num_transformer_submodules=1, num_virtual_tokens=case.prompt_length)
    model = peft.get_peft_model(model, config).train()
    with torch.no_grad():
        rows = model.prompt_encoder["default"].embedding.weight
        rows.copy_(torch.from_numpy(first_values("embed/prompt/rows", tuple(rows.shape))))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)

    def padded(examples: list[Any], lengths: Mapping[str, int] | None) -> dict[str, Any]:
        found = {}
        for name, pad in (("inputs", 0), ("targets", -100)):
            length = lengths[f"{name[:-1]}_length"] if lengths else max(len(example[name]) for example in examples)
            whole = np.full((len(examples), length), pad, np.int64)
            for row, example in enumerate(examples):
                whole[row, : len(example[name])] = example[name]
            found[name] = torch.from_numpy(whole)
        return {"input_ids": found["inputs"], "attention_mask": (found["inputs"] != 0).long(), "labels": found["targets"]}

    packed = [example for row in packed_rows(case) for example in row]
    with torch.no_grad():
        parts = [packed[start : start + case.rows] for start in range(0, len(packed), case.rows)]
        sums = [model(**padded(part, None)).loss.item() * sum(len(example["targets"]) for example in part) for part in parts]
    packed_loss = sum(sums) / sum(len(example["targets"]) for example in packed)

    batches = padded_batches(case)
    lengths = longest(case) if case.way == "longest" else None
    laid = itertools.cycle([padded(batch, lengths) for batch in (batches if lengths is None else batches[:1])])
    # Every length is met once before anything is timed; a step that was measured is one of each batch then.
    steps = case.steps if lengths else 2 * BATCHES - 1
    found = their_steps(lambda: model(**next(laid)).loss, optimizer, steps=steps, dtype="float32")
    times = found["steps"] if lengths else found["steps"][-BATCHES:]
    seconds = statistics.median(times) if lengths else statistics.mean(times)
    return found | {"examples": case.rows, "tokens": tokens_in(batches[0]), "seconds": seconds, "packed_loss": packed_loss}


def row(case: Case, runs: list[dict]) -> dict[str, object]:
    """A line of the results."""
    seconds = statistics.median(run["seconds"] for run in runs)
    return {
        "prompt": case.prompt_length,
        "way": f"{'ours' if case.way in OURS else 'PEFT'}, {case.way}",
        "data": "real" if case.data else "world",
        "examples": runs[0]["examples"],
        "tokens_an_example": round(runs[0]["tokens"] / runs[0]["examples"], 1),
        "seconds_a_step": round(seconds, 4),
        "examples_a_second": round(runs[0]["examples"] / seconds, 2),
        "memory_gb": round(max(run["memory"] for run in runs) / 1e9, 3),
    }


def main() -> None:
    parser = arguments(__doc__, RESULTS, only="20-packed")
    parser.add_argument("--data", type=pathlib.Path, help="the folder of real files (default: the bundled world)")
    flags = parser.parse_args()
    if flags.worker is not None:
        case = Case(**flags.worker)
        print(json.dumps(with_memory((ours if case.way in OURS else theirs)(case, flags.folder))))
        return
    data = "" if flags.data is None else str(flags.data.resolve())
    small: dict[str, Any] = {"rows": 4, "input_length": 64, "target_length": 16, "steps": 2, "tiny": True} if flags.quick else {}
    lengths = (3,) if flags.quick else (20, 100)
    chosen = [Case(way, length, data, **small) for length in lengths for way in WAYS]
    chosen = [case for case in chosen if case.name.startswith(flags.only)]
    if not chosen:
        parser.error(f"--only={flags.only}: no case; wanted the beginning of a name such as 20-packed")

    def said(case: Case, run: dict) -> str:
        return f"{case.name} {case.side}: {run['seconds']:.4g} s a step, {run['examples'] / run['seconds']:.4g} examples a second"

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        models.write("t5", models.sizes("t5", tiny=flags.quick), folder / "t5")
        runs = in_turns(MODULE, chosen, folder, rounds=1 if flags.quick else flags.rounds, said=said)
    for case in chosen:
        beside = [other for other in chosen if other.prompt_length == case.prompt_length and other.way not in OURS]
        if case.way == "packed" and beside:
            both = [runs[case][0]["loss"], *(runs[other][0]["packed_loss"] for other in beside)]
            check_losses(both, dtype="float32", what=case.name)
    rows = [row(case, runs[case]) for case in chosen]
    theirs_of = {line["prompt"]: float(str(line["examples_a_second"])) for line in rows if line["way"] == "PEFT, longest"}
    for line in rows:
        beside = theirs_of.get(line["prompt"])
        line["to_peft_longest"] = round(float(str(line["examples_a_second"])) / beside, 2) if beside else ""
    print(table(rows))
    output = flags.output or (None if flags.quick else RESULTS)
    if output is not None:
        keep(rows, output)


if __name__ == "__main__":
    main()
