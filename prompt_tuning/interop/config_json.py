"""The config.json of Hugging Face's models, written from our configurations.

A `DecoderConfig` does not say which family it is of: the first family is taken whose config.json, read back (`decoder_configs.py`), gives
the same architecture.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from prompt_tuning.errors import UserError
from prompt_tuning.interop import decoder_configs
from prompt_tuning.models.decoder_layers import DecoderConfig
from prompt_tuning.models.t5 import T5Config
from prompt_tuning.models.whisper import WhisperConfig

# What is of a run, or of no consequence for the architecture.
_OF_A_RUN = ("dropout_rate", "dtype", "param_dtype", "unroll_layers", "remat")
_CLASSES = {
    "gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM", "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM",
}  # fmt: skip
_GEMMA = ("attention_bias", "hidden_activation")
_GEMMA2 = (
    *_GEMMA, "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "sliding_window", "layer_types",
)  # fmt: skip
_WINDOWS = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
_LATENT = (
    "attention_bias", "mlp_bias", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "n_routed_experts",
    "num_experts_per_tok", "moe_intermediate_size", "n_shared_experts", "first_k_dense_replace", "n_group", "topk_group",
    "routed_scaling_factor", "norm_topk_prob", "topk_method", "hidden_act",
)  # fmt: skip
# What a family states beyond the common keys.
_KEYS: dict[str, tuple[str, ...]] = {
    "llama": ("attention_bias", "mlp_bias", "hidden_act", "head_dim"),
    "mistral": ("sliding_window", "hidden_act", "head_dim"),
    "qwen2": (*_WINDOWS, "hidden_act"),
    "qwen3": (*_WINDOWS, "attention_bias", "hidden_act", "head_dim"),
    "gemma": (*_GEMMA, "head_dim"),
    "gemma2": (*_GEMMA2, "head_dim"),
    "gemma3_text": (*_GEMMA2, "head_dim", "rope_local_base_freq"),
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
}


def config_json(config: T5Config | DecoderConfig | WhisperConfig) -> dict[str, Any]:
    """What config.json says of an architecture. Raises UserError where no published family has it."""
    if isinstance(config, T5Config):
        return _t5(config)
    if isinstance(config, WhisperConfig):
        return _whisper(config)
    for family in decoder_configs.FAMILIES:
        stated = _gpt2(config) if family == "gpt2" else _decoder(config, family)
        try:
            read = DecoderConfig(**decoder_configs.config_fields(stated))
        except UserError:
            continue
        if _same(config, read):
            return {"architectures": [_CLASSES[family]]} | stated
    raise UserError(
        f"no family of Hugging Face's has this architecture (wanted one of {sorted(decoder_configs.FAMILIES)}); "
        "set the model's fields to those of a published model"
    )


def _t5(config: T5Config) -> dict[str, Any]:
    family = "umt5" if config.per_layer_bias else "t5"
    return {
        "architectures": [f"{family.upper()}ForConditionalGeneration"],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "d_ff": config.d_ff,
        "d_kv": config.d_kv,
        "num_heads": config.num_heads,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_max_distance,
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "feed_forward_proj": "gated-gelu" if config.gated else "relu",
        "tie_word_embeddings": config.tied,
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    }


def _whisper(config: WhisperConfig) -> dict[str, Any]:
    both = {
        f"{side}_{part}": size
        for side in ("encoder", "decoder")
        for part, size in (("ffn_dim", config.d_ff), ("attention_heads", config.num_heads))
    }
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        **both,
        "encoder_layers": config.num_encoder_layers,
        "decoder_layers": config.num_decoder_layers,
        "num_mel_bins": config.mels,
        "max_source_positions": config.source_positions,
        "max_target_positions": config.target_positions,
        "is_encoder_decoder": True,
    }


def _gpt2(config: DecoderConfig) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_inner": config.d_ff,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_positions": config.max_positions,
        "layer_norm_epsilon": config.norm_epsilon,
        "activation_function": "gelu_new",
        "scale_attn_weights": config.attention_scale is None,
        "tie_word_embeddings": config.tied,
    }


def _decoder(config: DecoderConfig, family: str) -> dict[str, Any]:
    local = any(config.local_layers)
    kinds = ["sliding_attention" if each else "full_attention" for each in config.local_layers]
    activation = {"silu": "silu", "gelu": "gelu_pytorch_tanh"}[config.activation]
    groups = config.router_groups > 1
    extra: dict[str, Any] = {
        "head_dim": config.head_width,
        "hidden_act": activation,
        "hidden_activation": activation,
        "attention_bias": config.out_bias,
        "mlp_bias": config.mlp_bias,
        "sliding_window": config.window if local else None,
        "use_sliding_window": local,
        "max_window_layers": config.num_layers,
        "layer_types": kinds,
        "query_pre_attn_scalar": _near_whole((config.attention_scale or config.head_width**-0.5) ** -2),
        "attn_logit_softcapping": config.attention_cap,
        "final_logit_softcapping": config.logit_cap,
        "rope_local_base_freq": config.local_rope_base or config.rope_base,
        "q_lora_rank": config.latent_query_width or None,
        "kv_lora_rank": config.latent_width,
        "qk_nope_head_dim": config.head_width,
        "qk_rope_head_dim": config.rope_width,
        "v_head_dim": config.value_width,
        "n_routed_experts": config.experts,
        "num_experts_per_tok": config.experts_per_token,
        "moe_intermediate_size": config.expert_width,
        "n_shared_experts": config.shared_experts,
        "first_k_dense_replace": config.dense_layers,
        "n_group": config.router_groups,
        "topk_group": config.router_top_groups,
        "routed_scaling_factor": config.router_scale,
        "norm_topk_prob": config.router_normed,
        "topk_method": "group_limited_greedy" if groups else "greedy",
    }
    return {
        "model_type": family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "rms_norm_eps": config.norm_epsilon,
        "max_position_embeddings": _longest(config),
        "tie_word_embeddings": config.tied,
        "rope_theta": config.rope_base,
        "rope_scaling": _rope_scaling(config),
    } | {key: extra[key] for key in _KEYS[family]}


def _rope_scaling(config: DecoderConfig) -> dict[str, Any] | None:
    if config.rope_scaling == "none":
        return None
    stated = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling in ("llama3", "yarn"):
        stated["original_max_position_embeddings"] = config.rope_original_length
    if config.rope_scaling == "llama3":
        stated |= {"low_freq_factor": config.rope_low_factor, "high_freq_factor": config.rope_high_factor}
    if config.rope_scaling == "yarn":
        # DeepSeek's files scale the scores by (0.1 m log(factor) + 1)^2: m from what the scale has beyond its width's.
        stretch = math.sqrt((config.attention_scale or 1.0) * math.sqrt(config.key_width))
        mscale = round((stretch - 1.0) / (0.1 * math.log(config.rope_factor) or 1.0), 9)
        stated |= {"beta_fast": config.rope_fast, "beta_slow": config.rope_slow, "mscale": mscale, "mscale_all_dim": mscale}
    return stated


def _longest(config: DecoderConfig) -> int:
    scaled = config.rope_scaling in ("llama3", "yarn")
    return int(config.rope_original_length * config.rope_factor) if scaled else config.max_positions


def _near_whole(value: float) -> float:
    return round(value) if math.isclose(value, round(value), rel_tol=1e-9) else value


def _same(one: DecoderConfig, other: DecoderConfig) -> bool:
    """Whether two configurations are of the same architecture; numbers may differ in their last digits."""
    a, b = (_compared(config) for config in (one, other))
    return all(
        math.isclose(a[name], b[name], rel_tol=1e-7) if isinstance(a[name], float) and isinstance(b[name], float) else a[name] == b[name]
        for name in a
    )


def _compared(config: DecoderConfig) -> Mapping[str, Any]:
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name not in _OF_A_RUN}
    fields |= {"layer_kinds": config.local_layers, "window": config.window if any(config.local_layers) else None}
    if config.positions == "rope":
        fields["max_positions"] = None
    if config.attention_scale is None:
        fields["attention_scale"] = config.key_width**-0.5
    if not any(config.local_layers) or (config.local_rope_base is None and config.rope_scaling == "none"):
        fields["local_rope_base"] = config.rope_base
    return fields
