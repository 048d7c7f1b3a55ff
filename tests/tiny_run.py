"""A finished run of a tiny model on the task world, made through the `train` command, for tests of the commands that read run folders."""

import pathlib

from prompt_tuning import cli, train

# Bytes need no vocabulary file; the random base is the same for the same seed.
MODEL = """
from __gin__ import dynamic_registration
from prompt_tuning import experiment
from prompt_tuning.data import vocabularies
from prompt_tuning.models import t5

experiment.Experiment.model = @t5.T5Config()
t5.T5Config.vocab_size = 384
t5.T5Config.d_model = 16
t5.T5Config.d_ff = 24
t5.T5Config.num_heads = 2
t5.T5Config.d_kv = 8
t5.T5Config.num_encoder_layers = 2
t5.T5Config.num_decoder_layers = 2
experiment.Experiment.vocabulary = @vocabularies.Bytes()
experiment.Experiment.allow_random_base = True
"""

DATA = """
from __gin__ import dynamic_registration
from prompt_tuning import evaluation
from prompt_tuning import experiment
from prompt_tuning.data.tasks import world

experiment.Experiment.data = @world.World()
world.World.task_list = ("sentiment_review", "word_reverse")
world.World.num_train = 16
world.World.num_validation = 4
world.World.num_test = 3
experiment.Experiment.evaluation = @evaluation.Evaluation()
evaluation.Evaluation.batch_size = 4
"""

SETTINGS = ("TRAIN_STEPS=2", "BATCH_SIZE=4", "INPUT_LENGTH=32", "TARGET_LENGTH=8", "EVAL_STEPS=1", "PROMPT_LENGTH=3")


def write_gin(folder: pathlib.Path) -> dict[str, str]:
    """Gin files of the tiny model and its data."""
    files = {"model": folder / "tiny_model.gin", "data": folder / "tiny_data.gin"}
    files["model"].write_text(MODEL)
    files["data"].write_text(DATA)
    return {name: str(path) for name, path in files.items()}


def arguments(files: dict[str, str]) -> list[str]:
    """The flags of the run, but for its folder."""
    gin_files = (files["model"], "configs/methods/prompt.gin", files["data"])
    return [*(f"--gin_file={name}" for name in gin_files), *(f"--gin.{setting}" for setting in SETTINGS)]


def train_tiny(folder: pathlib.Path) -> pathlib.Path:
    """Trains two steps, and gives the run's folder."""
    workdir = folder / "run"
    cli.main(train.run, "train", argv=[*arguments(write_gin(folder)), f"--workdir={workdir}"])
    return workdir
