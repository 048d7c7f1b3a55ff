"""Generation and scores beside Hugging Face's on the same random weights."""

import numpy as np
import pytest
from flax import nnx

from prompt_tuning import evaluation, interop
from prompt_tuning.data.features import EOS_ID
from prompt_tuning.evaluation import Lengths
from tests.interop import tiny

# The two that differ most where decoding goes: a tied head with one bias a stack, an untied head with a bias a layer.
KINDS = {"t5-v1.0": ("t5", tiny.V1_0), "umt5": ("umt5", tiny.UMT5)}
LENGTHS = Lengths(input_length=32, target_length=12)


@pytest.fixture(params=KINDS, scope="module")
def pair(request, tmp_path_factory):
    """Hugging Face's model and ours with its weights."""
    pytest.importorskip("transformers")
    kind, config = KINDS[request.param]
    theirs = tiny.huggingface_model(kind, config)
    theirs.config.decoder_start_token_id = 0
    folder = tmp_path_factory.mktemp(kind)
    tiny.save_huggingface(theirs, folder)
    values, _ = interop.load_base(str(folder), config, tiny.abstract(config))
    return theirs.eval(), nnx.split(tiny.model_with(config, values), lambda path, _: False, ...)


def examples(n=7, seed=0):
    rng = np.random.default_rng(seed)
    most = {"inputs": 20, "targets": 8}
    return [{name: [*rng.integers(3, 40, size=rng.integers(1, top)).tolist(), EOS_ID] for name, top in most.items()} for _ in range(n)]


def padded(sequences, fill):
    import torch

    width = max(map(len, sequences))
    return torch.tensor([[*ids, *[fill] * (width - len(ids))] for ids in sequences])


def test_greedy_generation_is_hugging_faces(pair):
    theirs, parts = pair
    rows = examples(12)
    inputs = padded([row["inputs"] for row in rows], 0)
    generated = theirs.generate(
        input_ids=inputs,
        attention_mask=(inputs != 0).long(),
        max_new_tokens=LENGTHS.target_length,
        do_sample=False,
        num_beams=1,
        pad_token_id=0,
        eos_token_id=EOS_ID,
        decoder_start_token_id=0,
    )
    expected = [evaluation.decoding.without_end(ids[1:]) for ids in generated.tolist()]
    assert len({tuple(ids) for ids in expected}) > 1
    assert evaluation.generate_tokens(parts, rows, lengths=LENGTHS, batch_size=4) == expected


def test_log_likelihoods_are_hugging_faces_loss_times_tokens(pair):
    import torch

    theirs, parts = pair
    rows = examples(5)
    sums, counts = evaluation.log_likelihoods(parts, rows, lengths=LENGTHS, batch_size=2)
    for row, log_likelihood, count in zip(rows, sums, counts, strict=True):
        with torch.no_grad():
            loss = theirs(input_ids=torch.tensor([row["inputs"]]), labels=torch.tensor([row["targets"]])).loss.item()
        assert count == len(row["targets"])
        np.testing.assert_allclose(log_likelihood, -loss * count, rtol=1e-4)
