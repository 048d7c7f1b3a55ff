"""A run on batches of similar lengths: a program for each length, and resumed it is the run never interrupted."""

from typing import Any

import pytest

from prompt_tuning import training
from prompt_tuning.data.mixtures import Mixture
from prompt_tuning.errors import Interrupted, UserError
from tests.data.small import Numbered
from tests.test_training import assert_same_run, at_batch, terminate
from tests.tiny_experiment import tiny_experiment

# Inputs of 4 and of 11 tokens.
SOURCE = Mixture((Numbered("n", choices=True), Numbered("numbered", choices=True)))


def test_a_bucketed_run_goes_on_bit_for_bit(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_experiment(data=SOURCE, length_buckets=2, input_length=12, target_length=4, train_steps=5, eval_steps=0)
    shapes, given = [], training.on_devices

    def seen(batch: Any, mesh: Any) -> Any:
        shapes.append((batch["encoder_input_tokens"].shape, batch["decoder_input_tokens"].shape))
        return given(batch, mesh)

    monkeypatch.setattr(training, "on_devices", seen)
    training.train(settings, str(tmp_path / "whole"))
    assert len(shapes) == 5
    assert set(shapes) == {((4, 15), (4, 4)), ((4, 9), (4, 2))}  # The prompt of 3 comes on top.
    with at_batch(3, terminate), pytest.raises(Interrupted, match="saved at step 3 of 5"):
        training.train(settings, str(tmp_path / "run"))
    training.train(settings, str(tmp_path / "run"))
    assert_same_run(settings, tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("changes", [{"length_buckets": 1}, {"length_buckets": 9}, {"length_buckets": 4, "packed": True}])
def test_buckets_that_mean_nothing_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="length_buckets: wanted 2 to 8"):
        tiny_experiment(**changes)
