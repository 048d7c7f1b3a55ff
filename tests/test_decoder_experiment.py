"""A decoder-only model goes through assembly, training, ranking and generation as an encoder-decoder does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import assembly, evaluation, training
from prompt_tuning.data import features
from prompt_tuning.models.decoder import DecoderConfig
from tests.tiny_experiment import metrics, tiny_experiment

CONFIG = DecoderConfig(
    vocab_size=384,
    d_model=16,
    d_ff=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_width=4,
    tied=True,
    mask="prefix",
    unroll_layers=False,
)


@pytest.fixture(scope="module")
def built():
    return assembly.assemble(tiny_experiment(model=CONFIG))


@pytest.fixture(scope="module")
def parts(built):
    return built.graphdef, built.tuned, built.frozen


@pytest.fixture(scope="module")
def lengths():
    experiment = tiny_experiment(model=CONFIG)
    return evaluation.Lengths(experiment.input_length, experiment.target_length, experiment.method.layout)


EXAMPLES = [{"inputs": [5, 6, 7, 1], "targets": [9, 1]}, {"inputs": [8, 1], "targets": [4, 11, 1]}, {"inputs": [3, 3, 1], "targets": [1]}]


def _log_probabilities(parts, example, targets, lengths):
    """Of each target token, from one example alone and without a cache."""
    batch = features.layout(
        [example | {"targets": targets}], input_length=len(example["inputs"]), target_length=len(targets), prompt=lengths.prompt
    )
    logits = nnx.merge(*parts)({name: jnp.asarray(value) for name, value in batch.items()})
    return np.asarray(jax.nn.log_softmax(logits[0]))


def test_ranked_choices_have_the_log_probabilities_of_each_alone(parts, lengths):
    choices = [[[9, 1], [4, 2, 1]], [[7, 1]], [[9, 1], [8, 1], [5, 1]]]
    scores = evaluation.score_choices(parts, EXAMPLES, choices=choices, lengths=lengths, batch_size=2)
    for example, own, got in zip(EXAMPLES, choices, scores, strict=True):
        for choice, score in zip(own, got, strict=True):
            alone = _log_probabilities(parts, example, choice, lengths)
            assert score == pytest.approx(alone[np.arange(len(choice)), choice].sum(), abs=1e-4)


def test_generated_tokens_are_the_likeliest_one_by_one(parts, lengths):
    generated = evaluation.generate_tokens(parts, EXAMPLES, lengths=lengths, batch_size=4, max_tokens=3)
    for example, tokens in zip(EXAMPLES, generated, strict=True):
        wanted = [*tokens, features.EOS_ID][:3]
        alone = _log_probabilities(parts, example, wanted, lengths)
        assert alone.argmax(axis=-1).tolist() == wanted


@pytest.mark.parametrize("packed", [False, True])
def test_a_run_trains_the_prompt_alone_and_writes_its_results(tmp_path, packed, built):
    experiment = tiny_experiment(model=CONFIG, packed=packed, train_steps=2)
    results = training.train(experiment, str(tmp_path))
    assert results["trained_parameters"] == 3 * 16
    assert results["frozen_parameters"] == sum(row.size for row in built.rows if not row.trained)
    losses = [row["loss"] for row in metrics(tmp_path) if "loss" in row]
    assert losses and np.all(np.isfinite(losses))
    assert (tmp_path / "prompt.npy").exists()
