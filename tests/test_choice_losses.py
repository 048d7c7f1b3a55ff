"""The losses of answer choices beside PyTorch's of transformers' logits in float64, and in training."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import assembly, interop, losses, programs, training
from prompt_tuning.data import choices, features
from prompt_tuning.errors import UserError
from prompt_tuning.losses import ChoiceLosses
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.optimizers import AdamW
from tests.interop import tiny, tiny_decoders
from tests.tiny_experiment import metrics, tiny_experiment

EXAMPLES = [
    {"inputs": [5, 6, 7, 8, 9, 1], "targets": [4, 1], "choices": ((4, 1), (7, 8, 9, 1), (5, 5, 1))},
    {"inputs": [11, 1], "targets": [12, 13, 1], "choices": ((12, 13, 1), (4, 1))},
    {"inputs": [3, 4, 5, 1], "targets": [6, 1]},
]
LENGTHS = {"input_length": 7, "target_length": 4, "prompt": features.NO_PROMPT}
WEIGHTED = ChoiceLosses(num_choices=3, unlikelihood=0.7, multiple_choice=1.3, length_normalisation=0.5)


def expected(logits_of, settings, torch):
    """The three losses, example by example and choice by choice, from a function that gives the logits [T, V] of one choice."""
    right_tokens, wrong_tokens, multiple = [], [], []
    for row, example in enumerate(EXAMPLES):
        every = example.get("choices", (example["targets"],))
        scores = []
        for place, choice in enumerate(every):
            logits = logits_of(row, place, choice)
            log_probs = torch.log_softmax(logits, dim=-1)[torch.arange(len(choice)), torch.tensor(choice)]
            scores.append(log_probs.sum() / len(choice) ** settings.length_normalisation)
            if place == 0:
                right_tokens += list(-log_probs)
            else:
                wrong_tokens += list(-torch.log(1 - torch.exp(log_probs) + settings.epsilon))
        if len(every) > 1:
            multiple.append(-torch.log_softmax(torch.stack(scores), dim=0)[0])
    return [torch.stack(terms).mean() for terms in (right_tokens, wrong_tokens, multiple)]


def total(terms, settings):
    return terms[0] + settings.unlikelihood * terms[1] + settings.multiple_choice * terms[2]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """transformers' T5 in float64, and ours with its weights."""
    theirs = tiny.huggingface_model("t5", tiny.V1_1)
    folder = tmp_path_factory.mktemp("published") / "t5"
    tiny.save_huggingface(theirs, folder)
    values, _ = interop.load_base(str(folder), tiny.V1_1, tiny.abstract(tiny.V1_1))
    return theirs.double(), tiny.model_with(tiny.V1_1, values)


@pytest.mark.parametrize("chosen", [ChoiceLosses(num_choices=3), WEIGHTED], ids=["as published", "weighted"])
def test_losses_and_gradients_are_pytorchs_of_transformers_logits(pair, chosen):
    torch = pytest.importorskip("torch")
    theirs, ours = pair

    def logits_of(row, place, choice):
        del place
        start = torch.tensor([[0, *choice[:-1]]])
        return theirs(input_ids=torch.tensor([EXAMPLES[row]["inputs"]]), decoder_input_ids=start).logits[0]

    theirs.zero_grad()
    terms = expected(logits_of, chosen, torch)
    total(terms, chosen).backward()
    batch = choices.layout(EXAMPLES, num_choices=3, **LENGTHS)
    graphdef, values = nnx.split(ours)

    def loss_of(values):
        logits = nnx.merge(graphdef, values)(batch)
        return losses.of_choices(logits, batch["decoder_target_tokens"], weights_BCT=batch["decoder_loss_weights"], settings=chosen)

    (loss, found), gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(values)
    # Ours is float32 throughout: rounding of two layers, 1e-5 of a loss near 10.
    np.testing.assert_allclose(loss, total(terms, chosen).item(), rtol=1e-5)
    for name, term in zip(("cross_entropy", "unlikelihood", "multiple_choice"), terms, strict=True):
        np.testing.assert_allclose(found[name], term.item(), rtol=2e-5, atol=1e-6)
    gradient = nnx.to_pure_dict(gradient)
    for name, mine, wanted in (
        ("embedding", gradient["embed"]["embedding"], theirs.shared.weight.grad),
        ("head", gradient["head"]["kernel"], theirs.lm_head.weight.grad.T),
        ("key", gradient["encoder"]["layers"]["self_attention"]["attention"]["key"]["kernel"][0],
         theirs.encoder.block[0].layer[0].SelfAttention.k.weight.grad.T),
        ("cross value", gradient["decoder"]["layers"]["cross_attention"]["attention"]["value"]["kernel"][1],
         theirs.decoder.block[1].layer[1].EncDecAttention.v.weight.grad.T),
    ):  # fmt: skip
        wanted = wanted.numpy()
        assert np.abs(mine - wanted).max() < 1e-4 * np.abs(wanted).max(), name


