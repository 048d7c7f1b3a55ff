"""Pretraining objectives as SeqIO preprocessors: T5's span corruption and the language-model objectives of LM adaptation.

`span_corruption` and `prefix_language_model` read examples with tokenized `targets` (no EOS) and give `inputs` and `targets` (no EOS:
`seqio.preprocessors.append_eos` follows). They draw from stateless seeds that SeqIO hands out (`seqio.map_over_dataset`), so a seeded
pipeline gives the same stream every time.

- Span corruption: Raffel et al. 2020 (arXiv:1910.10683), section 3.1.4 and figure 2. The targets end with one more sentinel, as in the
paper's
  figure; the sentinels count down from the top of the vocabulary.
- Prefix language model: Raffel et al. 2020, section 3.2.3; Lester et al. 2021 (arXiv:2104.08691), section 3.1, "LM adaptation".
"""

from collections.abc import Mapping

import seqio
import tensorflow as tf

from prompt_tuning.errors import UserError

NOISE_DENSITY = 0.15
MEAN_SPAN_TOKENS = 3.0


def span_corruption_lengths(
    input_length: int, *, noise_density: float = NOISE_DENSITY, mean_span_tokens: float = MEAN_SPAN_TOKENS
) -> tuple[int, int]:
    """`(text_tokens, target_length)`: the most tokens whose corrupted inputs and EOS fit `input_length`, and what their targets take.

    Raises UserError when the inputs are too short to corrupt anything.
    """
    best = None
    for text_tokens in range(2, 2 * input_length + 16):
        noise, spans = _noise_counts(text_tokens, noise_density, mean_span_tokens)
        if text_tokens - noise + spans + 1 <= input_length:
            best = (text_tokens, noise + spans + 2)
    if best is None:
        raise UserError(f"span corruption: input_length {input_length} is too short; wanted at least 3 tokens; raise INPUT_LENGTH")
    return best


def join_and_split(dataset: tf.data.Dataset, *, tokens: int, separator: int | None = None) -> tf.data.Dataset:
    """Joins documents and cuts the long text into pieces of exactly `tokens` tokens, under `targets`.

    Args:
      dataset: elements whose `targets` is a ragged batch of tokenized documents, int32 [documents, (tokens)]. Each batch makes one long
        text; what is left at its end (less than one piece) is dropped.
      tokens: the tokens of a piece.
      separator: a token id put after each document, or None for nothing, as in T5.
    """

    def pieces(example: Mapping[str, tf.RaggedTensor]) -> tf.data.Dataset:
        documents = example["targets"]
        if separator is not None:
            ends = tf.fill([documents.nrows(), 1], tf.constant(separator, documents.dtype))
            documents = tf.concat([documents, ends], axis=1)
        text = documents.flat_values
        whole = tf.size(text) // tokens
        return tf.data.Dataset.from_tensor_slices({"targets": tf.reshape(text[: whole * tokens], [whole, tokens])})

    return dataset.flat_map(pieces)


def one_by_one(dataset: tf.data.Dataset, *, tokens: int) -> tf.data.Dataset:
    """Each document of ragged batches (see `join_and_split`) alone, cut to `tokens` tokens; those under two are left out."""

    def each(example: Mapping[str, tf.RaggedTensor]) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices({"targets": example["targets"][:, :tokens]})

    return dataset.flat_map(each).filter(lambda example: tf.size(example["targets"]) > 1)


@seqio.map_over_dataset(num_seeds=1)
def span_corruption(
    example: Mapping[str, tf.Tensor],
    output_features: Mapping[str, seqio.Feature],
    seed: tf.Tensor,
    noise_density: float = NOISE_DENSITY,
    mean_span_tokens: float = MEAN_SPAN_TOKENS,
) -> dict[str, tf.Tensor]:
    """Replaces random spans of `targets` by sentinels: `inputs` is the text with sentinels, `targets` the spans with theirs."""
    tokens = example["targets"]
    mask = noise_mask(tf.shape(tokens)[0], seed, noise_density=noise_density, mean_span_tokens=mean_span_tokens)
    first = output_features["targets"].vocabulary.vocab_size - 1
    inputs, targets = corrupt(tokens, mask, first_sentinel=first)
    return {"inputs": inputs, "targets": targets}


def noise_mask(
    length: tf.Tensor | int, seed: tf.Tensor, *, noise_density: float = NOISE_DENSITY, mean_span_tokens: float = MEAN_SPAN_TOKENS
) -> tf.Tensor:
    """A bool vector [length], true on noise: as many spans as fit the mean, of random lengths, starting with text and ending with noise.

    The noise tokens number round(length * noise_density), at least 1 and at most length - 1; below two tokens nothing is noise.
    """
    length = tf.convert_to_tensor(length, tf.int32)
    as_float = tf.cast(length, tf.float64)  # As Python counts, so that the lengths agree with span_corruption_lengths.
    noise = tf.clip_by_value(tf.cast(tf.round(as_float * noise_density), tf.int32), 1, tf.maximum(length - 1, 1))
    spans = tf.maximum(tf.cast(tf.round(tf.cast(noise, tf.float64) / mean_span_tokens), tf.int32), 1)
    spans = tf.minimum(spans, tf.maximum(length - noise, 1))
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    lengths = tf.reshape(tf.stack([_random_parts(length - noise, spans, seeds[0]), _random_parts(noise, spans, seeds[1])], axis=1), [-1])
    is_noise = tf.math.mod(tf.range(2 * spans), 2) == 1
    mask = tf.repeat(is_noise, lengths)
    return tf.cond(length < 2, lambda: tf.zeros([length], tf.bool), lambda: mask)


