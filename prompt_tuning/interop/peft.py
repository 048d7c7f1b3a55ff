"""Adapters of the PEFT library as our methods, and back; their files: `adapter_files.py`.

Its entries stand a layer apart under the names of Hugging Face's modules, where our arrays have the layers stacked:

| PEFT's entry | our parameter |
|---|---|
| `<linear>.lora_A.weight` [R, I] | `<linear>/delta/down` [.., I, R] |
| `<linear>.lora_B.weight` [O, R] | `<linear>/delta/up` [.., R, O] |
| `<linear>.lora_magnitude_vector` [O] | `<linear>/delta/magnitude` [.., O] |
| `<key or value>.ia3_l` [O, 1], `<wo>.ia3_l` [1, I] | `k_scale/scale`, `v_scale/scale` and `scale/scale` [.., O or I] |
| `prompt_embeddings` [P, D] | `embed/prompt/rows` |
| `prompt_embeddings` [P, N 2 H K] of a prefix | `prefix/keys` and `prefix/values` [N, H, P, K] |

Nothing is computed in either direction, so that what goes out and comes back is the same bit for bit.

Axes: P prompt length, D model width, N layers, H heads, K head width, R rank, I and O input and output width.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from prompt_tuning import trainable
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.errors import UserError
from prompt_tuning.interop import decoders, huggingface, whisper
from prompt_tuning.interop.adapter_files import CONFIG, WEIGHTS, Adapter
from prompt_tuning.interop.sources import is_layered
from prompt_tuning.methods import sites
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.dora import Dora
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.lora import Lora
from prompt_tuning.methods.pissa import Pissa
from prompt_tuning.methods.prefix import Prefix
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.models.layers import Linear, Tunable
from prompt_tuning.models.whisper import Whisper

_ROOT = "base_model.model."
_PROMPT = "prompt_embeddings"
_PROMPT_TYPES = ("PROMPT_TUNING", "P_TUNING")
# Linear layer -> the socket of the scale on what comes out of it (keys and values) or goes into it.
_SCALED = {"key": "k_scale", "value": "v_scale", "wo": "scale"}
# Settings that say more than the entries do, and that nothing here stands for: each must be at rest.
_NOT_OURS = (
    "rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication", "alora_invocation_tokens", "use_qalora", "arrow_config",
    "trainable_token_indices", "target_parameters", "lora_bias",
)  # fmt: skip


def prompt_layout(adapter: Adapter) -> PromptLayout:
    """Where the adapter's prompt stands in the sequences, which needs no model to be known."""
    if adapter.kind not in _PROMPT_TYPES:
        return PromptLayout()
    return PromptLayout(encoder_length=int(adapter.settings.get("num_virtual_tokens", 0)), placement="first")


def from_adapter(adapter: Adapter, model: nnx.Module) -> tuple[Method, dict[str, np.ndarray]]:
    """The method an adapter is of, to be attached to a base like `model`, and the values of what it trains by our names.

    Raises UserError for a kind or a setting that no method here has, and for entries that are not those of this base.
    """
    settings, where = adapter.settings, adapter.where
    for name in _NOT_OURS:
        if settings.get(name):
            raise UserError(f"{where}: {name} = {settings[name]!r} in {CONFIG} has no like here; merge the adapter in PEFT instead")
    if settings.get("bias", "none") != "none":
        raise UserError(f"{where}: bias = {settings['bias']!r} in {CONFIG} has no like here; wanted 'none'")
    if adapter.kind in _PROMPT_TYPES:
        return _read_prompt(adapter)
    if adapter.kind == "PREFIX_TUNING":
        return _read_prefix(adapter, model)
    if adapter.kind not in ("LORA", "IA3"):
        raise UserError(f"{where}: peft_type {adapter.kind!r} has no like here; wanted LORA, IA3, PREFIX_TUNING or PROMPT_TUNING")
    values = _stacked(adapter, _leaves(model, adapter.kind))
    return (_lora_of(adapter, values) if adapter.kind == "LORA" else _ia3_of(values)), values


