"""Beam search over small made-up languages, beside all their texts written out. Beside transformers: `test_generation_oracles.py`."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import beam

VOCAB, HISTORIES = 4, 97
# Compiling is most of the time here.
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def hashed(history):
    """One of the language's rows of logits for each history of tokens; the first entry of a history is the row's own number."""
    return sum((int(token) + 1) * 31**place for place, token in enumerate(history)) % HISTORIES


def language(seed, spread=2.0):
    """Log-probabilities of the next token for each hash of what stands before it."""
    logits = spread * np.random.default_rng(seed).normal(size=(HISTORIES, VOCAB)).astype(np.float32)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@functools.partial(
    jax.jit, static_argnames=("max_tokens", "num_beams", "length_penalty", "early_stopping", "eos_ids"), compiler_options=FAST
)
def run(table, rows_B, **settings):
    """Searches with a cache that holds nothing but the histories: a beam with another's cache reads the wrong row."""
    length = settings["max_tokens"]
    weights = jnp.asarray([31**place % HISTORIES for place in range(length)])

    def logits(hashes):
        return table[hashes % HISTORIES]

    def step(tokens_R1, cache):
        filled = cache["filled"] + 1
        hashes = cache["hashes"] + (tokens_R1.T + 1) * weights[filled]
        return logits(hashes[0]), {"filled": filled, "hashes": hashes}

    cache = {"filled": jnp.int32(0), "hashes": (rows_B + 1)[None]}  # Rows on the second axis, as in keys and values.
    return beam.search(step, logits(rows_B + 1), cache, pad_id=9, **settings)


def search(table, rows, *, max_tokens=3, num_beams=3, length_penalty=1.0, early_stopping=False, eos_ids=(0,)):
    tokens, scores = run(
        jnp.asarray(table),
        jnp.asarray(rows),
        max_tokens=max_tokens,
        num_beams=num_beams,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        eos_ids=eos_ids,
    )
    return np.asarray(tokens), np.asarray(scores)


def score(table, row, text, length_penalty):
    logs = [table[hashed((row, *text[:place])), token] for place, token in enumerate(text)]
    return np.sum(logs, dtype=np.float64) / len(text) ** length_penalty


def texts(table, row, max_tokens, eos_ids, length_penalty):
    """All texts, best first, with their scores."""
    found = []
    for length in range(1, max_tokens + 1):
        for text in itertools.product(range(VOCAB), repeat=length):
            ends = [token in eos_ids for token in text]
            if not any(ends[:-1]) and (ends[-1] or length == max_tokens):
                found.append((score(table, row, text, length_penalty), text))
    return sorted(found, reverse=True)


def written(tokens_T, eos_ids):
    """A text without what stands after its end, which must be padding."""
    end = next((place + 1 for place, token in enumerate(tokens_T) if token in eos_ids), len(tokens_T))
    assert all(token == 9 for token in tokens_T[end:])
    return tuple(tokens_T[:end])


@pytest.mark.parametrize("eos_ids", [(0,), (1, 3), ()])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.5, -1.0])
def test_as_many_beams_as_texts_find_all_of_them_in_order(eos_ids, length_penalty):
    table, rows = language(0), np.array([0, 5])
    wanted = [texts(table, row, 3, eos_ids, length_penalty) for row in rows]
    tokens, scores = search(table, rows, num_beams=64, early_stopping="never", length_penalty=length_penalty, eos_ids=eos_ids)
    for row in range(len(rows)):
        count = len(wanted[row])
        np.testing.assert_allclose(scores[row, :count], [value for value, _ in wanted[row]], rtol=1e-5)
        assert (scores[row, count:] == -np.inf).all()
        assert [written(text.tolist(), eos_ids) for text in tokens[row, :count]] == [text for _, text in wanted[row]]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([(0,), (1, 3)]), st.sampled_from([1.0, -0.5]))
def test_texts_are_different_and_scored_right_and_waiting_longer_finds_no_worse(seed, eos_ids, length_penalty):
    table, rows = language(seed), np.array([2, 7, 11])
    found = [
        search(table, rows, max_tokens=7, early_stopping=early, eos_ids=eos_ids, length_penalty=length_penalty)
        for early in (True, False, "never")
    ]
    for tokens, scores in found:
        for row, own, values in zip(rows, tokens, scores, strict=True):
            kept = [written(text.tolist(), eos_ids) for text in own]
            assert len(set(kept)) == len(kept)
            assert sorted(values, reverse=True) == values.tolist()
            np.testing.assert_allclose(values, [score(table, row, text, length_penalty) for text in kept], rtol=1e-4, atol=1e-5)
    at_once, later, never = (scores for _, scores in found)
    assert (at_once <= later).all() and (later <= never).all()
    if length_penalty <= 0:  # The present length is the bound then.
        np.testing.assert_array_equal(later, never)


def test_the_three_ways_to_stop_differ():
    scores = [
        search(language(4, spread=1.0), np.arange(20), max_tokens=9, length_penalty=2.0, early_stopping=early)[1]
        for early in (True, False, "never")
    ]
    assert (scores[0] < scores[1]).any() and (scores[1] < scores[2]).any()


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_a_row_does_not_depend_on_the_rest_of_the_batch(early_stopping):
    table = language(1)
    together = search(table, np.arange(8), max_tokens=6, early_stopping=early_stopping)
    for row in (0, 3, 7):
        alone = search(table, np.array([row]), max_tokens=6, early_stopping=early_stopping)
        for whole, own in zip(together, alone, strict=True):
            np.testing.assert_array_equal(whole[row], own[0])


def test_one_beam_is_greedy():
    table = language(2)
    tokens, scores = search(table, np.array([3]), max_tokens=5, num_beams=1, early_stopping=True)
    text = []
    while len(text) < 5 and 0 not in text:
        text.append(int(np.argmax(table[hashed((3, *text))])))
    assert written(tokens[0, 0].tolist(), (0,)) == tuple(text)
    np.testing.assert_allclose(scores[0, 0], score(table, 3, text, 1.0), rtol=1e-5)


def test_one_token_needs_no_loop():
    table = language(3)
    tokens, scores = search(table, np.array([3]), max_tokens=1, num_beams=2)
    best = np.argsort(-table[hashed((3,))])[:2]
    assert tokens[0, :, 0].tolist() == best.tolist()
    np.testing.assert_allclose(scores[0], table[hashed((3,))][best], rtol=1e-6)
