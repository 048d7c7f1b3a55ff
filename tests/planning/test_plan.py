"""Plans beside the real thing: bytes of real arrays, a compiled program's own account, and what is said of mistakes.

Eight simulated devices are a process of their own: how many there are is settled before JAX starts.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from prompt_tuning import plan
from prompt_tuning.planning import chips, search
from tests.tiny_experiment import CONFIG, tiny_experiment

ROOT = pathlib.Path(__file__).resolve().parents[2]
NANO = ["--gin_file=configs/models/t5_nano.gin", "--gin.BASE_CHECKPOINT=None"]
PROMPT, FULL = "--gin_file=configs/methods/prompt.gin", "--gin_file=configs/methods/full.gin"

CASES = ["prompt, 8x1", "prompt, 8x1 fsdp", "full, 2x4", "full, 8x1 fsdp", "lora, 4x2 fsdp"]
SCRIPT = (
    f"CASES = {CASES}"
    + """
import dataclasses, json, math
import jax, jax.numpy as jnp
from prompt_tuning import assembly, optimizers, programs, training
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.lora import Lora
from prompt_tuning.planning import chips, compiling, search
from prompt_tuning.planning.collectives import collectives
from prompt_tuning.sharding import Mesh
from tests.tiny_experiment import CONFIG, PROMPT, tiny_experiment

machine = chips.topology("v5e:2x4")
devices = chips.simulated(machine)
found = {}

def on_first(tree):
    return sum(shard.data.nbytes for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards if shard.device == devices[0])

MODEL = dataclasses.replace(CONFIG, remat="none")  # An accelerator would compute more again than this machine does.
ADAFACTOR = optimizers.Adafactor(0.01, min_dim_size_to_factor=8)
METHODS = {"prompt": (PROMPT, ADAFACTOR), "lora": (Lora(rank=2), optimizers.AdamW()), "full": (Full(), ADAFACTOR)}
MESHES = {"8x1": Mesh(8, 1), "2x4": Mesh(2, 4), "8x1 fsdp": Mesh(8, 1, fsdp=True), "4x2 fsdp": Mesh(4, 2, fsdp=True)}
for case in CASES:
    method, name = case.split(", ")
    (own, optimizer), mesh = METHODS[method], MESHES[name]
    experiment = tiny_experiment(method=own, mesh=mesh, batch_size=8, optimizer=optimizer, model=MODEL)
    planned = compiling.plan(experiment, machine, devices, names=("train",))["train"]
    built = assembly.assemble(experiment)
    ready = training.trainer(experiment, built)
    abstract = programs.program(experiment, assembly.abstract(experiment, experiment.mesh.build(devices)))
    arguments = (ready.program.state, ready.program.frozen, programs.abstract_batch(experiment, built.mesh))
    lowered = ready.step.lower(*arguments)
    memory = lowered.compile().memory_analysis()
    found[case] = {
        "parts": planned.parts,
        "real": {
            "frozen weights": on_first(built.frozen),
            "tuned weights": on_first(ready.state.tuned),
            "optimizer": on_first((ready.state.step, ready.state.optimizer_state)),
        },
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "same": lowered.as_text() == abstract.step.lower(*arguments).as_text(),
        "all": planned.bytes_per_device,
        "fits": planned.fits,
        "bounds": planned.bounds,
        "collectives": {kind: each.count for kind, each in planned.collectives.items()},
    }

mesh = Mesh(2, 4).build(devices)
x = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "model")))
w = jax.ShapeDtypeStruct((5, 32, 32), jnp.float32, sharding=jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "model")))
layers = jax.jit(lambda x, w: jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0], out_shardings=x.sharding)
each = collectives(layers.lower(x, w).compile().as_text(), devices=8)
found["loop"] = {kind: [one.count, one.num_bytes, one.sent_bytes] for kind, one in each.items()}

decode = compiling.plan(tiny_experiment(mesh=Mesh(2, 4)), machine, devices, names=("prefill", "token"))
found["decode"] = {name: {"parts": one.parts, "flops": one.flops} for name, one in decode.items()}

