"""The loop: what a run leaves behind, early stopping, resumption, and what is refused."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx
from orbax.checkpoint import v1 as ocp

from prompt_tuning import assembly, cli, experiment, interop, optimizers, run_folder, train, training
from prompt_tuning.errors import Interrupted, UserError
from prompt_tuning.evaluation import Evaluation
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.lora import Lora
from prompt_tuning.methods.norms import Norms
from prompt_tuning.methods.p_tuning import PTuning
from prompt_tuning.methods.prompt import File, Prompt, Uniform
from tests import tiny_run
from tests.interop import tiny
from tests.tiny_experiment import CONFIG, PROMPT, checkpoint_steps, metrics, restored, tiny_experiment


def contents(folder):
    """Every file of a folder with its bytes and the time it was last written."""
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()}


@contextlib.contextmanager
def at_batch(number, event):
    """Calls `event` on the `number`-th batch (from 1) of this process, right before its step; what it gives takes the batch's place."""
    given = training.on_devices
    seen = 0

    def on_devices(batch, mesh):
        nonlocal seen
        seen += 1
        return given((event(batch) or batch) if seen == number else batch, mesh)

    training.on_devices = on_devices
    try:
        yield
    finally:
        training.on_devices = given


def terminate(batch):
    """What `kill` sends, in the middle of a step."""
    signal.raise_signal(signal.SIGTERM)


class PowerCut(Exception):
    """The process ends here, without a chance to save."""


def cut_the_power(batch):
    raise PowerCut


def spoil(batch):
    """A batch whose loss is not finite."""
    return batch | {"decoder_loss_weights": np.full_like(batch["decoder_loss_weights"], np.inf)}


