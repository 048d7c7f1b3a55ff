"""Scales and prefixes in latent attention (DeepSeek), beside transformers.

Agreement is the largest difference over the largest absolute logit: 1e-4 at most, in float32.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import export, mixed_tasks, trainable
from prompt_tuning.data import features
from prompt_tuning.errors import UserError
from prompt_tuning.methods import ia3
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.prefix import Prefix
from prompt_tuning.methods.together import Together
from prompt_tuning.models.layers import Tunable
from tests.interop import tiny_decoders
from tests.interop.test_peft import moved, our_logits, ours_of, pair, their_logits, words
from tests.tiny_experiment import tiny_experiment

FAMILIES = (pytest.param("deepseek_v2", marks=pytest.mark.slow), "deepseek_v3")
PREFIX = Prefix(length=3, hidden=None)
METHODS = {"ia3": IA3(), "prefix": PREFIX, "both": Together((IA3(), PREFIX))}
# Heads; layers, the first of them dense; widths of a key (plain, rotated) and a value, of the dense feed-forward layer and of an expert.
HEADS, LAYERS, PLAIN, ROTATED, VALUE, DENSE, EXPERT = 4, 3, 6, 8, 5, 20, 8
TRAINED = {
    "ia3": LAYERS * HEADS * (PLAIN + VALUE) + DENSE + (LAYERS - 1) * EXPERT,
    "prefix": LAYERS * 3 * HEADS * (PLAIN + ROTATED + VALUE),
}


def close(found, wanted):
    assert np.isfinite(found).all()
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def attached(family, method):
    theirs, model = pair(family)
    sources = method.attach(model, jax.random.key(0), vocabulary=None)
    added = {name for name, variable in trainable.named_variables(model) if isinstance(variable, Tunable)}
    assert set(sources) == added
    return theirs, model


@pytest.mark.parametrize("name", TRAINED)
def test_every_layer_has_its_part(name):
    _, model = attached("deepseek_v3", METHODS[name])
    sizes = {path: variable.get_value().size for path, variable in trainable.named_variables(model) if isinstance(variable, Tunable)}
    assert sum(sizes.values()) == TRAINED[name]
    assert {path.partition("/")[0] for path in sizes} == {"first", "decoder"}


@pytest.mark.parametrize("family", FAMILIES)
def test_scales_begin_as_the_base_and_fold_into_what_transformers_computes(family, tmp_path):
    import transformers

    theirs, model = attached(family, IA3())
    close(our_logits(model, *words(model), 0), their_logits(theirs, *words(model), 0))
    moved(model)
    wanted = our_logits(model, *words(model), 0)
    assert np.abs(wanted - their_logits(theirs, *words(model), 0)).max() > 1e-2
    undo = ia3.merge(model)
    close(our_logits(model, *words(model), 0), wanted)
    undo()
    close(our_logits(model, *words(model), 0), wanted)
    export.write_huggingface(tmp_path, model, tiny_experiment(model=model.config, method=IA3()))
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    close(their_logits(merged, *words(model), 0), wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_is_keys_and_values_before_those_of_transformers(family, monkeypatch):
    import torch

    theirs, model = attached(family, PREFIX)
    moved(model)
    tokens, _ = words(model)
    made = [stack.layers.self_attention.attention.prefix for stack in (model.first, model.decoder)]
    keys, values = (np.concatenate([getattr(part, name)[...] for part in made]) for name in ("keys", "values"))
    if family == "deepseek_v2":
        # Its code leaves a pair of rotated coordinates side by side, where ours stand half the width apart.
        order = np.arange(ROTATED).reshape(2, -1).T.ravel()
        keys = np.concatenate([keys[..., :PLAIN], keys[..., PLAIN:][..., order]], axis=-1)
    module = importlib.import_module(type(theirs).__module__)
    attend = module.eager_attention_forward

    def with_prefix(attention, query, key, value, mask, **settings):
        before = [torch.tensor(part[attention.layer_idx]).expand(len(tokens), -1, -1, -1) for part in (keys, values)]
        key, value = (torch.cat(each, dim=2) for each in zip(before, (key, value), strict=True))
        return attend(attention, query, key, value, torch.nn.functional.pad(mask, (3, 0)), **settings)

    monkeypatch.setattr(module, "eager_attention_forward", with_prefix)
    places = torch.arange(3, 3 + tokens.shape[1])[None]
    with torch.no_grad():
        wanted = theirs(input_ids=torch.from_numpy(tokens).long(), position_ids=places, use_cache=False).logits.numpy()
    close(our_logits(model, tokens, None, 0), wanted)


@functools.cache
def of(name):
    """The model with what it trains some way off its first values, its parts, and a batch of examples of different lengths."""
    _, model = attached("deepseek_v3", METHODS[name])
    moved(model)
    graphdef, tuned, frozen = trainable.split(model, Tunable)
    examples = [{"inputs": [5, 6, 7, 8, 1], "targets": [9, 4, 1]}, {"inputs": [3, 1], "targets": [12, 1]}]
    return model, (graphdef, nnx.to_pure_dict(tuned), nnx.to_pure_dict(frozen)), examples


@pytest.mark.parametrize("name", METHODS)
def test_cached_steps_give_the_logits_of_the_whole(name):
    model, _, examples = of(name)
    batch = features.layout(examples, input_length=5, target_length=3)
    whole = np.asarray(jax.jit(lambda model, batch: model(batch))(model, batch))
    encoded = model.encode(batch["encoder_input_tokens"], segment_ids_BS=batch["encoder_segment_ids"])
    cache = model.init_cache(encoded, batch["encoder_segment_ids"], length=3)
    step = jax.jit(lambda model, tokens, cache: model.decode_step(tokens, cache))
    for place in range(3):
        found, cache = step(model, jnp.asarray(batch["decoder_input_tokens"][:, place : place + 1]), cache)
        counted = batch["decoder_loss_weights"][:, place] > 0
        np.testing.assert_allclose(found[counted, 0], whole[counted, place], atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_rows_of_several_tasks_do_what_each_does_alone(name):
    _, (graphdef, tuned, frozen), examples = of(name)
    batch = features.layout(examples, input_length=5, target_length=3)
    other = jax.tree.map(lambda x: 1.3 * x, tuned)
    task_ids = jnp.array([1, 0])
    mixed = jax.jit(lambda stacked: mixed_tasks.MixedTasks(graphdef, stacked, frozen, task_ids)(batch))(mixed_tasks.stacked([tuned, other]))
    alone = jax.jit(lambda tuned: nnx.merge(graphdef, tuned, frozen)(batch))
    close(np.asarray(mixed), np.stack([np.asarray(alone(other))[0], np.asarray(alone(tuned))[1]]))


def test_every_scale_and_prefix_has_a_gradient():
    _, (graphdef, tuned, frozen), examples = of("both")
    batch = features.layout(examples, input_length=5, target_length=3)
    loss = jax.jit(jax.grad(lambda tuned: jnp.mean(jnp.square(nnx.merge(graphdef, tuned, frozen)(batch)))))
    for path, gradient in trainable.named(loss(tuned)).items():
        assert (np.abs(gradient).reshape(len(gradient), -1).max(axis=-1) > 0).all(), path


def test_a_network_cannot_make_keys_and_values_of_two_widths():
    with pytest.raises(UserError, match=r"Prefix.hidden: .* have 14 and 5; set Prefix.hidden = None"):
        Prefix(length=3, hidden=4).attach(ours_of("deepseek_v3"), jax.random.key(0), vocabulary=None)
    assert tiny_decoders.FAMILIES["deepseek_v3"][1]["v_head_dim"] == VALUE