tried = search.search(tiny_experiment(), machine, devices, batch_sizes=(8,), said=lambda line: None)
found["search"] = [[one.mesh.data, one.mesh.model, one.batch_size, one.fits, one.seconds_per_row] for one in tried]
small = dataclasses.replace(machine, chip=dataclasses.replace(machine.chip, memory_bytes=10_000))
nothing = search.search(tiny_experiment(), small, devices, batch_sizes=(4, 8), said=lambda line: None)
found["nothing fits"] = [[one.mesh.fsdp, one.fits, one.bytes_per_device] for one in nothing]
print("FOUND " + json.dumps(found))
"""
)


@pytest.fixture(scope="module")
def found():
    """What was planned for eight simulated chips, beside real arrays on as many simulated devices."""
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "NPROC": "32", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=env, text=True, capture_output=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))[len("FOUND ") :])


@pytest.mark.parametrize("case", CASES)
def test_parts_are_the_bytes_of_real_arrays_and_of_the_real_program(found, case):
    one = found[case]
    parts = dict(one["parts"])
    assert {name: parts[name] for name in one["real"]} == one["real"]
    # The compiler's own account of what is given to the step.
    given = sum(parts[name] for name in ("frozen weights", "tuned weights", "optimizer", "batch"))
    # Of rows that are not packed a T5 does not read the segments of the targets, 3 tokens each.
    assert given - one["arguments"] == 4 * 3 * 8 // int(case.split(", ")[1][0])
    assert parts["temporaries"] == one["temporaries"]
    assert one["all"] == sum(parts.values())
    assert one["fits"]
    assert one["same"], "the program from shapes alone is the one that trains"


def test_fsdp_shares_the_base_out_over_all_devices(found):
    whole, split = found["prompt, 8x1"]["parts"], found["prompt, 8x1 fsdp"]["parts"]
    # Of this base all but norms and the tables of relative positions divide by eight.
    assert split["frozen weights"] < 0.15 * whole["frozen weights"]
    assert split["tuned weights"] == whole["tuned weights"]
    assert "all-gather" in found["prompt, 8x1 fsdp"]["collectives"]
    assert found["full, 8x1 fsdp"]["parts"]["tuned weights"] < 0.15 * whole["frozen weights"]


def test_collectives_of_a_compiled_loop(found):
    size = 16 * 32 * 4
    assert found["loop"]["all-reduce"] == [5, 5 * size, 5 * 2 * size * 3 // 4]


def test_the_bound_is_of_what_takes_longest(found):
    one = found["full, 2x4"]
    assert set(one["bounds"]) == {"compute", "memory", "interconnect"}
    moved = one["arguments"] + 2 * one["temporaries"]
    assert one["bounds"]["memory"] * chips.CHIPS["v5e"].memory_bandwidth >= moved


def test_the_cache_of_decoding_is_counted_as_by_hand(found):
    # Rows over 2 devices; two heads stay whole on 4. Keys and values of both attentions; the last token is never read again.
    rows, source, target = 4 // 2, 6 + 3, 3
    per_position = 2 * CONFIG.num_heads * CONFIG.d_kv * 4
    self_and_cross = CONFIG.num_decoder_layers * rows * (target + source) * per_position
    mask = rows * source * 4
    for name in ("prefill", "token"):
        assert found["decode"][name]["parts"]["cache"] == self_and_cross + mask + 4
    assert 0 < found["decode"]["token"]["flops"] < found["decode"]["prefill"]["flops"]


def test_a_search_ranks_what_fits(found):
    tried = found["search"]
    assert {(data, model) for data, model, *_ in tried} == {(8, 1), (4, 2), (2, 4), (1, 8)}
    assert all(rows % data == 0 for data, _, rows, *_ in tried)
    bounds = [seconds for *_, fits, seconds in tried if fits]
    assert len(bounds) == len(tried) and bounds == sorted(bounds)
    assert all(not fits and used > 10_000 for _, fits, used in found["nothing fits"])
    assert any(fsdp for fsdp, *_ in found["nothing fits"])


def test_json_has_exactly_the_keys_others_rely_on(capsys):
    plan.main(["--topology=v5e:1", "--simulate", "--json=-", *NANO, PROMPT, "--gin.evaluation.Evaluation.batch_size=2"])
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "topology", "devices", "compiled_for", "mesh", "batch_size", "memory_bytes", "fits", "bytes_per_device", "flops", "collectives",
        "step_seconds_bound", "programs",
    }  # fmt: skip
    assert found["fits"] is True and found["collectives"] == {} and found["mesh"] == {"data": 1, "model": 1, "fsdp": False}
    train = found["programs"]["train"]
    assert found["step_seconds_bound"] == train["seconds_bound"] == max(train["bounds"].values())
    assert set(train["parts"]) == {"frozen_weights", "tuned_weights", "optimizer", "batch", "temporaries", "program"}
    assert found["bytes_per_device"] == max(one["bytes_per_device"] for one in found["programs"].values())


def test_what_does_not_fit_is_an_answer(capsys, tmp_path):
    path = tmp_path / "plan.json"
    model = "--gin_file=configs/models/t5_1_1_xxl.gin"
    plan.main(["--topology=v5e:1", "--simulate", "--programs=train", model, FULL, f"--json={path}"])
    shown, found = capsys.readouterr().out, json.loads(path.read_text())
    assert "NO" in shown
    assert found["fits"] is False and found["collectives"] is None
    assert found["bytes_per_device"] > 4 * 11_135_332_352  # Its weights alone, in float32.
    assert found["programs"]["train"]["parts"]["temporaries"] is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--topology=v9:4x4"], "chip 'v9' is not known; wanted one of v5e, v5p, v6e, h100"),
        (["--topology=v5e"], "wanted CHIP:SHAPE, as v5e:4x4"),
        (["--topology=v5e:4x0"], "wanted CHIP:SHAPE"),
        (["--topology=v5e:4x4", "--simulate"], r"wanted 16 CPU devices, got \d+; set JAX_NUM_CPU_DEVICES=16"),
        (["--topology=v5e:1", "--simulate", "--programs=train,sleep"], "'sleep' is none of train, prefill, token"),
        (["--topology=v5e:1", "--simulate", "--gin.sharding.Mesh.model=2"], "does not fit the 1 device"),
        (["--topology=v5e:1", "--simulate", "--search", "--batch_sizes=8,x"], "wanted numbers such as 32,64, got '8,x'"),
        (["--topology=v5e:1", "--simulate", "--json=/nowhere/plan.json", "--programs=token"], "/nowhere/plan.json: cannot write there"),
    ],
)
def test_mistakes_are_one_line(capsys, flags, said):
    with pytest.raises(SystemExit) as stopped:
        plan.main([*flags, *NANO, PROMPT])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert re.search(said, error), error


def test_meshes_take_all_chips():
    assert {(mesh.data, mesh.model) for mesh in search.meshes(12)} == {(12, 1), (6, 2), (4, 3), (3, 4), (2, 6), (1, 12)}
    assert search.batch_sizes(None, tiny_experiment()) == (4, 8, 16)
    assert search.batch_sizes("64, 8,8", tiny_experiment()) == (8, 64)


def told(topology, *flags):
    """What the command says of a topology that is not there, in a process of its own; its compiler is large."""
    command = [sys.executable, "-m", "prompt_tuning.plan", f"--topology={topology}", "--json=-", *NANO, PROMPT, *flags]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=900, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_compiler_that_is_not_installed_is_said_with_how_to_install_it():
    for topology, library, advice in (
        ("v5e:2x2", "libtpu", "prompt_tuning[tpu]"),
        ("h100:8", "jax_plugins.xla_cuda12", "jax-cuda12-plugin"),
    ):
        if chips.installed(library):
            continue
        code, _, error = told(topology)
        assert code == 2 and advice in error.splitlines()[-1] and "--simulate" in error.splitlines()[-1], error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("topology", "library", "chips_there"), [("v5e:2x2", "libtpu", 4), ("v6e:1x1", "libtpu", 1), ("h100:2x4", "jax_plugins.xla_cuda12", 8)]
)
def test_a_machine_that_is_not_there(topology, library, chips_there):
    if not chips.installed(library):
        pytest.skip(f"{library} is not installed")
    code, out, error = told(topology)
    assert code == 0, error
    found = json.loads(out)
    assert found["fits"] and found["devices"] == chips_there
    assert 0 < found["bytes_per_device"] < 2**30
    assert bool(found["collectives"]) == (chips_there > 1)


@pytest.mark.slow
def test_the_tpu_compiler_running_out_of_memory_is_an_answer():
    if not chips.installed("libtpu"):
        pytest.skip("libtpu is not installed")
    code, out, error = told("v5e:2x2", "--gin.INPUT_LENGTH=20000", "--programs=train")
    assert code == 0, error
    found = json.loads(out)
    assert found["fits"] is False and found["bytes_per_device"] > found["memory_bytes"]


@pytest.mark.slow
def test_a_machine_that_no_tpu_has():
    if not chips.installed("libtpu"):
        pytest.skip("libtpu is not installed")
    code, _, error = told("v5e:3x5")
    assert code == 2 and "refuses such a machine" in error.splitlines()[-1], error
