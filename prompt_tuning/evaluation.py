"""Evaluation: rank classification over answer choices, generation, and log-likelihoods.

Rank classification takes the choice whose tokens, the end token included, have the largest summed log-probability (Sanh et al. 2021,
section 6; Wei et al. 2021, section 2.4); `normalisation="length"` divides by the number of tokens scored (Liu et al. 2022, section 3.2).

Examples are sorted by length, cut into batches of one fixed number of rows and padded to powers of two, so that few shapes are compiled and
none twice: the compiled functions are kept by the model's graph definition. Rows do not see each other, so a score changes with the batch
or the padding by float rounding only. The last batch is filled up with copies of its last row.

Tasks without metrics, such as pretraining text, are judged by their loss: the mean negative log-probability of a target token.

Axes: B batch (examples), C choices, R rows (example-choice pairs), S source length, T target length, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import decoding, evaluation_batches, evaluation_rows, losses, mixed_tasks, sharding
from prompt_tuning.data import final_answers, metrics, mixtures
from prompt_tuning.decoding import GREEDY, Decoding
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation_batches import Lengths

Example = Mapping[str, Any]
Batch = dict[str, np.ndarray]
# What `trainable.split` gives: graph definition, trainable state, frozen state; of several tasks at once as `mixed_tasks.Mixed` says.
Parts = tuple[Any, Any, Any]
Normalisation = Literal["sum", "length"]


class Vocabulary(Protocol):
    """What evaluation asks of a SeqIO vocabulary."""

    def encode(self, s: str) -> Sequence[int]:
        """Token ids of a text, without an end token."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How to evaluate; set from gin.

    Attributes:
      batch_size: examples a batch.
      max_examples: of each task and split; None takes all.
      split: the split evaluated during training and by the `evaluate` command.
      mode: `rank` ranks the answer choices, `generate` generates, `loss` takes the loss; `auto` ranks where an example has answer choices,
        takes the loss where a task has no metrics, and generates elsewhere.
      normalisation: of rank classification: `sum` of log-probabilities, or `length`, their mean over the tokens scored.
      include_eos: whether the end token of a choice counts in rank classification, as it does in T5X and T0.
      max_tokens: most generated tokens, the end token included; None takes the target length.
      decoding: how tokens are chosen and where a text ends.
      seed: of sampling; example i draws from a key of its own.
      samples: texts drawn for an example that is not ranked; the prediction is one that concludes what most do (self-consistency, Wang et
        al. 2022, arXiv:2203.11171). Above 1 it wants a temperature.
    """

    batch_size: int = 32
    max_examples: int | None = None
    split: str = "validation"
    mode: Literal["auto", "rank", "generate", "loss"] = "auto"
    normalisation: Normalisation = "sum"
    include_eos: bool = True
    max_tokens: int | None = None
    decoding: Decoding = GREEDY
    seed: int = 0
    samples: int = 1

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_examples", "max_tokens", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"Evaluation.{name}: wanted at least 1, got {value}")
        for name, allowed in (("mode", ("auto", "rank", "generate", "loss")), ("normalisation", ("sum", "length"))):
            if getattr(self, name) not in allowed:
                raise UserError(f"Evaluation.{name}: wanted one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.samples > 1 and self.decoding.temperature == 0:
            raise UserError(f"Evaluation.samples: wanted 1 where nothing is drawn, got {self.samples}; set Decoding.temperature above 0")


@dataclasses.dataclass(frozen=True)
class TaskExamples:
    """The examples of one task that are evaluated, tokenized once, and the names of its metrics; the first is the main one.

    Examples are as `data.mixtures.evaluation_examples` gives them.
    """

    name: str
    examples: Sequence[Example]
    metrics: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.examples:
            raise UserError(f"task {self.name}: no example to evaluate; check the split and the files it is read from")


@dataclasses.dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
      metrics: of each task, name to value.
      score: the mean over tasks of each task's main metric, the negative loss where a task is judged by it: higher is better.
      predictions: a row an example, in order: `task`, `inputs`, `target`, and `choices`, `references` and `group` where it has them;
        `prediction` and, where choices were ranked, their `scores`; `log_likelihood` and `target_tokens` where the loss was taken.
    """

    metrics: dict[str, dict[str, float]]
    score: float
    predictions: list[dict[str, Any]]


