"""Generation and scores beside Hugging Face's on the same random weights: token for token, with padding in the batch."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import decoding, evaluation, interop
from prompt_tuning.data import features
from prompt_tuning.data.features import EOS_ID, PromptLayout
from prompt_tuning.decoding import Decoding
from prompt_tuning.evaluation import Lengths
from prompt_tuning.methods.prompt import PromptRows
from tests.interop import tiny, tiny_decoders

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

# The two that differ most where decoding goes: a tied head with one bias a stack, an untied head with a bias a layer.
KINDS = {"t5-v1.0": ("t5", tiny.V1_0), "umt5": ("umt5", tiny.UMT5)}
# Rotary positions and grouped heads; learned positions; a window shorter than the inputs; latent attention and experts.
DECODERS = ("llama3", "gpt2", "mistral", "deepseek_v3", pytest.param("deepseek_v2", marks=pytest.mark.slow))
MOST_TOKENS, PROMPT = 10, 3
BEAMS = [
    {"num_beams": 2},
    {"num_beams": 3, "length_penalty": 0.0, "early_stopping": "never"},
    {"num_beams": 4, "length_penalty": 0.6, "early_stopping": True},
    {"num_beams": 4, "length_penalty": 2.0},
    {"num_beams": 5, "length_penalty": 1.0, "early_stopping": "never"},
    {"num_beams": 5, "length_penalty": -1.0, "early_stopping": True},
]
PAD = 33


@pytest.fixture(scope="module", autouse=True)
def compile_with_little_optimization():
    """Compiling is most of the time here."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def lively(model):
    """Transformers' model with all but its embedding and head three times as large: a random one else writes one token again and again."""
    kept = {id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and id(parameter) not in kept:
                parameter.mul_(3.0)
            elif name.endswith("bias"):
                parameter.sub_(parameter.mean())
    return model


@pytest.fixture(params=KINDS, scope="module")
def encoder_decoder(request, tmp_path_factory):
    """Hugging Face's model and ours with its weights."""
    kind, config = KINDS[request.param]
    config = dataclasses.replace(config, unroll_layers=False)
    theirs = lively(tiny.huggingface_model(kind, config))
    theirs.config.decoder_start_token_id = 0
    folder = tmp_path_factory.mktemp(kind)
    tiny.save_huggingface(theirs, folder)
    values, _ = interop.load_base(str(folder), config, tiny.abstract(config))
    return theirs.eval(), tiny.model_with(config, values)


@pytest.fixture(params=DECODERS, scope="module")
def decoder(request, tmp_path_factory):
    """The same, decoder-only."""
    folder = tmp_path_factory.mktemp("published") / request.param
    theirs = lively(tiny_decoders.huggingface_model(request.param))
    tiny_decoders.save(theirs, folder)
    return theirs, tiny_decoders.load(folder, unroll_layers=False)[0]


def examples(n=7, seed=0):
    rng = np.random.default_rng(seed)
    most = {"inputs": 20, "targets": 8}
    return [{name: [*rng.integers(3, 40, size=rng.integers(1, top)).tolist(), EOS_ID] for name, top in most.items()} for _ in range(n)]


def prompt_rows(model):
    return np.random.default_rng(1).normal(size=(PROMPT, model.config.d_model)).astype(np.float32)


def with_prompt(model):
    """A copy of our model, with a prompt in its socket."""
    model = nnx.merge(*nnx.split(model))
    model.embed.prompt = PromptRows(np.asarray(prompt_rows(model)))
    return model


def their_inputs(theirs, rows, *, prompt, side):
    """Padded tokens and their mask, or with a prompt embeddings and their mask."""
    width = max(len(row["inputs"]) for row in rows)
    tokens, mask = np.zeros((2, len(rows), width), np.int64)
    for own, seen, row in zip(tokens, mask, rows, strict=True):
        where = slice(0, len(row["inputs"])) if side == "right" else slice(width - len(row["inputs"]), None)
        own[where], seen[where] = row["inputs"], 1
    if prompt is None:
        return {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask)}
    with torch.no_grad():
        embedded = theirs.get_input_embeddings()(torch.tensor(tokens)).numpy()
    whole, seen = [], []
    for own, real in zip(embedded, mask, strict=True):
        before = int(np.argmax(real))  # Padding before the first token stands before the prompt.
        whole.append(np.concatenate([own[:before], prompt, own[before:]]))
        seen.append(np.concatenate([real[:before], np.ones(len(prompt), np.int64), real[before:]]))
    return {"inputs_embeds": torch.tensor(np.stack(whole)), "attention_mask": torch.tensor(np.stack(seen))}


def their_generation(theirs, inputs, *, settings, **more):
    """What transformers writes, and the scores of its beams."""
    beams = {"early_stopping": settings.early_stopping, "length_penalty": settings.length_penalty} if settings.num_beams > 1 else {}
    made = theirs.generate(
        **inputs,
        **beams,
        **more,
        max_new_tokens=MOST_TOKENS,
        do_sample=False,
        num_beams=settings.num_beams,
        eos_token_id=list(settings.ends()[0]) or None,
        pad_token_id=settings.ends()[1],
        return_dict_in_generate=True,
        output_scores=True,
    )
    before = 1 if theirs.config.is_encoder_decoder else inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    tokens = [without_end(ids, settings) for ids in made.sequences[:, before:].tolist()]
    return tokens, made.sequences_scores.numpy() if settings.num_beams > 1 else None


