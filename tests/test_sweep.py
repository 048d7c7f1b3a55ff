"""A sweep leaves the runs that `train` would, in fewer programs; goes on where it stopped; and says in one line what is wrong."""

import csv
import dataclasses
import json
import pathlib
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning import cli, interop, many_runs, sweep, sweep_groups, training
from prompt_tuning.errors import Interrupted, UserError
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.lora import Lora
from prompt_tuning.methods.pissa import Pissa
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.optimizers import AdamW
from tests import tiny_run
from tests.data.small import Numbered
from tests.interop import tiny
from tests.test_training import assert_same_run
from tests.tiny_experiment import CONFIG, checkpoint_steps, metrics, tiny_experiment


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base that does not depend on a run's seed."""
    folder = tmp_path_factory.mktemp("base") / "base"
    interop.save_base(folder, tiny.random_values(CONFIG, seed=1), CONFIG, dtype="float32")
    return str(folder)


def experiments(base):
    """Runs that differ in all that may differ: two programs' worth, prompts of two lengths in one of them."""
    plain = tiny_experiment(base_checkpoint=base, allow_random_base=False, train_steps=4, batch_size=2)

    def prompt(seed, length, rate, **changes):
        # An epsilon of 1 makes Adam's steps follow the gradient: a rounding error stays one.
        optimizer = AdamW(learning_rate=rate, epsilon=1.0, weight_decay=0.01)
        return dataclasses.replace(plain, seed=seed, method=Prompt(length=length, initializer=Uniform()), optimizer=optimizer, **changes)

    return {
        "a": prompt(0, 3, 0.5),
        "b": prompt(1, 5, 0.5, gradient_clip_norm=0.1, eval_steps=1),
        "c": prompt(2, 3, 0.1, data=Numbered(name="other", choices=True), accumulation_steps=2, checkpoint_steps=3),
        "whole": dataclasses.replace(plain, method=Full(), optimizer=AdamW(learning_rate=0.01, epsilon=1.0)),
    }


@pytest.fixture(scope="module")
def swept(base, tmp_path_factory):
    """A finished sweep, its runs by name, and its folder."""
    folder = tmp_path_factory.mktemp("swept") / "sweep"
    wanted = experiments(base)
    rows = sweep.train([sweep.Run(name, one) for name, one in wanted.items()], str(folder))
    return wanted, folder, rows


def test_each_run_is_what_it_is_alone(swept, tmp_path):
    wanted, folder, _ = swept
    for name, settings in wanted.items():
        ours, alone = folder / name, tmp_path / name
        results, own = training.train(settings, str(alone)), json.loads((ours / "results.json").read_text())
        for each in (results, own):
            del each["seconds"]
        assert own == results
        assert checkpoint_steps(ours) == checkpoint_steps(alone)
        assert {path.name for path in ours.iterdir()} == {path.name for path in alone.iterdir()}
        for row, wanted_row in zip(metrics(ours), metrics(alone), strict=True):
            assert (row["step"], row["split"]) == (wanted_row["step"], wanted_row["split"])
            for key, value in wanted_row.items():
                if isinstance(value, float):
                    # float32, summed in another order, over four steps.
                    np.testing.assert_allclose(row[key], value, rtol=1e-4, atol=1e-6, err_msg=f"{name} {key}")
        if (alone / "prompt.npy").exists():
            found, there = np.load(ours / "prompt.npy"), np.load(alone / "prompt.npy")
            np.testing.assert_allclose(found, there, rtol=1e-4, atol=1e-5)


