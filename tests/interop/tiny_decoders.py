"""Small decoders of every family, as transformers makes them with random weights, and ours with the same."""

import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np
from flax import nnx

from prompt_tuning import interop, trainable
from prompt_tuning.models.decoder import Decoder, DecoderConfig

_SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0}
_TWO_BASES = {"full_attention": _LINEAR, "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}

_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "beta_fast": 4,
    "beta_slow": 1,
    "mscale": 0.7,
    "mscale_all_dim": 0.7,
    "original_max_position_embeddings": 16,
}
_DEEPSEEK: dict[str, Any] = _SIZES | {
    "num_key_value_heads": 4,
    "kv_lora_rank": 10,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 8,
    "v_head_dim": 5,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 8,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
}

# Name of a case -> (name of the family's classes in transformers, its settings).
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"vocab_size": 61, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "llama2": ("Llama", _SIZES | {"num_key_value_heads": 4}),
    "llama3": ("Llama", _SIZES | {"head_dim": 8, "rope_parameters": _LLAMA3, "tie_word_embeddings": True}),
    "llama_linear_biases": ("Llama", _SIZES | {"rope_parameters": _LINEAR, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("Mistral", _SIZES | {"sliding_window": 5}),
    "qwen2": ("Qwen2", _SIZES),
    "qwen2_windows": ("Qwen2", _SIZES | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("Qwen3", _SIZES | {"head_dim": 8, "tie_word_embeddings": True}),
    "gemma": ("Gemma", _SIZES | {"num_key_value_heads": 1, "head_dim": 8}),
    "gemma2": (
        "Gemma2",
        _SIZES
        | {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 12, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0},
    ),
    "deepseek_v2": ("DeepseekV2", _DEEPSEEK | {"q_lora_rank": None, "topk_method": "group_limited_greedy", "routed_scaling_factor": 1.5}),
    "deepseek_v3": ("DeepseekV3", _DEEPSEEK | {"q_lora_rank": 9, "rope_parameters": _YARN}),
    "gemma3": (
        "Gemma3Text",
        _SIZES
        | {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 12, "rope_parameters": _TWO_BASES, "sliding_window_pattern": 2},
    ),
}


def huggingface_model(name: str, seed: int = 0) -> Any:
    """A random model of transformers', in float32, whose parameters all differ."""
    import torch
    import transformers

    family, settings = FAMILIES[name]
    config = getattr(transformers, f"{family}Config")(**settings, attn_implementation="eager")
    model_class = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM"}.get(family, f"{family}ForCausalLM")
    torch.manual_seed(seed)
    model = getattr(transformers, model_class)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.4, 1.2, generator=generator)
            else:
                parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.uniform_(-0.2, 0.2, generator=generator)
    return model


def save(model: Any, folder: pathlib.Path, *, shard_bytes: int | None = None) -> None:
    """Writes the folder that transformers writes."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, **({} if shard_bytes is None else {"max_shard_size": shard_bytes}))


def stated_config(folder: pathlib.Path, **changes: Any) -> DecoderConfig:
    """The configuration that the folder's config.json states."""
    return DecoderConfig(**interop.stated_fields(str(folder)) | changes)


def load(folder: pathlib.Path, **changes: Any) -> tuple[Decoder, dict[str, np.ndarray]]:
    """Our model with the weights of a folder, and these by name."""
    config = stated_config(folder, **changes)
    values, sources = interop.load_base(str(folder), config, abstract(config))
    assert set(values) == set(sources) == set(abstract(config))
    return model_with(config, values), values


@functools.cache
def abstract_model(config: DecoderConfig) -> Decoder:
    """Our model without values."""
    return nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(params=0)))


def abstract(config: DecoderConfig) -> dict[str, Any]:
    """Shape and dtype of every parameter, by name."""
    return {name: v.get_value() for name, v in trainable.named_variables(abstract_model(config))}


def model_with(config: DecoderConfig, values: dict[str, Any]) -> Decoder:
    """Our model with these values."""
    graphdef, _ = nnx.split(abstract_model(config))
    return nnx.merge(graphdef, trainable.nested(jax.tree.map(jax.numpy.asarray, values)))


def rewrite_config(folder: pathlib.Path, **changes: Any) -> None:
    """Changes settings of the folder's config.json; None removes one."""
    file = folder / "config.json"
    settings = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
