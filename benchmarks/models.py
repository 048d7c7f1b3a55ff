"""The models that the benchmarks compare the sides on: random weights in Hugging Face's format, and what each side reads them as.

`Sizes` of T5 are those of v1.1 small (77M parameters), of a Llama one of 106M; the tiny ones only show that everything runs.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

Kind = Literal["t5", "llama"]
Sizes = Mapping[str, int]
Parameters = dict[str, tuple[tuple[int, ...], float]]

_SIZES: dict[tuple[Kind, bool], Sizes] = {
    ("t5", False): {"d_model": 512, "d_ff": 1024, "num_heads": 6, "d_kv": 64, "layers": 8, "vocab_size": 32128},
    ("t5", True): {"d_model": 64, "d_ff": 128, "num_heads": 4, "d_kv": 16, "layers": 2, "vocab_size": 384},
    ("llama", False): {"d_model": 768, "d_ff": 2048, "num_heads": 12, "d_kv": 64, "layers": 8, "vocab_size": 32000},
    ("llama", True): {"d_model": 64, "d_ff": 128, "num_heads": 4, "d_kv": 16, "layers": 2, "vocab_size": 384},
}


def sizes(kind: Kind, *, tiny: bool) -> Sizes:
    """`d_model`, `d_ff`, `num_heads`, `d_kv`, `layers` (of each stack) and `vocab_size`."""
    return _SIZES[kind, tiny]


def tokens(s: Sizes, *shapes: tuple[int, int]) -> list[np.ndarray]:
    """Random tokens (int32), none of them padding or an end: the same for the same sizes and shapes."""
    rng = np.random.default_rng(0)
    return [rng.integers(3, s["vocab_size"], shape).astype(np.int32) for shape in shapes]


def write(kind: Kind, s: Sizes, folder: pathlib.Path) -> None:
    """Writes random weights and their config.json, in float32."""
    import safetensors.numpy

    rng = np.random.default_rng(0)
    drawn = {name: std * rng.standard_normal(shape) if std else np.ones(shape) for name, (shape, std) in parameters(kind, s).items()}
    folder.mkdir(exist_ok=True)
    state = {name: value.astype(np.float32) for name, value in drawn.items()}
    safetensors.numpy.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(description(kind, s)))


def parameters(kind: Kind, s: Sizes) -> Parameters:
    """Shapes and standard deviations by name; ones where the deviation is 0."""
    matrices, norms = (_t5 if kind == "t5" else _llama)(s)
    shapes: Parameters = {f"{name}.weight": matrix for name, matrix in matrices.items()}
    return shapes | {f"{name}.weight": ((s["d_model"],), 0.0) for name in norms}


def description(kind: Kind, s: Sizes) -> dict[str, Any]:
    """The config.json."""
    return (_T5 if kind == "t5" else _LLAMA) | _stated(kind, s)


def _t5(s: Sizes) -> tuple[Parameters, list[str]]:
    """The matrices, and the names of the norms."""
    width, inner, narrow = s["d_model"], s["num_heads"] * s["d_kv"], s["d_model"] ** -0.5
    norms = []
    found: Parameters = {"shared": ((s["vocab_size"], width), 1.0), "lm_head": ((s["vocab_size"], width), narrow)}
    for stack, blocks in (("encoder", ("SelfAttention",)), ("decoder", ("SelfAttention", "EncDecAttention"))):
        for layer in range(s["layers"]):
            for number, block in enumerate((*blocks, "DenseReluDense")):
                place = f"{stack}.block.{layer}.layer.{number}"
                norms.append(f"{place}.layer_norm")
                if block == "DenseReluDense":
                    found |= {f"{place}.{block}.{part}": ((s["d_ff"], width), narrow) for part in ("wi_0", "wi_1")}
                    found[f"{place}.{block}.wo"] = (width, s["d_ff"]), s["d_ff"] ** -0.5
                    continue
                found[f"{place}.{block}.q"] = (inner, width), (width * s["d_kv"]) ** -0.5
                found |= {f"{place}.{block}.{part}": ((inner, width), narrow) for part in "kv"}
                found[f"{place}.{block}.o"] = (width, inner), inner**-0.5
        found[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"] = (32, s["num_heads"]), narrow
        norms.append(f"{stack}.final_layer_norm")
    return found, norms


def _llama(s: Sizes) -> tuple[Parameters, list[str]]:
    """The matrices, and the names of the norms."""
    width, inner, narrow = s["d_model"], s["num_heads"] * s["d_kv"], s["d_model"] ** -0.5
    norms = ["model.norm"]
    found: Parameters = {"model.embed_tokens": ((s["vocab_size"], width), 1.0), "lm_head": ((s["vocab_size"], width), narrow)}
    for layer in range(s["layers"]):
        place = f"model.layers.{layer}"
        norms += [f"{place}.input_layernorm", f"{place}.post_attention_layernorm"]
        found |= {f"{place}.self_attn.{part}_proj": ((inner, width), narrow) for part in "qkv"}
        found[f"{place}.self_attn.o_proj"] = (width, inner), inner**-0.5
        found |= {f"{place}.mlp.{part}_proj": ((s["d_ff"], width), narrow) for part in ("gate", "up")}
        found[f"{place}.mlp.down_proj"] = (width, s["d_ff"]), s["d_ff"] ** -0.5
    return found, norms


_T5: dict[str, Any] = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
}


def _stated(kind: Kind, s: Sizes) -> dict[str, int]:
    if kind == "t5":
        both = {"num_layers": s["layers"], "num_decoder_layers": s["layers"]}
        return both | {name: s[name] for name in ("d_model", "d_ff", "num_heads", "d_kv", "vocab_size")}
    named = {"hidden_size": "d_model", "intermediate_size": "d_ff", "num_hidden_layers": "layers", "head_dim": "d_kv"}
    heads = dict.fromkeys(("num_attention_heads", "num_key_value_heads"), s["num_heads"])
    return heads | {theirs: s[ours] for theirs, ours in named.items()} | {"vocab_size": s["vocab_size"]}


def our_config(kind: Kind, s: Sizes, *, dtype: str, param_dtype: str) -> Any:
    """The architecture as this package has it."""
    from prompt_tuning.models.decoder_layers import DecoderConfig
    from prompt_tuning.models.t5 import T5Config

    common: Any = {name: s[name] for name in ("d_model", "d_ff", "num_heads", "vocab_size")} | {"dtype": dtype, "param_dtype": param_dtype}
    if kind == "t5":
        return T5Config(**common, d_kv=s["d_kv"], num_encoder_layers=s["layers"], num_decoder_layers=s["layers"])
    return DecoderConfig(**common, head_width=s["d_kv"], num_kv_heads=s["num_heads"], num_layers=s["layers"])


def their_model(kind: Kind, folder: pathlib.Path) -> Any:
    """The model as transformers has it, in the dtype of its file, with the attention that is fastest there."""
    import safetensors
    import torch
    import transformers

    if kind == "llama":
        return transformers.LlamaForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder, attn_implementation="sdpa")
    # transformers 5 ties the head of every T5 whatever its configuration says.
    model.config.tie_word_embeddings = False
    with safetensors.safe_open(folder / "model.safetensors", framework="pt") as file:
        model.lm_head.weight = torch.nn.Parameter(file.get_tensor("lm_head.weight"))
    return model


def their_row(inputs: Any, targets: Any) -> Any:
    """What PyTorch's decoder reads, as ours does: the inputs, the start token and all targets but the last, in one row."""
    import torch

    return torch.cat([inputs, torch.zeros_like(targets[:, :1]), targets[:, :-1]], dim=1)