def test_results_have_a_line_a_run(swept):
    _, folder, rows = swept
    with open(folder / "results.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["run"], row["state"]) for row in found] == [(name, "finished") for name in ("a", "b", "c", "whole")]
    for row, kept in zip(rows, found, strict=True):
        results = json.loads((folder / row["run"] / "results.json").read_text())
        assert float(kept["score"]) == results["best"]["score"] == row["score"]
        assert int(kept["trained_parameters"]) == results["trained_parameters"]
    assert sweep.table(rows).count("finished") == 4


def test_a_finished_sweep_does_nothing_and_takes_more_runs(swept, monkeypatch):
    wanted, folder, rows = swept
    runs = [sweep.Run(name, one) for name, one in wanted.items()]
    with monkeypatch.context() as patch:
        patch.setattr(sweep_groups, "train_together", None)
        patch.setattr(training, "train", None)
        assert sweep.train(runs, str(folder)) == rows
    changed = [*runs[:2], sweep.Run("c", dataclasses.replace(wanted["c"], seed=9)), runs[3]]
    with pytest.raises(UserError, match="holds another sweep: c.seed was 2 there, got 9"):
        sweep.train(changed, str(folder))
    with pytest.raises(UserError, match="holds another sweep: its run whole is not in this one"):
        sweep.train(runs[:3], str(folder))
    more = sweep.Run("more", dataclasses.replace(wanted["a"], train_steps=1, seed=5))
    assert [row["state"] for row in sweep.train([*runs, more], str(folder))] == ["finished"] * 5


def at_step(monkeypatch, number, event):
    """Calls `event` before the `number`-th step of this process's programs of several runs; what it gives takes the batches' place."""
    given, seen = many_runs.stacked_batch, []

    def stacked_batch(batches, shapes):
        seen.append(None)
        return given((event(batches) or batches) if len(seen) == number else batches, shapes)

    monkeypatch.setattr(many_runs, "stacked_batch", stacked_batch)


@pytest.mark.slow
def test_stopped_and_resumed_equals_never_interrupted(swept, monkeypatch, tmp_path):
    wanted, folder, _ = swept
    runs = [sweep.Run(name, one) for name, one in wanted.items()]
    for number in (1, 2):
        with monkeypatch.context() as patch:
            at_step(patch, number, lambda _: signal.raise_signal(signal.SIGTERM))
            with pytest.raises(Interrupted, match="3 runs that share a program are saved"):
                sweep.train(runs, str(tmp_path / "sweep"))
    sweep.train(runs, str(tmp_path / "sweep"))
    for name in ("a", "b", "c"):
        assert_same_run(wanted[name], tmp_path / "sweep" / name, folder / name)


@pytest.mark.slow
def test_a_run_that_ends_early_or_fails_leaves_the_others_alone(swept, base, monkeypatch, tmp_path):
    wanted, folder, _ = swept
    frozen = AdamW(learning_rate=0.0)
    runs = {
        "a": wanted["a"],
        "b": wanted["b"],
        "spoilt": dataclasses.replace(wanted["a"], seed=7),
        "still": dataclasses.replace(wanted["a"], seed=8, optimizer=frozen, eval_steps=1, early_stopping_evals=1),
    }

    def spoil(batches):
        wrong = batches[2] | {"decoder_loss_weights": np.full_like(batches[2]["decoder_loss_weights"], np.inf)}
        return [*batches[:2], wrong, *batches[3:]]

    at_step(monkeypatch, 3, spoil)
    rows = sweep.train([sweep.Run(name, one) for name, one in runs.items()], str(tmp_path / "sweep"))
    states = {row["run"]: row["state"] for row in rows}
    assert [states[name] for name in ("a", "b", "still")] == ["finished"] * 3
    assert "loss is inf at step 3" in states["spoilt"] or "loss is nan at step 3" in states["spoilt"]
    assert {row["run"]: row["steps"] for row in rows if row["run"] != "spoilt"} == {"a": 4, "b": 4, "still": 2}
    for name in ("a", "b"):
        # Another number of runs is another program: sums are rounded otherwise.
        found, there = (np.load(where / name / "prompt.npy") for where in (tmp_path / "sweep", folder))
        np.testing.assert_allclose(found, there, rtol=1e-4, atol=1e-5)


def test_what_can_share_a_program_does(base):
    wanted = experiments(base)
    assert sweep_groups.grouped(list(wanted.values()), most=8) == [[0, 1, 2], [3]]
    assert sweep_groups.grouped(list(wanted.values()), most=1) == [[0], [1], [2], [3]]
    # The longest prompt stands apart from the short ones.
    assert sweep_groups.grouped(list(wanted.values()), most=2) == [[0, 2], [1], [3]]
    lora = dataclasses.replace(wanted["a"], method=Lora(rank=2))
    others = [
        lora,
        dataclasses.replace(lora, seed=4),
        dataclasses.replace(lora, method=Lora(rank=3)),
        dataclasses.replace(lora, method=Lora(rank=2, alpha=3.0)),
        dataclasses.replace(lora, train_steps=5),
        dataclasses.replace(wanted["a"], method=Pissa(rank=2)),
        dataclasses.replace(wanted["b"], method=Pissa(rank=2)),
    ]
    assert sweep_groups.grouped(others, most=8) == [[0, 1], [2], [3], [4], [5], [6]]
    at_random = [tiny_experiment(seed=seed) for seed in (0, 0, 1)]
    assert sweep_groups.grouped(at_random, most=8) == [[0, 1], [2]]


# What is varied.


@given(st.lists(st.text("ab01_,()[]'\" @", min_size=1).filter(lambda text: text.strip() == text), min_size=1, max_size=4))
def test_values_that_are_quoted_are_split_where_they_were_joined(texts):
    values = [repr(text) for text in texts if "'" not in text and '"' not in text] or ["1"]
    assert list(sweep.options(f"NAME={','.join(values)}")[0].bindings.values()) == values[:1]
    assert [next(iter(one.bindings.values())) for one in sweep.options(f"NAME={','.join(values)}")] == values


def test_every_combination_is_a_run():
    found = sweep.combined([sweep.Variation()], [sweep.options("SEED=0,1"), sweep.options("prompt.Prompt.initializer=@a.B(),@a.C()")])
    assert [one.name for one in found] == [f"SEED={seed},initializer=a.{kind}" for seed in (0, 1) for kind in "BC"]
    assert found[2].bindings == {"SEED": "1", "prompt.Prompt.initializer": "@a.B()"}
    (short, _) = sweep.options("gin_file=configs/data/rte.gin,configs/data/cb.gin")
    assert (short.name, short.gin_files) == ("rte", ("configs/data/rte.gin",))


def test_a_sweep_file_names_runs_and_may_begin_with_what_is_common(tmp_path):
    path = tmp_path / "sweep.txt"
    path.write_text("# prompts\nSEED = 3\n\n[short]\nPROMPT_LENGTH = 2\n[long]\nPROMPT_LENGTH = 9\nSEED = 4\ninclude 'b.gin'\n")
    short, long = sweep.read_sweep(str(path))
    assert (short.name, short.bindings, short.gin_files) == ("short", {"SEED": "3", "PROMPT_LENGTH": "2"}, ())
    assert (long.name, long.bindings, long.gin_files) == ("long", {"SEED": "4", "PROMPT_LENGTH": "9"}, ("b.gin",))


ROOT = pathlib.Path(__file__).resolve().parents[1]
SWEEP = "[one]\nPROMPT_LENGTH = 2\n[two]\nPROMPT_LENGTH = 3\n"
WRONG = {
    "no folder": (["--vary=SEED=0,1"], None, "--workdir is missing"),
    "nothing varied": (["--workdir=W"], None, "nothing to vary; wanted --vary NAME=VALUE,VALUE"),
    "no value": (["--workdir=W", "--vary=SEED=0,"], None, "--vary SEED=0,: wanted NAME=VALUE,VALUE"),
    "no name": (["--workdir=W", "--vary=0,1"], None, "--vary 0,1: wanted NAME=VALUE"),
    "unknown name": (
        ["--workdir=W", "--vary=LERNING_RATE=0.1"],
        None,
        "LERNING_RATE: nothing uses LERNING_RATE; did you mean LEARNING_RATE",
    ),
    "bad value": (["--workdir=W", "--vary=SEED=0,x"], None, "--vary: SEED: cannot read the value 'x'"),
    "wrong type": (["--workdir=W", "--vary=BATCH_SIZE=2,'two'"], None, "--vary: BATCH_SIZE: Experiment.batch_size wanted int, got 'two'"),
    "twice": (["--workdir=W", "--vary=SEED=1,1"], None, "two runs are called SEED=1"),
    "no use": (["--workdir=W", "--vary=BATCH_SIZE=4,8", "--gin.experiment.Experiment.batch_size=4"], None, "have the same settings"),
    "no file": (["--workdir=W", "--sweep=nowhere"], None, "--sweep nowhere: cannot read it"),
    "bad line": (["--workdir=W", "--sweep=S"], "[one]\nSEED 3\n", "S:2: cannot read 'SEED 3'"),
    "no runs": (["--workdir=W", "--sweep=S"], "SEED = 3\n", "names no run"),
    "two of a name": (["--workdir=W", "--sweep=S"], SWEEP.replace("two", "one"), "two runs are called one"),
    "no folder's name": (["--workdir=W", "--sweep=S"], SWEEP.replace("two", "../two"), "a run is called '../two'"),
    "unknown in a file": (["--workdir=W", "--sweep=S"], SWEEP + "RATE = 1\n", "S, run two: RATE: nothing uses RATE"),
    "none together": (["--workdir=W", "--vary=SEED=0,1", "--together=0"], None, "--together: wanted 1 or more, got 0"),
    "another's folder": (["--workdir=FULL", "--vary=SEED=0,1"], None, "is there and holds no sweep.json"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(case, tmp_path, monkeypatch, capsys):
    flags, text, says = WRONG[case]
    files = tiny_run.arguments(tiny_run.write_gin(tmp_path))
    monkeypatch.chdir(ROOT)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    if text is not None:
        (tmp_path / "S").write_text(text)
    places = {"=W": f"={tmp_path}/w", "=S": f"={tmp_path}/S", "=FULL": f"={tmp_path}/full"}
    flags = [next((flag.replace(old, new) for old, new in places.items() if flag.endswith(old)), flag) for flag in flags]
    with pytest.raises(SystemExit) as stopped:
        sweep.main([*files, *flags])
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error: ")]
    assert stopped.value.code == 2 and says.replace("S:2", f"{tmp_path}/S:2") in line.replace(f"{tmp_path}/S, run", "S, run")
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_the_command_leaves_runs_that_other_commands_read(tmp_path, monkeypatch, capsys):
    from prompt_tuning import evaluate

    files = tiny_run.arguments(tiny_run.write_gin(tmp_path))
    monkeypatch.chdir(ROOT)
    command = [*files, "--vary=LEARNING_RATE=0.1,0.3", "--vary=PROMPT_LENGTH=2,4", f"--workdir={tmp_path / 'sweep'}"]
    sweep.main(command)
    said = capsys.readouterr()
    assert "sweep: 4 of 4 runs to train, in 1 programs" in said.out
    name = "LEARNING_RATE=0.3,PROMPT_LENGTH=4"
    assert f"{name}: step 2: validation score" in said.err
    with open(tmp_path / "sweep" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["LEARNING_RATE"], row["PROMPT_LENGTH"]) for row in rows] == [("0.1", "2"), ("0.1", "4"), ("0.3", "2"), ("0.3", "4")]
    monkeypatch.setattr(cli.environment, "settle", lambda **_: None)
    evaluate.main([f"--workdir={tmp_path / 'sweep' / name}", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["score"] == pytest.approx(float(rows[-1]["score"]))
    sweep.main(command)
    assert "finished" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(path.name for path in (ROOT / "configs" / "sweeps").iterdir()))
def test_every_sweep_file_gives_runs(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    files = ["configs/models/t5_nano.gin", "configs/methods/prompt.gin", "configs/data/world.gin"]
    wanted = sweep.combined(sweep.read_sweep(f"configs/sweeps/{path}"), [sweep.options("SEED=0,1")])
    runs = sweep.load(wanted, files)
    assert len(runs) == len(wanted) >= 6
    assert [len(group) for group in sweep_groups.grouped([run.experiment for run in runs], most=16)] == [len(runs)]
