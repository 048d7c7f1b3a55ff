"""Our T5 beside Hugging Face's on the same random weights, and beside a forward pass written here in NumPy.

Agreement is the largest difference over the largest absolute logit, at the positions that count: 1e-4 at most, in float32.
"""

import dataclasses
import functools
import gzip
import json
import math

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest

from prompt_tuning import interop, losses
from prompt_tuning.methods.prompt import PromptRows
from prompt_tuning.models.t5 import T5Config
from tests.interop import tiny
from tests.interop.test_t5x import REAL, REAL_CONFIG
from tests.shared import shared_path

BYT5 = dataclasses.replace(tiny.V1_1, vocab_size=384, num_encoder_layers=3, num_decoder_layers=1)
KINDS = {
    "t5-v1.0": ("t5", tiny.V1_0),
    "t5-v1.1": ("t5", tiny.V1_1),
    "mt5": ("mt5", tiny.V1_1),
    "umt5": ("umt5", tiny.UMT5),
    "byt5": ("t5", BYT5),
}


def _batch(config: T5Config, seed=0, rows=3, source=37, target=29):
    """Lengths that reach past the relative bias's maximum distance; the first row is full, the others padded."""
    rng = np.random.default_rng(seed)
    lengths = [source, source - 9, 2], [target, target - 11, 1]
    segments = [(np.arange(n) < np.array(each)[:, None]).astype(np.int32) for n, each in zip((source, target), lengths, strict=True)]
    tokens = [rng.integers(2, config.vocab_size, (rows, n)).astype(np.int32) * s for n, s in zip((source, target), segments, strict=True)]
    tokens[1][:, 0] = 0
    return {
        "encoder_input_tokens": tokens[0],
        "encoder_segment_ids": segments[0],
        "decoder_input_tokens": tokens[1],
        "decoder_segment_ids": segments[1],
    }


@functools.cache
def _jitted():
    return jax.jit(lambda model, batch: model(batch))


def _logits(model, batch):
    return np.asarray(_jitted()(model, {name: jnp.asarray(x) for name, x in batch.items()}))


def _difference(ours, theirs, counted):
    """The largest difference over the largest absolute value, where `counted` [B, T] is set."""
    return np.max(np.abs(ours - theirs)[counted > 0]) / np.max(np.abs(theirs)[counted > 0])


@functools.cache
def _pair(name, parent):
    kind, config = KINDS[name]
    theirs = tiny.huggingface_model(kind, config)
    tiny.save_huggingface(theirs, parent / name)
    values, _ = interop.load_base(str(parent / name), config, tiny.abstract(config))
    return theirs, config, values


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("published")


@pytest.fixture
def pair(request, folder):
    """Hugging Face's model, our configuration, and their weights read by us from their file."""
    pytest.importorskip("transformers")
    return _pair(request.param, folder)


every_kind = pytest.mark.parametrize("pair", KINDS, indirect=True)
# The kinds whose code differs; the others differ in sizes.
tied_and_per_layer_bias = pytest.mark.parametrize("pair", ["t5-v1.0", "umt5"], indirect=True)


def _their_logits(model, batch):
    import torch

    with torch.no_grad():
        return model(
            input_ids=torch.tensor(batch["encoder_input_tokens"]).long(),
            attention_mask=torch.tensor(batch["encoder_segment_ids"]).long(),
            decoder_input_ids=torch.tensor(batch["decoder_input_tokens"]).long(),
            decoder_attention_mask=torch.tensor(batch["decoder_segment_ids"]).long(),
        ).logits.numpy()


@every_kind
def test_logits_are_hugging_faces_under_padding_and_masks(pair):
    theirs, config, values = pair
    batch = _batch(config)
    expected = _their_logits(theirs, batch)
    assert np.std(expected) > 0.1
    assert _difference(_logits(tiny.model_with(config, values), batch), expected, batch["decoder_segment_ids"]) < 1e-4


