"""Weights of Hugging Face's Whisper: one table of names, used to read and to write.

Their linear layers hold [out, in] where ours hold [in, out], and their convolutions [out, in, window] where ours hold [window, in, out]:
the axes are turned round. Files hold the encoder's sinusoids, which are no parameters here, and may repeat the embedding as head.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_tuning.errors import UserError
from prompt_tuning.interop.sources import Recipe, Source, is_layered
from prompt_tuning.models.whisper import sinusoids

_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
# The root of a model with its head, and of one without.
_ROOTS = ("model.", "")
_HEAD = "proj_out.weight"
_SINUSOIDS = "encoder.embed_positions.weight"
# Published files hold the sinusoids in as little as half precision.
_ROUNDING = 1e-3


def _attention(ours: str, theirs: str) -> dict[str, str]:
    names = {f"{ours}/attention/{k}": f"{theirs}.{v}" for k, v in _ATTENTION.items()}
    return names | {f"{ours}/norm": f"{theirs}_layer_norm"}


_LAYER = _attention("self_attention", "self_attn") | {
    "feed_forward/mlp/wi": "fc1",
    "feed_forward/mlp/wo": "fc2",
    "feed_forward/norm": "final_layer_norm",
}
# For each stack: our module below `<stack>/layers/` -> theirs below `<stack>.layers.<i>.`.
_LAYERS = {"encoder": _LAYER, "decoder": _LAYER | _attention("cross_attention", "encoder_attn")}
_TOP = {
    "stem/conv1": "encoder.conv1",
    "stem/conv2": "encoder.conv2",
    "encoder/norm": "encoder.layer_norm",
    "decoder/norm": "decoder.layer_norm",
}
_WHOLE = {"embed/embedding": "decoder.embed_tokens.weight", "positions": "decoder.embed_positions.weight"}


def is_huggingface(entries: Mapping[str, Any]) -> bool:
    """Whether names of entries are those of a Hugging Face Whisper."""
    return any(f"{root}encoder.conv1.weight" in entries for root in _ROOTS)


def entries(name: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Their names for a parameter of ours in a model with its head, one a layer or one; `params` are all parameters with their shapes."""
    entry = f"{_ROOTS[0]}{_their_name(name)}"
    return tuple(entry.format(i) for i in range(params[name].shape[0])) if is_layered(name) else (entry,)


def recipes(source: Source, abstract: Mapping[str, Any]) -> tuple[dict[str, Recipe], dict[str, str]]:
    """For each parameter of a `Whisper` its recipe, and the entries that repeat another one (see `sources.fill`).

    Raises UserError where the encoder's positions are other than sinusoids.
    """
    root = next(root for root in _ROOTS if f"{root}encoder.conv1.weight" in source.shapes)
    copies = {_HEAD: f"{root}{_WHOLE['embed/embedding']}"} if _HEAD in source.shapes else {}
    if (table := f"{root}{_SINUSOIDS}") in source.shapes:
        _check_sinusoids(source, table)
        copies[table] = table
    made = {}
    for name, leaf in abstract.items():
        shape = tuple(leaf.shape)
        entry = f"{root}{_their_name(name)}"
        if is_layered(name):
            entries = tuple(entry.format(i) for i in range(shape[0]))
            made[name] = Recipe(entries, _accepts(name, shape[1:]), per_layer=True, label=entry.format("*"))
        else:
            made[name] = Recipe((entry,), _accepts(name, shape))
    return made, copies


def to_huggingface(params: Mapping[str, np.ndarray], *, source_positions: int) -> dict[str, np.ndarray]:
    """Our parameters by their names and in their layout, as `WhisperForConditionalGeneration.state_dict()` has them.

    `source_positions` says how many sinusoids are written. The head, a copy of the embedding, is left out: their library ties it again.
    """
    width = params["embed/embedding"].shape[1]
    out = {f"model.{_SINUSOIDS}": sinusoids(source_positions, width)}
    for name, value in params.items():
        parts = np.asarray(value) if is_layered(name) else [np.asarray(value)]
        for entry, part in zip(entries(name, params), parts, strict=True):
            out[entry] = np.ascontiguousarray(part.T if name.endswith("/kernel") else part)
    return out


def config_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `WhisperConfig` that a Hugging Face config.json states. Raises UserError for what no released Whisper has."""
    for key, wanted in (("activation_function", "gelu"), ("scale_embedding", False), ("tie_word_embeddings", True)):
        if config.get(key, wanted) != wanted:
            raise UserError(f"config.json: wanted {key} = {wanted!r}, as released Whispers have it, got {config[key]!r}")
    for part in ("attention_heads", "ffn_dim"):
        first, second = config.get(f"encoder_{part}"), config.get(f"decoder_{part}")
        if first != second:
            raise UserError(
                f"config.json: wanted decoder_{part} to be encoder_{part}, as released Whispers have it, got {second} and {first}"
            )
    theirs = {
        "vocab_size": "vocab_size",
        "d_model": "d_model",
        "d_ff": "encoder_ffn_dim",
        "num_heads": "encoder_attention_heads",
        "num_encoder_layers": "encoder_layers",
        "num_decoder_layers": "decoder_layers",
        "mels": "num_mel_bins",
        "source_positions": "max_source_positions",
        "target_positions": "max_target_positions",
    }
    return {ours: config[key] for ours, key in theirs.items() if config.get(key) is not None}


def _their_name(name: str) -> str:
    """Their name of a parameter, below the root, with {} for the layer."""
    if name in _WHOLE:
        return _WHOLE[name]
    module, _, leaf = name.rpartition("/")
    stack, _, place = module.partition("/layers/")
    theirs = f"{stack}.layers.{{}}.{_LAYERS[stack][place]}" if place and place in _LAYERS.get(stack, {}) else _TOP.get(module)
    if theirs is None:
        raise UserError(f"the parameter {name} has no place in Hugging Face's Whisper: load the base before a method adds to it")
    return f"{theirs}.{'bias' if leaf == 'bias' else 'weight'}"


def _accepts(name: str, shape: tuple[int, ...]) -> dict[tuple[int, ...], Any]:
    return {shape[::-1]: np.transpose} if name.endswith("/kernel") else {shape: np.asarray}


def _check_sinusoids(source: Source, entry: str) -> None:
    held = np.asarray(source.read(entry), np.float32)
    if held.ndim != 2 or np.abs(held - sinusoids(*held.shape)).max() > _ROUNDING:
        raise UserError(f"{entry} in {source.where}: wanted the sinusoids that every released Whisper has, got others")
