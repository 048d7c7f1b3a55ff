"""Scores are those of the plain model, whatever the batch and the padding; what is ranked and what is generated; what a report holds."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import evaluation, evaluation_batches
from prompt_tuning.data import features
from prompt_tuning.data.features import EOS_ID, PromptLayout
from prompt_tuning.decoding import Decoding
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation import Evaluation, Lengths, TaskExamples
from tests.test_decoding import tiny_model

PROMPT = PromptLayout(encoder_length=3, decoder_length=2)
LENGTHS = Lengths(input_length=64, target_length=8, prompt=PROMPT)


class Letters:
    """A vocabulary of lower-case letters and the space, ids 3 to 29."""

    def encode(self, s):
        return [3 + "abcdefghijklmnopqrstuvwxyz ".index(letter) for letter in s]

    def decode(self, ids):
        return "".join("abcdefghijklmnopqrstuvwxyz "[i - 3] if 3 <= i < 30 else "?" for i in ids)


@functools.cache
def parts():
    return nnx.split(tiny_model(prompt_rows=5), lambda path, _: "prompt" in path, ...)


def ids(text):
    return [*Letters().encode(text), EOS_ID]


def example(inputs, targets, **more):
    return {"inputs": ids(inputs), "targets": ids(targets), "inputs_pretokenized": inputs, "targets_pretokenized": targets, **more}


def examples(n=11, seed=0):
    """Inputs of 1 to 40 letters, targets of 1 to 9."""
    rng = np.random.default_rng(seed)
    letters = list("abcdefgh ")
    return [example(*("".join(rng.choice(letters, size=rng.integers(1, most))) for most in (40, 10))) for _ in range(n)]


@functools.partial(jax.jit, static_argnums=0)
def logits(graphdef, trainable, frozen, batch):
    return nnx.merge(graphdef, trainable, frozen)(batch)


def plain_log_likelihood(inputs, targets, *, include_eos=True):
    """Of one pair, alone, by the model's own forward pass and a float64 log-softmax."""
    batch = features.layout([{"inputs": inputs, "targets": targets}], input_length=64, target_length=16, prompt=PROMPT)
    logits_TV = np.asarray(logits(*parts(), batch), np.float64)[0, PROMPT.decoder_length :]
    shifted_TV = logits_TV - logits_TV.max(axis=-1, keepdims=True)
    log_probs_TV = shifted_TV - np.log(np.exp(shifted_TV).sum(axis=-1, keepdims=True))
    scored = targets if include_eos else targets[:-1]
    return sum(log_probs_TV[position, token] for position, token in enumerate(scored))


CHOICES = [["yes", "no"], ["a", "bcdefghij", "maybe so"], ["perhaps"], ["no", "yes"], ["x", "xy", "xyz", "xyzz"]]


def score(rows, choices, **settings):
    return evaluation.score_choices(
        parts(), rows, choices=[[ids(choice) for choice in own] for own in choices], lengths=LENGTHS, **({"batch_size": 4} | settings)
    )


@pytest.mark.parametrize("include_eos", [True, False])
@pytest.mark.parametrize("normalisation", ["sum", "length"])
def test_choice_scores_are_the_log_likelihoods_of_the_plain_model(include_eos, normalisation):
    rows = examples(5)
    scores = score(rows, CHOICES, normalisation=normalisation, include_eos=include_eos)
    for row, own, scores_C in zip(rows, CHOICES, scores, strict=True):
        wanted = [plain_log_likelihood(row["inputs"], ids(choice), include_eos=include_eos) for choice in own]
        if normalisation == "length":
            wanted = [value / (len(choice) + include_eos) for value, choice in zip(wanted, own, strict=True)]
        np.testing.assert_allclose(scores_C, wanted, rtol=1e-5)


def test_choice_scores_do_not_depend_on_batch_size_or_neighbours():
    rows, choices = examples(11), [CHOICES[i % len(CHOICES)] for i in range(11)]
    whole = score(rows, choices, batch_size=8)
    for batch_size, chosen in ((1, (10, 3)), (2, (3, 7, 0)), (16, range(11))):
        part = score([rows[i] for i in chosen], [choices[i] for i in chosen], batch_size=batch_size)
        for i, scores_C in zip(chosen, part, strict=True):
            np.testing.assert_allclose(scores_C, whole[i], rtol=1e-5)


def test_log_likelihoods_sum_over_target_tokens_with_the_end_token():
    rows = examples(6)
    sums, counts = evaluation.log_likelihoods(parts(), rows, lengths=LENGTHS, batch_size=4)
    np.testing.assert_array_equal(counts, [len(row["targets"]) for row in rows])
    np.testing.assert_allclose(sums, [plain_log_likelihood(row["inputs"], row["targets"]) for row in rows], rtol=1e-5)