@tied_and_per_layer_bias
def test_scanned_layers_are_unrolled_layers(pair):
    _, config, values = pair
    batch = _batch(config)
    unrolled, scanned, kept = (
        _logits(tiny.model_with(dataclasses.replace(config, unroll_layers=unroll, remat=remat), values), batch)
        for unroll, remat in ((True, "none"), (False, "full"), (False, "products"))
    )
    for other in (scanned, kept):
        assert _difference(other, unrolled, batch["decoder_segment_ids"]) < 1e-5


@tied_and_per_layer_bias
def test_bf16_stays_near_float32(pair):
    theirs, config, values = pair
    batch = _batch(config)
    half = dataclasses.replace(config, dtype="bfloat16", param_dtype="bfloat16")
    ours = _logits(tiny.model_with(half, {name: jnp.asarray(x, jnp.bfloat16) for name, x in values.items()}), batch)
    assert ours.dtype == np.float32
    # bfloat16 keeps 8 bits: 0.4% a rounding, some tens of roundings deep.
    assert _difference(ours, _their_logits(theirs, batch), batch["decoder_segment_ids"]) < 0.1


@tied_and_per_layer_bias
def test_a_soft_prompt_and_its_gradient_are_hugging_faces_with_embedded_inputs(pair):
    import torch

    theirs, config, values = pair
    batch = _batch(config)
    rows, width = 5, config.d_model
    prompt = np.random.default_rng(1).normal(size=(rows, width)).astype(np.float32)
    targets = np.random.default_rng(2).integers(0, config.vocab_size, batch["decoder_input_tokens"].shape)
    weights = batch["decoder_segment_ids"].astype(np.float32)

    their_prompt = torch.tensor(prompt, requires_grad=True)
    tokens = theirs.shared(torch.tensor(batch["encoder_input_tokens"]).long())
    mask = torch.tensor(batch["encoder_segment_ids"]).long()
    logits = theirs(
        inputs_embeds=torch.cat([their_prompt.expand(len(tokens), rows, width), tokens], 1),
        attention_mask=torch.cat([torch.ones(len(tokens), rows, dtype=torch.long), mask], 1),
        decoder_input_ids=torch.tensor(batch["decoder_input_tokens"]).long(),
    ).logits
    per_token = torch.nn.functional.cross_entropy(logits.transpose(1, 2), torch.tensor(targets), reduction="none")
    loss = (per_token * torch.tensor(weights)).sum()
    loss.backward()

    def before(array, fill):
        return jnp.concatenate([jnp.broadcast_to(jnp.asarray(fill, jnp.int32), (len(array), rows)), jnp.asarray(array)], 1)

    prompted = {name: jnp.asarray(x) for name, x in batch.items()} | {
        "encoder_input_tokens": before(batch["encoder_input_tokens"], 0),
        "encoder_segment_ids": before(batch["encoder_segment_ids"], 1),
        "encoder_prompt_slots": before(np.full_like(batch["encoder_input_tokens"], -1), np.arange(rows)[None]),
    }

    @jax.jit
    def our_loss(prompt):
        model = tiny.model_with(config, values)
        model.embed.prompt = PromptRows(prompt)
        logits = model(prompted)
        return losses.cross_entropy(logits, jnp.asarray(targets), weights_BT=jnp.asarray(weights))[0], logits

    (ours, our_logits), gradient = jax.value_and_grad(our_loss, has_aux=True)(jnp.asarray(prompt))
    assert _difference(np.asarray(our_logits), logits.detach().numpy(), batch["decoder_segment_ids"]) < 1e-4
    np.testing.assert_allclose(ours, loss.item(), rtol=1e-5)
    expected = their_prompt.grad.numpy()
    assert np.max(np.abs(gradient - expected)) < 1e-4 * np.max(np.abs(expected))


