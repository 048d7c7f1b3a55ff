"""Weights of Hugging Face's decoder-only models: GPT-2, Llama, Mistral, Qwen 2, 3, Gemma 1 to 3 (text), DeepSeek-V2, V3.

All but GPT-2 share one table of names; what a family has beyond it (biases, norms of queries and keys, norms after a block) shows in the
names of our parameters. Linear layers hold [out, in] where ours hold [in, out], but GPT-2's, which hold [in, out] and keep the products
for query, key and value in one array [D, 3 D]. DeepSeek's rotated coordinates 2i and 2i + 1 turn together, where ours are i and i + R/2.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_tuning.errors import UserError
from prompt_tuning.interop.sources import Convert, Recipe, Shape, Source, is_layered

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
_LATENT = {
    "self_attention/attention/query_down": "self_attn.q_a_proj",
    "self_attention/attention/query_norm": "self_attn.q_a_layernorm",
    "self_attention/attention/down": "self_attn.kv_a_proj_with_mqa",
    "self_attention/attention/latent_norm": "self_attn.kv_a_layernorm",
    "self_attention/attention/up": "self_attn.kv_b_proj",
    "feed_forward/mlp/shared/gate": "mlp.shared_experts.gate_proj",
    "feed_forward/mlp/shared/wi": "mlp.shared_experts.up_proj",
    "feed_forward/mlp/shared/wo": "mlp.shared_experts.down_proj",
}
# Arrays of the mixture: {e} is the expert.
_EXPERTS = {
    "feed_forward/mlp/router": "mlp.gate.weight",
    "feed_forward/mlp/router_bias": "mlp.gate.e_score_correction_bias",
    "feed_forward/mlp/gate": "mlp.experts.{e}.gate_proj.weight",
    "feed_forward/mlp/wi": "mlp.experts.{e}.up_proj.weight",
    "feed_forward/mlp/wo": "mlp.experts.{e}.down_proj.weight",
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


def entries(name: str, params: Mapping[str, Any], *, root: str | None = None) -> tuple[str, ...]:
    """Their names for a parameter of ours: one, one a layer, or one a layer and expert, of which the expert changes fastest.

    `params` are all parameters with their shapes, and `root` is where the language model begins, if not where their library puts it.
    """
    if name == "head/kernel":
        return ("lm_head.weight",)
    root = ("transformer." if "positions" in params else "model.") if root is None else root
    theirs = _their_name(name, params)
    if not is_layered(name):
        return (root + theirs,)
    depth, *rest = params[name].shape
    experts = range(rest[0]) if "{e}" in theirs else range(1)
    first = _first_layer(name, params)
    return tuple(root + theirs.format(i, e=e) for i in range(first, first + depth) for e in experts)


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
        theirs, found = _their_name(name, abstract), entries(name, abstract, root=root)
        if is_layered(name):
            accepts = {shape[:1:-1]: np.transpose} if "{e}" in theirs else _accepts(name, theirs, shape[1:], abstract)
            made[name] = Recipe(found, accepts, per_layer=True, label=f"{root}{theirs.format('*', e='*')}")
        else:
            made[name] = Recipe(found, {shape: np.asarray})
    return made, copies


def to_huggingface(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our parameters by their names and in their layout, as `AutoModelForCausalLM` has them in its `state_dict()`.

    A tied `lm_head.weight` is left out: their library ties it again.
    """
    out: dict[str, np.ndarray] = {}
    fused: dict[str, list[np.ndarray]] = {}
    for name in sorted(params, key=lambda name: [part in name for part in ("/value/", "/key/")]):
        value = np.asarray(params[name])
        if is_layered(name):
            parts = [each for part in value for each in (part if part.ndim == 3 else [part])]
        else:
            parts = [value]
        for entry, part in zip(entries(name, params), parts, strict=True):
            if ".c_attn." in entry:
                fused.setdefault(entry, []).append(part)
            else:
                out[entry] = np.ascontiguousarray(_turned(name, reordered_for_them(name, part, params), params))
    return out | {entry: np.concatenate(parts, axis=-1) for entry, parts in fused.items()}


