"""An example's task goes with it from the mixture, through training and evaluation, to the rows of its prompt."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from prompt_tuning import assembly, checkpoints, evaluation, training
from prompt_tuning.data import mixtures
from prompt_tuning.data.vocabularies import Bytes
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation import Evaluation, Lengths
from prompt_tuning.methods.multitask import MultitaskPrompt
from prompt_tuning.methods.prompt import Uniform
from prompt_tuning.optimizers import AdamW
from tests.data.small import BYTES, Numbered
from tests.tiny_experiment import metrics, tiny_experiment

TWO = mixtures.Mixture((Numbered("a", choices=True), Numbered("b", choices=True)))
METHOD = MultitaskPrompt(length=2, tasks=2, initializer=Uniform())


@pytest.mark.parametrize("source", [TWO, Numbered("a")], ids=["mixed", "one"])
def test_the_stream_says_which_task_an_example_is_from(source):
    stream = mixtures.mixed_examples(source, vocabulary=BYTES.load(), input_length=8, target_length=4, seed=0)
    for example in itertools.islice(stream, 40):
        name = BYTES.load().decode(example["inputs"].tolist()).split()[0]
        assert source.task_names[example["task"]] == name


def test_training_moves_each_tasks_rows_by_its_own_examples():
    settings = tiny_experiment(method=METHOD, data=TWO, packed=False, batch_size=4)
    built = assembly.assemble(settings)
    ready = training.trainer(settings, built)
    before = np.array(built.tuned["embed"]["prompt"]["tasks"])
    only_b = dataclasses.replace(TWO, rates=(0.0, 1.0))
    with training.batches(dataclasses.replace(settings, data=only_b), start_step=0) as batches:
        batch = next(batches)
        assert set(np.unique(batch["encoder_prompt_slots"])) == {-1, 2, 3}
        state, _ = ready.step(ready.state, built.frozen, training.on_devices(batch, built.mesh))
    after = np.array(state.tuned["embed"]["prompt"]["tasks"])
    np.testing.assert_array_equal(after[0], before[0])
    assert (np.abs(after[1] - before[1]).max(axis=1) > 0).all()


@pytest.mark.parametrize("packed", [False, True])
def test_a_run_on_a_mixture_trains_and_evaluates_each_task_with_its_prompt(tmp_path, packed):
    settings = tiny_experiment(method=METHOD, data=TWO, packed=packed, input_length=8, optimizer=AdamW(learning_rate=0.1))
    results = training.train(settings, str(tmp_path))
    assert set(results["best"]["metrics"]) == {"a", "b"} and results["trained_parameters"] == 3 * 2 * 16
    assert np.load(tmp_path / "prompt.npy").shape == (4, 16)
    assert len(metrics(tmp_path)) > 0
    held = checkpoints.read_trained(tmp_path / "checkpoints")
    np.testing.assert_allclose(
        np.load(tmp_path / "prompt.npy"),
        (held["embed/prompt/shared"][None] + held["embed/prompt/tasks"]).reshape(-1, 16),
        rtol=1e-6,
    )
    with pytest.raises(UserError, match="holds no checkpoint"):
        (tmp_path / "empty").mkdir()
        checkpoints.read_trained(tmp_path / "empty")


def test_evaluation_numbers_tasks_as_training_does():
    settings, lengths = Evaluation(batch_size=4), Lengths(8, 3, METHOD.layout)

    def numbers(source, trained_on):
        found = evaluation.task_examples(source, Bytes().load(), settings=settings, lengths=lengths, trained_on=trained_on)
        return {task.name: {example.get("task") for example in task.examples} for task in found}

    assert numbers(TWO, None) == {"a": {0}, "b": {1}}
    assert numbers(Numbered("b"), TWO) == {"b": {1}}
    assert numbers(Numbered("c"), TWO) == {"c": {None}}


def test_scores_are_those_of_the_tasks_prompt():
    settings = tiny_experiment(method=METHOD)
    built = assembly.assemble(settings)
    parts = (built.graphdef, built.tuned, built.frozen)
    lengths = Lengths(8, 3, METHOD.layout)
    rows = [{"inputs": [5, 6, 1], "targets": [7, 1], "task": task} for task in (0, 1, 0)]
    scores = evaluation.score_choices(parts, rows, choices=[[[7, 1], [8, 1]]] * 3, lengths=lengths, batch_size=2)
    np.testing.assert_allclose(scores[0], scores[2], rtol=1e-6)
    assert np.abs(scores[0] - scores[1]).max() > 1e-4
    # With the tasks' rows exchanged, so are the scores.
    swapped = jax.tree.map(lambda x: x, built.tuned)
    swapped["embed"]["prompt"]["tasks"] = swapped["embed"]["prompt"]["tasks"][::-1]
    other = evaluation.score_choices(
        (built.graphdef, swapped, built.frozen), rows, choices=[[[7, 1], [8, 1]]] * 3, lengths=lengths, batch_size=2
    )
    np.testing.assert_allclose(other[1], scores[0], rtol=1e-5)
    with pytest.raises(UserError, match="got an example that names none"):
        evaluation.score_choices(parts, [{"inputs": [5, 1]}], choices=[[[7, 1]]], lengths=lengths, batch_size=1)
