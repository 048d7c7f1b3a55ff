"""Prompts from other tasks and for other models."""

import numpy as np
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.methods.recycling import recycled
from prompt_tuning.methods.transfer import Transfer, ranked, similarity

RNG = np.random.default_rng(0)


def test_similarity_is_the_cosine_of_mean_rows_or_the_mean_cosine_of_rows():
    a, b = RNG.normal(size=(3, 5)), RNG.normal(size=(4, 5))
    u, v = a.mean(0), b.mean(0)
    assert similarity(a, b) == pytest.approx(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
    pairs = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x in a for y in b]
    assert similarity(a, b, of="pairs_of_rows") == pytest.approx(np.mean(pairs))
    assert similarity(a, 3 * a) == pytest.approx(1) and similarity(a, -a) == pytest.approx(-1)


def test_sources_are_ranked_from_the_most_similar():
    a = RNG.normal(size=(3, 5))
    sources = {"far": -a, "z": 2 * a, "near": a + 0.1 * RNG.normal(size=(3, 5)), "y": a}
    assert [name for name, _ in ranked(a, sources)] == ["y", "z", "near", "far"]


def test_transfer_takes_the_weighted_mean_of_files(tmp_path):
    prompts = RNG.normal(size=(2, 3, 5)).astype(np.float32)
    paths = [str(tmp_path / f"{i}.npy") for i in range(2)]
    for path, prompt in zip(paths, prompts, strict=True):
        np.save(path, prompt)
    embedding = np.zeros((7, 5), np.float32)
    np.testing.assert_array_equal(Transfer(paths[0])(None, 3, embedding, None), prompts[0])
    np.testing.assert_allclose(Transfer(paths)(None, 3, embedding, None), prompts.mean(0), rtol=1e-6)
    np.testing.assert_allclose(Transfer(paths, (3, 1))(None, 3, embedding, None), 0.75 * prompts[0] + 0.25 * prompts[1], rtol=1e-5)
    with pytest.raises(UserError, match="wanted shape"):
        Transfer(paths)(None, 4, embedding, None)
    for wrong in ((1,), (1, -1), (0, 0)):
        with pytest.raises(UserError, match="Transfer.weights: wanted 2 numbers"):
            Transfer(paths, wrong)
    with pytest.raises(UserError, match="Transfer.paths is empty"):
        Transfer()


@pytest.mark.parametrize("by", ["linear", "combination"])
def test_a_prompt_of_tokens_becomes_the_other_models_tokens_where_the_models_are_a_linear_map_apart(by):
    source = RNG.normal(size=(50, 6)).astype(np.float32)
    target = source @ RNG.normal(size=(6, 4)).astype(np.float32)
    prompt = RNG.normal(size=(3, 50)) @ source
    wanted = np.linalg.lstsq(source, target, rcond=None)[0]
    found = recycled(prompt, source, target, by=by, first_token=5, num_tokens=40)
    assert found.shape == (3, 4) and found.dtype == np.float32
    np.testing.assert_allclose(found, prompt @ wanted, rtol=1e-4, atol=1e-4)


def test_a_combination_keeps_what_the_map_cannot_reach():
    source, target = RNG.normal(size=(4, 6)), RNG.normal(size=(4, 3))
    np.testing.assert_allclose(recycled(source[[2]], source, target, by="combination"), target[[2]], rtol=1e-4)


def test_a_network_fits_what_no_matrix_can_and_draws_from_its_seed_alone():
    source = RNG.normal(size=(4000, 4)).astype(np.float32)
    matrix = RNG.normal(size=(4, 24)).astype(np.float32)
    target = np.abs(source @ matrix)  # Even, so that the best linear map is zero.
    prompt = RNG.normal(size=(50, 4)).astype(np.float32)
    wanted = np.abs(prompt @ matrix)
    errors = {by: np.abs(recycled(prompt, source, target, by=by, num_tokens=4000) - wanted).mean() for by in ("linear", "network")}
    assert errors["network"] < 0.3 * errors["linear"]
    small = [recycled(prompt, source, target, by="network", num_tokens=60, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(small[0], small[1])
    assert small[0].shape == (50, 24) and small[0].dtype == np.float32 and np.abs(small[0] - small[2]).max() > 0


def test_what_does_not_fit_is_refused():
    source, target = RNG.normal(size=(9, 6)), RNG.normal(size=(9, 3))
    with pytest.raises(UserError, match=r"wanted a prompt \[P, 6\]"):
        recycled(RNG.normal(size=(2, 5)), source, target)
    with pytest.raises(UserError, match="tokens that both models have"):
        recycled(source[:1], source, target, first_token=9)
    with pytest.raises(UserError, match="wanted 'linear', 'combination' or 'network', got 'magic'"):
        recycled(source[:1], source, target, by="magic")
    with pytest.raises(UserError, match="wanted 'mean_rows'"):
        similarity(source, source, of="all")