def test_targets_longer_than_the_target_length_are_scored_whole():
    long = example("ab", "abcdefghijklmno")
    sums, counts = evaluation.log_likelihoods(parts(), [long], lengths=LENGTHS, batch_size=1)
    assert counts.tolist() == [16]
    np.testing.assert_allclose(sums, [plain_log_likelihood(long["inputs"], long["targets"])], rtol=1e-5)


def test_inputs_are_cut_to_the_input_length():
    short = Lengths(input_length=6, target_length=8, prompt=PROMPT)
    cut = example("abcde", "no")
    whole = {**cut, "inputs": ids("abcdefghijkl")}
    sums, _ = evaluation.log_likelihoods(parts(), [whole, cut], lengths=short, batch_size=2)
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-6)


def test_generation_does_not_depend_on_batch_size():
    rows = examples(7)
    generated = [evaluation.generate_tokens(parts(), rows, lengths=LENGTHS, batch_size=size) for size in (2, 8)]
    assert generated[0] == generated[1]
    assert all(len(own) <= LENGTHS.target_length for own in generated[0])


def test_sampling_a_stream_in_pieces_draws_what_the_whole_draws():
    rows = examples(6)
    sample = functools.partial(evaluation.generate_tokens, parts(), lengths=LENGTHS, batch_size=2, settings=Decoding(temperature=3.0))
    assert sample(rows) == sample(rows[:4]) + sample(rows[4:], first_row=4)
    assert sample(rows) != sample(rows, seed=1)


def test_a_prompt_is_read_once_for_all_rows_only_where_they_have_the_same():
    batch = evaluation_batches.encoder_batch(examples(4), 64, LENGTHS)
    assert evaluation_batches.shared_columns(batch, LENGTHS) == PROMPT.encoder_length
    other = batch["encoder_prompt_slots"].copy()
    other[2, :3] += 3  # Another task's rows.
    assert evaluation_batches.shared_columns(batch | {"encoder_prompt_slots": other}, LENGTHS) == 0
    suffix = Lengths(input_length=64, target_length=8, prompt=PromptLayout(encoder_length=3, placement="suffix"))
    assert evaluation_batches.shared_columns(evaluation_batches.encoder_batch(examples(4), 64, suffix), suffix) == 0


def test_texts_are_cut_before_a_stop_string():
    rows = examples(7)
    whole = evaluation.generate_texts(parts(), rows, lengths=LENGTHS, settings=Evaluation(), vocabulary=Letters())
    letter = max("".join(whole), key="".join(whole).count)
    chosen = Evaluation(decoding=Decoding(stop_strings=(letter,)))
    cut = evaluation.generate_texts(parts(), rows, lengths=LENGTHS, settings=chosen, vocabulary=Letters())
    assert cut == [text.split(letter)[0] for text in whole]
    assert cut != whole


def test_a_decoder_prompt_wants_a_start_token():
    with pytest.raises(UserError, match="Decoding.start_id: wanted a token, beside which"):
        evaluation.generate_tokens(parts(), examples(1), lengths=LENGTHS, batch_size=1, settings=Decoding(start_id=None))


def test_the_start_token_stands_beside_the_decoders_prompt():
    rows = examples(7)
    made = [evaluation.generate_tokens(parts(), rows, lengths=LENGTHS, batch_size=8, settings=Decoding(start_id=i)) for i in (0, 9)]
    assert made[0] == evaluation.generate_tokens(parts(), rows, lengths=LENGTHS, batch_size=8)
    assert made[0] != made[1]


def test_auto_ranks_where_there_are_choices_and_generates_elsewhere():
    ranked = example("ab c", "yes", answer_choices=("yes", "no"))
    free = example("de", "f", answer_choices=None)
    task = TaskExamples("mixed", [free, ranked, free], ("accuracy",))
    report = evaluation.evaluate(parts(), [task], settings=Evaluation(), lengths=LENGTHS, vocabulary=Letters())
    assert [row["inputs"] for row in report.predictions] == ["de", "ab c", "de"]
    assert [row["target"] for row in report.predictions] == ["f", "yes", "f"]
    first, second, third = report.predictions
    assert first == third and "scores" not in first
    np.testing.assert_allclose(
        second["scores"], [plain_log_likelihood(ranked["inputs"], ids(choice)) for choice in ("yes", "no")], rtol=1e-5
    )
    assert second["prediction"] == second["choices"][int(np.argmax(second["scores"]))]


def test_score_is_the_mean_over_tasks_of_the_main_metric():
    rows = [example("ab c", "yes", answer_choices=("yes", "no")), example("cd", "no", answer_choices=("yes", "no"))]
    report = evaluation.evaluate(
        parts(), [TaskExamples("all", rows, ("accuracy",))], settings=Evaluation(), lengths=LENGTHS, vocabulary=Letters()
    )
    right = [{**row, "targets_pretokenized": found["prediction"]} for row, found in zip(rows, report.predictions, strict=True)]
    wrong = [{**row, "targets_pretokenized": "neither"} for row in rows]
    tasks = [TaskExamples("right", right, ("accuracy", "exact_match")), TaskExamples("wrong", wrong, ("exact_match", "accuracy"))]
    report = evaluation.evaluate(parts(), tasks, settings=Evaluation(), lengths=LENGTHS, vocabulary=Letters())
    assert report.metrics == {"right": {"accuracy": 1.0, "exact_match": 1.0}, "wrong": {"exact_match": 0.0, "accuracy": 0.0}}
    assert report.score == 0.5
    assert [row["task"] for row in report.predictions] == ["right", "right", "wrong", "wrong"]


