"""A small Whisper of transformers' with random weights, and ours with the same."""

import functools
import pathlib
from typing import Any

import jax
import numpy as np
from flax import nnx

from prompt_tuning import interop, trainable
from prompt_tuning.models.whisper import Whisper, WhisperConfig

CONFIG = WhisperConfig(
    vocab_size=61,
    d_model=24,
    d_ff=20,
    num_heads=4,
    num_encoder_layers=2,
    num_decoder_layers=3,
    mels=10,
    source_positions=12,
    target_positions=16,
    unroll_layers=False,
)


def huggingface_model(config: WhisperConfig = CONFIG, seed: int = 0) -> Any:
    """A random model of transformers' in the architecture of `config`, whose parameters all differ."""
    import torch
    import transformers

    model = transformers.WhisperForConditionalGeneration(huggingface_config(config)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "encoder.embed_positions" in name:
                continue  # The sinusoids, which are not trained there either.
            if name.endswith("bias"):
                parameter.normal_(0, 0.05, generator=generator)
            elif parameter.ndim == 1:
                parameter.uniform_(0.4, 1.2, generator=generator)
            else:
                # Sharp attention, so that what is heard makes a difference.
                gain = 3.0 if name.endswith(("q_proj.weight", "k_proj.weight")) else 1.0
                parameter.normal_(0, gain * parameter[0].numel() ** -0.5, generator=generator)
    return model


def huggingface_config(config: WhisperConfig) -> Any:
    """The same architecture for transformers."""
    import transformers

    return transformers.WhisperConfig(
        vocab_size=config.vocab_size,
        d_model=config.d_model,
        encoder_ffn_dim=config.d_ff,
        decoder_ffn_dim=config.d_ff,
        encoder_attention_heads=config.num_heads,
        decoder_attention_heads=config.num_heads,
        encoder_layers=config.num_encoder_layers,
        decoder_layers=config.num_decoder_layers,
        num_mel_bins=config.mels,
        max_source_positions=config.source_positions,
        max_target_positions=config.target_positions,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        begin_suppress_tokens=None,
        suppress_tokens=None,
        attn_implementation="eager",
    )


def stated_config(folder: pathlib.Path, **changes: Any) -> WhisperConfig:
    """The configuration that the folder's config.json states."""
    return WhisperConfig(**interop.stated_fields(str(folder)) | changes)


def load(folder: pathlib.Path, **changes: Any) -> tuple[Whisper, dict[str, np.ndarray]]:
    """Our model with the weights of a folder, and these by name."""
    config = stated_config(folder, **{"unroll_layers": False} | changes)
    values, sources = interop.load_base(str(folder), config, abstract(config))
    assert set(values) == set(sources) == set(abstract(config))
    return model_with(config, values), values


@functools.cache
def abstract_model(config: WhisperConfig) -> Whisper:
    """Our model without values."""
    return nnx.eval_shape(lambda: Whisper(config, nnx.Rngs(params=0)))


def abstract(config: WhisperConfig) -> dict[str, Any]:
    """Shape and dtype of every parameter, by name."""
    return {name: v.get_value() for name, v in trainable.named_variables(abstract_model(config))}


def model_with(config: WhisperConfig, values: dict[str, Any]) -> Whisper:
    """Our model with these values."""
    graphdef, _ = nnx.split(abstract_model(config))
    return nnx.merge(graphdef, trainable.nested(jax.tree.map(jax.numpy.asarray, values)))


def random_values(config: WhisperConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Values by name that tell every parameter apart."""
    rng = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith(("scale", "bias")):
            return rng.uniform(0.4, 1.2, shape)
        return rng.normal(size=shape) * shape[-2] ** -0.5

    return {name: draw(name, leaf.shape).astype(leaf.dtype) for name, leaf in sorted(abstract(config).items())}
