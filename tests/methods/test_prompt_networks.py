"""Networks that make prompts, beside PyTorch's layers with the same values, and the prompts they leave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.methods.p_tuning import PTuning
from prompt_tuning.methods.prompt import Prompt, PromptRows, Uniform
from prompt_tuning.methods.prompt_networks import drop_network
from prompt_tuning.methods.residual_prompt import ResidualPrompt
from tests.interop import tiny

KEY = jax.random.key(2)


def attached(method):
    model = tiny.model_with(tiny.V1_1, tiny.random_values(tiny.V1_1))
    sources = method.attach(model, KEY, vocabulary=None)
    return model, sources


def test_the_networks_of_p_tuning_are_pytorchs():
    import torch

    def copied(layer, ours):
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.array(ours.kernel[...]).T))
            layer.bias.copy_(torch.from_numpy(np.array(ours.bias[...])))
        return layer

    for network in ("lstm", "mlp"):
        model, _ = attached(PTuning(length=4, initializer=Uniform(), network=network, hidden=3))
        prompt = model.embed.prompt
        x = torch.from_numpy(np.array(prompt.inputs[...]))
        if network == "lstm":
            lstm = torch.nn.LSTM(16, 3, num_layers=2, bidirectional=True)
            with torch.no_grad():
                for layer in range(2):
                    for suffix, ours in (("", prompt.forward[f"layer_{layer}"]), ("_reverse", prompt.backward[f"layer_{layer}"])):
                        for name, value in (("weight_ih", ours.wi), ("weight_hh", ours.wh), ("bias_ih", ours.bias)):
                            getattr(lstm, f"{name}_l{layer}{suffix}").copy_(torch.from_numpy(np.array(value[...]).T))
                        getattr(lstm, f"bias_hh_l{layer}{suffix}").zero_()
            x = lstm(x)[0]
        layers = [copied(torch.nn.Linear(*ours.kernel.shape), ours) for _, ours in sorted(prompt.linear.items())]
        for layer in layers[:-1]:
            x = torch.relu(layer(x))
        np.testing.assert_allclose(prompt(), layers[-1](x).detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("separate", [False, True])
def test_a_residual_prompt_is_its_rows_and_a_normed_bottleneck_of_each(separate):
    model, sources = attached(ResidualPrompt(length=4, initializer=Uniform(), width=5, separate=separate))
    prompt = model.embed.prompt
    rng = np.random.default_rng(0)
    for part in (prompt.norm_scale, prompt.norm_bias):
        part.set_value(jnp.asarray(rng.normal(size=part.shape), jnp.float32))
    rows, down, up, scale, bias = (np.asarray(getattr(prompt, n)[...]) for n in ("inputs", "down", "up", "norm_scale", "norm_bias"))
    assert down.shape == (4 if separate else 1, 16, 5) and set(sources) == {
        f"embed/prompt/{name}" for name in ("inputs", "down", "up", "norm_scale", "norm_bias")
    }
    for i, made in enumerate(np.asarray(prompt())):
        own = i if separate else 0
        y = np.maximum(rows[i] @ down[own], 0) @ up[own]
        y = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
        np.testing.assert_allclose(made, rows[i] + y * scale[own] + bias[own], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [PTuning(length=3, initializer=Uniform()), ResidualPrompt(length=3, initializer=Uniform(), width=4)])
def test_dropping_the_network_leaves_a_plain_prompt(method):
    model, _ = attached(method)
    made = np.asarray(model.embed.prompt())
    drop_network(model)
    assert isinstance(model.embed.prompt, PromptRows)
    np.testing.assert_array_equal(model.embed.prompt.rows[...], made)
    with pytest.raises(UserError, match="no network that makes its prompt"):
        drop_network(model)


def test_settings_that_cannot_be_are_refused():
    for settings, message in (
        ({"network": "cnn"}, "PTuning.network: wanted 'lstm' or 'mlp', got 'cnn'"),
        ({"hidden": 0}, "PTuning.hidden: wanted a whole number"),
        ({"lstm_layers": 0}, "PTuning.lstm_layers: wanted a whole number"),
        ({"length": 0}, "length: wanted 1 or more"),
    ):
        with pytest.raises(UserError, match=message):
            PTuning(**settings)
    with pytest.raises(UserError, match="ResidualPrompt.width"):
        ResidualPrompt(width=0)
    with pytest.raises(UserError, match="no network"):
        drop_network(attached(Prompt(length=2, initializer=Uniform()))[0])
