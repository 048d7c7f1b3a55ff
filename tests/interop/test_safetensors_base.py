import dataclasses
import json
import os

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning import interop
from prompt_tuning.errors import UserError
from tests.interop import tiny


@pytest.fixture
def saved(tmp_path):
    values = tiny.random_values(tiny.V1_1)
    interop.save_base(tmp_path / "base", values, config=tiny.V1_1, dtype="float32")
    return str(tmp_path / "base"), values


def _load(path, config=tiny.V1_1):
    return interop.load_base(path, config, tiny.abstract(config))


def test_a_saved_base_loads_bit_for_bit_with_every_source_named(saved):
    path, values = saved
    loaded, sources = _load(path)
    assert set(loaded) == set(sources) == set(values)
    for name, value in values.items():
        assert loaded[name].dtype == np.float32
        np.testing.assert_array_equal(loaded[name], value)
        assert sources[name] == f"model.safetensors:{name}"
    assert interop.base_sources(path, tiny.V1_1, tiny.abstract(tiny.V1_1)) == sources
    assert interop.stated_fields(path) == dataclasses.asdict(tiny.V1_1)


def test_bf16_storage_rounds_and_takes_half_the_bytes(tmp_path, saved):
    path, values = saved
    interop.save_base(tmp_path / "half", values, config=tiny.V1_1)
    loaded, _ = _load(str(tmp_path / "half"))
    for name, value in values.items():
        np.testing.assert_array_equal(loaded[name], value.astype(ml_dtypes.bfloat16).astype(np.float32))
    sizes = [os.path.getsize(os.path.join(folder, "model.safetensors")) for folder in (path, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]


def test_values_come_in_the_models_dtype(saved):
    config = dataclasses.replace(tiny.V1_1, param_dtype="bfloat16")
    loaded, _ = _load(saved[0], config)
    assert {value.dtype.name for value in loaded.values()} == {"bfloat16"}


def _edited(path, edit):
    file = os.path.join(path, "model.safetensors")
    entries = safetensors.numpy.load_file(file)
    edit(entries)
    safetensors.numpy.save_file(entries, file)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda e: e.pop("decoder/norm/scale"), "missing parameter: decoder/norm/scale"),
        (lambda e: e.update(extra=np.ones(3)), r"unused checkpoint entry: extra \[3\]"),
        (lambda e: e.update({"decoder/norm/scale": np.ones(17)}), r"wrong shape: decoder/norm/scale .*wanted \[16\], got \[17\]"),
        (lambda e: e.update({"decoder/norm/scale": np.ones(16, np.int32)}), "wrong dtype: decoder/norm/scale .*int32"),
        (
            lambda e: e.update({"embed/embedding": np.ones((30, 16))}),
            r"embed/embedding .*wanted \[40, 16\], got \[30, 16\].*vocabulary \(30\) is smaller than the model's \(40\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(saved, edit, said):
    path, _ = saved
    _edited(path, edit)
    with pytest.raises(UserError, match=said) as caught:
        _load(path)
    assert path in str(caught.value)


def test_a_truncated_file_is_named(saved):
    path, _ = saved
    file = os.path.join(path, "model.safetensors")
    os.truncate(file, os.path.getsize(file) - 10)
    with pytest.raises(UserError, match=r"cannot read .*model\.safetensors: truncated"):
        _load(path)


def test_another_architecture_is_named_even_where_shapes_agree(saved):
    path, _ = saved
    config = dataclasses.replace(tiny.V1_1, num_heads=4, d_kv=3, relative_max_distance=99)
    with pytest.raises(UserError, match=r"states num_heads = 3, the model has 4"):
        _load(path, config)
    with pytest.raises(UserError, match=r"states relative_max_distance = 20, the model has 99"):
        _load(path, dataclasses.replace(tiny.V1_1, relative_max_distance=99))


def test_damaged_configuration_is_named(saved):
    path, _ = saved
    with open(os.path.join(path, "config.json"), "w") as file:
        file.write('{"model": ')
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        _load(path)


def test_a_sharded_index_is_followed(tmp_path, saved):
    _, values = saved
    names = sorted(values)
    folder = tmp_path / "sharded"
    folder.mkdir()
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in files.items():
        safetensors.numpy.save_file({name: values[name] for name in held}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {n: f for f, held in files.items() for n in held}}))
    loaded, sources = _load(str(folder))
    for name, value in values.items():
        np.testing.assert_array_equal(loaded[name], value)
    assert sources[names[1]] == f"b.safetensors:{names[1]}"
    (folder / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"b\.safetensors, named in the index, is not"):
        _load(str(folder))


def test_what_is_no_checkpoint_is_said_so(tmp_path):
    with pytest.raises(UserError, match=r"no base checkpoint at .*absent"):
        _load(str(tmp_path / "absent"))
    with pytest.raises(UserError, match="an empty folder"):
        _load(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read .*pytorch_model\.bin: not a file of tensors"):
        _load(str(tmp_path))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="got the file"):
        _load(str(tmp_path / "notes.txt"))
    with pytest.raises(UserError, match="ships no asset"):
        _load("bundled:absent")
