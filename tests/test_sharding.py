"""The table of axes, and that how the work is shared out changes nothing.

The runs on eight simulated devices are a process of their own: how many devices there are is settled before JAX starts.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from prompt_tuning import sharding
from prompt_tuning.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]


def mesh_of(data, model):
    """A mesh of these sizes; only its shape is looked at."""
    devices = np.array(jax.devices() * (data * model))[: data * model].reshape(data, model)
    return type("Devices", (), {"shape": dict(zip(("data", "model"), devices.shape, strict=True))})()


@pytest.mark.parametrize(
    ("axes", "shape", "wanted"),
    [
        (("embed", "mlp"), (16, 24), (None, "model")),
        (("mlp", "embed"), (24, 16), ("model", None)),
        (("vocab", "embed"), (384, 16), ("model", None)),
        (("embed", "heads"), (4, 16, 8), (None, None, "model")),  # Stacked layers: the axis in front is not named.
        (("batch", "length"), (8, 128), ("data", None)),
        (("prompt", "embed"), (100, 16), (None, None)),
        (("embed",), (16,), (None,)),
        (("embed", "mlp"), (16, 22), (None, None)),  # 22 does not divide by 4: it stays whole.
        (("heads", "mlp"), (8, 8), ("model", None)),  # A mesh axis is taken once.
        (None, (3, 4), ()),
        ((), (), ()),
    ],
)
def test_spec_follows_the_table(axes, shape, wanted):
    assert sharding.spec(axes, shape, mesh_of(2, 4)) == PartitionSpec(*wanted)


def test_one_device_takes_everything_whole():
    mesh = sharding.Mesh().build()
    assert mesh.shape == {"data": jax.device_count(), "model": 1}
    assert sharding.everywhere(mesh).is_fully_replicated
    assert sharding.of_rows(mesh).spec == PartitionSpec("data")


@pytest.mark.parametrize("settings", [{"data": 0}, {"model": 0}, {"data": -2}, {"model": -1}, {"data": 4096}, {"model": 4096}])
def test_a_mesh_that_does_not_fit_is_refused_by_its_sizes(settings):
    with pytest.raises(UserError, match=r"mesh data=.*, model=.*: does not fit the \d+ device"):
        sharding.Mesh(**settings).build()


SCRIPT = """
import dataclasses, json, sys
import jax, numpy as np
from prompt_tuning import assembly, losses, optimizers, trainable, training
from prompt_tuning.data import choices, features
from prompt_tuning.errors import UserError
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.sharding import Mesh
from tests.tiny_experiment import CONFIG, PROMPT, tiny_experiment

assert jax.device_count() == 8
STEPS = 5
rng = np.random.default_rng(0)
examples = [{"inputs": rng.integers(3, 384, 5).tolist() + [1], "targets": rng.integers(3, 384, 2).tolist() + [1]} for _ in range(8 * STEPS)]
ADAFACTOR = optimizers.Adafactor(learning_rate=0.03, min_dim_size_to_factor=8, multiply_by_parameter_scale=True, momentum=0.9)
CASES = {
    "prompt, adafactor": (PROMPT, optimizers.Adafactor()),
    "prompt, adamw": (PROMPT, optimizers.AdamW(learning_rate=0.1)),
    "full, adafactor": (Full(), ADAFACTOR),
    "full, adamw": (Full(), optimizers.AdamW(learning_rate=0.01, weight_decay=0.1)),
    "choices": (IA3(), optimizers.Adafactor(learning_rate=0.03)),
    "full, in chunks": (Full(), ADAFACTOR),
}
WHOLE = losses._LEAST_BYTES, losses._CHUNK_BYTES, losses._CHUNK_TOKENS
CHOICES = losses.ChoiceLosses(num_choices=3)
MESHES = {"1x1": Mesh(1, 1), "2x4": Mesh(2, 4), "8x1": Mesh(8, 1), "4x2 fsdp": Mesh(4, 2, fsdp=True)}

def places(tree):
    return [(jax.tree_util.keystr(path), leaf.sharding) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]

