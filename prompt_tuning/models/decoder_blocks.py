"""Blocks and layers of decoder-only models, from the parts of `decoder_layers.py` and `latent.py`.

Axes: B batch, T length, D model width.
"""

from collections.abc import Callable
from typing import Any

from flax import nnx

from prompt_tuning.models.decoder_layers import ActivatedMlp, Angles, DecoderConfig, GroupedAttention, KeysValues, Norm
from prompt_tuning.models.latent import Experts, LatentAttention
from prompt_tuning.models.layers import Array, Socket, adapted, dropout, split_key


class AttentionBlock(nnx.Module):
    """Norm, attention, norm of the result where there is one, residual. Sockets: `adapter`, `parallel`."""

    def __init__(self, rngs: nnx.Rngs, config: DecoderConfig):
        self.norm = Norm(config.d_model, config, kind=config.norm)
        self.attention = (LatentAttention if config.latent_width else GroupedAttention)(rngs, config)
        self.post_norm = Norm(config.d_model, config, kind=config.norm) if config.post_norms else nnx.data(None)
        self.dropout_rate = config.dropout_rate
        self.adapter: Socket = nnx.data(None)
        self.parallel: Socket = nnx.data(None)

    def __call__(
        self,
        x_BTD: Array,
        keys_values: Callable[[Array, Array | None], KeysValues],
        bias: Array,
        *,
        turned: Angles,
        causal: bool = False,
        key: Array | None,
    ) -> Array:
        """Adds to x_BTD what it attends to; `keys_values` makes keys and values from the normed input."""
        attention_key, residual_key = split_key(key, 2)
        normed_BTD = self.norm(x_BTD)
        keys_values_BHSK = keys_values(normed_BTD, attention_key)
        y_BTD = self.attention(normed_BTD, keys_values_BHSK, bias, turned=turned, causal=causal, key=attention_key)
        return _added(self, x_BTD, normed_BTD, y_BTD, residual_key)


class MlpBlock(nnx.Module):
    """Norm, feed-forward, norm of the result where there is one, residual. Sockets: `adapter`, `parallel`."""

    def __init__(self, rngs: nnx.Rngs, config: DecoderConfig, *, mixture: bool):
        self.norm = Norm(config.d_model, config, kind=config.norm)
        self.mlp = Experts(rngs, config) if mixture else ActivatedMlp(rngs, config, inner=config.d_ff)
        self.post_norm = Norm(config.d_model, config, kind=config.norm) if config.post_norms else nnx.data(None)
        self.dropout_rate = config.dropout_rate
        self.adapter: Socket = nnx.data(None)
        self.parallel: Socket = nnx.data(None)

    def __call__(self, x_BTD: Array, *, key: Array | None) -> Array:
        """Adds to x_BTD what the feed-forward layer makes of it."""
        inner_key, residual_key = split_key(key, 2)
        normed_BTD = self.norm(x_BTD)
        return _added(self, x_BTD, normed_BTD, self.mlp(normed_BTD, key=inner_key), residual_key)


def _added(block: AttentionBlock | MlpBlock, x_BTD: Array, normed_BTD: Array, y_BTD: Array, key: Array | None) -> Array:
    if block.post_norm is not None:
        y_BTD = block.post_norm(y_BTD)
    return x_BTD + dropout(adapted(block, normed_BTD, y_BTD), block.dropout_rate, key)


class SelfLayer(nnx.Module):
    """Self-attention and feed-forward. Socket: `prompt`."""

    def __init__(self, rngs: nnx.Rngs, config: DecoderConfig, *, mixture: bool):
        self.self_attention = AttentionBlock(rngs, config)
        self.feed_forward = MlpBlock(rngs, config, mixture=mixture)
        self.prompt: Socket = nnx.data(None)


class DecoderStack(nnx.Module):
    """Layers of one kind, their weights stacked on a leading axis, and the final norm unless another stack follows. Socket: `generator`."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, *, num_layers: int, mixture: bool, last: bool):
        self.layers = nnx.vmap(lambda r: SelfLayer(r, config, mixture=mixture), in_axes=0, out_axes=0)(rngs.split(num_layers))
        self.norm: Any = Norm(config.d_model, config, kind=config.norm) if last else nnx.data(None)
        self.num_layers = num_layers
        self.generator: Socket = nnx.data(None)

    def filled(self) -> Any:
        """The layers to run."""
        return self.layers if self.generator is None else self.generator(self.layers)
