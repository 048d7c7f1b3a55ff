"""A small T5 with random weights as arrays by name, and Hugging Face's T5 with the same weights."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np
from flax import nnx

from prompt_tuning import trainable
from prompt_tuning.models.t5 import T5, T5Config

V1_1 = T5Config(
    vocab_size=40,
    d_model=16,
    d_ff=24,
    num_heads=3,
    d_kv=4,
    num_encoder_layers=2,
    num_decoder_layers=2,
    relative_buckets=8,
    relative_max_distance=20,
)
V1_0 = dataclasses.replace(V1_1, gated=False, tied=True)
UMT5 = dataclasses.replace(V1_1, per_layer_bias=True)


@functools.cache
def _abstract_model(config: T5Config) -> T5:
    return nnx.eval_shape(lambda: T5(config, nnx.Rngs(params=0)))


@functools.cache
def abstract(config: T5Config) -> dict[str, Any]:
    """Shape and dtype of every parameter, by name."""
    return {name: v.get_value() for name, v in trainable.named_variables(_abstract_model(config))}


def random_values(config: T5Config, seed: int = 0) -> dict[str, np.ndarray]:
    """Values by name that tell every parameter apart: norms are not 1, biases not small."""
    rng = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith("scale"):
            return rng.uniform(0.5, 1.5, shape)
        return rng.normal(size=shape) * (1.0 if name.endswith(("embedding", "table")) else shape[-2] ** -0.5)

    return {name: draw(name, leaf.shape).astype(leaf.dtype) for name, leaf in sorted(abstract(config).items())}


def model_with(config: T5Config, values: dict[str, Any]) -> T5:
    """Our model with these values."""
    graphdef, _ = nnx.split(_abstract_model(config))
    return nnx.merge(graphdef, trainable.nested(jax.tree.map(jax.numpy.asarray, values)))


def huggingface_model(kind: str, config: T5Config, seed: int = 0) -> Any:
    """A random Hugging Face model of a kind (t5, mt5, umt5) in the architecture of `config`."""
    import torch
    import transformers

    prefix = {"t5": "T5", "mt5": "MT5", "umt5": "UMT5"}[kind]
    settings = getattr(transformers, f"{prefix}Config")(
        vocab_size=config.vocab_size,
        d_model=config.d_model,
        d_ff=config.d_ff,
        num_heads=config.num_heads,
        d_kv=config.d_kv,
        num_layers=config.num_encoder_layers,
        num_decoder_layers=config.num_decoder_layers,
        relative_attention_num_buckets=config.relative_buckets,
        relative_attention_max_distance=config.relative_max_distance,
        feed_forward_proj="gated-gelu" if config.gated else "relu",
        tie_word_embeddings=config.tied,
        dropout_rate=0.0,
    )
    model = getattr(transformers, f"{prefix}ForConditionalGeneration")(settings).eval()
    if not config.tied:
        # transformers 5 ties the head of every T5 whatever its configuration says; UMT5 then scales its logits too.
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(torch.empty(config.vocab_size, config.d_model))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                wide = "shared" in name or "relative" in name
                parameter.normal_(0, 1.0 if wide else parameter.shape[-1] ** -0.5, generator=generator)
    return model


def save_huggingface(model: Any, folder: pathlib.Path) -> None:
    """Writes the folder that published models have: config.json and model.safetensors, without the copies of the embedding."""
    from safetensors.torch import save_file

    tied = model.lm_head.weight is model.shared.weight
    state = {name: value.contiguous() for name, value in model.state_dict().items() if "embed_tokens" not in name}
    if tied:
        del state["lm_head.weight"]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors")
    model.config.save_pretrained(folder)
