"""Generation: the cache changes nothing, a row depends on itself alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import decoding
from prompt_tuning.data import features
from prompt_tuning.data.features import EOS_ID, PromptLayout
from prompt_tuning.models.layers import Tunable
from prompt_tuning.models.t5 import T5, T5Config

TINY = T5Config(vocab_size=48, d_model=16, d_ff=24, num_heads=2, d_kv=8, num_encoder_layers=2, num_decoder_layers=2)
MAX_TOKENS = 9


class Rows(nnx.Module):
    """A prompt of given rows."""

    def __init__(self, rows_PD):
        self.rows = Tunable(jnp.asarray(rows_PD))

    def __call__(self):
        return self.rows[...]


def tiny_model(*, seed=0, prompt_rows=0, config=TINY):
    """A random model whose head leans towards the end token now and then, so that rows end at different lengths."""
    model = T5(config, nnx.Rngs(seed))
    model.head.kernel[...] = model.head.kernel[...].at[:, EOS_ID].multiply(2.0)
    if prompt_rows:
        model.embed.prompt = Rows(np.random.default_rng(seed).normal(size=(prompt_rows, config.d_model)).astype(np.float32))
    return model


@functools.partial(jax.jit, static_argnums=0)
def run(graphdef, state, batch):
    return nnx.merge(graphdef, state)(batch)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("max_tokens", "temperature"))
def run_generate(graphdef, state, batch, keys_B, *, max_tokens, temperature):
    return decoding.generate(nnx.merge(graphdef, state), batch, max_tokens=max_tokens, temperature=temperature, keys_B=keys_B)


def generate(model, batch, *, max_tokens=MAX_TOKENS, temperature=0.0, keys_B=None):
    return np.asarray(run_generate(*nnx.split(model), batch, keys_B, max_tokens=max_tokens, temperature=temperature))


def examples(n=6, seed=0):
    rng = np.random.default_rng(seed)
    return [{"inputs": [*rng.integers(3, 48, size=rng.integers(1, 12)).tolist(), EOS_ID], "targets": [EOS_ID]} for _ in range(n)]


def encoder_batch(rows, prompt, input_length=13):
    batch = features.layout(rows, input_length=input_length, target_length=1, prompt=prompt)
    batch = {name: value for name, value in batch.items() if name.startswith("encoder_")}
    tokens_T, slots_T = features.decoder_start(prompt)
    batch["decoder_start_tokens"] = np.tile(tokens_T, (len(rows), 1))
    if prompt.decoder_length:
        batch["decoder_start_slots"] = np.tile(slots_T, (len(rows), 1))
    return batch


def uncached(model, rows, prompt):
    """The likeliest continuation by running the whole model anew for every token."""
    written = [[] for _ in rows]
    for _ in range(MAX_TOKENS):
        padded = [{**row, "targets": [*own, 2]} for row, own in zip(rows, written, strict=True)]
        batch = features.layout(padded, input_length=13, target_length=MAX_TOKENS, prompt=prompt)
        logits_BTV = np.asarray(run(*nnx.split(model), batch))
        for row, own in enumerate(written):
            if EOS_ID not in own:
                own.append(int(np.argmax(logits_BTV[row, prompt.decoder_length + len(own)])))
    return [own + [0] * (MAX_TOKENS - len(own)) for own in written]


@pytest.mark.parametrize(
    "prompt",
    [
        PromptLayout(),
        PromptLayout(encoder_length=3),
        PromptLayout(encoder_length=2, decoder_length=3),
        PromptLayout(decoder_length=3, placement="after_first"),
        PromptLayout(encoder_length=2, placement="suffix"),
    ],
)
def test_cached_generation_equals_running_the_whole_model_anew(prompt):
    model = tiny_model(prompt_rows=prompt.encoder_length + prompt.decoder_length)
    rows = examples()
    tokens_BT = generate(model, encoder_batch(rows, prompt))
    assert tokens_BT.tolist() == uncached(model, rows, prompt)


def test_rows_end_at_their_own_end_token_and_are_zero_after_it():
    rows = examples(24)
    tokens_BT = generate(tiny_model(), encoder_batch(rows, PromptLayout()))
    lengths = set()
    for tokens_T in tokens_BT.tolist():
        end = tokens_T.index(EOS_ID) if EOS_ID in tokens_T else MAX_TOKENS - 1
        lengths.add(end)
        assert not any(tokens_T[end + 1 :])
    assert len(lengths) > 1, "the test wants rows that end at different lengths"


def test_generation_does_not_depend_on_batch_or_padding():
    model, prompt, rows = tiny_model(prompt_rows=4), PromptLayout(encoder_length=2, decoder_length=2), examples(8)
    together = generate(model, encoder_batch(rows, prompt, input_length=29))
    for row in (0, 3, 7):
        alone = generate(model, encoder_batch([rows[row]], prompt, input_length=len(rows[row]["inputs"])))
        assert alone[0].tolist() == together[row].tolist()


def test_one_token_needs_no_loop():
    rows, prompt = examples(3), PromptLayout()
    one = generate(tiny_model(), encoder_batch(rows, prompt), max_tokens=1)
    more = generate(tiny_model(), encoder_batch(rows, prompt), max_tokens=4)
    np.testing.assert_array_equal(one, more[:, :1])


def test_sampling_depends_on_the_rows_key_alone_and_turns_greedy_when_cold():
    model, rows, prompt = tiny_model(), examples(5), PromptLayout()
    keys_B = jax.random.split(jax.random.key(0), len(rows))

    def sample(chosen, temperature):
        batch = encoder_batch([rows[i] for i in chosen], prompt)
        return generate(model, batch, temperature=temperature, keys_B=keys_B[np.array(chosen)]).tolist()

    whole = sample([0, 1, 2, 3, 4], 2.0)
    assert sample([4, 2, 0, 1, 1], 2.0) == [whole[i] for i in (4, 2, 0, 1, 1)]
    greedy = generate(model, encoder_batch(rows, prompt)).tolist()
    assert whole != greedy
    assert sample([0, 1, 2, 3, 4], 1e-4) == greedy


def test_without_end_cuts_at_the_end_token_and_at_padding():
    assert decoding.without_end([5, 0, 6, 1, 0, 0]) == [5, 0, 6]
    assert decoding.without_end(np.array([5, 6, 0, 0])) == [5, 6]
    assert decoding.without_end([1]) == []
