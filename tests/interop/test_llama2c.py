"""The llama2.c model of the development data beside a forward pass written here in NumPy, by llama2.c's own rules."""

import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import interop
from prompt_tuning.errors import UserError
from prompt_tuning.interop import llama2c
from prompt_tuning.models.decoder import DecoderConfig
from tests.interop import tiny_decoders as tiny
from tests.shared import shared_path

WINDOWS, LENGTH = 6, 200


def entries_of(path):
    source = llama2c.open_model(path)
    return {name: source.read(name).astype(np.float64) for name in source.shapes}


def numpy_logits(w, tokens, heads, key_heads):
    """Logits [T, V] of one sequence in float64."""

    def norm(x, scale):
        return scale * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-5)

    def turned(x):
        """Coordinates 2i and 2i + 1 as a complex number, times the angle of its position."""
        pairs = x[..., 0::2] + 1j * x[..., 1::2]
        length, width = len(x), x.shape[-1]
        angle = np.arange(length)[:, None] * 10000.0 ** (-np.arange(0, width, 2) / width)
        pairs = pairs * np.exp(1j * angle)[:, None]
        return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)

    x = w["token_embedding_table"][tokens]
    length, width = x.shape
    head_width = width // heads
    for n in range(len(w["wq"])):
        y = norm(x, w["rms_att_weight"][n])
        q = turned((y @ w["wq"][n].T).reshape(length, heads, head_width))
        k = turned((y @ w["wk"][n].T).reshape(length, key_heads, head_width)).repeat(heads // key_heads, axis=1)
        v = (y @ w["wv"][n].T).reshape(length, key_heads, head_width).repeat(heads // key_heads, axis=1)
        scores = np.einsum("thk,shk->hts", q, k) / np.sqrt(head_width)
        scores = np.where(np.tril(np.ones((length, length), bool)), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        x = x + np.einsum("hts,shk->thk", weights, v).reshape(length, width) @ w["wo"][n].T
        y = norm(x, w["rms_ffn_weight"][n])
        gate = y @ w["w1"][n].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w["w3"][n].T)) @ w["w2"][n].T
    return norm(x, w["rms_final_weight"]) @ w.get("wcls", w["token_embedding_table"]).T


def losses(logits, targets):
    """Nats of each target [T]."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=-1)) - np.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]


def test_the_real_model_has_the_perplexity_of_an_independent_forward_pass():
    sentencepiece = pytest.importorskip("sentencepiece")
    path = shared_path("data/babyllama/model5000.bin")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(shared_path("data/babyllama/tok105.model")))
    text = shared_path("data/babyllama/tinystories_excerpt.txt").read_text()
    config = DecoderConfig(**interop.stated_fields(str(path)))
    values, sources = interop.load_base(str(path), config, tiny.abstract(config))
    assert set(values) == set(sources) == set(tiny.abstract(config))
    stories = ["One day" + story for story in text.split("One day")[1:]]
    rows = [([pieces.bos_id(), *pieces.encode(story)])[: LENGTH + 1] for story in stories]
    rows = np.array([row for row in rows if len(row) == LENGTH + 1][:WINDOWS], np.int32)
    assert rows.shape == (WINDOWS, LENGTH + 1)
    batch = {"decoder_input_tokens": jnp.asarray(rows[:, :-1]), "decoder_segment_ids": jnp.ones((WINDOWS, LENGTH), jnp.int32)}
    logits = np.asarray(jax.jit(lambda model, batch: model(batch))(tiny.model_with(config, values), batch))
    w = entries_of(path)
    wanted = np.stack([numpy_logits(w, row[:-1], config.num_heads, config.num_kv_heads) for row in rows])
    assert np.abs(logits - wanted).max() < 1e-4 * np.abs(wanted).max()
    ours, theirs = (
        np.exp(np.mean([losses(each, row[1:]) for each, row in zip(both, rows, strict=True)])) for both in (logits.astype(float), wanted)
    )
    print(f"perplexity a token {ours:.4f}, by NumPy {theirs:.4f}")
    assert abs(ours - theirs) < 1e-4 * theirs
    # Uniform guessing among 105 pieces has perplexity 105.
    assert ours < 5
    # What is computed here instead of read is what the file says.
    angle = np.arange(256)[:, None] * config.turns(local=False)[None].astype(np.float64)
    np.testing.assert_allclose(w["freq_cis_real"], np.cos(angle), atol=1e-4)
    np.testing.assert_allclose(w["freq_cis_imag"], np.sin(angle), atol=1e-4)


def write(path, *, tied, seed=0):
    """A small random model: width 8, 2 layers, 4 heads over 2."""
    header = llama2c.Header(8, 12, 2, 4, 2, 11, 6, tied)
    rng = np.random.default_rng(seed)
    path.write_bytes(
        struct.pack("<7i", 8, 12, 2, 4, 2, 11 if tied else -11, 6)
        + b"".join(rng.normal(size=shape).astype("<f4").tobytes() for shape in header.shapes.values())
    )
    return path


@pytest.mark.parametrize("tied", [True, False])
def test_small_models_equal_the_independent_forward_pass(tmp_path, tied):
    path = write(tmp_path / "model.bin", tied=tied)
    model, _ = tiny.load(path)
    tokens = np.array([1, 5, 3, 9, 0], np.int32)
    got = model({"decoder_input_tokens": jnp.asarray(tokens[None]), "decoder_segment_ids": jnp.ones((1, 5), jnp.int32)})
    wanted = numpy_logits(entries_of(path), tokens, 4, 2)
    assert np.abs(np.asarray(got[0]) - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-4], "truncated"),
        (lambda data: data[:20], "got 20 bytes"),
        (lambda data: b"ak42" + data, "not a llama2.c model of the first version"),
    ],
)
def test_what_is_no_such_model_is_refused(tmp_path, damage, said):
    path = write(tmp_path / "model.bin", tied=True)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=said):
        llama2c.open_model(path)


def test_another_architecture_is_refused(tmp_path):
    path = write(tmp_path / "model.bin", tied=True)
    config = tiny.stated_config(path, num_layers=3)
    with pytest.raises(UserError, match="states num_layers = 2, the model has 3"):
        interop.load_base(str(path), config, tiny.abstract(config))