def evaluate(parts: Parts, tasks: Sequence[TaskExamples], *, settings: Evaluation, lengths: Lengths, vocabulary: Vocabulary) -> Report:
    """Evaluates a model on some tasks.

    Args:
      parts: graph definition, trainable and frozen state of the model.
      tasks: at least one, names all different.
      settings: see `Evaluation`.
      lengths: see `Lengths`.
      vocabulary: of the model.

    Raises:
      UserError: if the mode is `rank` and an example has no answer choices, or if the model gives a score that is not finite.
    """
    assert tasks, "an evaluation wants at least one task"
    names = [task.name for task in tasks]
    if doubles := {name for name in names if names.count(name) > 1}:
        raise UserError(f"evaluation: two tasks are called {min(doubles)}; give one of them another name")
    found: dict[str, dict[str, float]] = {}
    predictions: list[dict[str, Any]] = []
    main: list[float] = []
    for task in tasks:
        if settings.mode == "loss" or (settings.mode == "auto" and not task.metrics):
            rows, loss = _loss(parts, task, settings, lengths, vocabulary)
            found[task.name] = {"loss": loss}
            main.append(-loss)
        else:
            rows = _predict(parts, task, settings, lengths, vocabulary)
            found[task.name] = metrics.compute_for_examples(task.metrics, task.examples, [row["prediction"] for row in rows])
            main.append(found[task.name][task.metrics[0]])
        predictions += rows
    return Report(found, float(np.mean(main)), predictions)


def task_examples(
    source: mixtures.Source, vocabulary: Any, *, settings: Evaluation, lengths: Lengths, trained_on: mixtures.Source | None = None
) -> list[TaskExamples]:
    """The examples that `settings` asks of every task of a source that has the split, read once.

    Raises UserError for a task whose split is empty, and where no task has it.

    An example's `task` is the number of its task among those of `trained_on` (None: of the source itself), found by its name.
    """
    sizes = {"input_length": lengths.input_length, "target_length": lengths.target_length}
    numbers = {name: {"task": number} for number, name in enumerate((trained_on or source).task_names)}
    found = []
    tasks = source.tasks(vocabulary)
    there = mixtures.with_split(tasks, settings.split)
    for name, task in zip(source.task_names, tasks, strict=True):
        if task not in there:
            continue
        examples = mixtures.evaluation_examples(task, settings.split, settings.max_examples, **sizes)
        found.append(TaskExamples(name, [example | numbers.get(name, {}) for example in examples], tuple(task.metric_names)))
    return found


def _loss(
    parts: Parts, task: TaskExamples, settings: Evaluation, lengths: Lengths, vocabulary: Vocabulary
) -> tuple[list[dict[str, Any]], float]:
    """The rows of one task with their log-likelihoods, and the mean negative log-probability of a target token."""
    sums, counts = log_likelihoods(parts, task.examples, lengths=lengths, batch_size=settings.batch_size)
    if not np.all(np.isfinite(sums)):
        raise UserError(
            f"task {task.name}: the loss of example {int(np.argmin(np.isfinite(sums)))} is not finite; the weights have diverged"
        )
    rows = evaluation_rows.asked(task.name, task.examples, marks=lengths.prompt.delimiters, vocabulary=vocabulary)
    for row, log_likelihood, count in zip(rows, sums, counts, strict=True):
        row |= {"log_likelihood": float(log_likelihood), "target_tokens": int(count)}
    return rows, -float(np.sum(sums, dtype=np.float64) / np.sum(counts))


