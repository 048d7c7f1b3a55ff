"""What is trained: the split, its errors, and the audit table."""

import dataclasses

import jax
import pytest
from flax import nnx

from prompt_tuning import trainable
from prompt_tuning.errors import UserError
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.models.t5 import T5
from prompt_tuning.trainable import Matching, Tunable
from tests.interop import tiny

WIDTH, LENGTH = tiny.V1_1.d_model, 5


def model_with(method, config=tiny.V1_1):
    """An abstract model with a method attached: no value is made."""

    def build():
        model = T5(config, nnx.Rngs(params=0))
        method.attach(model, jax.random.key(0), vocabulary=None)
        return model

    return nnx.eval_shape(build)


def sources_of(model):
    return {name: f"from {name}" for name, _ in trainable.named_variables(model)}


def sizes(state):
    return {name: leaf.size for name, leaf in trainable.named(nnx.to_pure_dict(state)).items()}


def parameters_by_hand(config):
    """The number of parameters of a T5, added up from its description (Raffel et al. 2020; gated and untied as v1.1 is, or not)."""
    width, inner = config.d_model, config.num_heads * config.d_kv
    attention = 4 * width * inner + width
    feed_forward = (3 if config.gated else 2) * width * config.d_ff + width
    bias = config.relative_buckets * config.num_heads
    encoder = config.num_encoder_layers * (attention + feed_forward) + width
    decoder = config.num_decoder_layers * (2 * attention + feed_forward) + width
    biases = bias * (config.num_encoder_layers + config.num_decoder_layers if config.per_layer_bias else 2)
    return encoder + decoder + biases + config.vocab_size * width * (1 if config.tied else 2)


PROMPT = Prompt(length=LENGTH, initializer=Uniform())


@pytest.mark.parametrize("config", [tiny.V1_1, tiny.V1_0, tiny.UMT5], ids=["v1.1", "v1.0", "umt5"])
def test_a_prompt_trains_p_times_d_parameters_and_freezes_the_whole_base(config):
    model = model_with(PROMPT, config)
    _, tuned, frozen = trainable.split(model, PROMPT.trainable)
    assert sizes(tuned) == {"embed/prompt/rows": LENGTH * WIDTH}
    assert sum(sizes(frozen).values()) == parameters_by_hand(config)
    rows = trainable.audit(model, PROMPT.trainable, sources_of(model))
    assert trainable.totals(rows) == (LENGTH * WIDTH, parameters_by_hand(config))


def test_prompts_in_both_stacks_count_twice():
    model = model_with(dataclasses.replace(PROMPT, stacks="both"))
    assert trainable.totals(trainable.audit(model, Tunable, sources_of(model)))[0] == 2 * LENGTH * WIDTH


@pytest.mark.parametrize("config", [tiny.V1_1, tiny.V1_0, tiny.UMT5], ids=["v1.1", "v1.0", "umt5"])
def test_full_trains_every_parameter_and_freezes_none(config):
    model = model_with(Full(), config)
    _, tuned, frozen = trainable.split(model, Full().trainable)
    assert sizes(frozen) == {}
    assert sum(sizes(tuned).values()) == parameters_by_hand(config)
    assert trainable.totals(trainable.audit(model, Full().trainable, sources_of(model))) == (parameters_by_hand(config), 0)


def test_patterns_split_by_whole_names():
    model = model_with(Full())
    _, tuned, frozen = trainable.split(model, Matching(("decoder/.*", "head/kernel")))
    names = {name for name, _ in trainable.named_variables(model)}
    assert set(sizes(tuned)) == {name for name in names if name.startswith("decoder/")} | {"head/kernel"}
    assert set(sizes(tuned)) | set(sizes(frozen)) == names
    assert not set(sizes(tuned)) & set(sizes(frozen))
    with pytest.raises(UserError, match="'decoder'"):
        trainable.split(model, Matching(("decoder",)))  # Only the whole of a name counts.


def test_merging_the_parts_gives_the_model():
    model = tiny.model_with(tiny.V1_1, tiny.random_values(tiny.V1_1))
    PROMPT.attach(model, jax.random.key(0), vocabulary=None)
    graphdef, tuned, frozen = trainable.split(model, Tunable)
    merged = nnx.merge(graphdef, nnx.to_pure_dict(tuned), nnx.to_pure_dict(frozen))
    before, after = (dict(trainable.named_variables(each)) for each in (model, merged))
    assert before.keys() == after.keys()
    assert all((before[name].get_value() == after[name].get_value()).all() for name in before)


def test_a_pattern_that_matches_nothing_is_an_error_that_names_it():
    with pytest.raises(UserError, match=r"'encodr/\.\*' matches no parameter.*such as decoder/layers/"):
        trainable.split(model_with(Full()), Matching(("decoder/.*", "encodr/.*")))


def test_a_pattern_that_is_no_regular_expression_is_an_error_that_names_it():
    with pytest.raises(UserError, match=r"'decoder/\[' is not a regular expression"):
        trainable.split(model_with(Full()), Matching(("decoder/[",)))


@pytest.mark.parametrize("which", [Tunable, Matching(())], ids=["no variable was added", "no pattern"])
def test_an_empty_trainable_set_is_an_error(which):
    model = model_with(Full())
    for use in (lambda: trainable.split(model, which), lambda: trainable.audit(model, which, sources_of(model))):
        with pytest.raises(UserError, match="nothing would be trained"):
            use()


@pytest.mark.parametrize("name", ["encoder/norm/scale", "embed/prompt/rows"])
def test_a_parameter_without_a_source_is_an_error_that_names_it(name):
    model = model_with(PROMPT)
    sources = sources_of(model)
    del sources[name]
    with pytest.raises(UserError, match=f"'{name}' was given no value"):
        trainable.audit(model, Tunable, sources)


def test_the_audit_says_shape_dtype_bytes_and_source_of_every_parameter():
    config = dataclasses.replace(tiny.V1_1, param_dtype="bfloat16")
    model = model_with(PROMPT, config)
    rows = {row.name: row for row in trainable.audit(model, Tunable, sources_of(model))}
    prompt, embedding = rows["embed/prompt/rows"], rows["embed/embedding"]
    assert (prompt.shape, prompt.dtype, prompt.trained, prompt.num_bytes) == ((LENGTH, WIDTH), "float32", True, 4 * LENGTH * WIDTH)
    assert (embedding.dtype, embedding.trained, embedding.num_bytes) == ("bfloat16", False, 2 * config.vocab_size * WIDTH)
    assert prompt.source == "from embed/prompt/rows"
    text = trainable.table(tuple(rows.values())).splitlines()
    assert len(text) == len(rows) + 2  # A header and the totals.
    assert text[1].split()[:5] == ["trained", "embed/prompt/rows", f"{LENGTH}x{WIDTH}", "float32", str(4 * LENGTH * WIDTH)]
    assert all(line.startswith("frozen") for line in text[2:-1])
    assert text[-1].startswith(f"trained {LENGTH * WIDTH:,} of {LENGTH * WIDTH + parameters_by_hand(config):,}")


def test_named_and_nested_are_inverse():
    flat = {"a/b": 1, "a/c/d": 2, "e": 3}
    assert trainable.nested(flat) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert trainable.named(trainable.nested(flat)) == flat