def test_a_decoders_losses_are_pytorchs_of_transformers_logits(tmp_path):
    """Each choice behind its inputs in a row of its own there, all behind the inputs they share here."""
    torch = pytest.importorskip("torch")
    theirs = tiny_decoders.huggingface_model("llama2")
    tiny_decoders.save(theirs, tmp_path)
    ours, _ = tiny_decoders.load(tmp_path, unroll_layers=False)
    theirs = theirs.double()

    def logits_of(row, place, choice):
        del place
        before = [2, *EXAMPLES[row]["inputs"]]
        return theirs(input_ids=torch.tensor([[*before, *choice[:-1]]])).logits[0, len(before) - 1 :]

    terms = expected(logits_of, WEIGHTED, torch)
    total(terms, WEIGHTED).backward()
    marks = features.Delimiters(eos=1, pad=0, start=None, bos=2, inputs_end=False)
    batch = choices.layout(EXAMPLES, num_choices=3, **LENGTHS | {"prompt": features.PromptLayout(delimiters=marks)})
    graphdef, values = nnx.split(ours)
    loss, gradient = jax.jit(jax.value_and_grad(lambda values: loss_of(nnx.merge(graphdef, values)(batch), batch, WEIGHTED)[0]))(values)
    np.testing.assert_allclose(loss, total(terms, WEIGHTED).item(), rtol=1e-5)
    found, wanted = gradient["embed"]["embedding"][...], theirs.get_input_embeddings().weight.grad.numpy()
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_the_gradient_of_the_scores_is_pytorchs():
    torch = pytest.importorskip("torch")
    batch = choices.layout(EXAMPLES, num_choices=3, **LENGTHS)
    logits = 3 * np.random.default_rng(0).normal(size=(3, 3, 4, 20)).astype(np.float32)
    theirs = torch.tensor(logits.astype(np.float64), requires_grad=True)
    total(expected(lambda row, place, choice: theirs[row, place, : len(choice)], WEIGHTED, torch), WEIGHTED).backward()
    mine = jax.grad(lambda x: loss_of(x, batch, WEIGHTED)[0])(jnp.asarray(logits))
    np.testing.assert_allclose(mine, theirs.grad.numpy(), atol=1e-6)


@functools.partial(jax.jit, static_argnames="chosen")
def loss_of(logits, batch, chosen):
    return losses.of_choices(logits, batch["decoder_target_tokens"], weights_BCT=batch["decoder_loss_weights"], settings=chosen)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**16), st.integers(0, 2), st.sampled_from([(0, 1, 2), (0, 2, 1)]))
def test_order_and_places_left_over_change_nothing(seed, more, order):
    logits = np.random.default_rng(seed).normal(size=(3, 3, 4, 20)).astype(np.float32)
    plain, found = loss_of(logits, choices.layout(EXAMPLES, num_choices=3, **LENGTHS), WEIGHTED)
    turned = [
        example | {"choices": tuple(example["choices"][place] for place in order if place < len(example["choices"]))}
        if "choices" in example
        else example
        for example in EXAMPLES
    ]
    places = [
        [place for place in order if place < len(example.get("choices", "x"))]
        + [place for place in order if place >= len(example.get("choices", "x"))]
        for example in EXAMPLES
    ]
    moved = np.stack([logits[row, own] for row, own in enumerate(places)])
    # What stands where no choice does must not matter, infinities included.
    moved = np.concatenate([moved, np.full((3, more, 4, 20), np.inf, np.float32)], axis=1)
    again, found_again = loss_of(moved, choices.layout(turned, num_choices=3 + more, **LENGTHS), WEIGHTED)
    np.testing.assert_allclose(again, plain, rtol=1e-6)
    for name in found:
        np.testing.assert_allclose(found_again[name], found[name], rtol=1e-6, err_msg=name)


