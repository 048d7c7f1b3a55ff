"""The data pipeline beside Hugging Face's: the same files, templates and vocabulary, and batches that are equal, number by number.

    python -m benchmarks.data [--quick] [--only=short] [--step-seconds=9.4]

Rows in JSONL, made of the task world's prose, are each told by one of the bundled templates, tokenized with a unigram SentencePiece model
that is trained here, put in a new order every epoch and packed, first fit, into 32 rows of 512/128 tokens: 20,000 short rows (two texts and
a label, RTE's templates) and 4,000 long ones (an article and its summary, XSum's). Ours is `mixtures.training_batches`, as the train
command takes it, which makes batches in a thread. Theirs is `datasets.load_dataset`, a batched `map` in two processes with plain Jinja and
transformers' T5TokenizerFast, and `select` in the order of the epoch; packing inputs beside targets is no part of them, so it is plain
Python over lists. The caches of both are empty in the first round and full in later ones.

Each measurement is a process of its own on the same two cores, and the sides take turns, round by round. The batches of both must be
equal, or the benchmark stops. Prints a table and writes `benchmarks/results/data.csv`, a line for each kind of rows:

- first: seconds from the start of the process to its first batch, imports included: in the first round, and in later ones (median);
- made: of these the seconds after the imports: reading, templates, tokenizing, one batch; in the first round, and in later ones;
- tokens a second: of inputs and targets, padding not counted, in the batches after the first; the median over all rounds;
- filled: the share of the batches that is not padding;
- steps: with `--step-seconds`, the seconds of a training step on such a batch, how many batches are made while one step is taken.

Run it while nothing else does.
"""

import collections
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
import pathlib
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.side_by_side import THREADS, arguments, in_turns, keep, since_started, table

