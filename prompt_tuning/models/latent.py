"""Latent attention and mixtures of experts, as in DeepSeek-V2 (arXiv:2405.04434, sections 2.1 and 2.2) and V3 (2412.19437, section 2.1).

Axes: B batch, T and S lengths, D model width, H heads, K key width (of which the last R coordinates are rotated), W value width, C latent
width, E experts, F inner width of an expert.

What this file follows: keys and values come from one latent vector a position and one rotated key that all heads share; a token goes to the
few experts that the router scores highest, chosen within the best groups of experts, and to the shared experts always. V2 scores by softmax
and judges a group by its best expert; V3 scores by sigmoid, adds a bias for the choice alone, and judges a group by its best two.

Where it deviates: the cache holds keys and values, not latent vectors; every expert computes every token, and what was not chosen gets
weight zero: right for small configurations and for tests, not for the released sizes. The balance of load is not trained: V3's bias stays
what it is, and there is no auxiliary loss.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prompt_tuning.models import rope
from prompt_tuning.models.decoder_layers import ActivatedMlp, Angles, DecoderConfig, Dense, KeysValues, Norm, attended
from prompt_tuning.models.layers import Array, Socket, behind_prefix, folded, param, split_heads


class LatentAttention(nnx.Module):
    """Attention whose keys and values come from a latent vector. Sockets: `prefix`, `k_scale` (of what is not rotated), `v_scale`."""

    def __init__(self, rngs: nnx.Rngs, config: DecoderConfig):
        heads, dtype = config.num_heads, config.param_dtype
        width_in = config.latent_query_width or config.d_model
        bias = config.qkv_bias
        if config.latent_query_width:
            self.query_down = Dense(rngs, (config.d_model, width_in), axes=("embed", "latent"), bias=bias, dtype=dtype)
            self.query_norm = Norm(width_in, config, kind="rms")
        self.query = Dense(rngs, (width_in, heads * config.key_width), axes=("embed", "heads"), bias=False, dtype=dtype)
        down = config.latent_width + config.rope_width
        self.down = Dense(rngs, (config.d_model, down), axes=("embed", "latent"), bias=bias, dtype=dtype)
        self.latent_norm = Norm(config.latent_width, config, kind="rms")
        up = heads * (config.head_width + config.value_width)
        self.up = Dense(rngs, (config.latent_width, up), axes=("latent", "heads"), bias=False, dtype=dtype)
        self.out = Dense(rngs, (heads * config.value_width, config.d_model), axes=("heads", "embed"), bias=config.out_bias, dtype=dtype)
        self.config = config
        self.prefix: Socket = nnx.data(None)
        self.k_scale: Socket = nnx.data(None)
        self.v_scale: Socket = nnx.data(None)

    def scaled_units(self, socket: str) -> np.ndarray:
        """Which outputs of `up` the scale in `k_scale` or `v_scale` multiplies, in its order: int [H * (K - R)] or [H * W]."""
        config = self.config
        units = np.arange(config.num_heads * (config.head_width + config.value_width)).reshape(config.num_heads, -1)
        return (units[:, : config.head_width] if socket == "k_scale" else units[:, config.head_width :]).ravel()

    def keys_values(self, x_BSD: Array, turned: Angles, key: Array | None = None) -> KeysValues:
        """Keys [B, H, S, K] and values [B, H, S, W], without the prefix."""
        config = self.config
        latent_BSC, key_BSR = jnp.split(self.down(x_BSD, key=folded(key, 1)), [config.latent_width], axis=-1)
        up_BSI = self.up(self.latent_norm(latent_BSC), key=folded(key, 2))
        keys, values = jnp.split(split_heads(up_BSI, config.head_width + config.value_width), [config.head_width], axis=-1)
        keys, values = _scaled(keys, self.k_scale), _scaled(values, self.v_scale)
        turned_key = key_BSR[:, None] if turned is None else rope.rotate(key_BSR[:, None], turned)
        shared = jnp.broadcast_to(turned_key, (*keys.shape[:-1], config.rope_width))
        return jnp.concatenate([keys, shared], axis=-1), values

    def __call__(
        self, x_BTD: Array, keys_values: KeysValues, bias: Array, *, turned: Angles, causal: bool = False, key: Array | None = None
    ) -> Array:
        """Attends from x_BTD; as `GroupedAttention`."""
        config = self.config
        y_BTI = self.query_norm(self.query_down(x_BTD, key=folded(key, 4))) if config.latent_query_width else x_BTD
        q_BHTK = split_heads(self.query(y_BTI, key=folded(key, 0)), config.key_width)
        plain, turning = jnp.split(q_BHTK, [config.head_width], axis=-1)
        q_BHTK = jnp.concatenate([plain, turning if turned is None else rope.rotate(turning, turned)], axis=-1)
        keys_values, bias = behind_prefix(self.prefix, keys_values, bias)
        return self.out(attended(q_BHTK, keys_values, bias, config, causal=causal, key=key), key=folded(key, 3))


def _scaled(x_BHSK: Array, scale: Socket) -> Array:
    """`layers.scaled` of heads that stand apart."""
    if scale is None:
        return x_BHSK
    _, heads, _, width = x_BHSK.shape
    return x_BHSK * jnp.broadcast_to(scale().astype(x_BHSK.dtype).reshape(1, heads, 1, width), x_BHSK.shape)


class Experts(nnx.Module):
    """A router, E experts of which each token takes a few, and a shared expert that all take."""

    def __init__(self, rngs: nnx.Rngs, config: DecoderConfig):
        shape, dtype = (config.experts, config.d_model, config.expert_width), config.param_dtype
        axes = ("experts", "embed", "mlp")
        std = config.d_model**-0.5
        self.router = param(rngs, (config.d_model, config.experts), std=std, axes=("embed", "experts"), dtype=dtype)
        self.router_bias = (
            nnx.Param(jnp.zeros((config.experts,), dtype), axes=("experts",)) if config.router == "sigmoid" else nnx.data(None)
        )
        self.gate = param(rngs, shape, std=std, axes=axes, dtype=dtype)
        self.wi = param(rngs, shape, std=std, axes=axes, dtype=dtype)
        out = (config.experts, config.expert_width, config.d_model)
        self.wo = param(rngs, out, std=config.expert_width**-0.5, axes=("experts", "mlp", "embed"), dtype=dtype)
        self.shared = ActivatedMlp(rngs, config, inner=config.shared_experts * config.expert_width)
        self.config = config

    def weights(self, x_BSD: Array) -> Array:
        """What each expert's output counts, float32 [B, S, E]; 0 where it is not chosen."""
        config = self.config
        logits = jnp.einsum("bsd,de->bse", x_BSD.astype(jnp.float32), self.router[...].astype(jnp.float32))
        scores = jax.nn.sigmoid(logits) if config.router == "sigmoid" else jax.nn.softmax(logits, axis=-1)
        ranked = scores
        if self.router_bias is not None:
            ranked = scores + jnp.broadcast_to(self.router_bias[...].astype(jnp.float32), scores.shape)
        if config.router_groups > 1:
            grouped = ranked.reshape(*ranked.shape[:-1], config.router_groups, -1)
            best = jax.lax.top_k(grouped, 2 if config.router == "sigmoid" else 1)[0].sum(axis=-1)
            open_groups = _chosen(best, config.router_top_groups)
            ranked = jnp.where(open_groups[..., None], grouped, -jnp.inf).reshape(ranked.shape)
        taken = jnp.where(_chosen(ranked, config.experts_per_token), scores, 0.0)
        if config.router_normed:
            taken = taken / (jnp.sum(taken, axis=-1, keepdims=True) + 1e-20)
        return taken * config.router_scale

    def __call__(self, x_BSD: Array, *, key: Array | None = None) -> Array:
        """The layer's output [B, S, D]."""
        gate, wi, wo = (weight[...].astype(x_BSD.dtype) for weight in (self.gate, self.wi, self.wo))
        h_BESF = self.config.activate(jnp.einsum("bsd,edf->besf", x_BSD, gate)) * jnp.einsum("bsd,edf->besf", x_BSD, wi)
        counts = self.weights(x_BSD).transpose(0, 2, 1)[..., None].astype(x_BSD.dtype)
        y_BSD = jnp.einsum("besf,efd->bsd", h_BESF * counts, wo, preferred_element_type=jnp.float32).astype(x_BSD.dtype)
        return y_BSD + self.shared(x_BSD, key=key)


def _chosen(scores: Array, count: int) -> Array:
    """Whether an entry is among the `count` largest of the last axis; of equals the first."""
    places = jax.lax.top_k(scores, count)[1]
    return jnp.any(jax.nn.one_hot(places, scores.shape[-1], dtype=bool), axis=-2)
