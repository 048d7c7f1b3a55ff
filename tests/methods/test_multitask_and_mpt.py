"""Prompts of several tasks: how shared and own parts make them, MPT beside PEFT's, and whose prompt an example takes."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import checkpoints, interop, losses, trainable
from prompt_tuning.data import features
from prompt_tuning.errors import UserError
from prompt_tuning.experiment import resolved
from prompt_tuning.methods.mpt import MPT
from prompt_tuning.methods.multitask import MultitaskPrompt
from prompt_tuning.methods.prompt import Prompt, PromptRows, SampledVocabulary, Uniform
from prompt_tuning.models.layers import MASKED, Fixed
from tests.interop import tiny

# PEFT uses a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

CONFIG = dataclasses.replace(tiny.V1_1, d_model=12, unroll_layers=False)
WIDTH, LENGTH, TASKS = 12, 4, 3


def attached(method, values=None, key=0):
    model = tiny.model_with(CONFIG, values or tiny.random_values(CONFIG))
    return model, method.attach(model, jax.random.key(key), vocabulary=None)


@jax.jit
def forward(model, batch):
    return model(batch)


def logits(model, batch):
    return np.asarray(forward(model, batch))


def examples():
    rng = np.random.default_rng(1)
    lengths = ((7, 5, 1), (4, 2, 0), (2, 3, 2))
    return [
        {"inputs": [*rng.integers(2, 40, n - 1).tolist(), 1], "targets": [*rng.integers(2, 40, m - 1).tolist(), 1], "task": task}
        for n, m, task in lengths
    ]


def test_each_way_to_combine_is_its_formula():
    for combine, shared_width in (("add", WIDTH), ("concatenate", WIDTH), ("concatenate_features", WIDTH - 5), ("project", 6)):
        method = MultitaskPrompt(
            length=LENGTH, tasks=TASKS, combine=combine, task_length=2, task_features=5, shared_features=6, initializer=Uniform()
        )
        model, sources = attached(method)
        prompt = model.embed.prompt
        assert set(sources) == {name for name, _ in trainable.named_variables(model) if name.startswith("embed/prompt/")}
        shared, tasks = np.asarray(prompt.shared[...]), np.asarray(prompt.tasks[...])
        assert shared.shape == (LENGTH, shared_width)
        wanted = []
        for task in range(TASKS):
            own = tasks[task]
            if combine == "add":
                wanted.append(shared + own)
            elif combine == "project":
                wanted.append([own.T @ row + np.asarray(prompt.bias[...])[task] for row in shared])
            else:
                wanted.append(np.concatenate([shared, own], axis=0 if combine == "concatenate" else 1))
        np.testing.assert_allclose(prompt(), np.concatenate(wanted), rtol=1e-5, atol=1e-6)
        assert len(wanted[0]) == method.layout.encoder_length and method.layout.tasks == TASKS
        assert tasks.min() < 0 < tasks.max()


def test_an_example_takes_the_prompt_of_its_task():
    method = MultitaskPrompt(length=LENGTH, tasks=TASKS, initializer=Uniform(scale=2.0), task_scale=2.0)
    model, _ = attached(method)
    rows = np.asarray(model.embed.prompt()).reshape(TASKS, LENGTH, WIDTH)
    found = logits(model, features.layout(examples(), input_length=7, target_length=5, prompt=method.layout))
    for number, example in enumerate(examples()):
        alone, _ = attached(Prompt(length=LENGTH))
        alone.embed.prompt = PromptRows(jnp.asarray(rows[example["task"]]))
        wanted = logits(alone, features.layout([example], input_length=7, target_length=5, prompt=Prompt(length=LENGTH).layout))
        count = len(example["targets"])
        np.testing.assert_allclose(found[number, :count], wanted[0, :count], rtol=1e-4, atol=1e-4)
    swapped = [each | {"task": 0} for each in examples()]
    other = logits(model, features.layout(swapped, input_length=7, target_length=5, prompt=method.layout))
    assert np.abs(other[0] - found[0]).max() > 1e-2 and np.abs(other[1, :2] - found[1, :2]).max() < 1e-5


def test_released_freezes_the_shared_prompt_and_lets_prompts_see_what_is_before_them_alone():
    method = MultitaskPrompt(length=LENGTH, tasks=TASKS, initializer=Uniform(variant="released"), variant="released")
    model, _ = attached(method)
    assert trainable.trained_names(model, method.trainable) == {"embed/prompt/tasks"}
    assert isinstance(model.embed.prompt.shared, Fixed)
    assert float(model.embed.prompt.tasks[...].min()) >= 0
    slots = np.array([[2, 3, -1, -1]], np.int32)
    seen = np.asarray(model.encoder.visibility(slots))[0, 0]
    np.testing.assert_array_equal(seen, np.where([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], MASKED, 0.0))
    fixed, _ = attached(dataclasses.replace(method, variant="fixed"))
    assert fixed.encoder.visibility is None
    assert trainable.trained_names(fixed, method.trainable) == {"embed/prompt/tasks", "embed/prompt/shared"}
    # The first row of the prompt does not change with the last one where it does not see it.
    for built, blind in ((model, True), (fixed, False)):
        batch = features.layout(examples()[:1], input_length=7, target_length=5, prompt=method.layout)
        arguments = {"slots_BS": batch["encoder_prompt_slots"], "segment_ids_BS": batch["encoder_segment_ids"]}
        encoded = []
        for change in (0.0, 1.0):
            tasks = built.embed.prompt.tasks[...]
            built.embed.prompt.tasks.set_value(tasks.at[1, LENGTH - 1].add(change))
            # The inputs are made to see nothing of the prompt: they would tell the first row of the last.
            hidden = dict(arguments) | {"segment_ids_BS": arguments["segment_ids_BS"] * (arguments["slots_BS"] >= 0)}
            encoded.append(np.asarray(built.encode(batch["encoder_input_tokens"], **hidden))[0, 0])
        assert (np.abs(encoded[0] - encoded[1]).max() < 1e-6) == blind


def test_mpt_gives_pefts_logits_for_examples_of_several_tasks(tmp_path):
    import peft
    import torch

    rank = 2
    theirs = tiny.huggingface_model("t5", CONFIG)
    tiny.save_huggingface(theirs, tmp_path)
    values, _ = interop.load_base(str(tmp_path), CONFIG, tiny.abstract(CONFIG))
    config = peft.MultitaskPromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=LENGTH, num_transformer_submodules=1, num_tasks=TASKS, num_ranks=rank, token_dim=WIDTH,
        num_layers=2, num_attention_heads=3,
    )  # fmt: skip
    theirs.config.decoder_start_token_id = theirs.config.pad_token_id = 0
    theirs = peft.get_peft_model(theirs, config).eval()
    encoder = theirs.prompt_encoder["default"]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    method = MPT(length=LENGTH, tasks=TASKS, rank=rank)
    model, _ = attached(method, values)
    for ours, given in (("shared", encoder.embedding.weight), ("left", encoder.prefix_task_cols), ("right", encoder.prefix_task_rows)):
        getattr(model.embed.prompt, ours).set_value(jnp.asarray(given.detach().numpy()))
    batch = features.layout(examples(), input_length=7, target_length=5, prompt=method.layout)
    with torch.no_grad():
        wanted = theirs(
            input_ids=torch.from_numpy(batch["encoder_input_tokens"][:, LENGTH:]).long(),
            attention_mask=torch.from_numpy(batch["encoder_segment_ids"][:, LENGTH:]).long(),
            labels=torch.from_numpy(batch["decoder_target_tokens"]).long(),  # With one prompt PEFT drops what the decoder is given.
            task_ids=torch.tensor([each["task"] for each in examples()]),
        ).logits.numpy()
    counted = batch["decoder_segment_ids"] > 0
    assert np.abs(logits(model, batch) - wanted)[counted].max() <= 1e-4 * np.abs(wanted[counted]).max()


@pytest.mark.parametrize("rank", [1, 3])
def test_tasks_begin_near_the_shared_prompt_or_near_zero(rank):
    for initial, factor in (("ones", 1.0), ("zeros", 0.0)):
        model, _ = attached(MPT(length=LENGTH, tasks=TASKS, rank=rank, initializer=SampledVocabulary(), initial=initial))
        prompt = model.embed.prompt
        wanted = np.tile(factor * np.asarray(prompt.shared[...]), (TASKS, 1))
        np.testing.assert_allclose(prompt(), wanted, atol=0.2 * np.abs(prompt.shared[...]).max())
        assert np.abs(np.asarray(prompt())[:LENGTH] - np.asarray(prompt())[LENGTH : 2 * LENGTH]).max() > 0


@pytest.mark.parametrize("packed", [False, True])
def test_teachers_add_the_divergence_of_tokens_and_the_distance_of_encodings_to_the_loss(tmp_path, packed):
    rng = np.random.default_rng(6)
    paths = [str(tmp_path / f"{number}.npy") for number in range(TASKS)]
    for path in paths:
        np.save(path, rng.normal(size=(LENGTH, WIDTH)).astype(np.float32))
    method = MPT(length=LENGTH, tasks=TASKS, initializer=Uniform(scale=2.0), teachers=paths, distillation=0.7)
    model, sources = attached(method)
    assert trainable.trained_names(model, method.trainable) == {f"embed/prompt/{name}" for name in ("shared", "left", "right")}
    assert sources["embed/prompt/teachers"] == ", ".join(paths)
    teacher, _ = attached(MultitaskPrompt(length=LENGTH, tasks=TASKS))
    teacher.embed.prompt = PromptRows(jnp.asarray(np.concatenate([np.load(path) for path in paths])))
    rows = [examples()[:2], examples()[2:]] if packed else [[example] for example in examples()]
    batch = features.layout_rows(rows, input_length=7 + (4 + LENGTH if packed else 0), target_length=8, prompt=method.layout, packed=packed)

    def said(model):
        scores = logits(model, batch).astype(np.float64)
        probabilities = np.exp(scores - scores.max(-1, keepdims=True))
        arguments = {"slots_BS": batch["encoder_prompt_slots"], "segment_ids_BS": batch["encoder_segment_ids"], "packed": packed}
        return probabilities / probabilities.sum(-1, keepdims=True), np.asarray(model.encode(batch["encoder_input_tokens"], **arguments))

    (wanted, wanted_encoded), (found, found_encoded) = said(teacher), said(model)
    divergence = (wanted * np.log(wanted / found)).sum(-1)[batch["decoder_loss_weights"] > 0].mean()
    distance = np.square(wanted_encoded - found_encoded).mean(-1)[batch["encoder_segment_ids"] > 0].mean()
    assert divergence > 0.01 and distance > 0.01
    penalty = jax.jit(lambda model, batch: losses.penalty(model, batch, model(batch)))(model, batch)
    assert float(penalty) == pytest.approx(0.7 * (divergence + distance), rel=1e-4)
    # A student that is its teacher pays nothing.
    one = MPT(length=LENGTH, teachers=(paths[0],), rank=1)
    student, _ = attached(one)
    student.embed.prompt.shared.set_value(jnp.asarray(np.load(paths[0])))
    student.embed.prompt.left.set_value(jnp.ones((1, LENGTH, 1)))
    student.embed.prompt.right.set_value(jnp.ones((1, 1, WIDTH)))
    alone = features.layout(examples(), input_length=7, target_length=5, prompt=one.layout)
    assert abs(float(losses.penalty(student, alone, student(alone)))) < 1e-6


def saved_source(folder, method):
    """A run's folder whose best checkpoint holds values of its own."""
    model, _ = attached(method, key=5)
    _, state, _ = trainable.split(model, method.trainable)
    tuned = jax.tree.map(lambda x: x + 1, nnx.to_pure_dict(state))
    zeros = jax.tree.map(jnp.zeros_like, tuned)
    with checkpoints.Checkpoints(folder / "checkpoints", base=checkpoints.Base("random", "x")) as writer:
        for step, (values, metric) in enumerate(((zeros, 0.1), (tuned, 0.9), (zeros, 0.5)), start=1):
            writer.save(step, values, {}, extra={}, metric=metric)
    (folder / "experiment.json").write_text(json.dumps({"experiment": {"method": resolved(method)}}))
    return trainable.named(tuned)


