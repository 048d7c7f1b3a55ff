import os
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import checkpoints
from prompt_tuning.checkpoints import Base, Checkpoints
from prompt_tuning.errors import UserError
from prompt_tuning.optimizers import Adafactor, AdamW, with_clipping_and_accumulation

BASE = Base("somewhere/base", "f" * 64)


def _trainable(seed=0):
    key = jax.random.key(seed)
    return {
        "embed": {"prompt": jax.random.normal(key, (5, 8))},
        "layers": {"mlp": {"kernel": jax.random.normal(key, (2, 130, 129), jnp.bfloat16)}},
        "count": jnp.arange(3),
    }


def _state(trainable, settings):
    transform = with_clipping_and_accumulation(settings.transform(lambda step: 1.0), max_norm=1.0, accumulation_steps=2)
    floats = {name: x for name, x in trainable.items() if name != "count"}
    state = transform.init(floats)
    for _ in range(3):
        _, state = transform.update(jax.tree.map(jnp.sin, floats), state, floats)
    return state


def _equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("settings", [Adafactor(momentum=0.9), AdamW()], ids=["adafactor", "adamw"])
def test_a_restored_checkpoint_is_bitwise_what_was_saved(tmp_path, settings):
    trainable = _trainable()
    state = _state(trainable, settings)
    extra = {"data": {"position": 17, "epoch": None}, "best": [0.25, 3], "hash": "abc"}
    with Checkpoints(tmp_path / "c", base=BASE) as writer:
        writer.save(3, trainable, state, extra=extra)
    with Checkpoints(tmp_path / "c", base=BASE, writable=False) as reader:
        restored = reader.restore_latest(jax.tree.map(jnp.zeros_like, trainable), jax.eval_shape(lambda: state))
    assert restored.step == 3
    assert restored.extra == extra
    _equal(restored.trainable, trainable)
    _equal(restored.optimizer_state, state)


def test_what_is_saved_is_what_was_there_when_save_was_called(tmp_path):
    x = np.ones((1000, 1000), np.float32)
    donated = jax.jit(lambda a: a + 1, donate_argnums=0)
    with Checkpoints(tmp_path / "c", base=BASE) as c:
        array = jnp.asarray(x)
        c.save(1, {"x": array}, {}, extra={})
        donated(array)
        c.wait()
        np.testing.assert_array_equal(c.restore_latest({"x": jax.ShapeDtypeStruct(x.shape, x.dtype)}).trainable["x"], x)


def test_a_pure_nnx_state_goes_in_and_out(tmp_path):
    _, state = nnx.split(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))
    pure = nnx.as_pure(state)
    with Checkpoints(tmp_path / "c", base=BASE) as c:
        c.save(1, pure, {}, extra={})
        c.wait()
        _equal(c.restore_latest(pure).trainable, pure)


def test_best_on_dev_is_kept_beside_the_latest(tmp_path):
    with Checkpoints(tmp_path / "c", base=BASE, keep_latest=2) as c:
        for step, metric in [(1, 0.5), (2, 0.9), (3, 0.9), (4, None), (5, float("nan")), (6, 0.3)]:
            c.save(step, {"x": jnp.full(2, step)}, {}, extra={}, metric=metric)
        c.wait()
        assert (c.best_step, c.latest_step, c.steps) == (2, 6, [2, 5, 6])
        assert c.restore_best({"x": jnp.zeros(2, int)}).trainable["x"][0] == 2
    with Checkpoints(tmp_path / "c", base=BASE) as again:
        assert (again.best_step, again.latest_step) == (2, 6)


def test_lower_can_be_better(tmp_path):
    with Checkpoints(tmp_path / "c", base=BASE, keep_latest=1, higher_is_better=False) as c:
        for step, metric in [(1, 0.5), (2, 0.2), (3, 0.3)]:
            c.save(step, {"x": jnp.full(2, step)}, {}, extra={}, metric=metric)
        c.wait()
        assert (c.best_step, c.steps) == (2, [2, 3])


def test_a_step_saved_again_holds_the_new_values(tmp_path):
    with Checkpoints(tmp_path / "c", base=BASE) as c:
        c.save(1, {"x": jnp.zeros(2)}, {}, extra={"n": 1})
        c.save(1, {"x": jnp.ones(2)}, {}, extra={"n": 2}, metric=0.5)
        c.wait()
        assert c.restore_latest({"x": jnp.zeros(2)}).trainable["x"][0] == 1
        assert c.extra(1) == {"n": 2}
        assert c.best_step == 1


def test_an_empty_folder_restores_nothing(tmp_path):
    with Checkpoints(tmp_path / "c", base=BASE) as c:
        assert c.restore_latest({"x": jnp.zeros(2)}) is None
        assert c.restore_best({"x": jnp.zeros(2)}) is None
    with pytest.raises(UserError, match="not there"):
        Checkpoints(tmp_path / "absent", base=BASE, writable=False)


