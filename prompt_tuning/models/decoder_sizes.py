"""The sizes of published decoder-only models, as data.

Sources: each model's published config.json, for most as repeated in the configurations of litgpt (Lightning-AI/litgpt, `litgpt/config.py`)
and MaxText (AI-Hypercomputer/maxtext, `configs/models`). GPT-2: Radford et al. 2019; Llama 2: 2307.09288; Llama 3: 2407.21783; Mistral 7B:
2310.06825; Gemma: 2403.08295, 2408.00118, 2503.19786; Qwen 2.5: 2412.15115; Qwen 3: 2505.09388; DeepSeek: 2405.04434, 2412.19437.
"""

import difflib
import math
from typing import Any

from prompt_tuning.errors import UserError
from prompt_tuning.models.decoder_layers import DecoderConfig


def _size(d_model: int, d_ff: int, num_layers: int, num_heads: int, num_kv_heads: int | None = None, **other: Any) -> dict[str, Any]:
    return {
        "d_model": d_model,
        "d_ff": d_ff,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads or num_heads,
        "head_width": d_model // num_heads,
    } | other


def _gpt2(d_model: int, num_layers: int, num_heads: int) -> dict[str, Any]:
    size = _size(d_model, 4 * d_model, num_layers, num_heads, vocab_size=50257, qkv_bias=True, out_bias=True, mlp_bias=True)
    return size | {"norm": "layer", "activation": "gelu", "gated": False, "positions": "learned", "max_positions": 1024, "tied": True}


_LLAMA2 = {"vocab_size": 32000}
_LLAMA3 = {"vocab_size": 128256, "rope_base": 500000.0}
_LLAMA3_1 = _LLAMA3 | {"rope_scaling": "llama3", "rope_factor": 8.0}
_LLAMA3_2 = _LLAMA3_1 | {"rope_factor": 32.0, "tied": True}
_GEMMA: dict[str, Any] = {
    "vocab_size": 256000,
    "head_width": 256,
    "norm_plus_one": True,
    "norm_epsilon": 1e-6,
    "activation": "gelu",
    "scaled_embedding": True,
    "tied": True,
}
_GEMMA2 = _GEMMA | {"post_norms": True, "layer_kinds": "LG", "window": 4096, "attention_scale": 256**-0.5}
_GEMMA2 |= {"attention_cap": 50.0, "logit_cap": 30.0}
_GEMMA3 = _GEMMA | {"vocab_size": 262144, "post_norms": True, "qk_norm": True, "attention_scale": 256**-0.5}
_GEMMA3 |= {"layer_kinds": "LLLLLG", "window": 512, "rope_base": 1e6, "local_rope_base": 10000.0}
_QWEN = {"vocab_size": 151936, "norm_epsilon": 1e-6, "rope_base": 1e6}
_QWEN2_5 = _QWEN | {"qkv_bias": True}
_QWEN3 = _QWEN | {"head_width": 128, "qk_norm": True}
_DEEPSEEK: dict[str, Any] = {
    "head_width": 128,
    "rope_width": 64,
    "value_width": 128,
    "latent_width": 512,
    "norm_epsilon": 1e-6,
    "rope_scaling": "yarn",
    "rope_factor": 40.0,
    "rope_original_length": 4096,
}


def _stretched(mscale: float) -> float:
    """The attention scale of DeepSeek's longer context: that of 128 + 64 coordinates, stretched by what the released code computes."""
    return 192**-0.5 * (0.1 * mscale * math.log(40.0) + 1.0) ** 2


