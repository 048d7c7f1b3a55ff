"""T5X checkpoints: a msgpack index named `checkpoint`, with small arrays in it and a zarr folder for each large one.

Both layouts are read: one entry a layer (`encoder/layers_0/...`), and scanned layers in one entry (`encoder/encoder/...` or
`encoder/layers/...`) with the layer axis second, T5X's default, or first. Attention kernels may have their heads apart ([embed, heads, kv])
or joined. What Orbax wrote for later releases of T5X is read too. Nothing is unpickled. The optimizer's state is left unread.
"""

import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from prompt_tuning.errors import UserError
from prompt_tuning.interop import orbax_trees
from prompt_tuning.interop.sources import Convert, Recipe, Shape, Source, is_layered

_ATTENTION = ("query", "key", "value", "out")


def _mlp(gated: bool) -> dict[str, str]:
    inner = {"gate": "wi_0", "wi": "wi_1"} if gated else {"wi": "wi"}
    kernels = {f"feed_forward/mlp/{k}/kernel": f"mlp/{v}/kernel" for k, v in (inner | {"wo": "wo"}).items()}
    return {"feed_forward/norm/scale": "pre_mlp_layer_norm/scale"} | kernels


def _attention(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/attention/{k}/kernel": f"{theirs}/{k}/kernel" for k in _ATTENTION}


def layer_names(*, gated: bool) -> dict[str, dict[str, str]]:
    """For each stack: our name below `<stack>/layers/` -> their name below `<stack>/layers_<i>/`."""
    bias = {"self_attention/relative_bias/table": "relpos_bias/rel_embedding"}
    encoder = {"self_attention/norm/scale": "pre_attention_layer_norm/scale"} | _attention("self_attention", "attention")
    decoder = {
        "self_attention/norm/scale": "pre_self_attention_layer_norm/scale",
        "cross_attention/norm/scale": "pre_cross_attention_layer_norm/scale",
    }
    decoder |= _attention("self_attention", "self_attention") | _attention("cross_attention", "encoder_decoder_attention")
    return {"encoder": encoder | bias | _mlp(gated), "decoder": decoder | bias | _mlp(gated)}


MODEL_NAMES = {
    "embed/embedding": "token_embedder/embedding",
    "encoder/relative_bias/table": "encoder/relpos_bias/rel_embedding",
    "decoder/relative_bias/table": "decoder/relpos_bias/rel_embedding",
    "encoder/norm/scale": "encoder/encoder_norm/scale",
    "decoder/norm/scale": "decoder/decoder_norm/scale",
    "head/kernel": "decoder/logits_dense/kernel",
}


def is_checkpoint(folder: pathlib.Path) -> bool:
    """Whether a folder holds a step: T5X's own index, or Orbax's, which later releases write into `state`."""
    return any((place / "checkpoint").is_file() or orbax_trees.is_tree(place) for place in (folder, folder / "state"))


def open_checkpoint(folder: pathlib.Path) -> Source:
    """The parameters (`target`) of a T5X checkpoint folder.

    Raises:
      UserError: the index is truncated or not T5X's, or an entry's zarr folder is not there or lacks chunks.
    """
    folder = folder if (folder / "checkpoint").is_file() or orbax_trees.is_tree(folder) else folder / "state"
    if orbax_trees.is_tree(folder):
        return orbax_trees.open_tree(folder, below="target")
    index = _index(folder / "checkpoint")
    target = index.get("optimizer", {}).get("target") or index.get("target")
    if not isinstance(target, dict):
        raise UserError(f"not a T5X checkpoint: wanted optimizer/target in {folder / 'checkpoint'}, got {sorted(map(str, index))}")
    leaves = _leaves(target)
    inline = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, np.ndarray)}
    stored = {name: folder / _place(leaf) for name, leaf in leaves.items() if not isinstance(leaf, np.ndarray)}
    shapes = {name: value.shape for name, value in inline.items()} | {name: _zarr_shape(path) for name, path in stored.items()}
    return Source(
        where=str(folder),
        shapes=shapes,
        read=lambda name: inline[name] if name in inline else _read_zarr(stored[name]),
        file_of=lambda name: "checkpoint" if name in inline else stored[name].name,
    )