def reordered_for_them(name: str, value: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """What has the output coordinates of the kernel `name` on its last axis, with these in the order of their library."""
    return _rotary(name, value, params, _paired)


def reordered_for_us(name: str, value: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """The inverse of `reordered_for_them`."""
    return _rotary(name, value, params, _halved)


def _turned(name: str, value: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """A product as [out, in], but for those of GPT-2 which keeps [in, out]."""
    product = _is_turned(name) or name.endswith(("/mlp/gate", "/mlp/wi", "/mlp/wo"))
    return value.T if product and ("positions" not in params or name == "head/kernel") else value


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
    table = _GPT2 if gpt2 else _LLAMA
    if "decoder/layers/feed_forward/post_norm/scale" in names:
        table = table | _POST_NORMS
    if "decoder/layers/self_attention/attention/down/kernel" in names:
        table = table | _LATENT
        if "decoder/layers/self_attention/attention/query_down/kernel" in names:
            table = table | {"self_attention/attention/query": "self_attn.q_b_proj"}
    place = name.split("/layers/")[-1]
    layer = "h.{}." if gpt2 else "layers.{}."
    if is_layered(name) and place in _EXPERTS:
        return layer + _EXPERTS[place]
    module, _, leaf = place.rpartition("/")
    if not is_layered(name) or module not in table:
        raise UserError(f"the parameter {name} has no place in Hugging Face's decoders: load the base before a method adds to it")
    return f"{layer}{table[module]}.{'bias' if leaf == 'bias' else 'weight'}"


def _first_layer(name: str, names: Mapping[str, Any]) -> int:
    """The number of the first layer of a parameter's stack: "decoder" follows "first" where there is one."""
    before = names.get("first/layers/self_attention/norm/scale")
    return 0 if before is None or name.startswith("first/") else int(before.shape[0])


def _is_turned(name: str) -> bool:
    return name.endswith(("/kernel", "/router"))


def _accepts(name: str, theirs: str, shape: Shape, names: Mapping[str, Any]) -> dict[Shape, Convert]:
    if ".c_attn." in theirs:
        place, width = _PARTS.index(name.split("/")[-2]), shape[-1]
        return {(*shape[:-1], 3 * width): lambda value: value[..., place * width : (place + 1) * width]}
    if _is_turned(name) and theirs.startswith("layers"):
        return {shape[::-1]: lambda value: _rotary(name, value.T, names, _halved)}
    return {shape: lambda value: _rotary(name, value, names, _halved)}


def _rotary(name: str, value: np.ndarray, names: Mapping[str, Any], reordered: Convert) -> np.ndarray:
    """A parameter of latent attention with its rotated output coordinates in another order; any other parameter as it is."""
    module = name.rpartition("/")[0]
    attention, _, which = module.rpartition("/")
    if f"{attention}/down/kernel" not in names or which not in ("query", "down"):
        return value
    latent = names[f"{attention}/latent_norm/scale"].shape[-1]
    rotated = names[f"{attention}/down/kernel"].shape[-1] - latent
    heads = 1
    if which == "query":
        plain = names[f"{attention}/up/kernel"].shape[-1] - names[f"{attention}/out/kernel"].shape[-2]
        heads = (value.shape[-1] - plain) // rotated
    by_head = value.reshape(*value.shape[:-1], heads, -1)
    kept, turned = by_head[..., :-rotated], by_head[..., -rotated:]
    return np.concatenate([kept, reordered(turned)], axis=-1).reshape(value.shape)


def _halved(pairs: np.ndarray) -> np.ndarray:
    return np.concatenate([pairs[..., 0::2], pairs[..., 1::2]], axis=-1)


def _paired(halves: np.ndarray) -> np.ndarray:
    return np.stack(np.split(halves, 2, axis=-1), axis=-1).reshape(halves.shape)