def to_adapter(model: nnx.Module, method: Method, *, base: str | None = None) -> Adapter:
    """What a model trains beside its base, as PEFT holds it.

    Args:
      model: with the method attached, and without a network that makes prompts or prefixes (`drop_network`).
      method: one of `Prompt`, `Prefix`, `Lora`, `Dora`, `IA3`, with the settings the model was made with.
      base: of the base in Hugging Face's form, for whoever loads the adapter; a folder or a name.

    Raises UserError for what PEFT cannot hold, and says why.
    """
    # PEFT's class for encoder-decoders hands on tokens, which a Whisper does not read: it is loaded without a task.
    task_type = None if _hears(model) else "SEQ_2_SEQ_LM" if hasattr(model, "encoder") else "CAUSAL_LM"
    common = {"base_model_name_or_path": base, "inference_mode": True, "task_type": task_type}
    if _hears(model) and type(method) in (Prompt, Prefix):
        raise UserError(f"PEFT has no {type(method).__name__.lower()} for a model that hears: export a prompt as --format=npy")
    if type(method) is Prompt:
        settings, entries = _write_prompt(model, method)
    elif type(method) is Prefix:
        settings, entries = _write_prefix(model)
    elif type(method) in (Lora, Dora, IA3):
        kind = "IA3" if isinstance(method, IA3) else "LORA"
        leaves = _leaves(model, kind)
        entries = _apart(model, leaves)
        targets = _target_modules(entries, model)
        settings = _ia3_settings(entries, targets) if isinstance(method, IA3) else _lora_settings(method)
        settings |= {"peft_type": kind, "target_modules": targets, "fan_in_fan_out": _is_gpt2(model)}
    else:
        raise UserError(
            f"{type(method).__name__} has no like in PEFT; wanted prompt, prefix, P-tuning, residual prompt, LoRA, DoRA, PiSSA or IA3: "
            "export it merged (--format=huggingface) where it changes the base's weights"
        )
    return Adapter(common | settings, entries)


def _hears(model: nnx.Module) -> bool:
    return isinstance(model, Whisper)


def _is_gpt2(model: nnx.Module) -> bool:
    """Whether products are held as [in, out] there."""
    return not _hears(model) and getattr(model, "positions", None) is not None


# LoRA and IA3: a parameter of ours is one entry a layer.


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """A parameter that PEFT holds as `entries`, one a layer, and how a layer's part is turned for them and for us."""

    entries: tuple[str, ...]
    theirs: Callable[[np.ndarray], np.ndarray]
    ours: Callable[[np.ndarray], np.ndarray]


def _leaves(model: nnx.Module, kind: str) -> dict[str, _Leaf]:
    """By name, all parameters that a kind of adapter could add to this base."""
    params, entries = _base(model)
    mixture = any(name.endswith("/mlp/router") for name in params)
    found: dict[str, _Leaf] = {}
    for kernel in (name for name in params if name.endswith("/kernel")):
        linear = kernel.removesuffix("/kernel")
        module, _, leaf = linear.rpartition("/")
        places = [_ROOT + entry.removesuffix(".weight") for entry in entries[kernel]]
        # GPT-2 has one product for query, key and value; PEFT takes whatever is called as an expert's layer for the experts'.
        if places[0].endswith(".c_attn") or (mixture and ".mlp." in places[0]):
            continue
        for name, each in _lora_leaves(kernel, params).items() if kind == "LORA" else _ia3_leaves(leaf).items():
            whole = f"{linear if kind == 'LORA' else module}/{name}"
            found[whole] = dataclasses.replace(each, entries=tuple(f"{place}.{each.entries[0]}" for place in places))
    return found


def _base(model: nnx.Module) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """What has the shapes of the base's parameters, by name, and Hugging Face's entries for each."""
    kernels = {f"{name}/kernel": linear.kernel for name, linear in sites.modules(model, Linear).items()}
    # What stands below a kernel is its own affair: one in four bits is two arrays.
    others = {name: v for name, v in trainable.named_variables(model) if not isinstance(v, Tunable) and "/kernel/" not in name}
    params = others | kernels
    entries = whisper.entries if _hears(model) else huggingface.entries if hasattr(model, "encoder") else decoders.entries
    return params, {name: entries(name, params) for name in params}


def _lora_leaves(kernel: str, params: Mapping[str, Any]) -> dict[str, _Leaf]:
    def theirs(value: np.ndarray) -> np.ndarray:
        return decoders.reordered_for_them(kernel, value, params).T

    def ours(value: np.ndarray) -> np.ndarray:
        return decoders.reordered_for_us(kernel, value.T, params)

    return {
        "delta/down": _Leaf(("lora_A.weight",), np.transpose, np.transpose),
        "delta/up": _Leaf(("lora_B.weight",), theirs, ours),
        "delta/magnitude": _Leaf(("lora_magnitude_vector",), theirs, ours),
    }


def _ia3_leaves(linear: str) -> dict[str, _Leaf]:
    if linear not in _SCALED:
        return {}
    axis = 0 if linear == "wo" else 1
    return {f"{_SCALED[linear]}/scale": _Leaf(("ia3_l",), lambda value: np.expand_dims(value, axis), np.ravel)}