def config_fields(source: Source) -> dict[str, Any]:
    """The fields of `T5Config` that the shapes of a checkpoint's entries state; what has no shape is T5's default.

    Raises UserError where the entries are not those of a T5.
    """
    shapes = source.shapes
    try:
        vocab_size, d_model = shapes[MODEL_NAMES["embed/embedding"]]
        gated = any(name.endswith("/mlp/wi_0/kernel") for name in shapes)
        depths = {stack: _depth(shapes, stack, d_model) for stack in ("encoder", "decoder")}
        axis = _layer_axis(shapes, d_model)
        bias = MODEL_NAMES["encoder/relative_bias/table"]
        heads, buckets = shapes[bias] if bias in shapes else _of_a_layer(shapes, "relpos_bias/rel_embedding", axis)
        # Attention kernels may have their heads apart.
        inner = math.prod(_of_a_layer(shapes, "attention/query/kernel", axis)) // d_model
        d_ff, _ = _of_a_layer(shapes, "mlp/wo/kernel", axis)
    except (KeyError, ValueError, IndexError, StopIteration):
        raise UserError(f"the entries of {source.where} are not those of a T5: its sizes cannot be read from them") from None
    return {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "d_ff": d_ff,
        "num_heads": heads,
        "d_kv": inner // heads,
        "num_encoder_layers": depths["encoder"],
        "num_decoder_layers": depths["decoder"],
        "gated": gated,
        "tied": MODEL_NAMES["head/kernel"] not in shapes,
        "per_layer_bias": bias not in shapes,
        "relative_buckets": buckets,
    }


def _norm(shapes: Mapping[str, Shape], stack: str) -> Shape:
    """The shape of a stack's scanned layers' norm."""
    names = (f"{stack}/{scope}/pre_mlp_layer_norm/scale" for scope in (stack, "layers"))
    return next(shapes[name] for name in names if name in shapes)


def _depth(shapes: Mapping[str, Shape], stack: str, d_model: int) -> int:
    apart = sum(re.fullmatch(rf"{stack}/layers_\d+/pre_mlp_layer_norm/scale", name) is not None for name in shapes)
    return apart or math.prod(_norm(shapes, stack)) // d_model


def _layer_axis(shapes: Mapping[str, Shape], d_model: int) -> int | None:
    """On which axis scanned layers stand, T5X's default in doubt; None where layers stand apart."""
    if "encoder/layers_0/pre_mlp_layer_norm/scale" in shapes:
        return None
    return 1 if _norm(shapes, "encoder")[0] == d_model else 0


def _of_a_layer(shapes: Mapping[str, Shape], suffix: str, axis: int | None) -> Shape:
    """The shape of one layer's part of the encoder's entry that ends so."""
    shape = next(shape for name, shape in shapes.items() if name.startswith("encoder/") and name.endswith(suffix))
    return shape if axis is None else shape[:axis] + shape[axis + 1 :]


def _place(leaf: Any) -> str:
    """The zarr folder that an index names, T5X's or the first of Orbax's."""
    return leaf.removeprefix("PLACEHOLDER://") if isinstance(leaf, str) else leaf["kvstore"]["path"]


def recipes(source: Source, abstract: Mapping[str, Any]) -> dict[str, Recipe]:
    """For each parameter its recipe."""
    table = layer_names(gated="encoder/layers/feed_forward/mlp/gate/kernel" in abstract)
    heads = next((t.shape[-1] for n, t in abstract.items() if n.endswith("relative_bias/table")), 1)
    made: dict[str, Recipe] = {}
    scanned: dict[str, tuple[str, dict[Shape, Convert], int]] = {}
    for name, leaf in abstract.items():
        shape = tuple(leaf.shape)
        stack, _, rest = name.partition("/layers/")
        key, names = (rest, table[stack]) if is_layered(name) else (name, MODEL_NAMES)
        if key not in names:
            raise UserError(f"the parameter {name} has no place in T5X's T5: load the base before a method adds to it")
        if not is_layered(name):
            made[name] = Recipe((names[key],), _accepts(name, shape, heads=heads))
            continue
        accepts = _accepts(name, shape[1:], heads=heads)
        whole = next((entry for scope in (stack, "layers") if (entry := f"{stack}/{scope}/{names[key]}") in source.shapes), None)
        if whole is not None:
            scanned[name] = whole, accepts, shape[0]
        else:
            entries = tuple(f"{stack}/layers_{i}/{names[key]}" for i in range(shape[0]))
            made[name] = Recipe(entries, accepts, per_layer=True, label=f"{stack}/layers_*/{names[key]}")
    # One shape may fit with its layers on either axis, all of a model's do not: the axis is the one that fits most, T5X's default in doubt.
    by_axis = [{n: Recipe((entry,), _scanned(accepts, layers, axis)) for n, (entry, accepts, layers) in scanned.items()} for axis in (1, 0)]
    return made | max(by_axis, key=lambda some: sum(source.shapes[r.entries[0]] in r.accepts for r in some.values()))