def assert_same_run(settings, folder, other):
    """Two runs ended alike: weights, optimizer state, metrics, predictions, results but for the time taken."""
    assert checkpoint_steps(folder) == checkpoint_steps(other)
    for step in checkpoint_steps(folder):
        ours, theirs = restored(settings, folder, step), restored(settings, other, step)
        for ours_tree, theirs_tree in ((ours.trainable, theirs.trainable), (ours.optimizer_state, theirs.optimizer_state)):
            assert jax.tree.structure(ours_tree) == jax.tree.structure(theirs_tree)
            jax.tree.map(np.testing.assert_array_equal, ours_tree, theirs_tree)
    for name in ("metrics.jsonl", "predictions.jsonl", "prompt.npy"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    results = [json.loads((each / "results.json").read_text()) for each in (folder, other)]
    assert all(each.pop("seconds") >= 0 for each in results)
    assert results[0] == results[1]


# What a run leaves behind.


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: settings, folder, results. No test may change it."""
    settings = tiny_experiment()
    folder = tmp_path_factory.mktemp("finished") / "run"
    results = training.train(settings, str(folder), gin_config="# as given\n")
    return settings, folder, results


def test_results_hold_final_and_best_metrics_parameters_seconds_and_bytes(finished):
    settings, folder, results = finished
    held = json.loads((folder / "results.json").read_text())
    assert held == results
    assert held["final"]["step"] == held["steps"] == settings.train_steps
    assert held["final"]["metrics"]["n"].keys() == {"accuracy"}
    assert held["best"]["step"] in (2, 4) and held["best"]["score"] == held["best"]["metrics"]["n"]["accuracy"]
    assert held["trained_parameters"] == PROMPT.length * CONFIG.d_model
    assert held["frozen_parameters"] == sum(value.size for value in tiny.abstract(CONFIG).values())
    assert held["stored_bytes"] == 4 * held["trained_parameters"]
    assert held["seconds"] > 0 and held["split"] == "validation"


def test_metrics_have_a_row_a_logging_step_and_a_row_an_evaluation(finished):
    rows = metrics(finished[1])
    assert [(row["step"], row["split"]) for row in rows] == [
        (1, "train"), (2, "train"), (2, "validation"), (3, "train"), (4, "train"), (4, "validation"),
    ]  # fmt: skip
    for row in rows:
        wanted = {"loss", "cross_entropy", "token_accuracy", "gradient_norm"} if row["split"] == "train" else {"score", "n/accuracy"}
        assert row.keys() == {"step", "split"} | wanted
        assert all(np.isfinite(row[name]) for name in wanted)


def test_the_folder_says_what_the_run_was(finished):
    settings, folder, _ = finished
    held = json.loads((folder / "experiment.json").read_text())["experiment"]
    assert held == experiment.resolved(settings)
    assert held["optimizer"] == {"class": "prompt_tuning.optimizers.AdamW"} | {
        "learning_rate": 0.05, "b1": 0.9, "b2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0, "decay_vectors": False,
    }  # fmt: skip
    assert (folder / "config.gin").read_text() == "# as given\n"
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))


def test_predictions_and_the_prompt_are_the_best_checkpoints(finished):
    settings, folder, results = finished
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [(row["task"], row["inputs"], row["target"]) for row in rows] == [("n", f"n {i}", str(i % 2)) for i in range(4)]
    right = [row["prediction"] == row["target"] for row in rows]
    assert np.mean(right) == results["best"]["score"]
    assert all(row["choices"] == ["0", "1"] and len(row["scores"]) == 2 for row in rows)
    prompt = np.load(folder / "prompt.npy")
    assert prompt.dtype == np.float32
    best = restored(settings, folder, results["best"]["step"]).trainable
    np.testing.assert_array_equal(prompt, best["embed"]["prompt"]["rows"])


def test_a_prompt_that_a_network_makes_is_left_as_the_rows_it_made(tmp_path):
    settings = tiny_experiment(method=PTuning(length=3, network="mlp", hidden=4, initializer=Uniform()), train_steps=2, eval_steps=0)
    training.train(settings, str(tmp_path))
    rows = np.load(tmp_path / "prompt.npy")
    again = dataclasses.replace(settings, method=Prompt(length=3, initializer=File(str(tmp_path / "prompt.npy"))))
    built = [assembly.assemble(again), assembly.assemble(settings)]
    tuned = [built[0].tuned, restored(settings, tmp_path, 2).trainable]
    models = [nnx.merge(each.graphdef, own, each.frozen) for each, own in zip(built, tuned, strict=True)]
    np.testing.assert_array_equal(rows, models[0].embed.prompt())
    # Compiled apart, the network may round otherwise.
    np.testing.assert_allclose(rows, models[1].embed.prompt(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", [Lora(rank=2), Norms()], ids=["lora", "norms"])
def test_a_method_wants_a_base_to_tune(method):
    with pytest.raises(UserError, match=f"no base checkpoint: {type(method).__name__} over random weights.*BASE_CHECKPOINT"):
        tiny_experiment(method=method, allow_random_base=False)


def test_a_base_is_saved_only_where_it_was_trained():
    assert tiny_experiment(method=Norms(), save_base=True).save_base
    with pytest.raises(UserError, match="save_base: wanted model tuning, for Lora leaves the base as it was"):
        tiny_experiment(method=Lora(rank=2), save_base=True)


def test_a_checkpoint_holds_the_prompt_and_its_moments_and_no_frozen_weight(finished):
    settings, folder, _ = finished
    held = ocp.checkpointables_metadata(folder / "checkpoints" / str(settings.train_steps)).metadata
    size = PROMPT.length * CONFIG.d_model
    assert [leaf.shape for leaf in jax.tree.leaves(held["trainable"], is_leaf=lambda x: hasattr(x, "shape"))] == [(3, 16)]
    moments = [leaf.shape for leaf in jax.tree.leaves(held["optimizer_state"], is_leaf=lambda x: hasattr(x, "shape"))]
    assert sum(int(np.prod(shape)) for shape in moments if shape) == 2 * size


def test_a_finished_run_does_nothing(finished, capsys):
    settings, folder, results = finished
    before = contents(folder)
    assert training.train(settings, str(folder)) == results
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 1}, "seed was 0 there, got 1"),
        ({"method": Full()}, "method.class was 'prompt_tuning.methods.prompt.Prompt'"),
        ({"optimizer": optimizers.AdamW(learning_rate=0.1)}, "optimizer.learning_rate was 0.05 there, got 0.1"),
    ],
)
def test_a_folder_that_holds_another_run_is_refused_and_not_touched(finished, changes, says):
    _, folder, _ = finished
    before = contents(folder)
    with pytest.raises(UserError, match=f"holds another run: {says}"):
        training.train(tiny_experiment(**changes), str(folder))
    assert contents(folder) == before


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    settings = tiny_experiment()
    folder = run_folder.RunFolder(tmp_path / "run")
    folder.claim(experiment.resolved(settings), "")
    with folder.locked(), pytest.raises(UserError, match="another process is training there"):
        training.train(settings, str(tmp_path / "run"))


# The best and early stopping.


def test_the_best_is_kept_beside_the_latest(tmp_path):
    # Down for three steps, then up: the score is best in the middle.
    wave = optimizers.Schedule(kind="linear", final_frac=-4.0)
    settings = tiny_experiment(schedule=wave, train_steps=6, eval_steps=1, evaluation=Evaluation(mode="loss"))
    results = training.train(settings, str(tmp_path / "run"))
    scores = {row["step"]: row["score"] for row in metrics(tmp_path / "run") if row["split"] == "validation"}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert 1 < best < 6, "the test wants a run whose best is neither its first nor its last"
    assert results["best"]["step"] == best and results["best"]["score"] == scores[best]
    assert results["final"]["step"] == 6 and results["final"]["score"] == scores[6]
    assert checkpoint_steps(tmp_path / "run") == [best, 6]
    prompts = {step: restored(settings, tmp_path / "run", step).trainable["embed"]["prompt"]["rows"] for step in (best, 6)}
    np.testing.assert_array_equal(np.load(tmp_path / "run" / "prompt.npy"), prompts[best])
    assert (prompts[best] != prompts[6]).any()


def test_early_stopping_ends_a_run_that_gets_no_better(tmp_path):
    # Nothing moves, so every score equals the first, and equal is not better.
    settings = tiny_experiment(optimizer=optimizers.AdamW(learning_rate=0.0), train_steps=50, eval_steps=2, early_stopping_evals=3)
    results = training.train(settings, str(tmp_path / "run"))
    assert (results["steps"], results["best"]["step"], results["final"]["step"]) == (8, 2, 8)
    assert checkpoint_steps(tmp_path / "run") == [2, 8]
    assert training.train(settings, str(tmp_path / "run")) == results


# Resumption.

BUSY = {"dropout_rate": 0.1, "accumulation_steps": 2, "gradient_clip_norm": 1.0}
OPTIMIZERS = {
    "adamw": optimizers.AdamW(learning_rate=0.05, weight_decay=0.1),
    "adafactor": optimizers.Adafactor(momentum=0.9),
}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A function from the name of an optimizer to a run, with everything that has a state, that was never interrupted."""

    @functools.cache
    def run(name):
        settings = tiny_experiment(optimizer=OPTIMIZERS[name], train_steps=5, **BUSY)
        folder = tmp_path_factory.mktemp("whole") / "run"
        training.train(settings, str(folder))
        return settings, folder

    return run


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stopped_after_every_step_and_resumed_equals_never_interrupted(whole_run, name, tmp_path):
    settings, folder = whole_run(name)
    for step in range(1, settings.train_steps):
        with at_batch(1, terminate), pytest.raises(Interrupted, match=f"saved at step {step} of 5"):
            training.train(settings, str(tmp_path / "run"))
        assert max(checkpoint_steps(tmp_path / "run")) == step
        assert {row["step"] for row in metrics(tmp_path / "run")} == set(range(1, step + 1))
        assert not (tmp_path / "run" / "results.json").exists()
    training.train(settings, str(tmp_path / "run"))
    # The stops left checkpoints at steps where the other run has none; at the end the best and the last stay in both.
    assert_same_run(settings, tmp_path / "run", folder)


def test_killed_between_checkpoints_and_resumed_equals_never_interrupted(whole_run, tmp_path):
    settings, folder = whole_run("adafactor")
    for _ in range(2):
        with at_batch(3, cut_the_power), contextlib.suppress(PowerCut):
            training.train(settings, str(tmp_path / "run"))
    training.train(settings, str(tmp_path / "run"))
    assert_same_run(settings, tmp_path / "run", folder)


def test_a_run_that_died_before_its_results_writes_them(whole_run, tmp_path):
    settings, folder = whole_run("adafactor")
    shutil.copytree(folder, tmp_path / "run")
    for name in ("results.json", "predictions.jsonl", "prompt.npy"):
        (tmp_path / "run" / name).unlink()
    training.train(settings, str(tmp_path / "run"))
    assert_same_run(settings, tmp_path / "run", folder)


def test_a_loss_that_is_not_finite_is_an_error_and_loses_nothing(whole_run, tmp_path):
    settings, folder = whole_run("adafactor")
    with at_batch(4, spoil), pytest.raises(UserError, match="at step 4; wanted a finite number.*LEARNING_RATE"):
        training.train(settings, str(tmp_path / "run"))
    assert max(checkpoint_steps(tmp_path / "run")) < 4
    assert max(row["step"] for row in metrics(tmp_path / "run")) == 3
    assert not (tmp_path / "run" / "results.json").exists()
    training.train(settings, str(tmp_path / "run"))
    assert_same_run(settings, tmp_path / "run", folder)


def test_a_run_is_not_resumed_on_another_base(tmp_path):
    base, run = tmp_path / "base", tmp_path / "run"
    settings = tiny_experiment(base_checkpoint=str(base), allow_random_base=False)
    interop.save_base(base, tiny.random_values(CONFIG, seed=1), CONFIG, dtype="float32")
    with at_batch(1, terminate), pytest.raises(Interrupted):
        training.train(settings, str(run))
    interop.save_base(base, tiny.random_values(CONFIG, seed=2), CONFIG, dtype="float32")
    kept = contents(run / "checkpoints")
    with pytest.raises(UserError, match=f"base checkpoint differs: step 1 .*trained on {base}.*fingerprint"):
        training.train(settings, str(run))
    assert contents(run / "checkpoints") == kept
    interop.save_base(base, tiny.random_values(CONFIG, seed=1), CONFIG, dtype="float32")
    assert training.train(settings, str(run))["steps"] == settings.train_steps


# The command.

ROOT = pathlib.Path(__file__).resolve().parents[1]


def command(folder, *more):
    return [*tiny_run.arguments(tiny_run.write_gin(folder)), "--gin.TRAIN_STEPS=4", "--gin.EVAL_STEPS=2", *more]


def test_sigterm_saves_and_exits_with_143_and_the_same_command_resumes(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    argv = [*command(tmp_path), f"--workdir={tmp_path / 'stopped'}"]
    run = [sys.executable, "-m", "prompt_tuning.train", *argv]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            # The table of parameters comes before the first step is compiled, so that the signal comes well before the last step.
            for line in process.stdout:
                if line.startswith("trained 48 of "):
                    break
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=600)
        finally:
            process.kill()
    assert process.returncode == 143, errors
    assert f"saved at step 1 of 4 in {tmp_path / 'stopped'}; the same command resumes" in errors
    assert checkpoint_steps(tmp_path / "stopped") == [1]
    cli.main(train.run, "", argv=argv)
    cli.main(train.run, "", argv=[*command(tmp_path), f"--workdir={tmp_path / 'whole'}"])
    for name in ("metrics.jsonl", "predictions.jsonl", "prompt.npy", "config.gin"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_rate_that_diverges_exits_with_2_and_the_mended_command_takes_the_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    workdir = f"--workdir={tmp_path / 'run'}"
    with pytest.raises(SystemExit) as caught:
        cli.main(train.run, "", argv=[*command(tmp_path, "--gin.LEARNING_RATE=1e400"), workdir])
    assert caught.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: loss is nan at step 2") and "lower LEARNING_RATE" in said
    assert checkpoint_steps(tmp_path / "run") == []  # Weights that are spoilt are never saved.
    cli.main(train.run, "", argv=[*command(tmp_path), workdir])
    assert capsys.readouterr().out.splitlines()[-1].startswith("finished: validation score ")


def test_a_folder_must_be_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as caught:
        cli.main(train.run, "", argv=command(tmp_path))
    assert caught.value.code == 2 and "--workdir is missing" in capsys.readouterr().err


def test_a_finished_run_says_so(finished, capsys):
    settings, folder, _ = finished
    flags = type("Flags", (), {"workdir": str(folder), "gin_config": ""})
    train.run(settings, flags)
    assert capsys.readouterr().out.startswith("finished already: validation score ")