def _predict(parts: Parts, task: TaskExamples, settings: Evaluation, lengths: Lengths, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The prediction rows of one task, in order."""
    choices = [tuple(example.get("answer_choices") or ()) for example in task.examples]
    if settings.mode == "rank" and not all(choices):
        row = choices.index(())
        raise UserError(f"task {task.name}: example {row} has no answer choices to rank; set Evaluation.mode to 'auto' or 'generate'")
    ranked = [] if settings.mode == "generate" else [row for row, own in enumerate(choices) if own]
    written = sorted(set(range(len(task.examples))) - set(ranked))
    rows = evaluation_rows.asked(task.name, task.examples, marks=lengths.prompt.delimiters, vocabulary=vocabulary)
    encode = functools.cache(lambda text: (*map(int, vocabulary.encode(text)), lengths.prompt.delimiters.eos))
    scores = score_choices(
        parts,
        [task.examples[row] for row in ranked],
        choices=[[encode(choice) for choice in choices[row]] for row in ranked],
        lengths=lengths,
        batch_size=settings.batch_size,
        normalisation=settings.normalisation,
        include_eos=settings.include_eos,
    )
    for row, scores_C in zip(ranked, scores, strict=True):
        if not np.all(np.isfinite(scores_C)):
            raise UserError(
                f"task {task.name}: the scores of example {row} are not finite ({scores_C.tolist()}); the weights have diverged"
            )
        best = choices[row][int(np.argmax(scores_C))]
        rows[row] |= {"prediction": best, "scores": [float(score) for score in scores_C]}
    repeated = [task.examples[row] for row in written for _ in range(settings.samples)]
    texts = generate_texts(parts, repeated, lengths=lengths, settings=settings, vocabulary=vocabulary)
    for place, row in enumerate(written):
        drawn = texts[place * settings.samples : (place + 1) * settings.samples]
        rows[row]["prediction"] = final_answers.majority(drawn, numbers=task.metrics[:1] == ("final_number",))
        if settings.samples > 1:
            rows[row]["samples"] = drawn
    return rows


def score_choices(
    parts: Parts,
    examples: Sequence[Example],
    *,
    choices: Sequence[Sequence[Sequence[int]]],
    lengths: Lengths,
    batch_size: int,
    normalisation: Normalisation = "sum",
    include_eos: bool = True,
) -> list[np.ndarray]:
    """The score of every choice of every example: float32 [C] for each, in order. The encoder runs once an example.

    Args:
      parts: graph definition, trainable and frozen state of the model.
      examples: their `inputs` are read, and cut to the input length.
      choices: for each example the token ids of each choice, end token included; never cut.
      lengths: see `Lengths`.
      batch_size: examples a batch.
      normalisation: `sum` of log-probabilities, or `length`, their mean over the tokens scored.
      include_eos: whether a choice's end token is scored.
    """
    scores: list[np.ndarray] = [np.zeros(0, np.float32)] * len(examples)
    input_lengths = [evaluation_batches.input_bucket(example, lengths) for example in examples]
    longest = [max(len(choice) for choice in own) for own in choices]
    for chosen, count in evaluation_batches.batches(input_lengths, batch_size):
        input_length = max(input_lengths[i] for i in chosen)
        encoder = evaluation_batches.encoder_batch([examples[i] for i in chosen], input_length, lengths)
        pairs = [(position, choice) for position, i in enumerate(chosen) for choice in choices[i]]
        # A multiple of the rows keeps the number of shapes small where the number of choices varies from example to example.
        pairs += [pairs[-1]] * (-len(pairs) % len(chosen))
        decoder = evaluation_batches.decoder_batch(
            [examples[chosen[position]] | {"targets": choice} for position, choice in pairs],
            input_length,
            evaluation_batches.bucket(max(longest[i] for i in chosen), 8, None),
            lengths,
        )
        if not include_eos:
            decoder["decoder_loss_weights"] *= decoder["decoder_target_tokens"] != lengths.prompt.delimiters.eos
        owner_R = np.array([position for position, _ in pairs], np.int32)
        batch = sharding.rows_over_devices(encoder | decoder, parts[1:])
        found = _score_rows(*parts, batch, owner_R, shared=evaluation_batches.shared_columns(encoder, lengths))
        scores_R, counts_R = map(sharding.on_host, found)
        if normalisation == "length":
            scores_R = scores_R / np.maximum(counts_R, 1.0)
        start = 0
        for i in chosen[:count]:
            scores[i] = scores_R[start : start + len(choices[i])]
            start += len(choices[i])
    return scores


def log_likelihoods(parts: Parts, examples: Sequence[Example], *, lengths: Lengths, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each example the summed log-probability of its target tokens (float32) and their number (int32), the end token included.

    Targets are never cut; inputs are cut to the input length.
    """
    sums, counts = np.zeros(len(examples), np.float32), np.zeros(len(examples), np.int32)
    sizes = [
        (evaluation_batches.input_bucket(example, lengths), evaluation_batches.bucket(len(example["targets"]), 8, None))
        for example in examples
    ]
    for chosen, count in evaluation_batches.batches(sizes, batch_size):
        rows = [examples[i] for i in chosen]
        input_length, target_length = (max(sizes[i][side] for i in chosen) for side in (0, 1))
        encoder = evaluation_batches.encoder_batch(rows, input_length, lengths)
        decoder = evaluation_batches.decoder_batch(rows, input_length, target_length, lengths)
        batch = sharding.rows_over_devices(encoder | decoder, parts[1:])
        found = _score_rows(*parts, batch, None, shared=evaluation_batches.shared_columns(encoder, lengths))
        sums_B, counts_B = map(sharding.on_host, found)
        sums[chosen[:count]] = sums_B[:count]
        counts[chosen[:count]] = counts_B[:count].astype(np.int32)
    return sums, counts


def generate_texts(
    parts: Parts,
    examples: Sequence[Example],
    *,
    lengths: Lengths,
    settings: Evaluation,
    vocabulary: Vocabulary,
    first_row: int = 0,
) -> list[str]:
    """What the model writes for each example, in order: the tokens of `generate_tokens` as text, up to the first stop string."""
    generated = generate_tokens(
        parts,
        examples,
        lengths=lengths,
        batch_size=settings.batch_size,
        max_tokens=settings.max_tokens,
        settings=settings.decoding,
        seed=settings.seed,
        first_row=first_row,
    )
    return [decoding.cut(vocabulary.decode(ids), settings.decoding.stop_strings) for ids in generated]


def generate_tokens(
    parts: Parts,
    examples: Sequence[Example],
    *,
    lengths: Lengths,
    batch_size: int,
    max_tokens: int | None = None,
    settings: Decoding = GREEDY,
    seed: int = 0,
    first_row: int = 0,
) -> list[list[int]]:
    """The generated token ids of each example, in order, without the end token.

    Args:
      parts: graph definition, trainable and frozen state of the model.
      examples: their `inputs` are read, and cut to the input length.
      lengths: see `Lengths`.
      batch_size: examples a batch.
      max_tokens: most tokens a row, the end token included; None takes the target length.
      settings: how tokens are chosen and where a text ends.
      seed: of sampling.
      first_row: example i draws from key `first_row + i`, so that a stream cut into pieces draws as the whole would.

    Raises UserError where the model has a prompt in the decoder and `settings` no start token for it to stand beside.
    """
    eos_ids, pad_id = settings.ends(eos=lengths.prompt.delimiters.eos, pad=lengths.prompt.delimiters.pad)
    settings = dataclasses.replace(settings, eos_ids=eos_ids, pad_id=pad_id)
    generated: list[list[int]] = [[] for _ in examples]
    sizes = [evaluation_batches.input_bucket(example, lengths) for example in examples]
    for chosen, count in evaluation_batches.batches(sizes, batch_size):
        rows, input_length = [examples[i] for i in chosen], max(sizes[i] for i in chosen)
        batch = evaluation_batches.encoder_batch(rows, input_length, lengths)
        batch |= evaluation_batches.decoder_start(rows, input_length, lengths, settings)
        keys_B = None
        if settings.temperature > 0.0:
            keys_B = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), jnp.asarray(chosen + first_row))
        generated_BT = _generate(
            *parts,
            sharding.rows_over_devices(batch, parts[1:]),
            keys_B,
            max_tokens=max_tokens or lengths.target_length,
            settings=settings,
            shared=evaluation_batches.shared_columns(batch, lengths),
        )
        tokens_BT = sharding.on_host(generated_BT)
        for position, i in enumerate(chosen[:count]):
            generated[i] = decoding.without_end(tokens_BT[position], eos_ids=eos_ids, pad_id=pad_id)
    return generated


