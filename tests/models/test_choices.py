"""Answer choices that share their example's inputs have the logits each has alone."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from prompt_tuning.data import choices, features
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.prefix import Prefix
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.methods.together import Together
from prompt_tuning.models.decoder import Decoder, DecoderConfig
from prompt_tuning.models.t5 import T5, T5Config
from tests.jaxprs import equations

T5_CONFIG = T5Config(
    vocab_size=40,
    d_model=16,
    d_ff=24,
    num_heads=2,
    d_kv=4,
    num_encoder_layers=2,
    num_decoder_layers=2,
    relative_buckets=8,
    relative_max_distance=20,
    unroll_layers=False,
)
DECODER_CONFIG = DecoderConfig(
    vocab_size=40,
    d_model=16,
    d_ff=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_width=6,
    layer_kinds="LG",
    window=4,
    unroll_layers=False,
)
CONFIGS = {
    "t5": T5_CONFIG,
    "umt5": dataclasses.replace(T5_CONFIG, per_layer_bias=True, remat="full"),
    "decoder with windows": DECODER_CONFIG,
    "decoder, inputs both ways": dataclasses.replace(DECODER_CONFIG, mask="prefix", layer_kinds="G"),
    "decoder, learned positions": dataclasses.replace(DECODER_CONFIG, positions="learned", max_positions=64, layer_kinds="G"),
}
LLAMA = features.Delimiters(eos=1, pad=0, start=None, bos=2, inputs_end=False)
METHOD = Together((Prompt(length=3, initializer=Uniform()), Prefix(length=2, hidden=None), IA3()))
EXAMPLES = [
    {"inputs": [5, 6, 7, 8, 9, 1], "targets": [4, 1], "choices": ((4, 1), (7, 8, 9, 1), (5, 5, 1))},
    {"inputs": [11, 1], "targets": [12, 13, 1], "choices": ((12, 13, 1), (4, 1))},
    {"inputs": [3, 4, 5, 1], "targets": [6, 1]},
]
LENGTHS = {"input_length": 7, "target_length": 4}


def model_of(config, method=METHOD):
    model = (Decoder if isinstance(config, DecoderConfig) else T5)(config, nnx.Rngs(params=0))
    method.attach(model, jax.random.key(1), vocabulary=None)
    # IA3 begins as ones, which say nothing.
    rng = np.random.default_rng(0)
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape).astype(np.float32), state))
    return model


@pytest.mark.parametrize(
    ("name", "delimiters"),
    [*((name, features.T5_DELIMITERS) for name in CONFIGS), *((name, LLAMA) for name in CONFIGS if name.startswith("decoder"))],
)
def test_choices_get_the_logits_they_get_alone(name, delimiters):
    model = model_of(CONFIGS[name])
    forward = jax.jit(lambda model, batch: model(batch))
    layout = dataclasses.replace(METHOD.layout, delimiters=delimiters)
    together = choices.layout(EXAMPLES, num_choices=3, prompt=layout, **LENGTHS)
    found = np.asarray(forward(model, together))
    assert found.shape == (3, 3, 4, 40)
    pairs = [(b, c, choice) for b, example in enumerate(EXAMPLES) for c, choice in enumerate(example.get("choices", (example["targets"],)))]
    rows = [EXAMPLES[b] | {"targets": choice} for b, _, choice in pairs]
    alone = np.asarray(forward(model, features.layout(rows, prompt=layout, **LENGTHS)))
    for row, (b, c, choice) in enumerate(pairs):
        length = len(choice)
        np.testing.assert_allclose(found[b, c, :length], alone[row, :length], rtol=1e-4, atol=2e-5)
        np.testing.assert_array_equal(together["decoder_target_tokens"][b, c, :length], choice)
        assert together["decoder_loss_weights"][b, c].sum() == length
    assert together["decoder_loss_weights"].sum() == sum(len(choice) for _, _, choice in pairs), "places left over weigh nothing"


def test_the_encoder_and_the_keys_of_its_output_run_once_an_example():
    """Counted in the program: no product has a row for each choice of each input position."""
    model = model_of(dataclasses.replace(T5_CONFIG, unroll_layers=True), Prompt(length=3, initializer=Uniform()))
    batch = choices.layout(EXAMPLES, num_choices=3, prompt=PromptLayout(3), **LENGTHS)
    program = jax.make_jaxpr(lambda batch: model(batch))(batch)
    source, rows = 10, 3
    shapes = [tuple(e.outvars[0].aval.shape) for e in equations(program.jaxpr) if e.primitive.name in ("dot_general", "custom_vjp_call")]
    assert (rows, source, 8) in shapes, "keys of the encoder's output"
    assert not any(shape[:2] == (3 * rows, source) for shape in shapes)
    assert (3 * rows, 4, 8) in shapes, "the decoder's own keys"
