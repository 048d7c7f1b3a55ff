"""Several processes train as one, stop together and go on bit for bit; the launch files start them.

Every run here is processes of its own: how many devices there are, and who is beside them, is settled before JAX starts.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from prompt_tuning import processes
from prompt_tuning.errors import UserError
from tests import tiny_run

ROOT = pathlib.Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "experiments" / "launch"
STEPS = 30


def flags(**given):
    parser = argparse.ArgumentParser()
    processes.add_flags(parser)
    return parser.parse_args([f"--{name}={value}" if value is not True else f"--{name}" for name, value in given.items()])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"coordinator_address": "localhost:1"}, "--num_processes is missing"),
        ({"num_processes": 2, "process_id": 0}, "--coordinator_address is missing"),
        ({"coordinator_address": "localhost", "num_processes": 2, "process_id": 0}, "wanted HOST:PORT, got 'localhost'"),
        ({"coordinator_address": "localhost:1", "num_processes": 2, "process_id": 2}, "--process_id: wanted 0 to 1, got 2"),
        ({"coordinator_address": "localhost:1", "num_processes": 2, "process_id": -1}, "--process_id: wanted 0 to 1, got -1"),
        ({"distributed": True, "process_id": 0}, "leave it out"),
    ],
)
def test_flags_that_say_half_of_it_are_refused(given, wanted):
    with pytest.raises(UserError, match=wanted):
        processes.join(flags(**given))


def test_one_process_needs_no_flags_and_no_agreement():
    processes.join(flags())
    assert processes.count() == 1
    assert processes.is_first()
    assert processes.agreed(3) == 3
    assert processes.first_alone(lambda: "done") == "done"
    with pytest.raises(UserError, match="no"):
        processes.first_alone(lambda: (_ for _ in ()).throw(UserError("no")))


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "JAX_NUM"))}
    return kept | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "NPROC": "32"} | more


def free_port():
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        return taken.getsockname()[1]


def arguments(folder, workdir, steps=STEPS):
    files = tiny_run.write_gin(folder)
    settings = [f"TRAIN_STEPS={steps}", "BATCH_SIZE=8", "EVAL_STEPS=15", "CHECKPOINT_STEPS=0", "experiment.Experiment.log_steps=1"]
    settings.append("evaluation.Evaluation.batch_size=8")  # As many as devices: each has a row of its own.
    return [*tiny_run.arguments(files), *(f"--gin.{setting}" for setting in settings), f"--workdir={workdir}"]


def by_hand(count, devices, command, module="prompt_tuning.train"):
    return subprocess.Popen(
        [str(LAUNCH / "by_hand.sh"), str(count), module, *command],
        env=environment(DEVICES=str(devices), PORT=str(free_port())),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process, status=0):
    try:
        output, _ = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == status, output
    return output


def alone(devices, command, module="prompt_tuning.train"):
    run = subprocess.run(
        [sys.executable, "-m", module, *command],
        env=environment(JAX_NUM_CPU_DEVICES=str(devices)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert run.returncode == 0, run.stderr
    return run


def losses(workdir, split="train"):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row.get("loss", row.get("score")) for row in rows if row["split"] == split}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run of two processes with four devices each, and what it said."""
    folder = tmp_path_factory.mktemp("two")
    output = finished(by_hand(2, 4, arguments(folder, folder / "run")))
    return folder / "run", output


