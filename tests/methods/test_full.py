"""Model tuning adds nothing and trains what its patterns name."""

import jax
from flax import nnx

from prompt_tuning import trainable
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.methods.full import Full
from prompt_tuning.models.t5 import T5
from tests.interop import tiny


def test_full_adds_no_parameter_and_no_prompt():
    model = nnx.eval_shape(lambda: T5(tiny.V1_1, nnx.Rngs(params=0)))
    before = [name for name, _ in trainable.named_variables(model)]
    assert Full().attach(model, jax.random.key(0), vocabulary=None) == {}
    assert [name for name, _ in trainable.named_variables(model)] == before
    assert Full().layout == PromptLayout()


def test_full_trains_everything_or_what_patterns_name():
    model = nnx.eval_shape(lambda: T5(tiny.V1_1, nnx.Rngs(params=0)))
    everything = {name for name, _ in trainable.named_variables(model)}
    assert trainable.trained_names(model, Full().trainable) == everything
    norms = Full(patterns=(".*/norm/scale",))
    assert trainable.trained_names(model, norms.trainable) == {name for name in everything if name.endswith("norm/scale")}


def test_patterns_may_come_as_a_list_from_gin():
    assert hash(Full(patterns=["head/kernel"]).trainable) == hash(Full(patterns=("head/kernel",)).trainable)