def test_only_tokens_of_choices_have_a_gradient():
    batch = choices.layout(EXAMPLES, num_choices=4, **LENGTHS)
    silent = batch["decoder_loss_weights"] == 0
    logits = np.random.default_rng(1).normal(size=(3, 4, 4, 20)).astype(np.float32)
    gradient = np.asarray(jax.grad(lambda x: loss_of(x, batch, WEIGHTED)[0])(logits))
    assert (gradient[silent] == 0).all() and (np.abs(gradient[~silent]).max(axis=-1) > 0).all()


def test_without_weights_the_loss_is_that_of_the_targets():
    logits = np.random.default_rng(2).normal(size=(3, 3, 4, 20)).astype(np.float32)
    chosen = ChoiceLosses(num_choices=3, unlikelihood=0.0, multiple_choice=0.0)
    batch = choices.layout(EXAMPLES, num_choices=3, **LENGTHS)
    plain = features.layout(EXAMPLES, **LENGTHS)
    wanted, said = losses.per_token(
        logits[:, 0], plain["decoder_target_tokens"], weights_BT=plain["decoder_loss_weights"], label_smoothing=0.1, z_loss=1e-2
    )
    loss, found = losses.of_choices(
        logits,
        batch["decoder_target_tokens"],
        weights_BCT=batch["decoder_loss_weights"],
        settings=chosen,
        label_smoothing=0.1,
        z_loss=1e-2,
    )
    assert loss == wanted and all(found[name] == value for name, value in said.items())


def test_accuracy_is_the_share_of_examples_whose_right_choice_scores_highest():
    batch = choices.layout(EXAMPLES, num_choices=3, **LENGTHS)
    right = 9.0 * jax.nn.one_hot(batch["decoder_target_tokens"][:, :1], 20) * np.ones((1, 3, 1, 1))
    _, found = loss_of(right, batch, ChoiceLosses(num_choices=3))
    assert found["choice_accuracy"] == 1.0
    _, found = loss_of(right.at[1].set(-right[1]), batch, ChoiceLosses(num_choices=3))
    assert found["choice_accuracy"] == 0.5, "the third example has no choices and does not count"


@functools.cache
def experiment(**changes):
    return tiny_experiment(method=changes.pop("method", IA3()), choice_losses=ChoiceLosses(num_choices=3), target_length=4, **changes)


def test_a_run_logs_the_parts_of_its_loss(tmp_path):
    settings = experiment(train_steps=2)
    training.train(settings, str(tmp_path / "run"))
    rows = [row for row in metrics(tmp_path / "run") if "unlikelihood" in row]
    assert len(rows) == 2
    for values in rows:
        parts = [values[name] for name in ("cross_entropy", "unlikelihood", "multiple_choice")]
        assert 0 <= values["choice_accuracy"] <= 1
        np.testing.assert_allclose(values["loss"], sum(parts), rtol=1e-5)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_choices_are_learned_and_updates_come_once_a_cycle(accumulation_steps):
    settings = experiment(
        method=Full(), optimizer=AdamW(learning_rate=0.01), train_steps=30 * accumulation_steps, accumulation_steps=accumulation_steps
    )
    built = assembly.assemble(settings)
    ready = training.trainer(settings, built)
    take_step = ready.step.lower(ready.state, built.frozen, programs.abstract_batch(settings, built.mesh)).compile()
    state, found = ready.state, []
    with training.batches(settings, start_step=0) as batches:
        for step in range(settings.train_steps):
            before = np.array(state.tuned["embed"]["embedding"])
            state, measured = take_step(state, built.frozen, training.on_devices(next(batches), built.mesh))
            updated = (step + 1) % accumulation_steps == 0
            assert np.array_equal(before, state.tuned["embed"]["embedding"]) != updated
            found.append({name: float(value) for name, value in measured.items()})
    for name in ("loss", "multiple_choice"):
        values = [each[name] for each in found]
        assert np.mean(values[-5:]) < 0.8 * np.mean(values[:3]), name


def test_settings_that_cannot_be_are_refused():
    for stated, message in (
        ({"num_choices": 1}, "ChoiceLosses.num_choices: wanted a whole number of 2 or more, got 1"),
        ({"unlikelihood": -1}, "ChoiceLosses.unlikelihood: wanted 0 or more, got -1"),
        ({"multiple_choice": float("nan")}, "ChoiceLosses.multiple_choice"),
        ({"epsilon": 0}, "ChoiceLosses.epsilon"),
    ):
        with pytest.raises(UserError, match=message):
            ChoiceLosses(**stated)
    with pytest.raises(UserError, match="packed: wanted False"):
        dataclasses.replace(experiment(), packed=True)