@tied_and_per_layer_bias
def test_cached_decoding_gives_the_logits_of_all_positions_at_once(pair):
    _, config, values = pair
    model, batch = tiny.model_with(dataclasses.replace(config, unroll_layers=False), values), _batch(config, target=9)
    batch = batch | {"decoder_segment_ids": np.ones_like(batch["decoder_segment_ids"])}
    arrays = {name: jnp.asarray(x) for name, x in batch.items()}

    @jax.jit
    def stepwise(model, arrays):
        encoded = model.encode(arrays["encoder_input_tokens"], segment_ids_BS=arrays["encoder_segment_ids"])
        cache = model.init_cache(encoded, arrays["encoder_segment_ids"], length=9)
        parts = []
        for start, stop in ((0, 4), (4, 5), (5, 9)):
            logits, cache = model.decode_step(arrays["decoder_input_tokens"][:, start:stop], cache)
            parts.append(logits)
        return jnp.concatenate(parts, 1)

    assert _difference(np.asarray(stepwise(model, arrays)), _logits(model, batch), batch["decoder_segment_ids"]) < 1e-5


@tied_and_per_layer_bias
def test_packed_rows_give_the_logits_of_separate_rows(pair):
    _, config, values = pair
    model, batch = tiny.model_with(config, values), _batch(config, source=12, target=11)
    alone = _logits(model, batch)
    lengths = {stack: batch[f"{stack}_segment_ids"].sum(1) for stack in ("encoder", "decoder")}
    packed = {}
    for stack, length in lengths.items():
        packed[f"{stack}_input_tokens"] = np.concatenate([batch[f"{stack}_input_tokens"][i, :n] for i, n in enumerate(length)] + [[0, 0]])
        packed[f"{stack}_segment_ids"] = np.concatenate([np.full(n, i + 1) for i, n in enumerate(length)] + [[0, 0]])
        packed[f"{stack}_positions"] = np.concatenate([np.arange(n) for n in length] + [[0, 0]])
    together = _logits(model, {name: x[None].astype(np.int32) for name, x in packed.items()})[0]
    expected = np.concatenate([alone[i, :n] for i, n in enumerate(lengths["decoder"])])
    assert _difference(together[:-2], expected, np.ones(len(expected))) < 1e-5


# An independent forward pass: NumPy in float64, one row, one head at a time, weights by T5X's names.


def _read_t5x_by_hand(folder):
    """The arrays of a T5X checkpoint without msgpack's arrays helper and without TensorStore."""

    def extension(code, data):
        shape, dtype, raw = msgpack.unpackb(data)
        return np.frombuffer(raw, dtype).reshape(shape)

    index = msgpack.unpackb((folder / "checkpoint").read_bytes(), ext_hook=extension, strict_map_key=False)
    arrays = {}

    def walk(node, path):
        if isinstance(node, np.ndarray):
            arrays["/".join(path)] = node
        elif "kvstore" in node:
            place = folder / ("target." + ".".join(path))
            about = json.loads((place / ".zarray").read_text())
            array = np.zeros(about["shape"], about["dtype"])
            for file in place.glob("*.*"):
                if file.name == ".zarray":
                    continue
                corner = [int(i) * c for i, c in zip(file.name.split("."), about["chunks"], strict=True)]
                chunk = np.frombuffer(gzip.decompress(file.read_bytes()), about["dtype"]).reshape(about["chunks"])
                part = tuple(slice(at, min(at + c, n)) for at, c, n in zip(corner, about["chunks"], about["shape"], strict=True))
                array[part] = chunk[tuple(slice(0, p.stop - p.start) for p in part)]
            arrays["/".join(path)] = array
        else:
            for key, child in node.items():
                walk(child, (*path, key))

    walk(index["optimizer"]["target"], ())
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def _norm(x, scale):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6) * scale


def _bucket(offset, bidirectional, buckets, farthest):
    """Of key minus query."""
    base = 0
    if bidirectional:
        buckets //= 2
        base = buckets if offset > 0 else 0
        back = abs(offset)
    else:
        back = max(-offset, 0)
    exact = buckets // 2
    if back < exact:
        return base + back
    return base + min(buckets - 1, exact + int(math.log(back / exact) / math.log(farthest / exact) * (buckets - exact)))


