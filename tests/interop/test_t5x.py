import dataclasses
import gzip
import json
import os
import shutil

import msgpack
import numpy as np
import pytest

from prompt_tuning import interop
from prompt_tuning.errors import UserError
from prompt_tuning.interop import t5x
from prompt_tuning.models.t5 import T5Config
from tests.interop import tiny
from tests.shared import shared_path

REAL = "data/t5x_prompt_tuning/test_data/test_t5_1_1_tiny/checkpoint_3"
REAL_CONFIG = T5Config(d_model=4, d_ff=8, num_heads=2, d_kv=2, num_encoder_layers=2, num_decoder_layers=2, relative_buckets=4)


# As many heads as layers: with scanned layers some shapes then fit with the layers on either axis.
CONFIGS = {
    name: dataclasses.replace(config, num_heads=2, d_kv=6)
    for name, config in {"v1.0": tiny.V1_0, "v1.1": tiny.V1_1, "umt5": tiny.UMT5}.items()
}


def _packed(array):
    return msgpack.ExtType(1, msgpack.packb((list(array.shape), array.dtype.name, array.tobytes())))


def write_t5x(folder, entries):
    """A T5X checkpoint: vectors stand in the index, all else in zarr folders of two-row chunks."""
    folder.mkdir()
    target = {}
    for name, value in entries.items():
        *parents, last = name.split("/")
        place = target
        for parent in parents:
            place = place.setdefault(parent, {})
        if value.ndim == 1:
            place[last] = _packed(value)
            continue
        path = "target." + name.replace("/", ".")
        place[last] = {"driver": "zarr", "kvstore": {"driver": "gfile", "path": path}}
        (folder / path).mkdir()
        chunks = [min(2, value.shape[0]), *value.shape[1:]]
        about = {"zarr_format": 2, "shape": value.shape, "chunks": chunks, "dtype": value.dtype.str, "order": "C", "filters": None}
        (folder / path / ".zarray").write_text(json.dumps(about | {"fill_value": None, "compressor": {"id": "gzip", "level": 1}}))
        for i in range(0, value.shape[0], 2):
            chunk = np.zeros(chunks, value.dtype)
            chunk[: len(value[i : i + 2])] = value[i : i + 2]
            (folder / path / ".".join([str(i // 2), *["0"] * (value.ndim - 1)])).write_bytes(gzip.compress(chunk.tobytes()))
    state = {"step": 3, "param_states": {"a": {"v": _packed(np.ones(2))}}}
    (folder / "checkpoint").write_bytes(msgpack.packb({"version": 3, "optimizer": {"target": target, "state": state}}))
    return str(folder)


def theirs(config, values, *, scanned=None, split_heads=False):
    """Our values in T5X's names and layout, written here a second time and by rules, not by the table that is tested."""
    entries = {}
    per_stack = {
        "encoder": {"self_attention/attention": "attention", "self_attention/norm": "pre_attention_layer_norm"},
        "decoder": {
            "self_attention/attention": "self_attention",
            "self_attention/norm": "pre_self_attention_layer_norm",
            "cross_attention/attention": "encoder_decoder_attention",
            "cross_attention/norm": "pre_cross_attention_layer_norm",
        },
    }
    for name, value in values.items():
        if "/layers/" not in name:
            for ours, other in [
                ("embed/embedding", "token_embedder/embedding"),
                ("head/kernel", "decoder/logits_dense/kernel"),
                ("relative_bias/table", "relpos_bias/rel_embedding"),
                ("encoder/norm", "encoder/encoder_norm"),
                ("decoder/norm", "decoder/decoder_norm"),
            ]:
                name = name.replace(ours, other)
            entries[name] = value.T if "relpos" in name else value
            continue
        stack, rest = name.split("/layers/")
        for ours, other in {
            **per_stack[stack],
            "feed_forward/norm": "pre_mlp_layer_norm",
            "feed_forward/mlp/wo": "mlp/wo",
            "feed_forward/mlp/gate": "mlp/wi_0",
            "feed_forward/mlp/wi": "mlp/wi_1" if config.gated else "mlp/wi",
            "self_attention/relative_bias/table": "relpos_bias/rel_embedding",
        }.items():
            if rest.startswith(ours):
                rest = rest.replace(ours, other)
                break
        layers = list(value)
        if "relpos" in rest:
            layers = [layer.T for layer in layers]
        if split_heads and "attention/" in rest:
            heads = (config.num_heads, config.d_kv)
            layers = [layer.reshape((*heads, -1) if "/out/" in rest else (-1, *heads)) for layer in layers]
        if scanned is None:
            entries |= {f"{stack}/layers_{i}/{rest}": layer for i, layer in enumerate(layers)}
        else:
            scope, axis = scanned
            entries[f"{stack}/{stack if scope == 'stack' else scope}/{rest}"] = np.stack(layers, axis=min(axis, value.ndim))
    return entries


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("scanned", [None, ("stack", 1), ("layers", 0)])
@pytest.mark.parametrize("split_heads", [False, True])
def test_every_layout_gives_the_values(tmp_path, config, scanned, split_heads):
    values = tiny.random_values(config)
    path = write_t5x(tmp_path / "checkpoint_7", theirs(config, values, scanned=scanned, split_heads=split_heads))
    loaded, sources = interop.load_base(path, config, tiny.abstract(config))
    assert set(loaded) == set(sources) == set(values)
    for name, value in values.items():
        np.testing.assert_array_equal(loaded[name], value)


def test_the_real_checkpoint_has_every_entry_used_and_every_parameter_filled():
    folder = shared_path(REAL)
    values, sources = interop.load_base(str(folder), REAL_CONFIG, tiny.abstract(REAL_CONFIG))
    assert {name: value.shape for name, value in values.items()} == {n: leaf.shape for n, leaf in tiny.abstract(REAL_CONFIG).items()}
    assert sum(value.size for value in values.values()) == sum(np.prod(s) for s in t5x.open_checkpoint(folder).shapes.values())
    embedding = np.load(shared_path("data/t5x_prompt_tuning/test_data/tiny_embeddings_32128x4.npy"))
    np.testing.assert_array_equal(values["embed/embedding"], embedding)
    assert sources["embed/embedding"] == "target.token_embedder.embedding:token_embedder/embedding"
    assert sources["encoder/norm/scale"] == "checkpoint:encoder/encoder_norm/scale"


def _remove_chunk(folder):
    (folder / "target.decoder.logits_dense.kernel" / "2.0").unlink()


def _cut_chunk(folder):
    file = folder / "target.decoder.logits_dense.kernel" / "2.0"
    os.truncate(file, file.stat().st_size // 2)


def _cut_index(folder):
    os.truncate(folder / "checkpoint", 1000)


def _remove_array(folder):
    shutil.rmtree(folder / "target.decoder.logits_dense.kernel")


def _cut_metadata(folder):
    os.truncate(folder / "target.decoder.logits_dense.kernel" / ".zarray", 20)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_remove_chunk, r"the chunk .*logits_dense\.kernel/2\.0 is not there"),
        (_cut_chunk, r"cannot read .*logits_dense\.kernel: truncated or corrupt"),
        (_cut_index, r"cannot read the T5X index .*checkpoint: truncated"),
        (_remove_array, r"target\.decoder\.logits_dense\.kernel is not in"),
        (_cut_metadata, r"cannot read .*\.zarray: truncated"),
    ],
)
def test_a_truncated_checkpoint_is_an_error_that_names_the_place(tmp_path, damage, said):
    path = write_t5x(tmp_path / "checkpoint_7", theirs(tiny.V1_1, tiny.random_values(tiny.V1_1)))
    damage(tmp_path / "checkpoint_7")
    with pytest.raises(UserError, match=said):
        interop.load_base(path, tiny.V1_1, tiny.abstract(tiny.V1_1))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda e: e.pop("encoder/layers_1/mlp/wo/kernel"), "missing parameter: encoder/layers/feed_forward/mlp/wo/kernel .*layers_1"),
        (lambda e: e.update({"encoder/layers_3/mlp/wo/kernel": np.ones((4, 4))}), "unused checkpoint entry: encoder/layers_3"),
        (lambda e: e.update({"encoder/relpos_bias/rel_embedding": np.ones((3, 9))}), r"wanted \[3, 8\], got \[3, 9\]"),
        (lambda e: e.update({"decoder/logits_dense/kernel": np.ones((16, 39))}), r"vocabulary \(39\) is smaller than the model's \(40\)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, edit, said):
    entries = theirs(tiny.V1_1, tiny.random_values(tiny.V1_1))
    edit(entries)
    with pytest.raises(UserError, match=said):
        interop.load_base(write_t5x(tmp_path / "c", entries), tiny.V1_1, tiny.abstract(tiny.V1_1))


def test_a_folder_of_checkpoints_points_to_one(tmp_path):
    write_t5x(tmp_path / "checkpoint_7", {"a": np.ones(2)})
    with pytest.raises(UserError, match="give one of them, as .*checkpoint_7"):
        interop.load_base(str(tmp_path), tiny.V1_1, tiny.abstract(tiny.V1_1))


def test_another_msgpack_file_is_refused(tmp_path):
    (tmp_path / "checkpoint").write_bytes(msgpack.packb({"params": {}}))
    with pytest.raises(UserError, match=r"wanted optimizer/target .*'params'"):
        interop.load_base(str(tmp_path), tiny.V1_1, tiny.abstract(tiny.V1_1))


def test_the_released_prompts_are_read_as_they_are():
    for task in ("sst2", "mrpc", "rte"):
        prompt = np.load(shared_path(f"data/t5x_prompt_tuning/pretrained_prompts/t5_1_1_lm100k_base/{task}.npy"), allow_pickle=False)
        assert (prompt.shape, prompt.dtype) == ((100, 768), np.float32)
        assert np.isfinite(prompt).all()