def without_end(ids, settings):
    eos_ids, pad_id = settings.ends()
    return decoding.without_end(ids, eos_ids=eos_ids, pad_id=pad_id)


def agree(pair, chosen, *, prompt):
    """Generation agrees, with end tokens that the model likes to write: the two that end its greedy texts at the most lengths."""
    theirs, ours = pair
    rows = examples(12)
    side = "right" if theirs.config.is_encoder_decoder else "left"
    start = {"decoder_start_token_id": 0} if theirs.config.is_encoder_decoder else {}
    inputs = their_inputs(theirs, rows, prompt=prompt_rows(ours) if prompt else None, side=side)
    endless, _ = their_generation(theirs, inputs, settings=Decoding(eos_ids=(), pad_id=PAD), **start)
    ends = sorted({token for ids in endless for token in ids}, key=lambda token: len({(*ids, token).index(token) for ids in endless}))[-2:]
    assert len({len(without_end(ids, Decoding(eos_ids=tuple(ends)))) for ids in endless}) > 1
    settings = Decoding(eos_ids=tuple(ends), pad_id=PAD, start_id=0 if start else None, **chosen)
    expected, _ = their_generation(theirs, inputs, settings=settings, **start)
    model, layout = (with_prompt(ours), PromptLayout(encoder_length=PROMPT)) if prompt else (ours, PromptLayout())
    parts = nnx.split(model, lambda path, _: False, ...)
    lengths = Lengths(input_length=32, target_length=MOST_TOKENS, prompt=layout)
    assert evaluation.generate_tokens(parts, rows, lengths=lengths, batch_size=4, settings=settings) == expected


@pytest.mark.parametrize("prompt", [False, True])
def test_greedy_generation_is_hugging_faces(encoder_decoder, prompt):
    agree(encoder_decoder, {}, prompt=prompt)


@pytest.mark.parametrize("prompt", [False, True])
def test_a_decoders_greedy_generation_is_hugging_faces(decoder, prompt):
    agree(decoder, {}, prompt=prompt)


def test_a_decoder_goes_on_from_inputs_padded_on_the_left_as_hugging_faces_does(decoder):
    theirs, ours = decoder
    settings = Decoding(eos_ids=(), pad_id=PAD, start_id=None)
    inputs = their_inputs(theirs, examples(6), prompt=None, side="left")
    assert inputs["attention_mask"][:, 0].min() == 0
    expected, _ = their_generation(theirs, inputs, settings=settings)
    batch = {"encoder_input_tokens": inputs["input_ids"], "encoder_segment_ids": inputs["attention_mask"]}
    batch = {name: value.numpy().astype(np.int32) for name, value in batch.items()}
    found = decoding.generate(ours, batch, max_tokens=MOST_TOKENS, settings=settings).tolist()
    assert [without_end(ids, settings) for ids in found] == expected


@pytest.mark.parametrize(
    "chosen", [*BEAMS[2:4], *(pytest.param(each, marks=pytest.mark.slow) for each in (*BEAMS[:2], *BEAMS[4:]))], ids=str
)
def test_beam_search_is_hugging_faces(encoder_decoder, chosen):
    agree(encoder_decoder, chosen, prompt=chosen["num_beams"] % 2)


@pytest.mark.parametrize("chosen", [BEAMS[4], pytest.param(BEAMS[2], marks=pytest.mark.slow)], ids=str)
def test_a_decoders_beam_search_is_hugging_faces(decoder, chosen):
    agree(decoder, chosen, prompt=chosen["num_beams"] % 2)


@pytest.mark.parametrize("early_stopping", [False, *(pytest.param(each, marks=pytest.mark.slow) for each in (True, "never"))])
def test_all_beams_and_their_scores_are_hugging_faces(encoder_decoder, early_stopping):
    theirs, ours = encoder_decoder
    rows, settings = examples(6), Decoding(num_beams=3, length_penalty=1.4, early_stopping=early_stopping)
    inputs = their_inputs(theirs, rows, prompt=None, side="right")
    expected, scores = their_generation(theirs, inputs, settings=settings, num_return_sequences=3, decoder_start_token_id=0)
    batch = features.layout([row | {"targets": [EOS_ID]} for row in rows], input_length=32, target_length=1)
    found, own = decoding.search(ours, batch, max_tokens=MOST_TOKENS, settings=settings)
    assert [without_end(ids, settings) for ids in np.asarray(found).reshape(18, -1).tolist()] == expected
    # Float32 sums of up to ten log-probabilities.
    np.testing.assert_allclose(np.asarray(own).reshape(-1), scores, rtol=1e-4)


def test_log_likelihoods_are_hugging_faces_loss_times_tokens(encoder_decoder):
    theirs, ours = encoder_decoder
    rows = examples(5)
    lengths = Lengths(input_length=32, target_length=12)
    sums, counts = evaluation.log_likelihoods(nnx.split(ours, lambda path, _: False, ...), rows, lengths=lengths, batch_size=2)
    for row, log_likelihood, count in zip(rows, sums, counts, strict=True):
        with torch.no_grad():
            loss = theirs(input_ids=torch.tensor([row["inputs"]]), labels=torch.tensor([row["targets"]])).loss.item()
        assert count == len(row["targets"])
        np.testing.assert_allclose(log_likelihood, -loss * count, rtol=1e-4)
