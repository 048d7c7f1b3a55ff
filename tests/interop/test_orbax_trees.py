"""T5X's checkpoints as Orbax writes them, written here by Orbax itself."""

import jax.numpy as jnp
import msgpack
import numpy as np
import orbax.checkpoint as ocp
import pytest

from prompt_tuning import interop, trainable
from prompt_tuning.errors import UserError
from tests.interop import test_t5x, tiny

CONFIG = test_t5x.CONFIGS["v1.1"]


def write(folder, values, *, below="target", **how):
    """A checkpoint with the optimizer's state beside the parameters."""
    entries = trainable.nested({name: jnp.asarray(value) for name, value in test_t5x.theirs(CONFIG, values).items()})
    tree = {below: entries, "state": {"step": jnp.int32(3), "param_states": {"a": jnp.ones(2)}}}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**how)) as checkpointer:
        checkpointer.save(folder.absolute(), tree)
    return folder


@pytest.mark.parametrize("how", [{"use_ocdbt": True}, {"use_ocdbt": False}, {"use_ocdbt": True, "use_zarr3": True}], ids=str)
def test_every_form_gives_the_values(tmp_path, how):
    values = tiny.random_values(CONFIG)
    write(tmp_path / "checkpoint_3" / "state", values, **how)
    for place in ("checkpoint_3", "checkpoint_3/state"):
        loaded, sources = interop.load_base(str(tmp_path / place), CONFIG, tiny.abstract(CONFIG))
        assert set(loaded) == set(sources) == set(values)
        for name, value in values.items():
            np.testing.assert_array_equal(loaded[name], value)
    assert sources["embed/embedding"] == "target.token_embedder.embedding:token_embedder/embedding"


def test_the_first_form_names_folders_in_a_msgpack_index(tmp_path):
    values = tiny.random_values(CONFIG)
    folder = write(tmp_path / "checkpoint_3", values, use_ocdbt=False)
    (folder / "_METADATA").unlink()
    index = trainable.nested({name: f"PLACEHOLDER://target.{name.replace('/', '.')}" for name in test_t5x.theirs(CONFIG, values)})
    (folder / "checkpoint").write_bytes(msgpack.packb({"target": index, "state": {"step": 3}}))
    loaded, _ = interop.load_base(str(folder), CONFIG, tiny.abstract(CONFIG))
    for name, value in values.items():
        np.testing.assert_array_equal(loaded[name], value)


def test_what_is_damaged_or_another_tree_is_named(tmp_path):
    values = tiny.random_values(CONFIG)

    def refused(folder, said):
        with pytest.raises(UserError, match=said):
            interop.load_base(str(folder), CONFIG, tiny.abstract(CONFIG))

    refused(write(tmp_path / "a", values, below="params"), r"nothing called 'target'.* got keys \['params', 'state'\]")
    folder = write(tmp_path / "b", values, use_ocdbt=False)
    (folder / "target.token_embedder.embedding" / ".zarray").unlink()
    refused(folder, r"cannot read target\.token_embedder\.embedding .*truncated or corrupt")
    folder = write(tmp_path / "c", values, use_ocdbt=False)
    for chunk in (folder / "target.token_embedder.embedding").glob("[0-9]*"):
        chunk.unlink()
    refused(folder, "cannot read token_embedder/embedding .*truncated or corrupt")
    (folder / "_METADATA").write_text("{}")
    refused(folder, "not an index of Orbax's")
