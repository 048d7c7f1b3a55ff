"""Configurations of Hugging Face's decoder-only models: what the config.json of a family states, as fields of `DecoderConfig`."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from prompt_tuning.errors import UserError


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of a decoder-only family, or of Gemma 3's model that reads images too and holds one."""
    return config.get("model_type") in (*FAMILIES, "gemma3")


def config_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `DecoderConfig` that a Hugging Face config.json states, by its `model_type`.

    Raises UserError for a family that is not known, and for a setting of a known one that this model does not have.
    """
    if isinstance(config.get("text_config"), dict):
        config = {"model_type": "gemma3_text", "tie_word_embeddings": True} | config["text_config"]
    family = config.get("model_type")
    if family not in FAMILIES:
        raise UserError(f"config.json: model_type {family!r} is not known; wanted one of {sorted(FAMILIES)}")
    return FAMILIES[family](config)


def _gpt2(config: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"):
        if config.get(name):
            raise UserError(f"config.json: {name} = true is not supported; wanted a plain GPT-2")
    width, heads = config.get("n_embd", 768), config.get("n_head", 12)
    return {
        "vocab_size": config.get("vocab_size", 50257),
        "d_model": width,
        "d_ff": config.get("n_inner") or 4 * width,
        "num_layers": config.get("n_layer", 12),
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_width": width // heads,
        "norm": "layer",
        "norm_epsilon": config.get("layer_norm_epsilon", 1e-5),
        "activation": _activation(config.get("activation_function", "gelu_new")),
        "gated": False,
        "qkv_bias": True,
        "out_bias": True,
        "mlp_bias": True,
        "positions": "learned",
        "max_positions": config.get("n_positions", 1024),
        "attention_scale": None if config.get("scale_attn_weights", True) else 1.0,
        "tied": config.get("tie_word_embeddings", True),
    }


def _common(config: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    config = defaults | {key: value for key, value in config.items() if value is not None}
    width, heads = config["hidden_size"], config["num_attention_heads"]
    return {
        "vocab_size": config["vocab_size"],
        "d_model": width,
        "d_ff": config["intermediate_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": heads,
        "num_kv_heads": config.get("num_key_value_heads", heads),
        "head_width": config.get("head_dim", width // heads),
        "norm_epsilon": config.get("rms_norm_eps", 1e-6),
        "activation": _activation(config.get("hidden_activation", config.get("hidden_act", "silu"))),
        "tied": config.get("tie_word_embeddings", False),
    } | _rope(config)


def _llama(config: Mapping[str, Any]) -> dict[str, Any]:
    bias = config.get("attention_bias", False)
    return _common(config) | {"qkv_bias": bias, "out_bias": bias, "mlp_bias": config.get("mlp_bias", False)}


def _mistral(config: Mapping[str, Any]) -> dict[str, Any]:
    # Where a release gives no window key, their default is 4,096; null is none.
    return _common(config) | _windows(config.get("sliding_window", 4096), "L")


def _qwen2(config: Mapping[str, Any]) -> dict[str, Any]:
    return _common(config) | {"qkv_bias": True} | _qwen_windows(config)


def _qwen3(config: Mapping[str, Any]) -> dict[str, Any]:
    bias = config.get("attention_bias", False)
    return _common(config, head_dim=128) | {"qk_norm": True, "qkv_bias": bias, "out_bias": bias} | _qwen_windows(config)


def _qwen_windows(config: Mapping[str, Any]) -> dict[str, Any]:
    if not config.get("use_sliding_window"):
        return {}
    depth = config["num_hidden_layers"]
    first = min(config.get("max_window_layers", depth), depth)
    return _windows(config.get("sliding_window"), _kinds(config) or "G" * first + "L" * (depth - first))


def _gemma(config: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    # The first release says "gelu" and was trained with the tanh formula, which their library takes whatever the file says.
    plain = {key: value for key, value in config.items() if key != "hidden_act"}
    defaults = {"head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True} | defaults
    bias = config.get("attention_bias", False)
    return _common(plain, **defaults) | {"norm_plus_one": True, "scaled_embedding": True, "qkv_bias": bias, "out_bias": bias}


def _gemma2(config: Mapping[str, Any]) -> dict[str, Any]:
    return (
        _gemma(config)
        | _windows(config.get("sliding_window", 4096), _kinds(config) or "LG")
        | {
            "post_norms": True,
            "attention_scale": config.get("query_pre_attn_scalar", 256) ** -0.5,
            "attention_cap": config.get("attn_logit_softcapping", 50.0),
            "logit_cap": config.get("final_logit_softcapping", 30.0),
        }
    )


def _gemma3(config: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("use_bidirectional_attention"):
        raise UserError("config.json: use_bidirectional_attention = true is not supported; wanted a causal Gemma 3")
    pattern = config.get("sliding_window_pattern") or 6
    # What the published files leave to their library's defaults.
    sizes = {"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "rope_theta": 1e6}
    return (
        _gemma(config, **sizes)
        | _windows(config.get("sliding_window", 4096), _kinds(config) or "L" * (pattern - 1) + "G")
        | {
            "post_norms": True,
            "qk_norm": True,
            "attention_scale": config.get("query_pre_attn_scalar", 256) ** -0.5,
            "attention_cap": config.get("attn_logit_softcapping"),
            "logit_cap": config.get("final_logit_softcapping"),
            "local_rope_base": _local_base(config),
        }
    )


def _deepseek(config: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("moe_layer_freq", 1) != 1 or not config.get("rope_interleave", True):
        raise UserError("config.json: wanted a DeepSeek with moe_layer_freq 1 and rope_interleave true")
    third = config["model_type"] == "deepseek_v3"
    grouped = third or config.get("topk_method") == "group_limited_greedy"
    width = config["qk_nope_head_dim"] + config["qk_rope_head_dim"]
    stated = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    stretch = 1.0
    if stated.get("rope_type", stated.get("type", "default")) == "yarn" and stated.get("mscale_all_dim"):
        stretch = 0.1 * stated["mscale_all_dim"] * math.log(stated["factor"]) + 1.0
    bias = config.get("attention_bias", False)
    return _common(config) | {
        "num_kv_heads": config["num_attention_heads"],
        "head_width": config["qk_nope_head_dim"],
        "rope_width": config["qk_rope_head_dim"],
        "value_width": config["v_head_dim"],
        "latent_width": config["kv_lora_rank"],
        "latent_query_width": config.get("q_lora_rank") or 0,
        "attention_scale": width**-0.5 * stretch * stretch,
        "qkv_bias": bias,
        "out_bias": bias,
        "mlp_bias": config.get("mlp_bias", False),
        "experts": config["n_routed_experts"],
        "experts_per_token": config["num_experts_per_tok"],
        "expert_width": config["moe_intermediate_size"],
        "shared_experts": config["n_shared_experts"],
        "dense_layers": config.get("first_k_dense_replace", 0),
        "router": "sigmoid" if third else "softmax",
        "router_groups": config["n_group"] if grouped else 1,
        "router_top_groups": config["topk_group"] if grouped else 1,
        "router_scale": float(config.get("routed_scaling_factor", 1.0)),
        "router_normed": third and config.get("norm_topk_prob", True),
    }


FAMILIES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
}


def _activation(name: str) -> str:
    known = {"silu": "silu", "swish": "silu", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu"}
    if name not in known:
        raise UserError(f"config.json: activation {name!r} is not supported; wanted one of {sorted(known)}")
    return known[name]


def _windows(window: int | None, kinds: str) -> dict[str, Any]:
    """The fields of a window; the letters of the layers in their shortest form."""
    if window is None or "L" not in kinds:
        return {}
    shortest = next(kinds[:n] for n in range(1, len(kinds) + 1) if (kinds[:n] * len(kinds)).startswith(kinds))
    return {"window": window, "layer_kinds": shortest}


def _kinds(config: Mapping[str, Any]) -> str:
    letters = {"full_attention": "G", "sliding_attention": "L"}
    types = config.get("layer_types") or ()
    if unknown := sorted(set(types) - set(letters)):
        raise UserError(f"config.json: layer type {unknown[0]!r} is not supported; wanted one of {sorted(letters)}")
    return "".join(letters[each] for each in types)


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """From `rope_parameters` of later releases, or `rope_theta` and `rope_scaling` of earlier ones."""
    stated = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    stated = dict(stated.get("full_attention", stated))
    scaling = stated.get("rope_type", stated.get("type", "default"))
    fields = {"rope_base": float(stated.get("rope_theta", config.get("rope_theta", 10000.0)))}
    if scaling == "default":
        return fields
    if scaling not in ("linear", "llama3", "yarn") or stated.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError(f"config.json: rotary scaling {scaling!r} is not supported; wanted 'default', 'linear', 'llama3' or 'yarn'")
    fields |= {"rope_scaling": scaling, "rope_factor": float(stated["factor"])}
    if scaling == "yarn":
        # Otherwise cosine and sine are scaled too.
        if not stated.get("mscale") or stated["mscale"] != stated.get("mscale_all_dim"):
            raise UserError("config.json: rotary scaling 'yarn' is supported where mscale equals mscale_all_dim, as in DeepSeek's files")
        fields["rope_original_length"] = stated["original_max_position_embeddings"]
        fields["rope_fast"], fields["rope_slow"] = float(stated.get("beta_fast") or 32), float(stated.get("beta_slow") or 1)
    if scaling == "llama3":
        fields["rope_low_factor"] = float(stated["low_freq_factor"])
        fields["rope_high_factor"] = float(stated["high_freq_factor"])
        fields["rope_original_length"] = stated["original_max_position_embeddings"]
    return fields


def _local_base(config: Mapping[str, Any]) -> float:
    stated = (config.get("rope_parameters") or {}).get("sliding_attention", {})
    return float(stated.get("rope_theta", config.get("rope_local_base_freq", 10000.0)))