def _apart(model: nnx.Module, leaves: Mapping[str, _Leaf]) -> dict[str, np.ndarray]:
    """PEFT's entries for everything that the model trains."""
    entries = {}
    for name, variable in trainable.named_variables(model):
        if not isinstance(variable, Tunable):
            continue
        if name not in leaves:
            raise UserError(f"{name} has no place in a PEFT adapter of this model; export it merged instead (--format=huggingface)")
        value = np.asarray(variable.get_value())
        for entry, part in zip(leaves[name].entries, value if is_layered(name) else [value], strict=True):
            entries[entry] = np.ascontiguousarray(leaves[name].theirs(part))
    return entries


def _stacked(adapter: Adapter, leaves: Mapping[str, _Leaf]) -> dict[str, np.ndarray]:
    """Our parameters from an adapter's entries, all of which must be used."""
    values: dict[str, np.ndarray] = {}
    unused = set(adapter.entries)
    for name, leaf in leaves.items():
        there = [entry for entry in leaf.entries if entry in adapter.entries]
        if not there:
            continue
        if missing := [entry for entry in leaf.entries if entry not in adapter.entries]:
            raise UserError(
                f"{adapter.where}: {missing[0]} is not there; wanted an adapter of every layer, for all of a stack have one here"
            )
        parts = [leaf.ours(np.asarray(adapter.entries[entry])) for entry in there]
        if len({part.shape for part in parts}) > 1:
            raise UserError(f"{adapter.where}: {there[0]} differs in shape from other layers'; wanted the same rank in every layer")
        values[name] = np.ascontiguousarray(np.stack(parts) if is_layered(name) else parts[0], dtype=np.float32)
        unused -= set(there)
    if unused:
        first = sorted(unused)[0]
        raise UserError(f"{adapter.where}: nothing in this model takes {first} ({len(unused)} such); is it an adapter of another base?")
    if not values:
        raise UserError(f"{adapter.where}: {WEIGHTS} holds no {adapter.kind} entries; copy it again")
    return values


def _target_modules(entries: Mapping[str, Any], model: nnx.Module) -> list[str]:
    """The modules that have an adapter: by the last part of their names where that says no more than it should, else by whole names."""
    suffix = re.compile(r"\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector|ia3_l)$")
    chosen = {suffix.sub("", entry.removeprefix(_ROOT)) for entry in entries}
    last = {name.rpartition(".")[2] for name in chosen}
    modules = {entry.removesuffix(".weight") for each in _base(model)[1].values() for entry in each}
    named_so = {name for name in modules if name.rpartition(".")[2] in last}
    return sorted(last if named_so == chosen else chosen)


def _lora_settings(method: Any) -> dict[str, Any]:
    alpha = int(method.alpha) if method.alpha == int(method.alpha) else method.alpha
    return {
        "r": method.rank,
        "lora_alpha": alpha,
        "lora_dropout": method.dropout_rate,
        "use_rslora": method.rank_stabilized,
        "use_dora": isinstance(method, Dora),
        "bias": "none",
        "init_lora_weights": True,
    }


def _lora_of(adapter: Adapter, values: Mapping[str, np.ndarray]) -> Lora:
    settings = adapter.settings
    sites = sorted({name.partition("/delta/")[0] for name in values})
    decomposed = bool(settings.get("use_dora"))
    for site in sites:
        for part in ("down", "up", *(["magnitude"] if decomposed else [])):
            if f"{site}/delta/{part}" not in values:
                raise UserError(f"{adapter.where}: {WEIGHTS} lacks a part of {site} ({part}); copy it again")
    if not decomposed and (odd := [name for name in values if name.endswith("magnitude")]):
        raise UserError(f"{adapter.where}: {odd[0]} is there and use_dora is not set in {CONFIG}")
    begun = settings.get("init_lora_weights", True)
    if begun not in (True, False, "gaussian", "eva", "orthogonal", "pissa") or (begun == "pissa" and decomposed):
        raise UserError(
            f"{adapter.where}: init_lora_weights = {begun!r} changes the base in an unknown way; convert it to plain LoRA in PEFT"
        )
    kind = Dora if decomposed else Pissa if begun == "pissa" else Lora
    return kind(
        rank=int(settings["r"]),
        alpha=float(settings["lora_alpha"]),
        targets=tuple(re.escape(site) for site in sites),
        rank_stabilized=bool(settings.get("use_rslora")),
        dropout_rate=float(settings.get("lora_dropout") or 0.0),
    )


def _ia3_settings(entries: Mapping[str, np.ndarray], targets: list[str]) -> dict[str, Any]:
    inputs = {entry.split(".")[-2] for entry, value in entries.items() if value.shape[0] == 1}
    return {"feedforward_modules": [target for target in targets if target.rpartition(".")[2] in inputs]}


