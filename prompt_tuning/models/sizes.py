"""The sizes of the published models, as data.

Sources: T5 v1.0 Raffel et al. 2020, section 3.7; v1.1 the released gin files (a table of Lester et al. 2021, appendix); mT5 Xue et al.
2021; ByT5 Xue et al. 2022, table 1 (an encoder three times as deep as the decoder); UMT5 Chung et al. 2023. `t5_mini`, `t5_nano` and those
named by their parameters are this project's own, pretrained on the bundled task world.
"""

import difflib
from typing import Any

from prompt_tuning.errors import UserError
from prompt_tuning.models.t5 import T5Config


def _size(d_model: int, d_ff: int, num_heads: int, encoder: int, decoder: int, **other: Any) -> dict[str, Any]:
    return {
        "d_model": d_model,
        "d_ff": d_ff,
        "num_heads": num_heads,
        "num_encoder_layers": encoder,
        "num_decoder_layers": decoder,
    } | other


_V1_0 = {"gated": False, "tied": True, "vocab_size": 32128}
_MT5 = {"vocab_size": 250112}
_BYT5 = {"vocab_size": 384}
_UMT5 = {"vocab_size": 256384, "per_layer_bias": True}

SIZES: dict[str, dict[str, Any]] = {
    "t5_small": _size(512, 2048, 8, 6, 6, **_V1_0),
    "t5_base": _size(768, 3072, 12, 12, 12, **_V1_0),
    "t5_large": _size(1024, 4096, 16, 24, 24, **_V1_0),
    "t5_3b": _size(1024, 16384, 32, 24, 24, d_kv=128, **_V1_0),
    "t5_11b": _size(1024, 65536, 128, 24, 24, d_kv=128, **_V1_0),
    "t5_1_1_small": _size(512, 1024, 6, 8, 8),
    "t5_1_1_base": _size(768, 2048, 12, 12, 12),
    "t5_1_1_large": _size(1024, 2816, 16, 24, 24),
    "t5_1_1_xl": _size(2048, 5120, 32, 24, 24),
    "t5_1_1_xxl": _size(4096, 10240, 64, 24, 24),
    "mt5_small": _size(512, 1024, 6, 8, 8, **_MT5),
    "mt5_base": _size(768, 2048, 12, 12, 12, **_MT5),
    "mt5_large": _size(1024, 2816, 16, 24, 24, **_MT5),
    "mt5_xl": _size(2048, 5120, 32, 24, 24, **_MT5),
    "mt5_xxl": _size(4096, 10240, 64, 24, 24, **_MT5),
    "byt5_small": _size(1472, 3584, 6, 12, 4, **_BYT5),
    "byt5_base": _size(1536, 3968, 12, 18, 6, **_BYT5),
    "byt5_large": _size(1536, 3840, 16, 36, 12, **_BYT5),
    "byt5_xl": _size(2560, 6720, 32, 36, 12, **_BYT5),
    "byt5_xxl": _size(4672, 12352, 64, 36, 12, **_BYT5),
    "umt5_small": _size(512, 1024, 6, 8, 8, **_UMT5),
    "umt5_base": _size(768, 2048, 12, 12, 12, **_UMT5),
    "umt5_xl": _size(2048, 5120, 32, 24, 24, **_UMT5),
    "umt5_xxl": _size(4096, 10240, 64, 24, 24, **_UMT5),
    "t5_mini": _size(192, 512, 6, 4, 2, vocab_size=2048, d_kv=32),
    "t5_nano": _size(64, 128, 2, 2, 2, vocab_size=2048, d_kv=32),
    "t5_100k": _size(16, 64, 2, 2, 2, vocab_size=2048, d_kv=16),
    "t5_500k": _size(64, 128, 2, 2, 2, vocab_size=2048, d_kv=32),
    "t5_2m": _size(128, 384, 4, 4, 2, vocab_size=2048, d_kv=32),
    "t5_8m": _size(256, 640, 8, 6, 2, vocab_size=2048, d_kv=32),
}


def named(name: str, **changes: Any) -> T5Config:
    """The architecture of a published size, with fields of `T5Config` changed by keyword. Raises UserError for an unknown name."""
    if name not in SIZES:
        near = difflib.get_close_matches(name, SIZES, 3)
        raise UserError(f"model size {name!r} is not known; wanted one of {near or sorted(SIZES)}; set sizes.named.name")
    return T5Config(**(SIZES[name] | changes))