def test_two_processes_train_as_one(two, tmp_path):
    """The same rows, summed in another order: the losses agree to float rounding over 30 steps of AdamW."""
    workdir, output = two
    alone(8, arguments(tmp_path, tmp_path / "one"))
    ours, theirs = losses(workdir), losses(tmp_path / "one")
    assert list(ours) == list(theirs) == list(range(1, STEPS + 1))
    np.testing.assert_allclose([*ours.values()], [*theirs.values()], rtol=1e-5)
    assert ours[STEPS] < ours[1] - 0.01
    np.testing.assert_allclose(np.load(workdir / "prompt.npy"), np.load(tmp_path / "one" / "prompt.npy"), atol=1e-4)
    assert losses(workdir, "validation") == losses(tmp_path / "one", "validation")
    held, wanted = (json.loads((path / "results.json").read_text()) for path in (workdir, tmp_path / "one"))
    assert held["best"]["metrics"] == wanted["best"]["metrics"]
    assert output.count("finished:") == 1, "one process speaks"


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_bit_for_bit(two, tmp_path):
    """SIGTERM to one process alone: both save the same step, and the same command goes on; one process of as many devices does too."""
    workdir = tmp_path / "run"
    command = arguments(tmp_path, workdir)
    process = by_hand(2, 4, command)
    began = time.monotonic()
    while not (workdir / "metrics.jsonl").exists() or len((workdir / "metrics.jsonl").read_text().splitlines()) < 5:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - began < 300
        time.sleep(0.01)
    second = subprocess.run(["pgrep", "-f", f"{workdir} .*--process_id=1"], capture_output=True, text=True).stdout.split()
    for number in second:
        os.kill(int(number), signal.SIGTERM)
    output = finished(process, status=143)
    assert output.count("the same command resumes") >= 1
    assert not (workdir / "results.json").exists()
    shutil.copytree(workdir, tmp_path / "copy")
    finished(by_hand(2, 4, command))
    assert losses(workdir) == losses(two[0])
    assert (workdir / "prompt.npy").read_bytes() == (two[0] / "prompt.npy").read_bytes()
    alone(8, arguments(tmp_path, tmp_path / "copy"))
    np.testing.assert_allclose([*losses(tmp_path / "copy").values()], [*losses(two[0]).values()], rtol=1e-5)


@pytest.mark.slow
def test_two_processes_evaluate_as_one(two, tmp_path):
    """Ranked and generated, on a split that training did not see."""
    one, several = tmp_path / "one", tmp_path / "several"
    for workdir in (one, several):
        shutil.copytree(two[0], workdir)
    said = finished(by_hand(2, 4, [f"--workdir={several}", "--split=test"], module="prompt_tuning.evaluate"))
    alone(1, [f"--workdir={one}", "--split=test"], module="prompt_tuning.evaluate")
    assert said.count("predictions-best-test.jsonl") == 1, "one process writes and speaks"
    found, wanted = (json.loads((workdir / "evaluation-best-test.json").read_text()) for workdir in (several, one))
    assert found["metrics"] == wanted["metrics"]
    predictions, others = (
        [json.loads(line) for line in (workdir / "predictions-best-test.jsonl").read_text().splitlines()] for workdir in (several, one)
    )
    assert len(predictions) == len(others) == 6
    for ours, theirs in zip(predictions, others, strict=True):
        for name, value in theirs.items():
            assert ours[name] == (pytest.approx(value, rel=1e-5) if name == "scores" else value), name