MODULE = "benchmarks.data"
RESULTS = pathlib.Path(__file__).parent / "results" / "data.csv"
SIDES = ("prompt_tuning", "datasets")
TASK = "benchmark"
PIECES = 1000  # About 1.3 for a word, as T5's on English.
OPEN_ROWS = 16
EXTRA_IDS = 100

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: one kind of rows, by one side."""

    data: str
    templates: str
    rows: int
    side: str
    batches: int = 600
    batch_size: int = 32
    input_length: int = 512
    target_length: int = 128

    @property
    def lengths(self) -> dict[str, int]:
        """Places in a row of a batch."""
        return {"input_length": self.input_length, "target_length": self.target_length}


def made_rows(case: Case) -> Iterator[dict[str, Any]]:
    """The rows of a case, the same on any machine."""
    from prompt_tuning.data.world import corpus

    texts, rng = corpus.documents(), random.Random(case.data)
    for number in range(case.rows):
        if case.data == "short":
            premise, hypothesis = " ".join(itertools.islice(texts, rng.randint(1, 4))), next(texts)
            yield {"premise": premise, "hypothesis": hypothesis, "label": rng.randrange(2), "idx": number}
        else:
            yield {"document": " ".join(itertools.islice(texts, rng.randint(4, 24))), "summary": next(texts), "id": str(number)}


def write_rows(case: Case, folder: pathlib.Path) -> None:
    """Writes the rows of a case."""
    with open(folder / f"{case.data}.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in made_rows(case))


def write_vocabulary(folder: pathlib.Path, *, pieces: int = PIECES) -> None:
    """Trains `spiece.model`: unigram pieces with T5's ids, the only kind that transformers' T5 tokenizer reads."""
    import sentencepiece

    from prompt_tuning.data.world import corpus

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=itertools.islice(corpus.documents(seed=1), 20_000),
        model_writer=model,
        model_type="unigram",
        vocab_size=pieces,
        hard_vocab_limit=False,
        required_chars="".join(map(chr, range(33, 127))),
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())


def timed_batches(batches: Iterator[Batch], *, imported: float, count: int) -> dict[str, Any]:
    """Takes the first batch and `count` more: `first`, `made` and `after` (seconds), `tokens` after the first, `filled`, and `digest`."""
    taken = [next(batches)]
    first, start = since_started(), time.monotonic()
    taken += itertools.islice(batches, count)
    after = time.monotonic() - start
    digest = hashlib.sha256()
    for batch in taken:
        for name in sorted(batch):
            digest.update(f"{name} {batch[name].dtype} {batch[name].shape}".encode() + batch[name].tobytes())
    tokens = [sum(int((batch[f"{side}_segment_ids"] > 0).sum()) for side in ("encoder", "decoder")) for batch in taken]
    places = sum(taken[0][f"{side}_segment_ids"].size for side in ("encoder", "decoder"))
    return {
        "first": first,
        "made": first - imported,
        "after": after,
        "tokens": sum(tokens[1:]),
        "filled": sum(tokens) / (places * len(taken)),
        "digest": digest.hexdigest(),
    }


def ours(case: Case, folder: pathlib.Path) -> dict[str, Any]:
    """The batches of this package."""
    from prompt_tuning.data import mixtures, token_cache
    from prompt_tuning.data.instructions.templated import Templated
    from prompt_tuning.data.tasks.instructions import Instructions
    from prompt_tuning.data.vocabularies import SentencePiece

    imported = since_started()
    os.environ[token_cache.VARIABLE] = str(folder / "tokens")
    source = Instructions(TASK, format=Templated(case.templates), train_files=(str(folder / f"{case.data}.jsonl"),))
    vocabulary = SentencePiece(str(folder / "spiece.model"), extra_ids=EXTRA_IDS)
    with mixtures.training_batches(source, vocabulary=vocabulary.load, batch_size=case.batch_size, packed=True, **case.lengths) as batches:
        return timed_batches(batches, imported=imported, count=case.batches)


@functools.cache
def teller(name: str) -> Callable[[Mapping[str, Any]], tuple[str, str]]:
    """From a row to the texts of input and target: the template that ours draws for it, filled by plain Jinja."""
    import jinja2

    from prompt_tuning.data import template_sets
    from prompt_tuning.data.templates import SEPARATOR, options_block

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    templates = template_sets.load(name).templates
    filled = {template.name: environment.from_string(template.inputs) for template in templates}

    def listed(text: str) -> list[str]:
        return [choice.strip() for choice in text.split(SEPARATOR)]

    choices = {template.name: listed(str(template.answer_choices)) for template in templates if template.answer_choices is not None}
    options = {name: options_block(each) for name, each in choices.items()}

    def tell(row: Mapping[str, Any]) -> tuple[str, str]:
        says = json.dumps({name: value for name, value in row.items() if name not in ("id", "idx")}, sort_keys=True)
        drawn = template_sets.draw(templates, f"{TASK}\x1f{says}").name
        more = {}
        if drawn in choices:
            more = {"answer_choices": choices[drawn], "options": options[drawn], "answer": choices[drawn][row["label"]]}
        inputs, targets = filled[drawn].render(row, **more).split(SEPARATOR)
        return inputs.strip(), targets.strip()

    return tell


def theirs(case: Case, folder: pathlib.Path) -> dict[str, Any]:
    """The batches of datasets and transformers, in the order of ours."""
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    import datasets
    from transformers import T5TokenizerFast

    from prompt_tuning.data.example_tables import number_of

    imported = since_started()
    tokenizer = T5TokenizerFast.from_pretrained(folder, extra_ids=EXTRA_IDS)

    def tokenized(columns: Mapping[str, list]) -> dict[str, list]:
        rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        texts = zip(*map(teller(case.templates), rows), strict=True)  # Compiled templates cannot go to other processes.
        lengths = (case.input_length, case.target_length)
        inputs, targets = (
            tokenizer(list(each), truncation=True, max_length=length, return_attention_mask=False)["input_ids"]
            for each, length in zip(texts, lengths, strict=True)
        )
        return {"inputs": inputs, "targets": targets}

    path = folder / f"{case.data}.jsonl"
    read = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "datasets"))
    ids = datasets.Features({name: datasets.List(datasets.Value("int32")) for name in ("inputs", "targets")})
    told = read.map(tokenized, batched=True, remove_columns=read.column_names, features=ids, num_proc=THREADS)

    def examples() -> Iterator[tuple[list[int], list[int]]]:
        for epoch in itertools.count():
            order = np.random.default_rng([number_of(TASK), 0, epoch]).permutation(len(told))
            for columns in told.select(order).iter(1000):
                yield from zip(columns["inputs"], columns["targets"], strict=True)

    rows = packed(examples(), **case.lengths)
    batches = (laid(list(itertools.islice(rows, case.batch_size)), **case.lengths) for _ in itertools.count())
    return timed_batches(batches, imported=imported, count=case.batches)


def packed(
    examples: Iterable[tuple[list[int], list[int]]], *, input_length: int, target_length: int
) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Rows of examples: first fit among the rows that are open, the oldest of which is given when there are too many."""
    rows: collections.deque[list] = collections.deque()
    for inputs, targets in examples:
        for row in rows:
            if row[1] + len(inputs) <= input_length and row[2] + len(targets) <= target_length:
                break
        else:
            if len(rows) == OPEN_ROWS:
                yield rows.popleft()[0]
            row = [[], 0, 0]  # Examples, tokens of inputs, tokens of targets.
            rows.append(row)
        row[0].append((inputs, targets))
        row[1] += len(inputs)
        row[2] += len(targets)
    yield from (row[0] for row in rows)


