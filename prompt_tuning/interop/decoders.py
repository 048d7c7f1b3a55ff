"""Weights and configurations of Hugging Face's decoder-only models: GPT-2, Llama, Mistral, Qwen 2 and 3, Gemma 1 to 3 (text).

All but GPT-2 share one table of names; what a family has beyond it (biases, norms of queries and keys, norms after a block) shows in the
names of our parameters. Linear layers hold [out, in] where ours hold [in, out], but GPT-2's, which hold [in, out] and keep the products
for query, key and value in one array [D, 3 D].
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from prompt_tuning.errors import UserError
from prompt_tuning.interop.sources import Convert, Recipe, Shape, Source

_LAYERS = "decoder/layers/"
_PARTS = ("query", "key", "value")  # In the order of GPT-2's c_attn.

_LLAMA = {
    "self_attention/norm": "input_layernorm",
    "self_attention/attention/query": "self_attn.q_proj",
    "self_attention/attention/key": "self_attn.k_proj",
    "self_attention/attention/value": "self_attn.v_proj",
    "self_attention/attention/out": "self_attn.o_proj",
    "self_attention/attention/query_norm": "self_attn.q_norm",
    "self_attention/attention/key_norm": "self_attn.k_norm",
    "feed_forward/norm": "post_attention_layernorm",
    "feed_forward/mlp/gate": "mlp.gate_proj",
    "feed_forward/mlp/wi": "mlp.up_proj",
    "feed_forward/mlp/wo": "mlp.down_proj",
}
_POST_NORMS = {
    "self_attention/post_norm": "post_attention_layernorm",
    "feed_forward/norm": "pre_feedforward_layernorm",
    "feed_forward/post_norm": "post_feedforward_layernorm",
}
_GPT2 = {
    "self_attention/norm": "ln_1",
    "self_attention/attention/out": "attn.c_proj",
    "feed_forward/norm": "ln_2",
    "feed_forward/mlp/wi": "mlp.c_fc",
    "feed_forward/mlp/wo": "mlp.c_proj",
} | {f"self_attention/attention/{part}": "attn.c_attn" for part in _PARTS}

# Where the language model of a file begins: Gemma 3's stands inside a model that reads images too.
_ROOTS = ("model.", "", "model.language_model.", "language_model.model.", "transformer.")
# Buffers of old releases, and the parts of Gemma 3 that read images.
_NOT_OURS = re.compile(r".*\.rotary_emb\.inv_freq|.*h\.\d+\.attn\.(masked_)?bias|(model\.)?(vision_tower|multi_modal_projector)\..*")


def is_huggingface(entries: Mapping[str, Any]) -> bool:
    """Whether names of entries are those of a decoder-only model of Hugging Face's."""
    return any(name.endswith(("embed_tokens.weight", "wte.weight")) and not name.startswith(("encoder.", "decoder.")) for name in entries)


def recipes(source: Source, abstract: Mapping[str, Any]) -> tuple[dict[str, Recipe], dict[str, str]]:
    """For each parameter of a `Decoder` its recipe, and the entries that repeat another one (see `sources.fill`)."""
    embedding = "wte.weight" if "positions" in abstract else "embed_tokens.weight"
    root = next((root for root in _ROOTS if root + embedding in source.shapes), _ROOTS[0])
    head = "language_model.lm_head.weight" if "language_model.lm_head.weight" in source.shapes else "lm_head.weight"
    copies = {name: name for name in source.shapes if _NOT_OURS.fullmatch(name)}
    if "head/kernel" not in abstract and head in source.shapes:
        copies[head] = root + embedding
    made = {}
    for name, leaf in abstract.items():
        shape = tuple(leaf.shape)
        if name == "head/kernel":
            made[name] = Recipe((head,), {shape[::-1]: np.transpose})
            continue
        theirs = _their_name(name, abstract)
        if name.startswith(_LAYERS):
            entries = tuple(f"{root}{theirs.format(i)}" for i in range(shape[0]))
            made[name] = Recipe(entries, _accepts(name, theirs, shape[1:]), per_layer=True, label=f"{root}{theirs.format('*')}")
        else:
            made[name] = Recipe((root + theirs,), {shape: np.asarray})
    return made, copies


def to_huggingface(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our parameters by their names and in their layout, as `AutoModelForCausalLM` has them in its `state_dict()`.

    A tied `lm_head.weight` is left out: their library ties it again.
    """
    root = "transformer." if "positions" in params else "model."
    out: dict[str, np.ndarray] = {}
    fused: dict[str, list[np.ndarray]] = {}
    for name in sorted(params, key=lambda name: [part in name for part in ("/value/", "/key/")]):
        value = np.asarray(params[name])
        if name == "head/kernel":
            out["lm_head.weight"] = np.ascontiguousarray(value.T)
            continue
        theirs = _their_name(name, params)
        if not name.startswith(_LAYERS):
            out[root + theirs] = np.ascontiguousarray(value)
            continue
        for i, part in enumerate(value):
            entry = root + theirs.format(i)
            if ".c_attn." in entry:
                fused.setdefault(entry, []).append(part)
            else:
                out[entry] = np.ascontiguousarray(part.T if name.endswith("/kernel") and root == "model." else part)
    return out | {entry: np.concatenate(parts, axis=-1) for entry, parts in fused.items()}


def _their_name(name: str, names: Mapping[str, Any]) -> str:
    """Their name of a parameter, below the root, with {} for the layer."""
    gpt2 = "positions" in names
    tops = (
        {"embed/embedding": "wte.weight", "positions": "wpe.weight", "decoder/norm/scale": "ln_f.weight", "decoder/norm/bias": "ln_f.bias"}
        if gpt2
        else {"embed/embedding": "embed_tokens.weight", "decoder/norm/scale": "norm.weight"}
    )
    if name in tops:
        return tops[name]
    table = _GPT2 if gpt2 else _LLAMA | (_POST_NORMS if f"{_LAYERS}feed_forward/post_norm/scale" in names else {})
    module, _, leaf = name.removeprefix(_LAYERS).rpartition("/")
    if not name.startswith(_LAYERS) or module not in table:
        raise UserError(f"the parameter {name} has no place in Hugging Face's decoders: load the base before a method adds to it")
    return f"{'h' if gpt2 else 'layers'}.{{}}.{table[module]}.{'bias' if leaf == 'bias' else 'weight'}"


def _accepts(name: str, theirs: str, shape: Shape) -> dict[Shape, Convert]:
    if ".c_attn." in theirs:
        place, width = _PARTS.index(name.split("/")[-2]), shape[-1]
        return {(*shape[:-1], 3 * width): lambda value: value[..., place * width : (place + 1) * width]}
    if name.endswith("/kernel") and theirs.startswith("layers"):
        return {shape[::-1]: np.transpose}
    return {shape: np.asarray}


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


FAMILIES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
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
    if scaling not in ("linear", "llama3") or stated.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError(f"config.json: rotary scaling {scaling!r} is not supported; wanted 'default', 'linear' or 'llama3'")
    fields |= {"rope_scaling": scaling, "rope_factor": float(stated["factor"])}
    if scaling == "llama3":
        fields["rope_low_factor"] = float(stated["low_freq_factor"])
        fields["rope_high_factor"] = float(stated["high_freq_factor"])
        fields["rope_original_length"] = stated["original_max_position_embeddings"]
    return fields


def _local_base(config: Mapping[str, Any]) -> float:
    stated = (config.get("rope_parameters") or {}).get("sliding_attention", {})
    return float(stated.get("rope_theta", config.get("rope_local_base_freq", 10000.0)))
