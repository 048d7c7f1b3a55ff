"""Methods side by side on one base."""

import jax
import pytest
from flax import nnx

from prompt_tuning import trainable
from prompt_tuning.errors import UserError
from prompt_tuning.methods.adapter import Adapter
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.lora import Lora
from prompt_tuning.methods.norms import Norms
from prompt_tuning.methods.prefix import Prefix
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.methods.together import Together
from prompt_tuning.models.t5 import T5
from tests.interop import tiny

PROMPT = Prompt(length=2, initializer=Uniform(), placement="suffix")


def trained(method):
    def attached():
        model = T5(tiny.V1_1, nnx.Rngs(params=0))
        sources.update(method.attach(model, jax.random.key(0), vocabulary=None))
        return model

    sources = {}
    model = nnx.eval_shape(attached)
    names = trainable.trained_names(model, method.trainable)
    assert set(sources) <= {name for name, _ in trainable.named_variables(model)}
    return names


def test_what_is_trained_is_what_each_trains():
    parts = [PROMPT, Lora(rank=2), IA3(), Prefix(length=2), Adapter(width=2, train_norms=False)]
    assert trained(Together(parts)) == frozenset().union(*map(trained, parts))
    assert trained(Together((Norms(), Adapter(width=2)))) == trained(Norms()) | trained(Adapter(width=2))
    assert trained(Together((Lora(rank=2), Full()))) > trained(Full())


def test_the_layout_is_that_of_the_prompt():
    assert Together((Lora(), PROMPT)).layout == PROMPT.layout
    assert Together((Lora(), IA3())).layout == Lora().layout


def test_methods_that_do_not_go_together_are_refused():
    with pytest.raises(UserError, match="wanted two methods or more, got 1"):
        Together([PROMPT])
    with pytest.raises(UserError, match="at most one with a prompt in the sequences, got Prompt and Prompt"):
        Together((PROMPT, PROMPT))
    with pytest.raises(UserError, match="Norms names what it trains by patterns"):
        Together((Norms(), PROMPT))
    with pytest.raises(UserError, match="already has a LowRank"):
        trained(Together((Lora(rank=2), Lora(rank=2))))
