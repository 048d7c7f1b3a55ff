"""The command line: precedence of files and bindings, one clear line for each mistake, and a `--help` that imports nothing heavy."""

import argparse
import pathlib
import subprocess
import sys

import pytest

from prompt_tuning import cli
from prompt_tuning.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
HEAD = "from __gin__ import dynamic_registration\nfrom prompt_tuning import experiment\n"
# Nothing here reads data: the experiment is built and looked at.
PARTS = """
from prompt_tuning import optimizers
from prompt_tuning.data import vocabularies
from prompt_tuning.methods import prompt
from prompt_tuning.models import sizes

experiment.Experiment.model = @sizes.named()
sizes.named.name = "t5_nano"
experiment.Experiment.vocabulary = @vocabularies.Bytes()
experiment.Experiment.method = @prompt.Prompt()
prompt.Prompt.length = %PROMPT_LENGTH
experiment.Experiment.optimizer = @optimizers.Adafactor()
optimizers.Adafactor.learning_rate = %LEARNING_RATE
experiment.Experiment.data = None
experiment.Experiment.allow_random_base = True
"""


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole.gin"
    path.write_text(HEAD + PARTS)
    return str(path)


def write(tmp_path, text, name="more.gin"):
    path = tmp_path / name
    path.write_text(HEAD + text)
    return str(path)


def line(files, bindings=()):
    """The message of the error that these files and bindings give; it must be one line."""
    with pytest.raises(UserError) as caught:
        cli.load_experiment(files, bindings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_come_first_then_files_in_order_then_bindings(whole, tmp_path):
    later = write(tmp_path, "TRAIN_STEPS = 7\nSEED = 3\n")
    last = write(tmp_path, "TRAIN_STEPS = 8\n", "last.gin")
    experiment = cli.load_experiment([whole, later, last], ["PROMPT_LENGTH = 5", "experiment.Experiment.log_steps = 2"])
    assert (experiment.batch_size, experiment.seed, experiment.train_steps) == (32, 3, 8)
    assert (experiment.method.length, experiment.log_steps) == (5, 2)
    assert cli.load_experiment([whole, last, later]).train_steps == 7


def test_loading_leaves_nothing_behind(whole):
    assert cli.load_experiment([whole], ["TRAIN_STEPS = 7"]).train_steps == 7
    assert cli.load_experiment([whole]).train_steps == 1000


def test_a_binding_may_hold_a_string_a_tuple_or_a_reference(whole):
    bindings = [
        "prompt.Prompt.initializer = @prompt.ClassLabels()",
        "prompt.ClassLabels.labels = ('good', 'bad')",
        "BASE_CHECKPOINT = 'a b'",
    ]
    experiment = cli.load_experiment([whole], bindings)
    assert experiment.method.initializer.labels == ("good", "bad")
    assert experiment.base_checkpoint == "a b"


def test_includes_and_search_paths(whole, tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "part.gin").write_text(HEAD + "SEED = 11\n")
    including = write(tmp_path, 'include "part.gin"\n')
    monkeypatch.chdir(tmp_path)
    assert cli.load_experiment([whole, including], search_paths=[str(tmp_path / "inner")]).seed == 11
    # Files of the repository are found from any working directory.
    assert cli.load_experiment(["configs/models/t5_nano.gin", whole]).model.d_model == 64


def test_the_kept_configuration_gives_the_same_experiment(whole, tmp_path, monkeypatch):
    seen = []
    more = write(tmp_path, "from prompt_tuning.methods import prompt\nROWS = 3\nprompt.Prompt.length = %ROWS\n")
    # The last binding puts ROWS out of use.
    flags = [
        f"--gin_file={more}",
        "--gin.TRAIN_STEPS=12",
        "--gin.prompt.Prompt.length=4",
        "--gin.sizes.named.dtype='bfloat16'",
        f"--workdir={tmp_path}",
    ]
    cli.main(lambda experiment, flags: seen.append((experiment, flags.gin_config)), "", argv=[f"--gin_file={whole}", *flags])
    (tmp_path / cli.RUN_CONFIG).write_text(seen[0][1])
    cli.main(lambda experiment, _: seen.append((experiment, "")), "", argv=[f"--workdir={tmp_path}"])
    assert seen[0][0] == seen[1][0]


@pytest.mark.parametrize(
    "binding, parts",
    [
        ("TRAIN_STEP = 5", ["--gin.TRAIN_STEP", "did you mean TRAIN_STEPS?"]),
        ("TRAIN_STEPS = 'many'", ["--gin.TRAIN_STEPS", "wanted int", "'many'"]),
        ("LEARNING_RATE = (1, 2)", ["--gin.LEARNING_RATE", "Adafactor.learning_rate", "wanted float", "(1, 2)"]),
        ("BASE_CHECKPOINT = /some/where", ["--gin.BASE_CHECKPOINT", "a string in quotes", "\"'/some/where'\""]),
        ("experiment.Experiment.train_stepz = 5", ["Experiment has no field train_stepz", "did you mean train_steps?"]),
        ("sizes.named.d_modl = 5", ["T5Config", "d_modl"]),
        ("sizes.nmaed.d_model = 5", ["sizes.nmaed", "did you mean named?"]),
        ("size.named.d_model = 5", ["'size'", "not imported", "did you mean sizes?"]),
        ("experiment.Experiment.method = @prompt.Promt()", ["prompt.Promt", "did you mean Prompt?"]),
        ("TRAIN_STEPS = %STEPS", ["STEPS has no value"]),
        ("sizes.named.name = 't5_nanoo'", ["t5_nanoo", "t5_nano"]),
        ("TRAIN_STEPS = 0", ["train_steps", "got 0"]),
        ("PROMPT_LENGTH = 0", ["Prompt.length", "got 0"]),
        ("prompt.Prompt.placement = 'middle'", ["Prompt.placement", "'middle'", "after_first"]),
    ],
)
def test_a_wrong_binding_is_one_line_that_names_it(whole, binding, parts):
    message = line([whole], [binding])
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    "text, parts",
    [
        ("LERNING_RATE = 1.0\n", ["more.gin:3", "LERNING_RATE", "did you mean LEARNING_RATE?"]),
        ("experiment.Experiment.seed = %SEEED\n", ["more.gin:3", "SEEED has no value", "did you mean SEED?"]),
        ("experiment.Experiment.seed = = 3\n", ["more.gin:3", "cannot read"]),
        ("from prompt_tuning import nothing\n", ["more.gin:3", "no module prompt_tuning.nothing"]),
        ("experiment.Experimnt.seed = 3\n", ["more.gin:3", "did you mean Experiment?"]),
        ('include "nowhere.gin"\n', ["more.gin:3", "nowhere.gin"]),
        ('include "more.gin"\n', ["more.gin", "includes itself"]),
        ("experiment.Experiment.seed = (1,\n", ["more.gin:3", "cannot read"]),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_line(whole, tmp_path, monkeypatch, text, parts):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, text)
    message = line([whole, "more.gin"])
    assert all(part in message for part in parts), message


def test_a_file_that_is_not_there_names_its_neighbour():
    assert "did you mean configs/models/t5_mini.gin?" in line(["configs/models/t5_minni.gin"])
    assert "is a folder" in line(["configs/models"])
    assert "looked in" in line(["nowhere/at_all.gin"])


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "binary.gin").write_bytes(b"\xff\xfe\x00")
    assert "binary.gin" in line([str(tmp_path / "binary.gin")])