def corrupt(tokens: tf.Tensor, mask: tf.Tensor, *, first_sentinel: int) -> tuple[tf.Tensor, tf.Tensor]:
    """`(inputs, targets)` of a text and a noise mask of the same length.

    In `inputs` each noise span is one sentinel; `targets` holds each sentinel, then its span, and one last sentinel. Sentinel k has id
    first_sentinel - k.
    """
    before = tf.concat([[False], mask[:-1]], axis=0)
    opens = mask & ~before
    sentinels = tf.cast(first_sentinel, tokens.dtype) - tf.cast(tf.cumsum(tf.cast(opens, tf.int32)) - 1, tokens.dtype)
    inputs = tf.boolean_mask(tf.where(opens, sentinels, tokens), opens | ~mask)
    # Each token of the text may bring its sentinel before it: two columns, of which the mask keeps what belongs to the targets.
    pairs = tf.stack([sentinels, tokens], axis=1)
    targets = tf.boolean_mask(pairs, tf.stack([opens, mask], axis=1))
    last = tf.cast(first_sentinel, tokens.dtype) - tf.reduce_sum(tf.cast(opens, tokens.dtype))
    return inputs, tf.concat([targets, [last]], axis=0)


@seqio.map_over_dataset(num_seeds=1)
def prefix_language_model(
    example: Mapping[str, tf.Tensor],
    seed: tf.Tensor,
    min_prefix_tokens: int = 1,
    max_prefix_tokens: int | None = None,
    max_continuation_tokens: int | None = None,
    sentence_end_ids: tuple[int, ...] = (),
    sentence_share: float = 0.0,
    sentence_draws: int = 1,
) -> dict[str, tf.Tensor]:
    """Splits `targets` at a random point: the prefix becomes `inputs`, the rest `targets`.

    The split is uniform over the prefixes of min_prefix_tokens (or all but one token, where the text is shorter) to length - 1 tokens that
    leave prefix and continuation within their greatest lengths; but with chance `sentence_share` it is among those of these prefixes that
    end a sentence, with one of `sentence_end_ids`, if there is any: the longest of `sentence_draws` drawn evenly.
    """
    tokens = example["targets"]
    length = tf.shape(tokens)[0]
    low = tf.minimum(min_prefix_tokens, tf.maximum(length - 1, 0))
    high = length - 1
    if max_continuation_tokens is not None:
        low = tf.maximum(low, length - max_continuation_tokens)
    if max_prefix_tokens is not None:
        high = tf.minimum(high, max_prefix_tokens)
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    split = tf.random.stateless_uniform([], seeds[0], minval=low, maxval=tf.maximum(high, low) + 1, dtype=tf.int32)
    if sentence_end_ids and sentence_share:
        ends = tf.reduce_any(tokens[:, None] == tf.constant(sentence_end_ids, tokens.dtype)[None, :], axis=1)
        prefixes = tf.range(1, length + 1)
        whole = tf.boolean_mask(prefixes, ends & (prefixes >= low) & (prefixes <= high))
        count = tf.size(whole)
        drawn = tf.reduce_max(tf.random.stateless_uniform([sentence_draws], seeds[1], maxval=tf.maximum(count, 1), dtype=tf.int32))
        at_sentence = (count > 0) & (tf.random.stateless_uniform([], seeds[2]) < sentence_share)
        split = tf.cond(at_sentence, lambda: whole[drawn], lambda: split)
    return {"inputs": tokens[:split], "targets": tokens[split:]}


def _noise_counts(tokens: int, noise_density: float, mean_span_tokens: float) -> tuple[int, int]:
    """The counts `noise_mask` makes: `(noise tokens, spans)`. Both round half to even."""
    noise = min(max(round(tokens * noise_density), 1), max(tokens - 1, 1))
    spans = max(round(noise / mean_span_tokens), 1)
    return noise, min(spans, max(tokens - noise, 1))


def _random_parts(total: tf.Tensor, parts: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """`total` as a sum of `parts` positive numbers, each such sum equally likely: int32 [parts]."""
    # Choose parts - 1 of the total - 1 places between units as cuts: the first places of a random order.
    places = tf.argsort(tf.random.stateless_uniform([tf.maximum(total - 1, 0)], seed))
    cuts = tf.sort(places[: parts - 1] + 1)
    edges = tf.concat([[0], cuts, [total]], axis=0)
    return edges[1:] - edges[:-1]