SIZES: dict[str, dict[str, Any]] = {
    "gpt2": _gpt2(768, 12, 12),
    "gpt2_medium": _gpt2(1024, 24, 16),
    "gpt2_large": _gpt2(1280, 36, 20),
    "gpt2_xl": _gpt2(1600, 48, 25),
    "llama_2_7b": _size(4096, 11008, 32, 32, **_LLAMA2),
    "llama_2_13b": _size(5120, 13824, 40, 40, **_LLAMA2),
    "llama_2_70b": _size(8192, 28672, 80, 64, 8, **_LLAMA2),
    "llama_3_8b": _size(4096, 14336, 32, 32, 8, **_LLAMA3),
    "llama_3_70b": _size(8192, 28672, 80, 64, 8, **_LLAMA3),
    "llama_3_1_8b": _size(4096, 14336, 32, 32, 8, **_LLAMA3_1),
    "llama_3_1_70b": _size(8192, 28672, 80, 64, 8, **_LLAMA3_1),
    "llama_3_2_1b": _size(2048, 8192, 16, 32, 8, **_LLAMA3_2),
    "llama_3_2_3b": _size(3072, 8192, 28, 24, 8, **_LLAMA3_2),
    "mistral_7b_v0_1": _size(4096, 14336, 32, 32, 8, vocab_size=32000, layer_kinds="L", window=4096),
    "mistral_7b_v0_3": _size(4096, 14336, 32, 32, 8, vocab_size=32768, rope_base=1e6),
    "gemma_2b": _size(2048, 16384, 18, 8, 1, **_GEMMA),
    "gemma_7b": _size(3072, 24576, 28, 16, 16, **_GEMMA),
    "gemma_2_2b": _size(2304, 9216, 26, 8, 4, **_GEMMA2),
    "gemma_2_9b": _size(3584, 14336, 42, 16, 8, **_GEMMA2),
    "gemma_2_27b": _size(4608, 36864, 46, 32, 16, **_GEMMA2 | {"head_width": 128, "attention_scale": 144**-0.5}),
    "gemma_3_270m": _size(640, 2048, 18, 4, 1, **_GEMMA3),
    "gemma_3_1b": _size(1152, 6912, 26, 4, 1, **_GEMMA3),
    "gemma_3_4b": _size(
        2560, 10240, 34, 8, 4, **_GEMMA3 | {"vocab_size": 262208, "window": 1024, "rope_scaling": "linear", "rope_factor": 8.0}
    ),
    "qwen_2_5_0_5b": _size(896, 4864, 24, 14, 2, tied=True, **_QWEN2_5),
    "qwen_2_5_1_5b": _size(1536, 8960, 28, 12, 2, tied=True, **_QWEN2_5),
    "qwen_2_5_3b": _size(2048, 11008, 36, 16, 2, tied=True, **_QWEN2_5),
    "qwen_2_5_7b": _size(3584, 18944, 28, 28, 4, **_QWEN2_5 | {"vocab_size": 152064}),
    "qwen_3_0_6b": _size(1024, 3072, 28, 16, 8, tied=True, **_QWEN3),
    "qwen_3_1_7b": _size(2048, 6144, 28, 16, 8, tied=True, **_QWEN3),
    "qwen_3_4b": _size(2560, 9728, 36, 32, 8, tied=True, **_QWEN3),
    "qwen_3_8b": _size(4096, 12288, 36, 32, 8, **_QWEN3),
    "deepseek_v2_lite": _size(2048, 10944, 27, 16, **_DEEPSEEK)
    | {"vocab_size": 102400, "attention_scale": _stretched(0.707), "dense_layers": 1}
    | {"experts": 64, "experts_per_token": 6, "expert_width": 1408, "shared_experts": 2},
    "deepseek_v3": _size(7168, 18432, 61, 128, **_DEEPSEEK)
    | {"vocab_size": 129280, "attention_scale": _stretched(1.0), "dense_layers": 3, "latent_query_width": 1536}
    | {"experts": 256, "experts_per_token": 8, "expert_width": 2048, "shared_experts": 1}
    | {"router": "sigmoid", "router_groups": 8, "router_top_groups": 4, "router_scale": 2.5, "router_normed": True},
}


def named(name: str, **changes: Any) -> DecoderConfig:
    """The architecture of a published size, with fields of `DecoderConfig` changed by keyword. Raises UserError for an unknown name."""
    if name not in SIZES:
        near = difflib.get_close_matches(name, SIZES, 3)
        raise UserError(f"model size {name!r} is not known; wanted one of {near or sorted(SIZES)}; set decoder_sizes.named.name")
    return DecoderConfig(**(SIZES[name] | changes))
