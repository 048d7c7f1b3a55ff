"""An ensemble in one batch says what its prompts say one at a time, and decides by the stated rules."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import ensemble, evaluation, trainable
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation import Evaluation, Lengths, TaskExamples
from prompt_tuning.methods.ensemble import Ensemble
from prompt_tuning.methods.prompt import File, Prompt
from tests.interop import tiny
from tests.methods.cases import CONFIG
from tests.test_evaluation import Letters, example
from tests.tiny_run import arguments, write_gin

MEMBERS, LENGTH = 3, 2
CHOICES = ("ab", "cg", "fd")


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(2)
    paths = [str(tmp_path / f"{number}.npy") for number in range(MEMBERS)]
    for path in paths:
        np.save(path, 4 * rng.normal(size=(LENGTH, CONFIG.d_model)).astype(np.float32))
    return paths


def parts_of(method):
    model = tiny.model_with(CONFIG, tiny.random_values(CONFIG))
    method.attach(model, jax.random.key(0), vocabulary=None)
    return trainable.split(model, trainable.Tunable)


def task(choices=True, count=7):
    rng = np.random.default_rng(4)
    words = ["".join(rng.choice(list("abcdefgh"), size=rng.integers(1, 9))) for _ in range(count)]
    more = {"answer_choices": CHOICES} if choices else {}
    return TaskExamples("letters", [example(word, CHOICES[n % 3], references=None, **more) for n, word in enumerate(words)], ("accuracy",))


@pytest.mark.parametrize("choices", [True, False], ids=["ranked", "generated"])
def test_members_say_in_one_batch_what_they_say_alone(files, choices):
    settings, own = Evaluation(batch_size=4), task(choices)
    together = Ensemble(tuple(files))
    lengths = Lengths(12, 4, together.layout)
    given = {"members": MEMBERS, "settings": settings, "lengths": lengths, "vocabulary": Letters()}
    found = ensemble.answers(parts_of(together), own, **given)
    wanted = []
    for number, path in enumerate(files):
        alone = Prompt(length=LENGTH, initializer=File(path))
        report = evaluation.evaluate(parts_of(alone), [own], settings=settings, lengths=Lengths(12, 4, alone.layout), vocabulary=Letters())
        wanted.append([row["prediction"] for row in report.predictions])
        assert found[str(number)] == wanted[number]
    assert len({tuple(each) for each in wanted}) > 1, "the prompts differ"
    for number, said in enumerate(zip(*wanted, strict=True)):
        most = max(map(said.count, said))
        assert said.count(found["vote"][number]) == most
        if not choices:
            assert found["vote"][number] == next(each for each in said if said.count(each) == most)
    values = ensemble.scored(parts_of(together), own, **given)
    assert values["metric"] == "accuracy" and len(values["members"]) == MEMBERS
    assert values["mean"] == pytest.approx(np.mean(values["members"])) and values["best"] == max(values["members"])
    assert ("scores" in values) == choices


def test_most_votes_win_and_scores_break_ties():
    assert ensemble.vote(np.array([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [-90.0, -80.0, 0.0]])) == 0
    assert ensemble.vote(np.array([[1.0, 0.0], [0.0, 3.0]])) == 1
    assert ensemble.vote(np.array([[4.0, 0.0], [0.0, 3.0]])) == 0
    # The third choice has the best mean and no vote.
    assert ensemble.vote(np.array([[9.0, 0.0, 8.0], [0.0, 9.0, 8.0], [9.0, 0.0, 8.0]])) == 0


def test_files_that_do_not_fit_are_refused(files, tmp_path):
    with pytest.raises(UserError, match="Ensemble.paths is empty"):
        Ensemble()
    with pytest.raises(UserError, match="no such file"):
        _ = Ensemble(str(tmp_path / "none.npy")).layout
    np.save(tmp_path / "flat.npy", np.zeros(4, np.float32))
    with pytest.raises(UserError, match=r"wanted an array \[prompt length, model width\], got shape \[4\]"):
        _ = Ensemble(str(tmp_path / "flat.npy")).layout
    np.save(tmp_path / "longer.npy", np.zeros((LENGTH + 1, CONFIG.d_model), np.float32))
    with pytest.raises(UserError, match=r"longer.npy.*wanted shape \[2, 16\]"):
        parts_of(Ensemble((files[0], str(tmp_path / "longer.npy"))))
    with pytest.raises(UserError, match="has no metric"):
        ensemble.scored(
            nnx.split(nnx.Module()), TaskExamples("t", [example("a", "b")], ()), members=1, settings=Evaluation(),
            lengths=Lengths(4, 4), vocabulary=Letters(),
        )  # fmt: skip


def test_the_command_scores_each_prompt_and_what_they_decide(files, tmp_path, capsys):
    flags = [flag for flag in arguments(write_gin(tmp_path)) if "configs/methods" not in flag and "PROMPT_LENGTH" not in flag]
    ensemble.main([*flags, "--json", "--prompts", *files])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["prompts"] == files and set(found["metrics"]) == {"sentiment_review", "word_reverse"}
    assert all(len(values["members"]) == MEMBERS for values in found["metrics"].values())
    assert "scores" in found["metrics"]["sentiment_review"] and "scores" not in found["metrics"]["word_reverse"]
    table = ensemble.table(found["metrics"], files)
    assert len(table.splitlines()) == 1 + 2 * (MEMBERS + 2) + 2 + 1
    with pytest.raises(SystemExit) as stop:
        ensemble.main(flags)
    assert stop.value.code == 2 and "--prompts is missing" in capsys.readouterr().err