@pytest.mark.slow
def test_one_process_goes_on_where_two_stopped(two, tmp_path):
    """A checkpoint of two processes is read by one, laid over other devices."""
    run = subprocess.run(
        [sys.executable, "-m", "prompt_tuning.evaluate", f"--workdir={two[0]}", "--json"],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert run.returncode == 0, run.stderr
    held = json.loads((two[0] / "results.json").read_text())
    assert json.loads(run.stdout)["metrics"] == held["best"]["metrics"]


def executable(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


SRUN = """#!/usr/bin/env bash
# Starts two tasks on this machine with the variables that Slurm sets.
shift  # --kill-on-bad-exit=0
export SLURM_NTASKS=2 SLURM_STEP_NODELIST=localhost SLURM_STEP_NUM_NODES=1
for task in 0 1; do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
done
status=0
for job in $(jobs -p); do wait "$job" || status=$?; done
exit $status
"""


@pytest.mark.slow
def test_the_slurm_script_trains(two, tmp_path):
    executable(tmp_path / "srun", SRUN)
    # Two devices, of which a task of Slurm takes the one with its own number: one each here.
    run = subprocess.run(
        [str(LAUNCH / "slurm.sbatch"), "prompt_tuning.train", *arguments(tmp_path, tmp_path / "run")],
        env=environment(PATH=f"{tmp_path}:{os.environ['PATH']}", SLURM_JOB_ID=str(free_port()), JAX_NUM_CPU_DEVICES="1"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert run.returncode == 0, run.stderr
    np.testing.assert_allclose([*losses(tmp_path / "run").values()], [*losses(two[0]).values()], rtol=1e-5)


def test_a_run_that_slurm_stops_is_queued_again(tmp_path):
    executable(tmp_path / "srun", "#!/usr/bin/env bash\nexit 143\n")
    executable(tmp_path / "scontrol", f'#!/usr/bin/env bash\necho "$@" > {tmp_path}/queued\n')
    environ = environment(PATH=f"{tmp_path}:{os.environ['PATH']}", SLURM_JOB_ID="17")
    run = subprocess.run([str(LAUNCH / "slurm.sbatch"), "prompt_tuning.train"], env=environ, capture_output=True, text=True)
    assert run.returncode == 143
    assert (tmp_path / "queued").read_text() == "requeue 17\n"


@pytest.mark.slow
def test_the_pods_of_the_jobset_train(two, tmp_path):
    """The manifest's own command and flags, with this machine's address, folder and model, as two pods."""
    [job] = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())["spec"]["replicatedJobs"]
    pods = job["template"]["spec"]
    [container] = pods["template"]["spec"]["containers"]
    assert pods["parallelism"] == pods["completions"] == int(container["env"][0]["value"])
    about = dict(argument.split("=", 1) for argument in container["args"] if not argument.startswith("--gin_file"))
    assert about["--coordinator_address"].startswith("prompt-tuning-hosts-0-0.prompt-tuning:")
    assert int(about["--coordinator_address"].rpartition(":")[2]) == container["ports"][0]["containerPort"]
    for name in (argument.split("=", 1)[1] for argument in container["args"] if argument.startswith("--gin_file")):
        assert (ROOT / name).is_file(), name
    port = free_port()
    started = []
    for index in range(2):
        about |= {"--coordinator_address": f"localhost:{port}", "--num_processes": "2", "--process_id": str(index)}
        mine = [f"{name}={value}" for name, value in about.items() if name != "--workdir"]
        started.append(
            subprocess.Popen(
                [sys.executable, *container["command"][1:], *arguments(tmp_path, tmp_path / "run"), *mine],
                env=environment(JAX_NUM_CPU_DEVICES="2"),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in started:
        finished(process)
    np.testing.assert_allclose([*losses(tmp_path / "run").values()], [*losses(two[0]).values()], rtol=1e-5)


def test_the_cloud_tpu_script_installs_and_starts_on_all_hosts(tmp_path):
    """A stand-in for gcloud writes down what it is asked; what would be run on a host is read by a shell."""
    executable(tmp_path / "gcloud", f'#!/usr/bin/env bash\nprintf "%s\\n" "$*" >> {tmp_path}/asked\n[[ $4 != describe ]]\n')
    environ = environment(
        PATH=f"{tmp_path}:{os.environ['PATH']}", NAME="pt", ZONE="us-west4-a", TYPE="v5litepod-16", REPOSITORY="there", REVISION="abc"
    )
    command = [str(LAUNCH / "cloud_tpu.sh"), "prompt_tuning.train", "--gin.MODEL='a b'", "--workdir=/mnt/run"]
    run = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    describe, create, install, start = (tmp_path / "asked").read_text().splitlines()
    assert "describe pt" in describe
    assert "--accelerator-type=v5litepod-16" in create
    assert "git clone there" in install
    assert "git checkout --quiet abc" in install
    assert "--worker=all" in start
    remote = start.partition("--command=")[2]
    shown = subprocess.run(
        ["bash", "-c", remote.replace("cd prompt_tuning && .venv/bin/python", "printf '%s\\n'")], capture_output=True, text=True
    )
    assert shown.stdout.splitlines() == ["-m", "prompt_tuning.train", "--gin.MODEL='a b'", "--workdir=/mnt/run", "--distributed"]


@pytest.mark.parametrize("script", ["by_hand.sh", "slurm.sbatch", "cloud_tpu.sh"])
def test_the_scripts_say_what_they_want(script):
    run = subprocess.run([str(LAUNCH / script)], env=environment(), capture_output=True, text=True)
    assert run.returncode != 0
    assert "?" in run.stderr or "a name for the slice" in run.stderr
