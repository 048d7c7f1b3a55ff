"""Prefixes in the cache: a step of decoding reads them there and computes nothing of them, and everything stays what it was."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import decoding, mixed_tasks, trainable
from prompt_tuning.data import features
from prompt_tuning.decoding import Decoding
from prompt_tuning.methods.prefix import Prefix
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.methods.together import Together
from prompt_tuning.models.decoder import Decoder, DecoderConfig
from prompt_tuning.models.t5 import T5
from prompt_tuning.models.whisper import Whisper
from tests.interop.tiny_whisper import CONFIG as WHISPER
from tests.models.test_choices import DECODER_CONFIG, T5_CONFIG

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
MIXTURE = dataclasses.replace(
    DECODER_CONFIG, layer_kinds="G", experts=2, experts_per_token=1, expert_width=8, shared_experts=1, dense_layers=1, num_layers=3
)
CONFIGS = {
    "t5": T5_CONFIG,
    "umt5": dataclasses.replace(T5_CONFIG, per_layer_bias=True),
    "windows": DECODER_CONFIG,
    "learned": dataclasses.replace(DECODER_CONFIG, positions="learned", max_positions=64, layer_kinds="G"),
    "both ways": dataclasses.replace(DECODER_CONFIG, mask="prefix", layer_kinds="G"),
    "mixture": MIXTURE,
    # Keys are wider than values.
    "latent": dataclasses.replace(MIXTURE, num_kv_heads=4, latent_width=6, rope_width=4, value_width=5),
    "whisper": WHISPER,
}
# Each attention that has a prefix in one of them has none in another.
ENCODER_DECODER = ((".*",), ("decoder/.*/self_attention/.*",), ("decoder/.*/cross_attention/.*", "encoder/.*"))
TARGETS = dict.fromkeys(CONFIGS, ((".*",),)) | dict.fromkeys(("t5", "umt5", "whisper"), ENCODER_DECODER)
TARGETS["mixture"] = ((".*",), ("decoder/.*",), ("first/.*",))
QUICK = ("t5", "windows", "mixture", "latent", "whisper")
CASES = [
    pytest.param(name, targets, marks=() if name in QUICK and (name != "whisper" or targets == (".*",)) else pytest.mark.slow)
    for name, each in TARGETS.items()
    for targets in each
]
every_case = pytest.mark.parametrize(("name", "targets"), CASES, ids=lambda value: value if isinstance(value, str) else "+".join(value))
ROWS, SOURCE, TARGET, LENGTH = 3, 6, 5, 2


def base_of(config):
    kind = Decoder if isinstance(config, DecoderConfig) else Whisper if config is WHISPER else T5
    return kind(config, nnx.Rngs(params=0))


def model_of(name, method, seed=0):
    model = base_of(CONFIGS[name])
    method.attach(model, jax.random.key(seed), vocabulary=None)
    return model


def batch_of(name, layout):
    """Rows of different lengths, with a prompt if the layout has one."""
    rng = np.random.default_rng(0)
    heard = name == "whisper"
    lengths = [SOURCE, 2, 4] if not heard else [WHISPER.source_positions] * ROWS
    examples = [{"inputs": rng.integers(3, 40, n), "targets": rng.integers(3, 40, TARGET)} for n in lengths]
    batch = features.layout(examples, input_length=max(lengths), target_length=TARGET, prompt=layout)
    if heard:
        del batch["encoder_input_tokens"]
        batch["encoder_input_features"] = rng.normal(size=(ROWS, 2 * WHISPER.source_positions, WHISPER.mels)).astype(np.float32)
    return batch


def stepwise(model, batch):
    """Logits of the targets a token at a time."""
    cache = decoding.encode(model, batch, length=TARGET)

    def one(cache, tokens_B):
        found, cache = model.decode_step(tokens_B[:, None], cache)
        return cache, found[:, 0]

    return jax.lax.scan(one, cache, batch["decoder_input_tokens"].T)[1].transpose(1, 0, 2)


forward = jax.jit(lambda model, batch: model(batch), compiler_options=FAST)


def without_prefixes(model):
    model = nnx.merge(*nnx.split(model))
    for _, module in list(nnx.iter_modules(model)):
        if getattr(module, "prefix", None) is not None:
            module.prefix = nnx.data(None)
    return model


@every_case
def test_steps_give_the_logits_of_all_positions_at_once(name, targets):
    method = Together((Prefix(length=LENGTH, hidden=None, targets=targets), Prompt(length=3, initializer=Uniform())))
    model, batch = model_of(name, method), batch_of(name, method.layout)
    wanted = np.asarray(forward(model, batch))
    found = np.asarray(jax.jit(stepwise, compiler_options=FAST)(model, batch))
    # Float32, in another order of sums.
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert np.abs(np.asarray(forward(without_prefixes(model), batch)) - wanted).max() > 1e-3 * np.abs(wanted).max(), "the prefix matters"


@every_case
@pytest.mark.parametrize("hidden", [None, pytest.param(7, marks=pytest.mark.slow)])
def test_a_step_reads_no_variable_of_a_prefix(name, targets, hidden):
    if hidden and name == "latent":
        pytest.skip("a network makes keys and values of one width")
    model = decoding.settled(model_of(name, Prefix(length=LENGTH, hidden=hidden, targets=targets)))
    batch = batch_of(name, features.NO_PROMPT)
    graphdef, state = nnx.split(model)
    variables = trainable.named(nnx.to_pure_dict(state))
    held = {path for path in variables if "/prefix/" in path and not path.startswith("encoder")}
    cache = jax.eval_shape(lambda model: decoding.encode(model, batch, length=TARGET), model)

    def step(variables, cache):
        return nnx.merge(graphdef, trainable.nested(variables)).decode_step(batch["decoder_input_tokens"][:, :1], cache)

    jaxpr = jax.make_jaxpr(step)(variables, cache).jaxpr
    used = {id(variable) for equation in jaxpr.eqns for variable in equation.invars}
    read = {path for path, variable in zip(sorted(variables), jaxpr.invars, strict=False) if id(variable) in used}
    assert held and not held & read
    assert any(path.endswith("query/kernel") for path in read)


@pytest.mark.parametrize("name", ["umt5", "windows"])
def test_beams_have_the_scores_of_their_texts_read_at_once(name):
    model, batch = model_of(name, Prefix(length=LENGTH, hidden=None)), batch_of(name, features.NO_PROMPT)
    settings = Decoding(num_beams=3, eos_ids=(), length_penalty=0.0)
    searched = jax.jit(functools.partial(decoding.search, max_tokens=TARGET, settings=settings), compiler_options=FAST)
    texts_BKT, scores_BK = searched(model, {key: value for key, value in batch.items() if key.startswith("encoder")})
    assert (texts_BKT[:, 0] != texts_BKT[:, 1]).any()
    for beam in range(3):
        texts = np.asarray(texts_BKT[:, beam])
        shifted = np.concatenate([np.zeros((ROWS, 1), np.int32), texts[:, :-1]], axis=1)
        said = jax.nn.log_softmax(forward(model, batch | {"decoder_input_tokens": shifted}))
        wanted = np.take_along_axis(np.asarray(said), texts[..., None], axis=-1)[..., 0].sum(axis=1)
        np.testing.assert_allclose(scores_BK[:, beam], wanted, rtol=1e-4)


@pytest.mark.parametrize("name", ["t5", "windows"])
@pytest.mark.parametrize("hidden", [None, 7])
def test_every_row_of_a_mixed_batch_has_its_own_prefix(name, hidden):
    method, batch = Prefix(length=LENGTH, hidden=hidden), batch_of(name, features.NO_PROMPT)
    tasks = [trainable.split(model_of(name, method, seed), method.trainable) for seed in range(2)]
    base = nnx.to_pure_dict(tasks[0][2])
    graphdef, tuned = tasks[0][0], [nnx.to_pure_dict(each) for _, each, _ in tasks]
    rows = np.array([1, 0, 1])
    mixed = mixed_tasks.MixedTasks(graphdef, mixed_tasks.stacked(tuned), base, jnp.asarray(rows))
    found = jax.jit(lambda: stepwise(mixed, batch), compiler_options=FAST)()
    for row, task in enumerate(rows):
        alone = {key: value[row : row + 1] for key, value in batch.items()}
        wanted = forward(nnx.merge(graphdef, tuned[task], base), alone)
        np.testing.assert_allclose(found[row], wanted[0], rtol=1e-4, atol=1e-5)


def test_a_prompt_that_all_rows_share_is_read_behind_the_prefix():
    method = Together((Prefix(length=LENGTH, hidden=None), Prompt(length=3, initializer=Uniform())))
    model, batch = model_of("windows", method), batch_of("windows", method.layout)
    apart, shared = (
        jax.jit(functools.partial(decoding.generate, max_tokens=TARGET, shared=shared), compiler_options=FAST)(model, batch)
        for shared in (0, 3)
    )
    np.testing.assert_array_equal(shared, apart)