def _attend(w, path, x, memory, heads, bias):
    width = w[f"{path}/query/kernel"].shape[1] // heads
    q, k, v = x @ w[f"{path}/query/kernel"], memory @ w[f"{path}/key/kernel"], memory @ w[f"{path}/value/kernel"]
    out = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T + bias[head]
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        out.append(scores / scores.sum(-1, keepdims=True) @ v[:, part])
    return np.concatenate(out, -1) @ w[f"{path}/out/kernel"]


def _mlp(w, path, x):
    gate = x @ w[f"{path}/wi_0/kernel"]
    gelu = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
    return gelu * (x @ w[f"{path}/wi_1/kernel"]) @ w[f"{path}/wo/kernel"]


def _relative(w, stack, n, farthest):
    table = w[f"{stack}/relpos_bias/rel_embedding"]
    heads, buckets = table.shape
    bias = np.zeros((heads, n, n))
    for i in range(n):
        for j in range(n):
            bias[:, i, j] = table[:, _bucket(j - i, stack == "encoder", buckets, farthest)]
            if stack == "decoder" and j > i:
                bias[:, i, j] = -np.inf
    return bias


def _numpy_t5(w, source, target, *, heads, layers, farthest):
    """Logits [T, V] of one unpadded row."""
    x = w["token_embedder/embedding"][source]
    bias = _relative(w, "encoder", len(source), farthest)
    for i in range(layers):
        at = f"encoder/layers_{i}"
        y = _norm(x, w[f"{at}/pre_attention_layer_norm/scale"])
        x = x + _attend(w, f"{at}/attention", y, y, heads, bias)
        x = x + _mlp(w, f"{at}/mlp", _norm(x, w[f"{at}/pre_mlp_layer_norm/scale"]))
    memory = _norm(x, w["encoder/encoder_norm/scale"])
    x = w["token_embedder/embedding"][target]
    bias = _relative(w, "decoder", len(target), farthest)
    for i in range(layers):
        at = f"decoder/layers_{i}"
        y = _norm(x, w[f"{at}/pre_self_attention_layer_norm/scale"])
        x = x + _attend(w, f"{at}/self_attention", y, y, heads, bias)
        y = _norm(x, w[f"{at}/pre_cross_attention_layer_norm/scale"])
        x = x + _attend(w, f"{at}/encoder_decoder_attention", y, memory, heads, np.zeros((heads, 1, 1)))
        x = x + _mlp(w, f"{at}/mlp", _norm(x, w[f"{at}/pre_mlp_layer_norm/scale"]))
    return _norm(x, w["decoder/decoder_norm/scale"]) @ w["decoder/logits_dense/kernel"]


def test_the_real_t5x_checkpoint_gives_the_logits_of_a_numpy_forward():
    folder = shared_path(REAL)
    weights = _read_t5x_by_hand(folder)
    values, sources = interop.load_base(str(folder), REAL_CONFIG, tiny.abstract(REAL_CONFIG))
    assert sum(value.size for value in values.values()) == sum(array.size for array in weights.values())
    assert set(sources) == set(tiny.abstract(REAL_CONFIG))
    batch = _batch(REAL_CONFIG, source=11, target=14)
    ours = _logits(tiny.model_with(REAL_CONFIG, values), batch)
    for row in range(3):
        source, target = (batch[f"{stack}_segment_ids"][row].sum() for stack in ("encoder", "decoder"))
        expected = _numpy_t5(
            weights,
            batch["encoder_input_tokens"][row, :source],
            batch["decoder_input_tokens"][row, :target],
            heads=REAL_CONFIG.num_heads,
            layers=REAL_CONFIG.num_encoder_layers,
            farthest=REAL_CONFIG.relative_max_distance,
        )
        assert _difference(ours[row, :target], expected, np.ones(target)) < 1e-4