def test_a_wrong_base_is_refused_by_name(tmp_path):
    with Checkpoints(tmp_path / "c", base=BASE) as c:
        c.save(1, {"x": jnp.zeros(2)}, {}, extra={})
    with Checkpoints(tmp_path / "c", base=Base("other/base", "e" * 64)) as c:
        with pytest.raises(UserError, match=r"somewhere/base \(fingerprint ffffffffffff\), got other/base \(fingerprint eeeeeeeeeeee\)"):
            c.restore_latest({"x": jnp.zeros(2)})


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"prompt": jnp.zeros((4, 8))}, r"prompt .*wanted float32\[4,8\], got float32\[5,8\]"),
        ({"prompt": jnp.zeros((5, 8), jnp.bfloat16)}, r"wanted bfloat16\[5,8\], got float32\[5,8\]"),
        ({"prompt": jnp.zeros((5, 8)), "lora": jnp.zeros(2)}, r"wanted lora .*not there"),
        ({}, r"prompt .*belongs to nothing"),
    ],
)
def test_a_checkpoint_of_other_parameters_is_refused(tmp_path, wanted, said):
    with Checkpoints(tmp_path / "c", base=BASE) as c:
        c.save(1, {"prompt": jnp.zeros((5, 8))}, {}, extra={})
        c.wait()
        with pytest.raises(UserError, match=said):
            c.restore_latest(wanted)


# Orbax leaves reads of the other arrays unfinished when one fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "pattern", ["trainable/ocdbt.process_0/d/*", "trainable/manifest.ocdbt", "trainable/_METADATA", "_CHECKPOINT_METADATA"]
)
def test_a_truncated_checkpoint_is_an_error_that_names_it(tmp_path, pattern):
    trainable = {"x": jax.random.normal(jax.random.key(0), (100, 100))}
    with Checkpoints(tmp_path / "c", base=BASE) as c:
        for step in (1, 2):
            c.save(step, trainable, {}, extra={})
    broken = list((tmp_path / "c" / "2").glob(pattern))
    assert broken
    for file in broken:
        os.truncate(file, file.stat().st_size // 2)
    with Checkpoints(tmp_path / "c", base=BASE) as c:
        with pytest.raises(UserError, match=r"c/2") as caught:
            c.restore_latest(trainable)
        assert "\n" not in str(caught.value)
        _equal(c.restore(1, trainable).trainable, trainable)


_KILLED_WHILE_SAVING = """
import os, signal, sys
import jax, jax.numpy as jnp
from prompt_tuning.checkpoints import Base, Checkpoints
c = Checkpoints(sys.argv[1], base=Base("b", "f"))
x = jax.random.normal(jax.random.key(0), (4_000_000,))
c.save(1, {"x": x}, {}, extra={"position": 1})
c.wait()
c.save(2, {"x": x + 1}, {}, extra={"position": 2})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_while_saving_leaves_the_step_before(tmp_path):
    root = pathlib.Path(checkpoints.__file__).parents[1]
    killed = subprocess.run([sys.executable, "-c", _KILLED_WHILE_SAVING, tmp_path / "c"], cwd=root, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "c").iterdir())) > 1, "the kill came before the second save had begun"
    abstract = {"x": jax.ShapeDtypeStruct((4_000_000,), jnp.float32)}
    with Checkpoints(tmp_path / "c", base=Base("b", "f")) as c:
        restored = c.restore_latest(abstract)
        assert (restored.step, restored.extra) == (1, {"position": 1})
        np.testing.assert_array_equal(restored.trainable["x"], jax.random.normal(jax.random.key(0), (4_000_000,)))
        c.save(2, restored.trainable, {}, extra={"position": 2})
        c.wait()
        assert [path.name for path in sorted((tmp_path / "c").iterdir())] == ["1", "2"]


def test_a_checkpoint_takes_the_bytes_of_what_is_trained_alone(tmp_path):
    prompt = jax.random.normal(jax.random.key(0), (100, 512))
    state = Adafactor().transform(lambda step: 1.0).init({"prompt": prompt})
    with Checkpoints(tmp_path / "c", base=BASE) as c:
        c.save(1, {"prompt": prompt}, state, extra={})
    stored = sum(file.stat().st_size for file in (tmp_path / "c").rglob("*") if file.is_file())
    assert stored < 2 * prompt.nbytes + 20_000


def test_fingerprint_is_of_names_shapes_dtypes_and_values_and_not_of_order():
    a, b = np.arange(6.0, dtype=np.float32), np.ones((2, 3), np.float32)
    mark = checkpoints.fingerprint({"a": a, "m": {"b": b}})
    assert mark == checkpoints.fingerprint({"m": {"b": jnp.asarray(b)}, "a": jnp.asarray(a)})
    changed = a.copy()
    changed[3] += 1e-6
    others = [
        {"a": changed, "m": {"b": b}},
        {"a": a.reshape(2, 3), "m": {"b": b}},
        {"a": a.view(np.int32), "m": {"b": b}},
        {"c": a, "m": {"b": b}},
        {"a": a},
    ]
    marks = {mark, *(checkpoints.fingerprint(other) for other in others)}
    assert len(marks) == 1 + len(others)
    assert checkpoints.fingerprint({"a": jnp.ones(3, jnp.bfloat16)}) != checkpoints.fingerprint({"a": jnp.ones(3, jnp.float16)})
    assert checkpoints.fingerprint({}) == ""


def test_a_prompt_file_is_float32_npy(tmp_path):
    prompt = jnp.arange(6.0, dtype=jnp.bfloat16).reshape(2, 3)
    checkpoints.save_prompt_npy(tmp_path / "prompt.npy", prompt)
    assert np.load(tmp_path / "prompt.npy").dtype == np.float32
    np.testing.assert_array_equal(np.load(tmp_path / "prompt.npy"), prompt.astype(np.float32))