def test_tasks_without_metrics_are_judged_by_their_loss():
    rows = examples(6)
    report = evaluation.evaluate(
        parts(), [TaskExamples("text", rows, ())], settings=Evaluation(batch_size=4), lengths=LENGTHS, vocabulary=Letters()
    )
    total = sum(plain_log_likelihood(row["inputs"], row["targets"]) for row in rows)
    loss = -total / sum(len(row["targets"]) for row in rows)
    np.testing.assert_allclose(report.metrics["text"]["loss"], loss, rtol=1e-5)
    assert report.score == -report.metrics["text"]["loss"]
    assert [row["target_tokens"] for row in report.predictions] == [len(row["targets"]) for row in rows]


def test_two_tasks_of_one_name_are_an_error():
    task = TaskExamples("same", examples(1), ("accuracy",))
    with pytest.raises(UserError, match="two tasks are called same"):
        evaluation.evaluate(parts(), [task, task], settings=Evaluation(), lengths=LENGTHS, vocabulary=Letters())


def test_generate_mode_ignores_the_choices_and_rank_mode_wants_them():
    rows = [example("ab c", "yes", answer_choices=("yes", "no")), example("ab c", "yes")]
    task = TaskExamples("t", rows, ("accuracy",))
    report = evaluation.evaluate(parts(), [task], settings=Evaluation(mode="generate"), lengths=LENGTHS, vocabulary=Letters())
    assert report.predictions[0]["prediction"] == report.predictions[1]["prediction"]
    assert "scores" not in report.predictions[0]
    with pytest.raises(UserError, match="task t: example 1 has no answer choices"):
        evaluation.evaluate(parts(), [task], settings=Evaluation(mode="rank"), lengths=LENGTHS, vocabulary=Letters())


def test_weights_that_diverged_are_an_error():
    graphdef, trainable, frozen = parts()
    broken = jax.tree.map(lambda x: x * np.nan, trainable)
    task = TaskExamples("t", [example("ab", "yes", answer_choices=("yes", "no"))], ("accuracy",))
    with pytest.raises(UserError, match="not finite"):
        evaluation.evaluate((graphdef, broken, frozen), [task], settings=Evaluation(), lengths=LENGTHS, vocabulary=Letters())


def test_evaluating_again_compiles_nothing():
    rows, choices = examples(9), [["yes", "no"]] * 9
    score(rows, choices)
    before = evaluation._score_rows._cache_size()
    graphdef, trainable, frozen = parts()
    moved = jax.tree.map(lambda x: x + 0.5, trainable)
    fresh = nnx.split(nnx.merge(graphdef, moved, frozen), lambda path, _: "prompt" in path, ...)
    evaluation.score_choices(fresh, rows, choices=[[ids(c) for c in own] for own in choices], lengths=LENGTHS, batch_size=4)
    assert evaluation._score_rows._cache_size() == before


@pytest.mark.parametrize(
    ("field", "value"), [("batch_size", 0), ("max_examples", -1), ("mode", "best"), ("normalisation", "mean"), ("max_tokens", 0)]
)
def test_settings_out_of_range_are_errors_that_name_the_field(field, value):
    with pytest.raises(UserError, match=rf"Evaluation\.{field}"):
        Evaluation(**{field: value})


def test_a_task_without_examples_is_an_error():
    with pytest.raises(UserError, match="task empty: no example"):
        TaskExamples("empty", [], ("accuracy",))


def test_of_several_samples_the_majority_is_the_prediction_whatever_the_batch():
    settings = Evaluation(batch_size=4, samples=5, decoding=Decoding(temperature=3.0), max_tokens=1)
    task = TaskExamples("t", examples(3), ("final_answer",))
    found, other = (
        evaluation.evaluate(parts(), [task], settings=each, lengths=LENGTHS, vocabulary=Letters()).predictions
        for each in (settings, dataclasses.replace(settings, batch_size=7))
    )
    assert found == other
    for row in found:
        assert len(row["samples"]) == 5
        said = [text for text in row["samples"] if text.strip(" ?")] or row["samples"]  # A mark alone concludes nothing.
        assert said.count(row["prediction"]) == max(map(said.count, said))
    assert any(len(set(row["samples"])) > 1 for row in found), "each sample draws from a key of its own"
    with pytest.raises(UserError, match=r"Evaluation.samples: wanted 1 where nothing is drawn, got 5"):
        Evaluation(samples=5)