def test_a_target_task_begins_from_the_best_checkpoint_of_a_source_training(tmp_path):
    held = saved_source(tmp_path, MPT(length=LENGTH, tasks=TASKS))
    shared, left, right = (np.asarray(held[f"embed/prompt/{name}"]) for name in ("shared", "left", "right"))
    for source_task, own in (("mean", (left.mean(0), right.mean(0))), (2, (left[2], right[2]))):
        model, sources = attached(MPT(length=LENGTH, source=str(tmp_path), source_task=source_task))
        np.testing.assert_array_equal(model.embed.prompt.shared[...], shared)
        np.testing.assert_allclose(model.embed.prompt(), shared * (own[0] @ own[1]), rtol=1e-5)
        assert str(tmp_path) in sources["embed/prompt/left"]
    fresh, _ = attached(MPT(length=LENGTH, source=str(tmp_path), source_task="none"))
    np.testing.assert_array_equal(fresh.embed.prompt.shared[...], shared)
    np.testing.assert_allclose(fresh.embed.prompt.left[...], 1.0, atol=0.2)
    for settings, message in (
        ({"length": 3}, "wanted length 3, width 12 and rank 1, got 4, 12 and 1"),
        ({"source_task": 3}, "holds tasks 0 to 2, got 3"),
        ({"source": str(tmp_path / "none")}, "holds no run"),
    ):
        with pytest.raises(UserError, match=message):
            attached(MPT(**({"length": LENGTH, "source": str(tmp_path)} | settings)))
    (tmp_path / "experiment.json").write_text(json.dumps({"experiment": {"method": resolved(Prompt())}}))
    with pytest.raises(UserError, match="wanted a run of MPT, got one of Prompt"):
        attached(MPT(length=LENGTH, source=str(tmp_path)))


