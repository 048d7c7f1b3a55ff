"""Span corruption and the prefix language model: the paper's example, and what must hold for any text."""

import numpy as np
import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import objectives, vocabularies
from prompt_tuning.errors import UserError

FIGURE_2 = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
TOP = 483


def corrupted_words(mask: list[int]) -> tuple[str, str]:
    """The text of figure 2 under a mask, sentinels as <X>, <Y>, <Z>."""
    inputs, targets = objectives.corrupt(tf.range(len(FIGURE_2)), tf.constant(mask) > 0, first_sentinel=TOP)
    names = dict(enumerate(FIGURE_2)) | {TOP: "<X>", TOP - 1: "<Y>", TOP - 2: "<Z>"}
    return " ".join(names[i] for i in inputs.numpy()), " ".join(names[i] for i in targets.numpy())


def test_figure_2_of_the_paper():
    inputs, targets = corrupted_words([0, 0, 1, 1, 0, 0, 0, 0, 1, 0])
    assert inputs == "Thank you <X> me to your party <Y> week"
    assert targets == "<X> for inviting <Y> last <Z>"


def test_noise_at_the_ends():
    inputs, targets = corrupted_words([1, 0, 0, 0, 0, 0, 0, 0, 0, 1])
    assert inputs == "<X> you for inviting me to your party last <Y>"
    assert targets == "<X> Thank <Y> week <Z>"


@pytest.mark.parametrize("length", [2, 3, 5, 17, 50, 141])
def test_noise_mask_has_the_share_and_the_spans_asked_for(length):
    for seed in range(5):
        mask = objectives.noise_mask(length, tf.constant([seed, 7])).numpy()
        noise = min(max(round(0.15 * length), 1), length - 1)
        assert len(mask) == length
        assert mask.sum() == noise
        starts = int((np.diff(mask.astype(int), prepend=0) == 1).sum())
        assert starts == max(round(noise / 3), 1)
        assert not mask[0], "begins with text"
        assert mask[-1], "ends with noise"


def test_a_text_of_one_token_has_no_noise():
    assert not objectives.noise_mask(1, tf.constant([0, 0])).numpy().any()


def test_noise_moves_with_the_seed():
    masks = {objectives.noise_mask(50, tf.constant([seed, 0])).numpy().tobytes() for seed in range(8)}
    assert len(masks) > 4


def spliced(inputs: np.ndarray, targets: np.ndarray, lowest: int) -> list[int]:
    """The text back from inputs and targets: each sentinel of the inputs is replaced by what follows it in the targets."""
    spans: dict[int, list[int]] = {}
    for token in targets.tolist():
        if token > lowest:
            spans[token] = []
            last = token
        else:
            spans[last].append(token)
    text: list[int] = []
    for token in inputs.tolist():
        text += spans[token] if token > lowest else [token]
    return text


def run(objective, texts: list[np.ndarray], seed: int = 3, **settings) -> list[dict[str, np.ndarray]]:
    dataset = tf.data.Dataset.from_generator(
        lambda: ({"targets": text} for text in texts), output_signature={"targets": tf.TensorSpec([None], tf.int32)}
    )
    features = {"targets": seqio.Feature(vocabularies.Bytes(extra_ids=100).load())}
    with seqio.map_seed_manager(seed):
        if objective is objectives.span_corruption:
            settings["output_features"] = features
        return list(objective(dataset, **settings).as_numpy_iterator())


def random_texts(count: int = 12) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(3, 250, size=rng.integers(2, 150)).astype(np.int32) for _ in range(count)]


def test_span_corruption_loses_nothing():
    texts = random_texts()
    top = vocabularies.Bytes(extra_ids=100).load().vocab_size - 1
    for text, example in zip(texts, run(objectives.span_corruption, texts), strict=True):
        assert spliced(example["inputs"], example["targets"], top - 100) == text.tolist()
        sentinels = [token for token in example["targets"].tolist() if token > top - 100]
        assert sentinels == list(range(top, top - len(sentinels), -1)), "they count down from the top"
        assert example["targets"][-1] == sentinels[-1], "and one more ends the targets"
        assert [token for token in example["inputs"].tolist() if token > top - 100] == sentinels[:-1]