def laid(rows: list[list[tuple[list[int], list[int]]]], *, input_length: int, target_length: int) -> dict[str, np.ndarray]:
    """The arrays of a batch of packed rows, as a T5 reads them."""
    shared = ("input_tokens", "segment_ids", "positions")
    names = {"encoder": shared, "decoder": (*shared, "target_tokens")}
    lengths = {"encoder": input_length, "decoder": target_length}
    batch = {f"{side}_{name}": np.zeros((len(rows), lengths[side]), np.int32) for side in names for name in names[side]}
    for index, row in enumerate(rows):
        inputs_at = targets_at = 0
        for segment, (inputs, targets) in enumerate(row, start=1):
            for side, at, ids in (("encoder", inputs_at, inputs), ("decoder", targets_at, targets)):
                where = (index, slice(at, at + len(ids)))
                batch[f"{side}_segment_ids"][where] = segment
                batch[f"{side}_positions"][where] = np.arange(len(ids))
                batch[f"{side}_{'input' if side == 'encoder' else 'target'}_tokens"][where] = ids
            batch["decoder_input_tokens"][index, targets_at + 1 : targets_at + len(targets)] = targets[:-1]
            inputs_at += len(inputs)
            targets_at += len(targets)
    return batch | {"decoder_loss_weights": (batch["decoder_segment_ids"] > 0).astype(np.float32)}


def cases(*, quick: bool) -> list[Case]:
    """All cases; those to be compared stand side by side."""
    kinds = (("short", "rte", 20_000), ("long", "xsum", 4_000))
    small: dict[str, Any] = {"batches": 4, "batch_size": 8, "input_length": 128, "target_length": 32} if quick else {}
    return [Case(data, templates, rows // 40 if quick else rows, side, **small) for data, templates, rows in kinds for side in SIDES]


def row(our_case: Case, our_runs: list[dict], their_runs: list[dict], *, step_seconds: float | None) -> dict[str, object]:
    """A line of the results."""
    sides = {"our": our_runs, "their": their_runs}
    rates = {side: statistics.median(run["tokens"] / run["after"] for run in runs) for side, runs in sides.items()}
    a_step = statistics.median(run["after"] for run in our_runs) / our_case.batches

    def seconds(what: str) -> dict[str, object]:
        found: dict[str, object] = {f"{side}_{what}": round(runs[0][what], 2) for side, runs in sides.items()}
        again = {f"{side}_{what}_again": [run[what] for run in runs[1:]] for side, runs in sides.items()}
        return found | {name: round(statistics.median(each), 2) if each else "" for name, each in again.items()}

    return {
        "data": our_case.data,
        "rows": our_case.rows,
        **seconds("first"),
        **seconds("made"),
        **{f"{side}_tokens_per_second": round(each) for side, each in rates.items()},
        "rate_ratio": round(rates["our"] / rates["their"], 2),
        "filled": round(our_runs[0]["filled"], 3),
        "steps": "" if step_seconds is None else round(step_seconds / a_step),
    }


def check_digests(digests: Iterable[str], *, what: str) -> None:
    """Ends the program where the sides made batches that differ."""
    if len(set(digests)) > 1:
        raise SystemExit(f"the sides do not make the same batches: {what} rows; wanted them equal, number by number")


def main() -> None:
    parser = arguments(__doc__, RESULTS, only="short")
    parser.add_argument("--step-seconds", type=float, help="the seconds of a training step on 32 packed rows of 512/128 tokens")
    flags = parser.parse_args()
    if flags.worker is not None:
        case = Case(**flags.worker)
        print(json.dumps((ours if case.side == SIDES[0] else theirs)(case, flags.folder)))
        return
    chosen = [case for case in cases(quick=flags.quick) if case.data.startswith(flags.only)]
    if not chosen:
        parser.error(f"--only={flags.only}: no case; wanted the beginning of short or long")

    def said(case: Case, run: dict) -> str:
        rate = run["tokens"] / run["after"]
        return f"{case.data} {case.side}: first batch {run['first']:.2f} s, {run['made']:.2f} s after imports, then {rate:.4g} tokens/s"

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_vocabulary(folder)
        for case in chosen[::2]:
            write_rows(case, folder)
        runs = in_turns(MODULE, chosen, folder, rounds=1 if flags.quick else flags.rounds, said=said)
    rows = []
    for our_case, their_case in zip(chosen[::2], chosen[1::2], strict=True):
        check_digests((run["digest"] for case in (our_case, their_case) for run in runs[case]), what=our_case.data)
        rows.append(row(our_case, runs[our_case], runs[their_case], step_seconds=flags.step_seconds))
    print(table(rows))
    print(f"{platform.machine()}, {THREADS} threads")
    output = flags.output or (None if flags.quick else RESULTS)
    if output is not None:
        keep(rows, output)


if __name__ == "__main__":
    main()
