"""The layers of T5, with sockets into which tuning methods plug their variables.

Axes: B batch, S source (keys) length, T target (queries) length, D model width, H heads, K head width, F feed-forward, V vocabulary,
P prompt length, I and O any input and output width.

A socket is an attribute that is None until a method fills it with a module of its own (`prompt_tuning.methods`). An empty socket costs
nothing:

| socket | called as | gives |
|---|---|---|
| `Linear.delta` | `delta(x_BSI, y_BSO, kernel_IO, key=key)` | `[B, S, O]`, what becomes of the product y (LoRA) |
| `prefix` of all attentions | `prefix()` | keys and values `[H, P, K]`, put before the sequence with relative bias zero |
| `k_scale`, `v_scale` of the same | `scale()` | `[H * K]` (IA3) |
| `Mlp.scale` | `scale()` | `[F]` (IA3) |
| `adapter` of `AttentionBlock` and `MlpBlock` (t5.py) | `adapter(y_BSD)` | `[B, S, D]`, what becomes of the sub-layer's output |
| `parallel` of the same | `parallel(x_BSD)` | `[B, S, D]` of the sub-layer's normed input, added to its output |
| `generator` of `Stack` (t5.py) | `generator(layers)` | the layers to run, with sockets filled by what all layers share |
| `Embed.prompt` | `prompt()` | `[P, D]`, the rows that prompt slots name |
| | `prompt.among(x_BSD, slots_BS, segment_ids_BS)`, if it has it | `[B, S, D]`, what becomes of what an encoder reads |
| `prompt` of `EncoderLayer` (t5.py), `SelfLayer` (decoder_blocks.py) | `prompt(x_BSD, slots_BS)` | `[B, S, D]`, what enters the layer |
| `visibility` of `Stack` (t5.py) | `visibility(slots_BS)` | `[B, 1, S, S]`, 0 or `MASKED`: what prompt slots see |

Matrix products of bfloat16 operands accumulate in float32. A CPU is asked for a float32 result, which is two to three times faster there
than a bfloat16 one; an accelerator rounds as it writes, and a float32 result costs it a third to a half more (H200).
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from prompt_tuning.models import backends, blockwise, fused

Array = jax.Array
Bias = blockwise.Bias
Socket = Any
Remat = Literal["none", "products", "full"]

# Up to this depth a CPU runs unrolled layers, a third faster there; beyond it, and on accelerators, layers are scanned.
_UNROLLED_ON_CPU = 12

# Large and finite, so that a row with nothing to attend to gives a number; added in float32.
MASKED = -1e10

_PRODUCT = "product"


class Tunable(nnx.Param):
    """A parameter that a tuning method added to a base model."""


class Fixed(nnx.Param):
    """Values that a tuning method added and that are never trained, such as prompts of other tasks."""


def param(rngs: nnx.Rngs, shape: tuple[int, ...], *, std: float, axes: tuple[str, ...], dtype: str) -> nnx.Param:
    """A base parameter drawn from N(0, std^2), with logical axis names for `sharding.py`."""
    value = std * jax.random.normal(rngs.params(), shape, jnp.float32)
    return nnx.Param(value.astype(dtype), axes=axes)


def written(dtype: Any) -> Any:
    """The dtype in which a product of matrices of `dtype` is written before it is rounded to `dtype`."""
    return jnp.float32 if backends.backend() == "cpu" else dtype


@jax.custom_vjp
def product(x_BSI: Array, kernel_IO: Array) -> Array:
    """The matrix product [B, S, O] in the inputs' dtype, accumulated in float32.

    Its gradient is written out for the sake of the kernel's: the one JAX derives comes out as [O, I] and is turned round, for which XLA on
    a CPU first writes a transposed copy of the cotangent: a fifth of a step that trains all weights. A frozen kernel's gradient is not
    computed, and what it would be computed from is not kept.
    """
    return jnp.einsum("...i,io->...o", x_BSI, kernel_IO, preferred_element_type=written(x_BSI.dtype)).astype(x_BSI.dtype)


def _product_forward(x_BSI: Any, kernel_IO: Any) -> tuple[Array, tuple[Array | None, Array | None]]:
    """The product, and what each gradient needs: the input only for a kernel that is trained, the kernel only for an input that depends on
    something trained."""
    kept = (x_BSI.value if kernel_IO.perturbed else None, kernel_IO.value if x_BSI.perturbed else None)
    return product(x_BSI.value, kernel_IO.value), kept


def _product_backward(kept: tuple[Array | None, Array | None], grad_BSO: Any) -> tuple[Array | None, Array | None]:
    x_BSI, kernel_IO = kept
    if isinstance(grad_BSO, jax.custom_derivatives.SymbolicZero):
        return None, None
    grad_x = grad_kernel = None
    if kernel_IO is not None:
        grad_x = jnp.einsum("...o,io->...i", grad_BSO, kernel_IO, preferred_element_type=written(grad_BSO.dtype)).astype(grad_BSO.dtype)
    if x_BSI is not None:
        wide = written(grad_BSO.dtype)
        grad_kernel = jnp.einsum("...i,...o->io", x_BSI, grad_BSO, preferred_element_type=wide).astype(grad_BSO.dtype)
    return grad_x, grad_kernel


product.defvjp(_product_forward, _product_backward, symbolic_zeros=True)


class Linear(nnx.Module):
    """A matrix product without bias. Socket: `delta`. A module may stand for the kernel (`quantized.py`)."""

    def __init__(self, rngs: nnx.Rngs, shape: tuple[int, int], *, std: float, axes: tuple[str, str], dtype: str):
        self.kernel: Any = param(rngs, shape, std=std, axes=axes, dtype=dtype)
        self.delta: Socket = nnx.data(None)

    def __call__(self, x_BSI: Array, *, key: Array | None = None) -> Array:
        """The product [B, S, O]; `key` turns the dropout of what is plugged in on."""
        kernel = self.kernel
        y_BSO = product(x_BSI, kernel[...].astype(x_BSI.dtype)) if isinstance(kernel, nnx.Variable) else kernel.product(x_BSI)
        y_BSO = checkpoint_name(y_BSO, _PRODUCT)
        if self.delta is not None:
            y_BSO = self.delta(x_BSI, y_BSO, kernel[...], key=key).astype(y_BSO.dtype)
        return y_BSO


class RMSNorm(nnx.Module):
    """Root-mean-square layer norm without mean or bias, computed in float32 (Zhang & Sennrich 2019; T5)."""

    def __init__(self, width: int, *, epsilon: float, dtype: str):
        self.scale = nnx.Param(jnp.ones((width,), dtype), axes=("embed",))
        self.epsilon = epsilon

    def __call__(self, x_BSD: Array) -> Array:
        """The normed input."""
        x = x_BSD.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        scale_BSD = jnp.broadcast_to(self.scale[...].astype(jnp.float32), x.shape)
        return (x * scale_BSD).astype(x_BSD.dtype)


class Embed(nnx.Module):
    """Token embeddings, where prompt slots take rows of the prompt instead. Socket: `prompt`."""

    def __init__(self, rngs: nnx.Rngs, *, vocab_size: int, width: int, dtype: str):
        self.embedding = param(rngs, (vocab_size, width), std=1.0, axes=("vocab", "embed"), dtype=dtype)
        self.prompt: Socket = nnx.data(None)

    def __call__(self, tokens_BS: Array, slots_BS: Array | None, dtype: str, *, segment_ids_BS: Array | None = None) -> Array:
        """Embeds tokens.

        Args:
          tokens_BS: int32 token ids.
          slots_BS: int32, -1 for a token, r >= 0 for row r of the prompt; None where no prompt stands in the sequence.
          dtype: of the result.
          segment_ids_BS: of what an encoder reads, for prompts made of it: which positions are one example, 0 for padding.

        Returns:
          x_BSD. Slots are ignored while the socket is empty only if there are none.
        """
        x_BSD = self.embedding[...][tokens_BS].astype(dtype)
        if slots_BS is None or self.prompt is None:
            return x_BSD
        if segment_ids_BS is not None and hasattr(self.prompt, "among"):
            return self.prompt.among(x_BSD, slots_BS, segment_ids_BS).astype(dtype)
        return at_slots(self.prompt(), x_BSD, slots_BS)

    def logits(self, x_BTD: Array) -> Array:
        """The score of every token [B, T, V] in float32, where the embedding is the head too."""
        return jnp.einsum("btd,vd->btv", x_BTD, self.embedding[...].astype(x_BTD.dtype), preferred_element_type=jnp.float32)


def at_slots(rows_PD: Array, x_BSD: Array, slots_BS: Array) -> Array:
    """The sequence with rows of a prompt where slots name them."""
    # Rounded after they are taken: the gradient of a row, a sum over the batch, then adds up in the prompt's own dtype.
    return jnp.where((slots_BS >= 0)[..., None], rows_PD[jnp.maximum(slots_BS, 0)].astype(x_BSD.dtype), x_BSD)


def entering(layer: Any, x_BSD: Array, slots_BS: Array | None) -> Array:
    """What enters a layer: the sequence as its own prompt, if it has one, changes it."""
    return x_BSD if layer.prompt is None or slots_BS is None else layer.prompt(x_BSD, slots_BS)


def relative_buckets(distance_TS: Array, *, bidirectional: bool, num_buckets: int, max_distance: int) -> Array:
    """The bucket of each relative position, key minus query (Raffel et al. 2020, section 2.1).

    Half of the buckets are exact, the other half grow with the logarithm up to `max_distance`; one more halving separates the
    future from the past where attention is bidirectional.
    """
    buckets = jnp.zeros_like(distance_TS)
    past = -distance_TS
    if bidirectional:
        num_buckets //= 2
        buckets = buckets + jnp.where(past < 0, num_buckets, 0)
        past = jnp.abs(past)
    else:
        past = jnp.maximum(past, 0)
    exact = num_buckets // 2
    # The float32 logarithm must round as in the released models, so it is taken of the ratio and scaled in this order.
    ratio = jnp.log(jnp.maximum(past, 1).astype(jnp.float32) / exact) / jnp.log(jnp.float32(max_distance / exact))
    coarse = jnp.minimum(exact + (ratio * (num_buckets - exact)).astype(jnp.int32), num_buckets - 1)
    return buckets + jnp.where(past < exact, past, coarse)


class RelativeBias(nnx.Module):
    """A learned bias for each head and bucket of relative position."""

    def __init__(self, rngs: nnx.Rngs, *, num_buckets: int, max_distance: int, num_heads: int, bidirectional: bool, std: float, dtype: str):
        self.table = param(rngs, (num_buckets, num_heads), std=std, axes=("buckets", "heads"), dtype=dtype)
        self.bidirectional = bidirectional
        self.max_distance = max_distance

    def __call__(self, query_positions_T: Array, key_positions_S: Array) -> Array:
        """Bias [1, H, T, S] in float32."""
        return self._of(key_positions_S[None, :] - query_positions_T[:, None]).transpose(2, 0, 1)[None]

    def among(self, length: int, mask: Array) -> Bias:
        """The bias of positions 0 to T - 1 for each other, with a mask."""
        positions = jnp.arange(length)
        return Bias(self(positions, positions), mask, self._of(jnp.arange(1 - length, length)).T)

    def _of(self, distance: Array) -> Array:
        """The bias [..., H] in float32 of distances, key minus query."""
        buckets = relative_buckets(
            distance, bidirectional=self.bidirectional, num_buckets=self.table.shape[0], max_distance=self.max_distance
        )
        return self.table[...].astype(jnp.float32)[buckets]


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Zeroes a share `rate` of the entries and scales the rest; the identity where there is no key."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))


def split_key(key: Array | None, n: int) -> tuple[Array | None, ...]:
    """`n` keys made of one, or of none."""
    return (None,) * n if key is None else tuple(jax.random.split(key, n))


def choices_as_rows(batch: Mapping[str, Array]) -> dict[str, Array]:
    """The batch with `decoder_` arrays [B, C, T] as [B * C, T]: choice c of example b is row b * C + c. Arrays [B, T] stay."""
    return {name: value.reshape(-1, value.shape[-1]) if name.startswith("decoder_") else value for name, value in batch.items()}


def folded(key: Array | None, number: int) -> Array | None:
    """A key of its own for one of several places that share `key`."""
    return None if key is None else jax.random.fold_in(key, number)


def unrolled(choice: bool | None, num_layers: int) -> bool:
    """Whether the loop over layers is unrolled; a choice of None leaves it to the backend and the depth."""
    return backends.backend() == "cpu" and num_layers <= _UNROLLED_ON_CPU if choice is None else choice


def kept(layer: Any, remat: Remat | None) -> Any:
    """The function of a layer with a say in what the backward pass keeps of it: everything, the results of its products and attention (the
    rest is elementwise and computed again), or nothing. A choice of None is left to the backend: an accelerator's memory is slow beside its
    arithmetic, and a prompt over T5 large keeps half as much there with "products".
    """
    remat = remat or ("none" if backends.backend() == "cpu" else "products")
    return layer if remat == "none" else jax.checkpoint(layer, prevent_cse=False, policy=_is_product if remat == "products" else None)


def _is_product(primitive: Any, *_: Any, **params: Any) -> bool:
    # A function with a gradient of its own, as `product` is, shows nothing of its inside: its result has a name.
    attends = primitive.name == "dot_general" or primitive.name.startswith("dot_product_attention")
    return attends or (primitive.name == "name" and params["name"] == _PRODUCT)


def split_heads(x_BSI: Array, head_width: int) -> Array:
    """Heads that stand side by side as an axis of their own: [B, H, S, K]."""
    batch, length, inner = x_BSI.shape
    return x_BSI.reshape(batch, length, inner // head_width, head_width).transpose(0, 2, 1, 3)


def scaled(x: Array, scale: Socket) -> Array:
    """The product with what stands in a socket for scales, of the width of the last axis; the identity where it is empty."""
    return x if scale is None else x * jnp.broadcast_to(scale().astype(x.dtype), x.shape)


def behind_prefix(prefix: Socket, keys_values: tuple[Array, Array], bias: Any) -> tuple[tuple[Array, Array], Any]:
    """Keys and values [B, H, S, K] behind those of a prefix, and the bias, [..., T, S] or `Bias`, with zeros before it.

    As given where there is none.
    """
    if prefix is None:
        return keys_values, bias
    made = prefix()
    keys, values = _before(made[0], keys_values[0]), _before(made[1], keys_values[1])
    added = keys.shape[2] - keys_values[0].shape[2]
    if isinstance(bias, jax.Array):
        return (keys, values), jnp.pad(bias, [(0, 0)] * (bias.ndim - 1) + [(added, 0)])
    return (keys, values), bias.behind(added)


def adapted(block: Any, normed_BSD: Array, y_BSD: Array) -> Array:
    """What the adapters of a block make of its sub-layer's output, given the sub-layer's normed input too."""
    if block.adapter is not None:
        y_BSD = block.adapter(y_BSD)
    return y_BSD if block.parallel is None else y_BSD + block.parallel(normed_BSD)


class Attention(nnx.Module):
    """Multi-head attention as in T5: no bias, and no scaling by the head width. Sockets: `prefix`, `k_scale`, `v_scale`."""

    def __init__(self, rngs: nnx.Rngs, *, width: int, num_heads: int, head_width: int, dropout_rate: float, dtype: str):
        inner = num_heads * head_width
        self.query = Linear(rngs, (width, inner), std=(width * head_width) ** -0.5, axes=("embed", "heads"), dtype=dtype)
        self.key = Linear(rngs, (width, inner), std=width**-0.5, axes=("embed", "heads"), dtype=dtype)
        self.value = Linear(rngs, (width, inner), std=width**-0.5, axes=("embed", "heads"), dtype=dtype)
        self.out = Linear(rngs, (inner, width), std=inner**-0.5, axes=("heads", "embed"), dtype=dtype)
        self.head_width = head_width
        self.dropout_rate = dropout_rate
        self.prefix: Socket = nnx.data(None)
        self.k_scale: Socket = nnx.data(None)
        self.v_scale: Socket = nnx.data(None)

    def keys_values(self, x_BSD: Array, key: Array | None = None) -> tuple[Array, Array]:
        """Keys and values [B, H, S, K] of a sequence, without the prefix."""
        k = scaled(self.key(x_BSD, key=folded(key, 1)), self.k_scale)
        v = scaled(self.value(x_BSD, key=folded(key, 2)), self.v_scale)
        return split_heads(k, self.head_width), split_heads(v, self.head_width)

    def __call__(
        self, x_BTD: Array, keys_values: tuple[Array, Array], bias: Bias, *, causal: bool = False, key: Array | None = None
    ) -> Array:
        """Attends from x_BTD.

        Args:
          x_BTD: what the queries are made of.
          keys_values: both [B, H, S, K].
          bias: what is added to scores.
          causal: whether `bias` forbids every query all keys behind it, which then need not be read.
          key: of the dropout on attention weights and in what is plugged in.

        Returns:
          y_BTD.
        """
        q_BHTK = split_heads(self.query(x_BTD, key=folded(key, 0)), self.head_width)
        (k_BHSK, v_BHSK), bias = behind_prefix(self.prefix, keys_values, bias)
        dropped = key is not None and self.dropout_rate > 0
        if fused.serves(q_BHTK, v_BHSK, dropout=dropped):
            y_BHTK = fused.attend(q_BHTK, k_BHSK, v_BHSK, bias.whole(), scale=1.0)
        elif blockwise.serves(q_BHTK, k_BHSK, dropout=dropped, causal=causal):
            y_BHTK = blockwise.attend(q_BHTK, k_BHSK, v_BHSK, bias, causal=causal)
        else:
            scores_BHTS = jnp.einsum("bhtk,bhsk->bhts", q_BHTK, k_BHSK, preferred_element_type=jnp.float32)
            weights_BHTS = jax.nn.softmax(scores_BHTS + bias.whole(), axis=-1).astype(x_BTD.dtype)
            weights_BHTS = dropout(weights_BHTS, self.dropout_rate, key)
            y_BHTK = jnp.einsum("bhts,bhsk->bhtk", weights_BHTS, v_BHSK, preferred_element_type=jnp.float32).astype(x_BTD.dtype)
        batch, heads, length, width = y_BHTK.shape
        return self.out(y_BHTK.transpose(0, 2, 1, 3).reshape(batch, length, heads * width), key=folded(key, 3))


def _before(prefix_HPK: Array, seq_BHSK: Array) -> Array:
    prefix_BHPK = jnp.broadcast_to(prefix_HPK.astype(seq_BHSK.dtype), (seq_BHSK.shape[0], *prefix_HPK.shape))
    return jnp.concatenate([prefix_BHPK, seq_BHSK], axis=2)


class Mlp(nnx.Module):
    """The feed-forward layer: ReLU (T5 v1.0) or gated GELU (T5 v1.1; Shazeer 2020). Socket: `scale`, on the inner activation."""

    def __init__(self, rngs: nnx.Rngs, *, width: int, inner: int, gated: bool, dropout_rate: float, dtype: str):
        self.wi = Linear(rngs, (width, inner), std=width**-0.5, axes=("embed", "mlp"), dtype=dtype)
        self.gate = Linear(rngs, (width, inner), std=width**-0.5, axes=("embed", "mlp"), dtype=dtype) if gated else nnx.data(None)
        self.wo = Linear(rngs, (inner, width), std=inner**-0.5, axes=("mlp", "embed"), dtype=dtype)
        self.dropout_rate = dropout_rate
        self.scale: Socket = nnx.data(None)

    def __call__(self, x_BSD: Array, *, key: Array | None = None) -> Array:
        """The layer's output [B, S, D]; `key` turns dropout on the inner activation on."""
        h_BSF = self.wi(x_BSD, key=folded(key, 0))
        if self.gate is None:
            h_BSF = jax.nn.relu(h_BSF)
        else:
            h_BSF = jax.nn.gelu(self.gate(x_BSD, key=folded(key, 1)), approximate=True) * h_BSF
        h_BSF = scaled(h_BSF, self.scale)
        return self.wo(dropout(h_BSF, self.dropout_rate, key), key=folded(key, 2))