def test_objectives_repeat_with_their_seed():
    texts = random_texts()
    for objective in (objectives.span_corruption, objectives.prefix_language_model):
        first, again, other = run(objective, texts), run(objective, texts), run(objective, texts, seed=4)
        same = [all((a[key] == b[key]).all() for key in a) for a, b in zip(first, again, strict=True)]
        assert all(same)
        assert any(len(a["inputs"]) != len(b["inputs"]) or (a["inputs"] != b["inputs"]).any() for a, b in zip(first, other, strict=True))


def test_prefix_and_continuation_make_the_text():
    texts = random_texts(40)
    examples = run(objectives.prefix_language_model, texts, min_prefix_tokens=2)
    for text, example in zip(texts, examples, strict=True):
        assert [*example["inputs"], *example["targets"]] == text.tolist()
        assert len(example["targets"]) >= 1
        assert len(example["inputs"]) >= min(2, len(text) - 1)
    shares = [len(example["inputs"]) / len(text) for text, example in zip(texts, examples, strict=True) if len(text) > 20]
    assert min(shares) < 0.3
    assert max(shares) > 0.7


def test_prefix_and_continuation_keep_their_lengths():
    texts = [np.arange(30, dtype=np.int32)] * 30
    for example in run(objectives.prefix_language_model, texts, max_prefix_tokens=20, max_continuation_tokens=15):
        assert len(example["inputs"]) <= 20
        assert len(example["targets"]) <= 15


def test_prefixes_end_sentences_as_often_as_asked_and_later_with_more_draws():
    end = 7
    # Sentences of 3, 5 and 4 tokens; the last of them ends the text, which is no place to split.
    texts = [np.array([9, 9, end, 9, 9, 9, 9, end, 9, 9, 9, end], np.int32)] * 200
    whole = {share: run(objectives.prefix_language_model, texts, sentence_end_ids=(end,), sentence_share=share) for share in (0.6, 1.0)}
    assert {len(example["inputs"]) for example in whole[1.0]} == {3, 8}
    # Of the splits anywhere, 2 in 11 end a sentence too: 0.6 + 0.4 * 2 / 11 = 0.67; four standard errors are 0.13.
    assert np.mean([len(example["inputs"]) in (3, 8) for example in whole[0.6]]) == pytest.approx(0.67, abs=0.13)
    for draws, late in ((1, 1 / 2), (2, 3 / 4), (3, 7 / 8)):
        found = run(objectives.prefix_language_model, texts, sentence_end_ids=(end,), sentence_share=1.0, sentence_draws=draws)
        assert np.mean([len(example["inputs"]) == 8 for example in found]) == pytest.approx(late, abs=0.14)


@pytest.mark.parametrize("input_length", [8, 64, 128, 512])
def test_span_corruption_fills_the_inputs(input_length):
    tokens, target_length = objectives.span_corruption_lengths(input_length)
    (example,) = run(objectives.span_corruption, [np.full(tokens, 5, np.int32)])
    assert len(example["inputs"]) + 1 == input_length, "with EOS"
    assert len(example["targets"]) + 1 == target_length
    (longer,) = run(objectives.span_corruption, [np.full(tokens + 1, 5, np.int32)])
    assert len(longer["inputs"]) + 1 > input_length


def test_t5s_own_lengths():
    # T5 gives 568 tokens and 114 targets for 512; ours has one more target, the last sentinel of the paper's figure.
    assert objectives.span_corruption_lengths(512) == (568, 115)


def test_joined_text_is_cut_into_full_pieces():
    texts = tf.ragged.constant([[1, 2, 3], [4], [5, 6, 7, 8]], tf.int32)
    dataset = tf.data.Dataset.from_tensors({"targets": texts})
    pieces = [example["targets"].tolist() for example in objectives.join_and_split(dataset, tokens=3).as_numpy_iterator()]
    assert pieces == [[1, 2, 3], [4, 5, 6]]
    pieces = [example["targets"].tolist() for example in objectives.join_and_split(dataset, tokens=5, separator=9).as_numpy_iterator()]
    assert pieces == [[1, 2, 3, 9, 4], [9, 5, 6, 7, 8]]
    alone = [example["targets"].tolist() for example in objectives.one_by_one(dataset, tokens=3).as_numpy_iterator()]
    assert alone == [[1, 2, 3], [5, 6, 7]]


def test_too_short_inputs_are_refused():
    with pytest.raises(UserError, match="INPUT_LENGTH"):
        objectives.span_corruption_lengths(1)
