"""Training, ranking and generation of decoder-only models with their own delimiters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import evaluation, losses, trainable
from prompt_tuning.data import features
from prompt_tuning.data.features import Delimiters, PromptLayout
from prompt_tuning.evaluation import Lengths
from prompt_tuning.methods.prompt import PromptRows
from prompt_tuning.models.decoder import DecoderConfig
from tests.interop import tiny_decoders as tiny
from tests.models.test_decoder import drawn

LLAMA = Delimiters(eos=2, pad=2, start=None, bos=1, inputs_end=False)
GPT2 = Delimiters(eos=60, pad=60, start=None, inputs_end=False)
EXAMPLES = [
    {"inputs": [5, 6, 7], "targets": [9, 2]},
    {"inputs": [8], "targets": [4, 11, 2]},
    {"inputs": [3, 3, 12, 30], "targets": [2]},
    {"inputs": [], "targets": [21, 22, 2]},
]
LENGTHS = {"input_length": 6, "target_length": 4}
PLACES = ("before", "after_first", "suffix")
CONFIG = DecoderConfig(
    vocab_size=40, d_model=16, d_ff=24, num_layers=2, num_heads=4, num_kv_heads=2, head_width=6, tied=True, unroll_layers=False
)


def loss_of(model, batch, *, mean=True):
    total, count, _ = losses.cross_entropy(model(batch), batch["decoder_target_tokens"], weights_BT=batch["decoder_loss_weights"])
    return total / count if mean else total


def prompted(model, rows_PD):
    model.embed.prompt = PromptRows(jnp.asarray(rows_PD))
    return model


@pytest.mark.parametrize("family", ["gpt2", "llama2", *(pytest.param(f, marks=pytest.mark.slow) for f in ("gemma2", "qwen3"))])
@pytest.mark.parametrize("placement", ["before", pytest.param("first", marks=pytest.mark.slow)])
def test_loss_and_prompt_gradient_are_those_of_transformers(family, placement, tmp_path):
    """The oracle reads each example alone, as embeddings of one whole sequence, with labels on its targets."""
    torch = pytest.importorskip("torch")
    theirs = tiny.huggingface_model(family)
    tiny.save(theirs, tmp_path)
    ours, _ = tiny.load(tmp_path, unroll_layers=False)
    theirs = theirs.double()
    marks = LLAMA if family != "gpt2" else dataclasses.replace(GPT2, eos=2)
    examples = EXAMPLES if marks.bos is not None else EXAMPLES[:3]
    width = ours.config.d_model
    rows_PD = np.random.default_rng(0).normal(size=(2, width)).astype(np.float32)
    rows = torch.tensor(rows_PD.astype(np.float64), requires_grad=True)
    total, count = 0.0, 0
    for example in examples:
        before, after = [] if marks.bos is None else [marks.bos], [*example["inputs"], *example["targets"]]
        embed = theirs.get_input_embeddings()
        parts = [embed(torch.tensor([before], dtype=torch.long))[0], rows, embed(torch.tensor([after]))[0]]
        if placement == "first":
            parts[:2] = parts[1::-1]
        logits = theirs(inputs_embeds=torch.cat(parts)[None]).logits[0]
        length = len(before) + 2 + len(after)
        asked = range(length - len(example["targets"]) - 1, length - 1)
        log_probs = torch.log_softmax(logits, -1)
        total = total - sum(log_probs[place, target] for place, target in zip(asked, example["targets"], strict=True))
        count += len(example["targets"])
    (total / count).backward()
    prompted(ours, rows_PD)
    graphdef, tuned, frozen = trainable.split(ours, trainable.Tunable)
    batch = features.layout(examples, prompt=PromptLayout(2, placement=placement, delimiters=marks), **LENGTHS)
    loss, gradient = jax.jit(jax.value_and_grad(lambda t: loss_of(nnx.merge(graphdef, t, frozen), batch)))(tuned)
    # float32 through three layers against float64.
    assert float(loss) == pytest.approx((total / count).item(), rel=1e-5)
    found, expected = np.asarray(nnx.to_pure_dict(gradient)["embed"]["prompt"]["rows"]), rows.grad.numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.fixture
def float64(monkeypatch):
    """Everything the model computes in float32 is computed in float64."""
    monkeypatch.setattr(jnp, "float32", jnp.float64)
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("marks", [LLAMA, dataclasses.replace(GPT2, eos=2)], ids=["bos", "no bos"])
@pytest.mark.parametrize("placement", PLACES)
def test_packed_loss_and_prompt_gradients_are_those_of_rows_alone(float64, placement, marks):
    config = dataclasses.replace(CONFIG, layer_kinds="LG", window=4, param_dtype="float64", dtype="float64")
    values = {name: drawn(name, leaf.shape).astype(np.float64) for name, leaf in tiny.abstract(CONFIG).items()}
    model = prompted(tiny.model_with(config, values), np.random.default_rng(1).normal(size=(3, 16)))
    graphdef, tuned, frozen = trainable.split(model, trainable.Tunable)
    layout = PromptLayout(3, placement=placement, delimiters=marks)
    alone = features.layout(EXAMPLES, prompt=layout, **LENGTHS)
    long = {"input_length": 17, "target_length": 9}
    rows = list(features.pack(EXAMPLES, prompt=layout, **long))
    assert len(rows) < len(EXAMPLES) - 1, "the test wants examples that share rows"
    packed = features.layout_rows(rows, prompt=layout, **long)
    run = jax.value_and_grad(lambda tuned, batch: loss_of(nnx.merge(graphdef, tuned, frozen), batch))
    (one, one_gradient), (other, other_gradient) = (jax.jit(run)(tuned, batch) for batch in (alone, packed))
    assert one.dtype == np.float64 and float(one) == pytest.approx(float(other), rel=1e-6)
    for mine, wanted in zip(jax.tree.leaves(one_gradient), jax.tree.leaves(other_gradient), strict=True):
        assert np.abs(wanted).max() > 0
        np.testing.assert_allclose(mine, wanted, rtol=1e-6, atol=1e-9)


def parts_of(placement="before", marks=LLAMA, prompt=3):
    values = {name: drawn(name, leaf.shape) for name, leaf in tiny.abstract(CONFIG).items()}
    model = tiny.model_with(CONFIG, values)
    if prompt:
        prompted(model, np.random.default_rng(1).normal(size=(prompt, 16)).astype(np.float32))
    lengths = Lengths(8, 4, PromptLayout(prompt, placement=placement, delimiters=marks))
    return trainable.split(model, trainable.Tunable if prompt else nnx.Param), lengths


def alone(parts, lengths, example, targets):
    """Log-probabilities [T, V] of one example with these targets, without a cache."""
    batch = features.layout([example | {"targets": targets}], input_length=8, target_length=len(targets), prompt=lengths.prompt)
    return np.asarray(jax.nn.log_softmax(nnx.merge(*parts)(batch)[0]))


@pytest.mark.parametrize(("placement", "prompt"), [("before", 3), ("suffix", 3), ("before", 0)])
def test_ranked_choices_have_the_log_probabilities_of_each_alone(placement, prompt):
    parts, lengths = parts_of(placement, prompt=prompt)
    choices = [[[9, 2], [4, 2]], [[7, 2]], [[9, 2], [8, 2], [5, 6, 2]], [[3, 2], [30, 2]]]
    scores = evaluation.score_choices(parts, EXAMPLES, choices=choices, lengths=lengths, batch_size=2)
    without = evaluation.score_choices(parts, EXAMPLES, choices=choices, lengths=lengths, batch_size=2, include_eos=False)
    for example, own, got, shorter in zip(EXAMPLES, choices, scores, without, strict=True):
        for choice, score, short in zip(own, got, shorter, strict=True):
            each = alone(parts, lengths, example, choice)[np.arange(len(choice)), choice]
            assert score == pytest.approx(each.sum(), abs=1e-4)
            assert short == pytest.approx(each[:-1].sum(), abs=1e-4), "EOS is this vocabulary's"


def test_log_likelihoods_count_targets_and_eos():
    parts, lengths = parts_of()
    sums, counts = evaluation.log_likelihoods(parts, EXAMPLES, lengths=lengths, batch_size=3)
    for example, total, count in zip(EXAMPLES, sums, counts, strict=True):
        each = alone(parts, lengths, example, example["targets"])[np.arange(len(example["targets"])), example["targets"]]
        assert (total, count) == (pytest.approx(each.sum(), abs=1e-4), len(example["targets"]))


@pytest.mark.parametrize(("placement", "prompt"), [("before", 3), ("suffix", 3), ("before", 0)])
def test_generated_tokens_are_the_likeliest_one_by_one(placement, prompt):
    parts, lengths = parts_of(placement, prompt=prompt)
    generated = evaluation.generate_tokens(parts, EXAMPLES, lengths=lengths, batch_size=4, max_tokens=4)
    for example, tokens in zip(EXAMPLES, generated, strict=True):
        wanted = [*tokens, LLAMA.eos][:4]
        assert alone(parts, lengths, example, wanted).argmax(axis=-1).tolist() == wanted


def test_a_long_input_is_read_as_long_as_training_reads_it():
    """BOS takes one of the input's places in every bucket of lengths."""
    parts, lengths = parts_of()
    lengths = dataclasses.replace(lengths, input_length=64)
    example = {"inputs": [int(i) for i in np.random.default_rng(0).integers(3, 40, 32)], "targets": [9, 2]}
    [total], _ = evaluation.log_likelihoods(parts, [example], lengths=lengths, batch_size=1)
    batch = features.layout([example], input_length=64, target_length=2, prompt=lengths.prompt)
    assert float(-loss_of(nnx.merge(*parts), batch, mean=False)) == pytest.approx(float(total), rel=1e-5)
