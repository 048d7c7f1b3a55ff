"""Models of llama2.c (github.com/karpathy/llama2.c), the format of its first version: a header of seven integers, then float32 arrays.

Header: width D, feed-forward F, layers N, heads, key heads, vocabulary (negative: the head is not the embedding), longest sequence. The
arrays follow without names, in the order of `_shapes`; products are [out, in]. Its rotary embedding turns the coordinates 2i and 2i + 1
together where ours turns i and i + K/2: the columns of queries and keys are put in our order.
"""

import dataclasses
import pathlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_tuning.errors import UserError
from prompt_tuning.interop.sources import Convert, Recipe, Shape, Source

_NAMES = {
    "embed/embedding": "token_embedding_table",
    "decoder/layers/self_attention/norm/scale": "rms_att_weight",
    "decoder/layers/self_attention/attention/query/kernel": "wq",
    "decoder/layers/self_attention/attention/key/kernel": "wk",
    "decoder/layers/self_attention/attention/value/kernel": "wv",
    "decoder/layers/self_attention/attention/out/kernel": "wo",
    "decoder/layers/feed_forward/norm/scale": "rms_ffn_weight",
    "decoder/layers/feed_forward/mlp/gate/kernel": "w1",
    "decoder/layers/feed_forward/mlp/wo/kernel": "w2",
    "decoder/layers/feed_forward/mlp/wi/kernel": "w3",
    "decoder/norm/scale": "rms_final_weight",
    "head/kernel": "wcls",
}
# Tables of the rotary angles: computed here, not read.
_COMPUTED = ("freq_cis_real", "freq_cis_imag")
_INTEGERS = 7


@dataclasses.dataclass(frozen=True)
class Header:
    """The seven integers; `tied` says whether the head is the embedding, which the file writes as the vocabulary's sign."""

    width: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    length: int
    tied: bool

    @property
    def shapes(self) -> dict[str, Shape]:
        """The arrays of the file, in their order."""
        n, d, f = self.layers, self.width, self.inner
        head_width = d // self.heads
        narrow = self.key_heads * head_width
        shapes: dict[str, Shape] = {
            "token_embedding_table": (self.vocabulary, d),
            "rms_att_weight": (n, d),
            "wq": (n, d, d),
            "wk": (n, narrow, d),
            "wv": (n, narrow, d),
            "wo": (n, d, d),
            "rms_ffn_weight": (n, d),
            "w1": (n, f, d),
            "w2": (n, d, f),
            "w3": (n, f, d),
            "rms_final_weight": (d,),
            "freq_cis_real": (self.length, head_width // 2),
            "freq_cis_imag": (self.length, head_width // 2),
        }
        return shapes if self.tied else shapes | {"wcls": (self.vocabulary, d)}


def is_llama2c(path: pathlib.Path) -> bool:
    """Whether a path is that of a llama2.c model by its name: PyTorch's pickles end in .bin too."""
    return path.suffix == ".bin" and not path.name.startswith("pytorch_model")


def read_header(path: pathlib.Path) -> Header:
    """The header of a file. Raises UserError where it is none, or the file is not as long as the header says."""
    with path.open("rb") as file:
        start = file.read(4 * _INTEGERS)
    if len(start) < 4 * _INTEGERS:
        raise UserError(f"cannot read {path}: wanted a llama2.c model, got {len(start)} bytes: copy it again")
    width, inner, layers, heads, key_heads, vocabulary, length = struct.unpack(f"<{_INTEGERS}i", start)
    header = Header(width, inner, layers, heads, key_heads, abs(vocabulary), length, vocabulary > 0)
    if min(width, inner, layers, heads, key_heads, abs(vocabulary), length) < 1 or width % heads or heads % key_heads:
        raise UserError(f"cannot read {path}: not a llama2.c model of the first version: its header is {dataclasses.astuple(header)}")
    wanted = 4 * (_INTEGERS + sum(int(np.prod(shape)) for shape in header.shapes.values()))
    if path.stat().st_size != wanted:
        raise UserError(
            f"cannot read {path}: its header {dataclasses.astuple(header)} asks for {wanted} bytes, it has {path.stat().st_size}: "
            "truncated, or not a llama2.c model of the first version: copy it again"
        )
    return header


def open_model(path: pathlib.Path) -> Source:
    """The arrays of a file as entries, read from disk when asked for."""
    shapes = read_header(path).shapes
    starts = {}
    at = 4 * _INTEGERS
    for name, shape in shapes.items():
        starts[name] = at
        at += 4 * int(np.prod(shape))

    def read(name: str) -> np.ndarray:
        return np.fromfile(path, "<f4", int(np.prod(shapes[name])), offset=starts[name]).reshape(shapes[name])

    return Source(where=str(path), shapes=shapes, read=read, file_of=lambda _: path.name)


def config_fields(path: pathlib.Path) -> dict[str, Any]:
    """The fields of `DecoderConfig` that a file's header states."""
    header = read_header(path)
    return {
        "vocab_size": header.vocabulary,
        "d_model": header.width,
        "d_ff": header.inner,
        "num_layers": header.layers,
        "num_heads": header.heads,
        "num_kv_heads": header.key_heads,
        "head_width": header.width // header.heads,
        "norm_epsilon": 1e-5,
        "tied": header.tied,
    }


def recipes(source: Source, abstract: Mapping[str, Any]) -> tuple[dict[str, Recipe], dict[str, str]]:
    """For each parameter of a `Decoder` its recipe, and the entries that nothing is made of (see `sources.fill`)."""
    head_width = 2 * source.shapes[_COMPUTED[0]][1]
    made = {}
    for name, leaf in abstract.items():
        if name not in _NAMES:
            raise UserError(f"the parameter {name} has no place in a llama2.c model: wanted a Llama without biases: set the model's fields")
        shape = tuple(leaf.shape)
        made[name] = Recipe((_NAMES[name],), _accepts(name, shape, head_width))
    return made, {name: name for name in _COMPUTED}


def _accepts(name: str, shape: Shape, head_width: int) -> dict[Shape, Convert]:
    if not name.endswith("/kernel"):
        return {shape: np.asarray}
    theirs = (*shape[:-2], shape[-1], shape[-2])
    if not name.endswith(("query/kernel", "key/kernel")):
        return {theirs: lambda value: np.swapaxes(value, -1, -2)}

    def reordered(value: np.ndarray) -> np.ndarray:
        layers, outer, inner = value.shape
        pairs = value.reshape(layers, outer // head_width, head_width // 2, 2, inner)
        return np.swapaxes(np.swapaxes(pairs, 2, 3).reshape(value.shape), -1, -2)

    return {theirs: reordered}
