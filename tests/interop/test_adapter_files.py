"""Files that papers' code leaves: T-Few's IA3 and ATTEMPT's prompts, read without PyTorch and without running anything they say."""

import io
import os
import pickle
import zipfile

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.errors import UserError
from prompt_tuning.interop import adapter_files, pytorch_files
from prompt_tuning.methods.from_peft import FromPeft
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.prompt import Prompt
from tests.interop import tiny
from tests.interop.test_peft import fresh, tunables

torch = pytest.importorskip("torch")


def test_arrays_come_back_as_pytorch_saved_them(tmp_path):
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(6, 5, generator=generator)
    held = {
        "float32": wide,
        "turned": wide.T[1:, ::2],
        "part": wide[2:4, 1:],
        "bfloat16": wide.bfloat16(),
        "float16": wide.half(),
        "float64": wide.double(),
        "whole": torch.arange(4),
        "one": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(wide),
        "nested": [torch.ones(2), {"step": 3, "name": "x", "nothing": None, "right": True}],
    }
    torch.save(held, tmp_path / "held.pt")
    found = pytorch_files.load(tmp_path / "held.pt")
    assert list(found) == list(held)
    for name in ("float32", "turned", "part", "float16", "float64", "whole", "one", "none", "parameter"):
        wanted = held[name].detach().numpy()
        assert found[name].dtype == wanted.dtype and found[name].shape == wanted.shape
        np.testing.assert_array_equal(found[name], wanted)
    np.testing.assert_array_equal(found["bfloat16"].astype(np.float32), held["bfloat16"].float().numpy())
    np.testing.assert_array_equal(found["nested"][0], np.ones(2))
    assert found["nested"][1] == held["nested"][1]
    layer = torch.nn.Linear(3, 2)
    torch.save(layer.state_dict(), tmp_path / "state.pt")  # An OrderedDict with attributes of its own.
    np.testing.assert_array_equal(pytorch_files.load(tmp_path / "state.pt")["weight"], layer.weight.detach().numpy())


class Runs:
    """What a pickle may ask for and must not get."""

    def __init__(self, call, *given):
        self.wanted = call, given

    def __reduce__(self):
        return self.wanted


def archive(path, payload):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", payload)
    return path


@pytest.mark.parametrize("call", [os.system, eval, os.mkdir])
def test_nothing_in_a_file_is_run(call, tmp_path):
    made = tmp_path / "made"
    given = {os.system: f"mkdir {made}", eval: f"__import__('os').mkdir({str(made)!r})", os.mkdir: str(made)}[call]
    with pytest.raises(UserError, match=r"it names \S+, which is no part of a tensor"):
        pytorch_files.load(archive(tmp_path / "x.pt", pickle.dumps({"weight": Runs(call, given)})))
    torch.save(Runs(call, given), tmp_path / "y.pt")
    with pytest.raises(UserError, match="it names"):
        pytorch_files.load(tmp_path / "y.pt")
    assert not made.exists()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_read(tmp_path_factory, data):
    """Whatever bytes change, the answer is arrays or one clear error."""
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(6.0).reshape(2, 3)}, buffer)
    whole = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "x.pt"
    path.write_bytes(bytes(whole[: data.draw(st.integers(len(whole) // 2, len(whole)))]))
    try:
        pytorch_files.load(path)
    except UserError as error:
        assert str(path) in str(error)


def test_a_view_beyond_its_storage_is_refused(tmp_path):
    reader = pytorch_files.Tensor(pytorch_files._Storage(lambda: np.arange(6.0)), 0, (2, 3), (3, 1))
    np.testing.assert_array_equal(reader.array(), np.arange(6.0).reshape(2, 3))
    for offset, shape, strides in ((1, (2, 3), (3, 1)), (0, (2, 3), (4, 1)), (-1, (2,), (1,)), (0, (2,), (1, 1)), (0, (10**9,), (0,))):
        with pytest.raises(ValueError, match="tensor"):
            pytorch_files.Tensor(pytorch_files._Storage(lambda: np.arange(6.0)), offset, shape, strides).array()
    with pytest.raises(UserError, match="not a file of tensors that torch.save wrote"):
        torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        pytorch_files.load(tmp_path / "old.pt")


def test_scales_of_t_few_are_ours(tmp_path):
    """T-Few scales what keys, values and the linear branch of the feed-forward layers give."""
    generator = torch.Generator().manual_seed(0)
    config, state = tiny.V1_1, {}
    inner, wide = config.num_heads * config.d_kv, config.d_ff
    for i in range(2):
        for module, linear, width in (
            (f"encoder.block.{i}.layer.0.SelfAttention", ("k", "v"), inner),
            (f"encoder.block.{i}.layer.1.DenseReluDense", ("wi_1",), wide),
            (f"decoder.block.{i}.layer.0.SelfAttention", ("k", "v"), inner),
            (f"decoder.block.{i}.layer.1.EncDecAttention", ("k", "v"), inner),
            (f"decoder.block.{i}.layer.2.DenseReluDense", ("wi_1",), wide),
        ):
            state |= {f"{module}.{each}.multi_lora_b": 1 + 0.3 * torch.randn(width, 1, generator=generator) for each in linear}
    torch.save(state, tmp_path / "finish.pt")
    model = fresh()
    method = FromPeft(str(tmp_path / "finish.pt"))
    assert isinstance(method.method(model), IA3)
    method.attach(model, jax.random.key(0), vocabulary=None)
    found = tunables(model)
    assert sum(value.size for value in found.values()) == sum(value.numel() for value in state.values())
    for ours, theirs in (
        ("encoder/layers/self_attention/attention/k_scale/scale", "encoder.block.{}.layer.0.SelfAttention.k"),
        ("decoder/layers/cross_attention/attention/v_scale/scale", "decoder.block.{}.layer.1.EncDecAttention.v"),
        ("decoder/layers/feed_forward/mlp/scale/scale", "decoder.block.{}.layer.2.DenseReluDense.wi_1"),
    ):
        wanted = np.stack([state[f"{theirs.format(i)}.multi_lora_b"].numpy().ravel() for i in range(2)])
        np.testing.assert_array_equal(found[ours], wanted)


def test_a_prompt_of_attempt_is_ours(tmp_path):
    rows = torch.nn.Parameter(torch.randn(5, tiny.V1_1.d_model, generator=torch.Generator().manual_seed(0)))
    torch.save(rows, tmp_path / "prefix_embeddings.pt")
    model = fresh()
    method = FromPeft(str(tmp_path / "prefix_embeddings.pt"))
    assert isinstance(method.method(model), Prompt) and method.layout.encoder_length == 5
    method.attach(model, jax.random.key(0), vocabulary=None)
    np.testing.assert_array_equal(tunables(model)["embed/prompt/rows"], rows.detach().numpy())


def test_another_file_is_named(tmp_path):
    for held, said in (
        (torch.ones(3), r"got an array \[3\] of float32"),
        ({"encoder.x": torch.ones(2)}, "got entries such as 'encoder.x'"),
        ({"encoder.block.0.layer.0.SelfAttention.q.multi_lora_b": torch.ones(2, 1)}, "is no scale of keys, values"),
        ([1, 2], "got a list"),
    ):
        torch.save(held, tmp_path / "x.pt")
        with pytest.raises(UserError, match=said):
            adapter_files.read(str(tmp_path / "x.pt"))