def _accepts(name: str, shape: Shape, *, heads: int) -> dict[Shape, Convert]:
    if name.endswith("relative_bias/table"):
        return {shape[::-1]: np.transpose}
    accepted: dict[Shape, Convert] = {shape: np.asarray}
    if "/attention/" in name:
        # Heads apart: the inner axis is the last of query, key and value, the first of out.
        inner, outer = (shape[0], shape[1]) if name.endswith("out/kernel") else (shape[1], shape[0])
        split = (heads, inner // heads)
        accepted[(*split, outer) if name.endswith("out/kernel") else (outer, *split)] = lambda value: value.reshape(shape)
    return accepted


def _scanned(accepts: Mapping[Shape, Convert], layers: int, axis: int) -> dict[Shape, Convert]:
    def converted(convert: Convert) -> Convert:
        return lambda value: np.stack([convert(part) for part in np.moveaxis(value, axis, 0)])

    return {(*shape[:axis], layers, *shape[axis:]): converted(convert) for shape, convert in accepts.items()}


def _index(path: pathlib.Path) -> dict[str, Any]:
    try:
        index = msgpack.unpackb(path.read_bytes(), ext_hook=_extension, raw=False, strict_map_key=False)
        if not isinstance(index, dict):
            raise ValueError(f"it holds a {type(index).__name__}")
        return index
    except Exception as error:
        raise UserError(f"cannot read the T5X index {path}: truncated, or not msgpack ({error}): copy the checkpoint again") from error


def _extension(code: int, data: bytes) -> Any:
    """Flax's extension types: 1 an array, 3 a NumPy scalar."""
    if code not in (1, 3):
        return data
    shape, dtype, values = msgpack.unpackb(data, raw=False)
    array = np.frombuffer(values, dtype=_dtype(dtype)).reshape(shape)
    return array if code == 1 else array[()]


def _dtype(name: str) -> np.dtype:
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and "kvstore" not in value:
            leaves |= _leaves(value, f"{name}/")
        else:
            leaves[name] = value
    return leaves


def _zarr_shape(path: pathlib.Path) -> Shape:
    """The shape of a zarr array, whose chunks must all be there: absent ones would read as zeros."""
    try:
        about = json.loads((path / ".zarray").read_text())
        shape, chunks, separator = tuple(about["shape"]), about["chunks"], about.get("dimension_separator", ".")
    except FileNotFoundError:
        raise UserError(f"truncated T5X checkpoint: {path.name} is not in {path.parent}: copy the checkpoint again") from None
    except (ValueError, KeyError) as error:
        raise UserError(f"cannot read {path / '.zarray'}: truncated or not zarr ({error}): copy the checkpoint again") from error
    grid = [-(-side // chunk) for side, chunk in zip(shape, chunks, strict=True)]
    for position in np.ndindex(*grid):
        file = path / separator.join(map(str, position))
        if not file.is_file():
            raise UserError(f"truncated T5X checkpoint: the chunk {file} is not there: copy the checkpoint again")
    return shape


def _read_zarr(path: pathlib.Path) -> np.ndarray:
    import tensorstore

    try:
        store = tensorstore.open({"driver": "zarr", "kvstore": {"driver": "file", "path": str(path.absolute())}}).result()
        return np.asarray(store.read().result())
    except ValueError as error:
        reason = str(error).splitlines()[0][:160]
        raise UserError(f"cannot read {path}: truncated or corrupt ({reason}): copy the checkpoint again") from error