def test_settings_that_cannot_be_are_refused():
    for method, settings, message in (
        (MultitaskPrompt, {"combine": "sum"}, "MultitaskPrompt.combine: wanted 'add', 'concatenate'"),
        (MultitaskPrompt, {"variant": "paper"}, "MultitaskPrompt.variant: wanted 'released' or 'fixed', got 'paper'"),
        (MultitaskPrompt, {"tasks": 0}, "MultitaskPrompt.tasks: wanted a whole number"),
        (MultitaskPrompt, {"stacks": "both"}, "MultitaskPrompt.stacks"),
        (MPT, {"initial": "twos"}, "MPT.initial: wanted 'ones' or 'zeros'"),
        (MPT, {"source_task": "best"}, "MPT.source_task: wanted 'mean', 'none' or the number"),
        (MPT, {"rank": 0}, "MPT.rank: wanted a whole number"),
        (MPT, {"stacks": "decoder"}, "MPT.stacks"),
        (MPT, {"teachers": "a.npy", "tasks": 2}, "MPT.teachers: wanted none, or a prompt for each of 2 tasks, got 1"),
        (MPT, {"distillation": -1}, "MPT.distillation: wanted 0 or more"),
    ):
        with pytest.raises(UserError, match=message):
            method(**settings)
    for combine, name in (("concatenate_features", "task_features"), ("project", "shared_features")):
        with pytest.raises(UserError, match=f"MultitaskPrompt.{name}: wanted less than the model's width of 12, got 13"):
            attached(MultitaskPrompt(length=LENGTH, combine=combine, **{name: 13}))