def _ia3_of(values: Mapping[str, np.ndarray]) -> IA3:
    def modules(socket: str) -> tuple[str, ...]:
        return tuple(re.escape(name.removesuffix(f"/{socket}/scale")) for name in sorted(values) if name.endswith(f"/{socket}/scale"))

    return IA3(keys=modules("k_scale"), values=modules("v_scale"), feed_forward=modules("scale"))


# Prompts and prefixes: one entry in all.


def _read_prompt(adapter: Adapter) -> tuple[Prompt, dict[str, np.ndarray]]:
    rows_PD = _only_entry(adapter)
    length = int(adapter.settings["num_virtual_tokens"])
    # Of an encoder-decoder's two halves, which PEFT makes by default, its forward pass reads the first alone.
    if rows_PD.ndim != 2 or len(rows_PD) not in (length, 2 * length):
        raise UserError(f"{adapter.where}: wanted {_PROMPT} of {length} rows, as {CONFIG} says, got {list(rows_PD.shape)}")
    return Prompt(length=length, initializer=Uniform()), {"embed/prompt/rows": rows_PD[:length]}


def _write_prompt(model: Any, method: Prompt) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if method.stacks != "encoder" or method.placement not in ("before", "first"):
        raise UserError(
            f"PEFT puts a prompt before the input alone, and this one stands in {method.stacks!r}, {method.placement!r}: "
            "export it as --format=npy"
        )
    rows_PD = np.asarray(model.embed.prompt())
    settings = {"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "RANDOM"}
    return settings | _sizes(model, length=len(rows_PD), width=rows_PD.shape[1]), {_PROMPT: rows_PD}


def _read_prefix(adapter: Adapter, model: Any) -> tuple[Prefix, dict[str, np.ndarray]]:
    name, attention = _prefixed(model, adapter.where)
    layers, heads, head_width = _attention_sizes(attention)
    length = int(adapter.settings["num_virtual_tokens"])
    values = _only_entry(adapter)
    if values.shape != (length, layers * 2 * heads * head_width):
        wanted = f"[{length}, {layers} layers x 2 x {heads} heads x {head_width}]"
        raise UserError(f"{adapter.where}: wanted {_PROMPT} of {wanted}, got {list(values.shape)}; is it an adapter of another base?")
    keys_values = values.reshape(length, layers, 2, heads, head_width).transpose(2, 1, 3, 0, 4)
    made = {f"{name}/prefix/{part}": np.ascontiguousarray(each) for part, each in zip(("keys", "values"), keys_values, strict=True)}
    return Prefix(length=length, hidden=None), made


def _write_prefix(model: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    _, attention = _prefixed(model, "a prefix")
    layers, heads, head_width = _attention_sizes(attention)
    keys_values = np.stack([np.asarray(each) for each in attention.prefix()])
    length = keys_values.shape[-2]
    entry = keys_values.transpose(3, 1, 0, 2, 4).reshape(length, -1)
    settings = {"peft_type": "PREFIX_TUNING", "prefix_projection": False} | _sizes(model, length=length, width=heads * head_width)
    return settings | {"num_attention_heads": heads, "num_layers": layers}, {_PROMPT: entry}


def _prefixed(model: Any, where: str) -> tuple[str, Any]:
    """The attention, and its name, of a model whose prefixes PEFT computes as we do."""
    if hasattr(model, "encoder"):
        raise UserError(
            f"{where}: PEFT gives a T5 prefixes in the decoder alone, at the relative positions before the sequence, where ours have none: "
            "the two compute different functions"
        )
    if any(model.config.local_layers) or model.config.latent_width:
        raise UserError(f"{where}: PEFT lets a prefix fall out of an attention's window, ours stays: wanted a model without windows")
    name = "decoder/layers/self_attention/attention"
    return name, model.decoder.layers.self_attention.attention


def _attention_sizes(attention: Any) -> tuple[int, int, int]:
    """Layers, heads of keys and values, their width."""
    layers, _, inner = attention.key.kernel.shape
    width = attention.config.head_width
    return layers, inner // width, width


def _sizes(model: Any, *, length: int, width: int) -> dict[str, Any]:
    config = model.config
    return {
        "num_virtual_tokens": length,
        "token_dim": width,
        "num_transformer_submodules": 1,
        "num_attention_heads": config.num_heads,
        "num_layers": config.num_layers if hasattr(config, "num_layers") else config.num_encoder_layers,
    }


def _only_entry(adapter: Adapter) -> np.ndarray:
    if set(adapter.entries) != {_PROMPT}:
        raise UserError(f"{adapter.where}: wanted one entry, {_PROMPT}, got {sorted(adapter.entries)[:3]}")
    return np.asarray(adapter.entries[_PROMPT], dtype=np.float32)
