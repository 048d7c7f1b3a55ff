"""Weights of Hugging Face's T5, mT5, UMT5 and ByT5: one table of names, used to read and to write.

Their linear layers hold [out, in] where ours hold [in, out]. They keep the relative bias of a stack in its first layer. Files may repeat
the embedding under other names, and the first T5 releases hold a bias of the cross-attention that nothing uses.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_tuning.errors import UserError
from prompt_tuning.interop.sources import Convert, Recipe, Shape, Source, is_layered

_ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o"}
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# In files of the first releases; T5 computes no relative bias across stacks.
_UNUSED_BIAS = re.compile(r"decoder\.block\.\d+\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight")


def _residual(ours: str, number: int, theirs: str) -> dict[str, str]:
    kernels = {f"{ours}/attention/{k}/kernel": f"layer.{number}.{theirs}.{v}.weight" for k, v in _ATTENTION.items()}
    return {f"{ours}/norm/scale": f"layer.{number}.layer_norm.weight"} | kernels


def _mlp(number: int, *, gated: bool) -> dict[str, str]:
    inner = {"gate": "wi_0", "wi": "wi_1"} if gated else {"wi": "wi"}
    kernels = {f"feed_forward/mlp/{k}/kernel": f"layer.{number}.DenseReluDense.{v}.weight" for k, v in (inner | {"wo": "wo"}).items()}
    return {"feed_forward/norm/scale": f"layer.{number}.layer_norm.weight"} | kernels


_BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"


def layer_names(*, gated: bool) -> dict[str, dict[str, str]]:
    """For each stack: our name below `<stack>/layers/` -> their name below `<stack>.block.<i>.`."""
    self_attention = _residual("self_attention", 0, "SelfAttention") | {"self_attention/relative_bias/table": _BIAS}
    return {
        "encoder": self_attention | _mlp(1, gated=gated),
        "decoder": self_attention | _residual("cross_attention", 1, "EncDecAttention") | _mlp(2, gated=gated),
    }


MODEL_NAMES = {
    "embed/embedding": "shared.weight",
    "encoder/relative_bias/table": f"encoder.block.0.{_BIAS}",
    "decoder/relative_bias/table": f"decoder.block.0.{_BIAS}",
    "encoder/norm/scale": "encoder.final_layer_norm.weight",
    "decoder/norm/scale": "decoder.final_layer_norm.weight",
    "head/kernel": "lm_head.weight",
}


def is_huggingface(entries: Mapping[str, Any]) -> bool:
    """Whether names of entries are those of a Hugging Face T5."""
    return any(name.startswith(("encoder.block.", "decoder.block.", "shared.", "transformer.")) for name in entries)


def entries(name: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Their names for a parameter of ours, one a layer or one; `params` are all parameters with their shapes."""
    if not is_layered(name):
        return (_look_up(MODEL_NAMES, name, name),)
    stack, _, rest = name.split("/", 2)
    table = layer_names(gated="encoder/layers/feed_forward/mlp/gate/kernel" in params)
    return tuple(f"{stack}.block.{i}.{_look_up(table[stack], rest, name)}" for i in range(params[name].shape[0]))


def recipes(source: Source, abstract: Mapping[str, Any]) -> tuple[dict[str, Recipe], dict[str, str]]:
    """For each parameter its recipe, and the entries that repeat another one (see `sources.fill`)."""
    embedding = next((name for name in _EMBEDDINGS if name in source.shapes), _EMBEDDINGS[0])
    copies = {name: embedding for name in _EMBEDDINGS if name in source.shapes and name != embedding}
    if "head/kernel" not in abstract and "lm_head.weight" in source.shapes:
        copies["lm_head.weight"] = embedding
    copies |= {name: name for name in source.shapes if _UNUSED_BIAS.fullmatch(name)}
    made = {}
    for name, leaf in abstract.items():
        shape = tuple(leaf.shape)
        theirs = (embedding,) if name == "embed/embedding" else entries(name, abstract)
        if is_layered(name):
            label = theirs[0].replace(".block.0.", ".block.*.")
            made[name] = Recipe(theirs, _accepts(name, shape[1:]), per_layer=True, label=label)
        else:
            made[name] = Recipe(theirs, _accepts(name, shape))
    return made, copies


def to_huggingface(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our parameters by their names and in their layout, as `T5ForConditionalGeneration.state_dict()` has them.

    Copies of the embedding (`encoder.embed_tokens.weight`, a tied `lm_head.weight`) are left out: their library ties them again.
    """
    out: dict[str, np.ndarray] = {}
    for name, value in params.items():
        parts = np.asarray(value) if is_layered(name) else [np.asarray(value)]
        out |= {entry: np.ascontiguousarray(_turned(name, part)) for entry, part in zip(entries(name, params), parts, strict=True)}
    return out


def config_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `T5Config` that a Hugging Face config.json states (`tied` is not among them: entries tell it more surely)."""
    activation = config.get("feed_forward_proj", "relu")
    if activation not in ("relu", "gated-gelu"):
        raise UserError(f"config.json: feed_forward_proj {activation!r} is not an activation of T5; wanted 'relu' or 'gated-gelu'")
    theirs = {
        "vocab_size": "vocab_size",
        "d_model": "d_model",
        "d_ff": "d_ff",
        "num_heads": "num_heads",
        "d_kv": "d_kv",
        "num_encoder_layers": "num_layers",
        "num_decoder_layers": "num_decoder_layers",
        "relative_buckets": "relative_attention_num_buckets",
        "relative_max_distance": "relative_attention_max_distance",
        "layer_norm_epsilon": "layer_norm_epsilon",
    }
    stated = {ours: config[key] for ours, key in theirs.items() if config.get(key) is not None}
    return stated | {"gated": activation == "gated-gelu", "per_layer_bias": config.get("model_type") == "umt5"}


def _look_up(table: Mapping[str, str], key: str, name: str) -> str:
    if key not in table:
        raise UserError(f"the parameter {name} has no place in Hugging Face's T5: load the base before a method adds to it")
    return table[key]


def _turned(name: str, value: np.ndarray) -> np.ndarray:
    return value.T if name.endswith("/kernel") else value


def _accepts(name: str, shape: Shape) -> dict[Shape, Convert]:
    return {shape[::-1]: np.transpose} if name.endswith("/kernel") else {shape: np.asarray}