found = {}
for case, (method, optimizer) in CASES.items():
    for name, mesh in MESHES.items():
        if name == "8x1" and "adamw" in case:
            continue  # Rows alone are shared out there: nothing of the optimizer is.
        if mesh.fsdp and case not in ("prompt, adafactor", "full, adamw", "full, in chunks"):
            continue
        # Two target positions at a time, of three; on one device all at once.
        cut = case == "full, in chunks" and name != "1x1"
        losses._LEAST_BYTES, losses._CHUNK_BYTES, losses._CHUNK_TOKENS = (0, 4 * 8 * CONFIG.vocab_size * 2 // 8, 1) if cut else WHOLE
        settings = tiny_experiment(method=method, optimizer=optimizer, mesh=mesh, batch_size=8, gradient_clip_norm=1.0, z_loss=1e-4)
        if case == "choices":
            settings = dataclasses.replace(settings, choice_losses=CHOICES)
        built = assembly.assemble(settings)
        ready = training.trainer(settings, built)
        state, measured, before = ready.state, [], places(ready.state)
        wanted = jax.tree.leaves(ready.places)
        for step in range(STEPS):
            shape, own = {"input_length": 6, "target_length": 3, "prompt": method.layout}, examples[8 * step :][:8]
            if case == "choices":
                own = [one | {"choices": (one["targets"], other["targets"])} for one, other in zip(own, own[1:] + own[:1])]
                batch = choices.layout(own, num_choices=3, **shape)
            else:
                batch = features.layout(own, **shape)
            state, metrics = ready.step(state, built.frozen, training.on_devices(batch, built.mesh))
            jax.block_until_ready(state)  # One program in flight: many devices on few cores would wait for each other.
            measured.append(float(metrics["loss"]))
        after = places(state)
        assert all(a[1].is_equivalent_to(w, leaf.ndim) for a, w, leaf in zip(after, wanted, jax.tree.leaves(state), strict=True))
        found[f"{case}, {name}"] = {
            "losses": measured,
            "kept": [path for (path, was), (_, now) in zip(before, after, strict=True) if was != now] == [],
            "split": {path: not place.is_fully_replicated for path, place in after},
            "frozen_split": sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(built.frozen)),
        }
try:
    Mesh(3, 4).build()
except UserError as error:
    found["refused"] = str(error)
print("FOUND " + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    """What the runs on eight simulated devices measured."""
    # Without NPROC the pool of threads is as small as this machine, and eight devices wait for each other without end.
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "NPROC": "32", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, errors = process.communicate(timeout=900)
        finally:
            process.kill()  # A hung one ignores SIGTERM.
    assert process.returncode == 0, errors[-3000:]
    return json.loads(next(line for line in out.splitlines() if line.startswith("FOUND "))[len("FOUND ") :])


CASES = ["prompt, adafactor", "prompt, adamw", "full, adafactor", "full, adamw", "choices", "full, in chunks"]


@pytest.mark.parametrize("case", CASES)
def test_losses_on_many_devices_are_those_on_one(found, case):
    one = found[f"{case}, 1x1"]["losses"]
    assert len(set(one)) == 5, "the weights move"
    meshes = [name.removeprefix(f"{case}, ") for name in found if name.startswith(f"{case}, ") and not name.endswith("1x1")]
    assert len(meshes) >= 2 or case == "prompt, adamw"
    for mesh in meshes:
        np.testing.assert_allclose(found[f"{case}, {mesh}"]["losses"], one, rtol=1e-5)


def test_the_state_stays_where_it_lay(found):
    moved = [name for name, measured in found.items() if name != "refused" and not measured["kept"]]
    assert moved == []


@pytest.mark.parametrize("case", ["prompt, adafactor", "prompt, adamw"])
def test_the_prompt_and_its_moments_are_on_every_device_and_the_base_is_split(found, case):
    assert not any(found[f"{case}, 2x4"]["split"].values())
    assert found[f"{case}, 2x4"]["frozen_split"] >= 19  # Every matrix of the layers, the embedding and the head.
    assert found[f"{case}, 1x1"]["frozen_split"] == 0


def test_moments_are_split_as_their_weights(found):
    split = found["full, adamw, 2x4"]["split"]
    for name in ("['mlp']['wi']['kernel']", "['query']['kernel']", "['embed']['embedding']", "['head']['kernel']"):
        copies = [value for path, value in split.items() if path.endswith(name)]
        assert len(copies) >= 3 and all(copies), name  # The weight and its two moments.
    momentum = {path: value for path, value in found["full, adafactor, 2x4"]["split"].items() if "momentum" in path}
    assert sum(momentum.values()) >= 20


def test_fsdp_shares_out_the_base_over_all_devices_and_leaves_the_prompt_whole(found):
    assert not any(found["prompt, adafactor, 4x2 fsdp"]["split"].values())
    assert found["prompt, adafactor, 4x2 fsdp"]["frozen_split"] >= 19
    split = found["full, adamw, 4x2 fsdp"]["split"]
    copies = [value for path, value in split.items() if path.endswith("['query']['kernel']")]
    assert len(copies) >= 3 and all(copies)  # The weight and its two moments.
    assert not any(value for path, value in split.items() if path.endswith("['norm']['scale']"))


@pytest.mark.parametrize(
    ("axes", "shape", "wanted"),
    [
        (("embed", "mlp"), (16, 24), ("data", "model")),
        (("vocab", "embed"), (384, 16), ("model", "data")),
        (("embed", "heads"), (4, 16, 8), (None, "data", "model")),
        (("embed", "mlp"), (15, 24), (None, "model")),
        (("buckets", "heads"), (32, 8), (None, "model")),
    ],
)
def test_spec_of_fsdp_takes_both_axes(axes, shape, wanted):
    assert sharding.spec(axes, shape, mesh_of(2, 4), table=sharding.FSDP_TABLE) == PartitionSpec(*wanted)


def test_a_mesh_larger_than_the_machine_is_refused(found):
    assert "mesh data=3, model=4: does not fit the 8 device(s)" in found["refused"]