def test_a_missing_part_names_files_that_give_it(whole):
    assert "configs/models/" in line([])
    assert "configs/methods/" in line(["configs/models/t5_nano.gin"])


def test_a_standard_macro_without_use_is_said_aloud_and_accepted(tmp_path, capsys):
    path = tmp_path / "fixed.gin"
    path.write_text(HEAD + PARTS.replace("%PROMPT_LENGTH", "4"))
    assert cli.load_experiment([str(path)], ["PROMPT_LENGTH = 9"]).method.length == 4
    assert "PROMPT_LENGTH" in capsys.readouterr().err


def run_main(argv, run=lambda experiment, flags: None):
    with pytest.raises(SystemExit) as caught:
        cli.main(run, "A command.", argv=argv)
    return caught.value.code


def test_user_errors_exit_with_2_and_one_line(whole, capsys):
    assert run_main([f"--gin_file={whole}", "--gin.TRAIN_STEP=5"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --gin.TRAIN_STEP") and err.count("\n") == 1

    def fails(experiment, flags):
        raise UserError("labels.tsv:3: label 'x'\nis not a choice")

    assert run_main([f"--gin_file={whole}"], fails) == 2
    assert capsys.readouterr().err == "error: labels.tsv:3: label 'x' is not a choice\n"


def test_a_flag_without_value_or_unknown_exits_with_2(whole, capsys):
    assert run_main(["--gin.TRAIN_STEPS", "5"]) == 2
    assert "--gin.NAME=VALUE" in capsys.readouterr().err
    assert run_main(["--gin_fil=x"]) == 2


def test_our_own_errors_keep_their_traceback_and_an_interrupt_is_130(whole):
    def breaks(experiment, flags):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.main(breaks, "", argv=[f"--gin_file={whole}"])

    def stops(experiment, flags):
        raise KeyboardInterrupt

    assert run_main([f"--gin_file={whole}"], stops) == 130


def test_extra_flags_reach_the_command(whole):
    seen = []

    def flags(parser: argparse.ArgumentParser):
        parser.add_argument("--json", action="store_true")

    cli.main(
        lambda _, flags: seen.append((flags.json, flags.workdir)),
        "",
        extra_flags=flags,
        argv=[f"--gin_file={whole}", "--json", "--workdir=w"],
    )
    assert seen == [(True, "w")]


COMMANDS = ["train", "evaluate", "infer", "inspect", "ensemble"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    code = (
        "import runpy, sys\nsys.argv = ['x', '--help']\n"
        f"try:\n    runpy.run_module('prompt_tuning.{command}', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'jax', 'flax', 'numpy', 'tensorflow', 'seqio', 'gin', 'matplotlib'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--gin_file" in done.stdout and "--workdir" in done.stdout