@functools.partial(jax.jit, static_argnums=0, static_argnames="shared")
def _score_rows(
    graphdef: Any, trainable: Any, frozen: Any, batch: Batch, owner_R: jax.Array | None, *, shared: int
) -> tuple[jax.Array, jax.Array]:
    """Summed log-probability and number of the target tokens of each decoder row; row r reads encoder row `owner_R[r]` (None: its own)."""
    model = mixed_tasks.model_of(graphdef, trainable, frozen, batch)
    cache = decoding.encode(model, batch, length=batch["decoder_input_tokens"].shape[1], shared=shared)
    if owner_R is not None:
        cache = decoding.take_rows(cache, owner_R)
    logits_RTV, _ = model.decode_step(batch["decoder_input_tokens"], cache, slots_BT=batch.get("decoder_prompt_slots"))
    weights_RT = batch["decoder_loss_weights"]
    log_probabilities_RT = losses.token_log_probs(logits_RTV, jnp.asarray(batch["decoder_target_tokens"]))
    return jnp.sum(log_probabilities_RT * weights_RT, axis=1), jnp.sum(weights_RT, axis=1)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("max_tokens", "settings", "shared"))
def _generate(
    graphdef: Any, trainable: Any, frozen: Any, batch: Batch, keys_B: jax.Array | None, *, max_tokens: int, settings: Decoding, shared: int
) -> jax.Array:
    model = mixed_tasks.model_of(graphdef, trainable, frozen, batch)
    return decoding.generate(model, batch, max_tokens=max_tokens, settings=settings, keys_B=keys_B, shared=shared)
