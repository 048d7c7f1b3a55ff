"""Our decoders beside transformers' on the same random weights, read from the folder that transformers writes.

Agreement is the largest difference over the largest absolute logit, at the positions that count: 1e-4 at most, in float32.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop import tiny_decoders as tiny

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

LENGTHS = (19, 12, 1)
SEGMENTS = (np.arange(19) < np.array(LENGTHS)[:, None]).astype(np.int32)
TOKENS = np.random.default_rng(0).integers(1, 61, SEGMENTS.shape).astype(np.int32) * SEGMENTS


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / request.param
    theirs = tiny.huggingface_model(request.param)
    tiny.save(theirs, folder)
    ours, _ = tiny.load(folder)
    return ours, theirs


def _their_logits(theirs, tokens, mask):
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    with torch.no_grad():
        out = theirs(
            input_ids=torch.tensor(tokens, dtype=torch.long),
            attention_mask=torch.tensor(mask, dtype=torch.long),
            position_ids=torch.tensor(positions, dtype=torch.long),
        )
    return out.logits.numpy()


def _difference(ours, theirs, counted):
    return np.max(np.abs(np.asarray(ours) - theirs)[counted > 0]) / np.max(np.abs(theirs)[counted > 0])


@pytest.mark.parametrize("side", ["right", "left"])
def test_logits_equal_transformers(pair, side):
    ours, theirs = pair
    turn = slice(None) if side == "right" else slice(None, None, -1)
    tokens, segments = TOKENS[:, turn].copy(), SEGMENTS[:, turn].copy()
    logits = jax.jit(lambda model, batch: model(batch))(
        ours, {"decoder_input_tokens": jnp.asarray(tokens), "decoder_segment_ids": jnp.asarray(segments)}
    )
    assert _difference(logits, _their_logits(theirs, tokens, segments), segments) < 1e-4


def test_a_prompt_of_transformers_embeddings_gives_its_logits(pair):
    """What a soft prompt is to transformers: rows among `inputs_embeds`, which Gemma does not scale."""
    from prompt_tuning.methods.prompt import PromptRows

    ours, theirs = pair
    rows = np.random.default_rng(1).normal(size=(3, 24)).astype(np.float32)
    with torch.no_grad():
        tokens = theirs.get_input_embeddings()(torch.tensor(TOKENS[:1], dtype=torch.long))
        wanted = theirs(inputs_embeds=torch.cat([torch.tensor(rows)[None], tokens], dim=1)).logits.numpy()
    slots = np.concatenate([np.arange(3), np.full(19, -1)]).astype(np.int32)[None]
    batch = {
        "decoder_input_tokens": jnp.asarray(np.concatenate([np.zeros((1, 3), np.int32), TOKENS[:1]], axis=1)),
        "decoder_segment_ids": jnp.ones((1, 22), jnp.int32),
        "decoder_prompt_slots": jnp.asarray(slots),
    }
    graphed = tiny.model_with(ours.config, {name: v.get_value() for name, v in tiny.trainable.named_variables(ours)})
    graphed.embed.prompt = PromptRows(jnp.asarray(rows))
    got = jax.jit(lambda model, batch: model(batch))(graphed, batch)
    assert _difference(got, wanted, np.ones((1, 22))) < 1e-4
