"""A soft prompt over real pretrained weights: tuned on some stories, it lowers the perplexity of others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from prompt_tuning import losses, trainable
from prompt_tuning.methods.prompt import Prompt, SampledVocabulary
from tests.interop import tiny_decoders as tiny
from tests.shared import shared_path

LENGTH, PROMPT, BATCH, STEPS, HELD_OUT = 80, 8, 16, 60, 32


def _stories():
    """Rows [*, LENGTH + 1]: the start token and the first pieces of a story."""
    sentencepiece = pytest.importorskip("sentencepiece")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(shared_path("data/babyllama/tok105.model")))
    text = shared_path("data/babyllama/tinystories_excerpt.txt").read_text()
    stories = ["One day" + story for story in text.split("One day")[1:]]
    rows = [[pieces.bos_id(), *pieces.encode(story)[:LENGTH]] for story in stories]
    return np.array([row for row in rows if len(row) == LENGTH + 1], np.int32)


def _batch(rows, *, prompt):
    """Prompt slots, then the tokens, each asked for the next one."""
    count = len(rows)
    width = PROMPT if prompt else 0
    slots = np.concatenate([np.arange(width), np.full(LENGTH, -1)]).astype(np.int32)
    before = np.zeros((count, width), np.int32)
    return {
        "decoder_input_tokens": jnp.asarray(np.concatenate([before, rows[:, :-1]], axis=1)),
        "decoder_target_tokens": jnp.asarray(np.concatenate([before, rows[:, 1:]], axis=1)),
        "decoder_loss_weights": jnp.asarray(np.concatenate([before, np.ones((count, LENGTH))], axis=1), jnp.float32),
        "decoder_segment_ids": jnp.ones((count, width + LENGTH), jnp.int32),
        "decoder_prompt_slots": jnp.asarray(np.tile(slots, (count, 1))),
    }


def _loss(model, batch):
    """Nats a token."""
    total, count, _ = losses.cross_entropy(model(batch), batch["decoder_target_tokens"], weights_BT=batch["decoder_loss_weights"])
    return total / count


@pytest.mark.slow
def test_a_prompt_tuned_on_some_stories_lowers_the_perplexity_of_others():
    rows = _stories()
    held_out, train = rows[:HELD_OUT], rows[HELD_OUT:]
    model, _ = tiny.load(shared_path("data/babyllama/model5000.bin"), unroll_layers=False)
    plain = float(jax.jit(_loss)(model, _batch(held_out, prompt=False)))
    Prompt(length=PROMPT, initializer=SampledVocabulary()).attach(model, jax.random.key(0), vocabulary=None)
    graphdef, tuned, frozen = trainable.split(model, trainable.Tunable)
    transform = optax.adam(0.01)
    state = transform.init(tuned)

    def loss_of(tuned, batch):
        return _loss(nnx.merge(graphdef, tuned, frozen), batch)

    @jax.jit
    def step(tuned, state, batch):
        loss, gradient = jax.value_and_grad(loss_of)(tuned, batch)
        updates, state = transform.update(gradient, state)
        return optax.apply_updates(tuned, updates), state, loss

    evaluate = jax.jit(loss_of)
    first = float(evaluate(tuned, _batch(held_out, prompt=True)))
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        tuned, state, _ = step(tuned, state, _batch(train[rng.choice(len(train), BATCH)], prompt=True))
    last = float(evaluate(tuned, _batch(held_out, prompt=True)))
    print(
        f"{len(train)} stories; perplexity of {HELD_OUT} others: no prompt {np.exp(plain):.4f}, {np.exp(first):.4f} -> {np.exp(last):.4f}"
    )
    assert last < first
    assert last < plain
