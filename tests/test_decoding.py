"""Generation: the cache changes nothing, a row depends on itself alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import decoding
from prompt_tuning.data import features
from prompt_tuning.data.features import EOS_ID, PromptLayout
from prompt_tuning.decoding import Decoding
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prefix import Prefix, drop_network
from prompt_tuning.models.decoder import Decoder, DecoderConfig
from prompt_tuning.models.layers import Tunable
from prompt_tuning.models.t5 import T5, T5Config
from prompt_tuning.planning import counting

TINY = T5Config(vocab_size=48, d_model=16, d_ff=24, num_heads=2, d_kv=8, num_encoder_layers=2, num_decoder_layers=2, unroll_layers=False)
MAX_TOKENS = 9
# Compiling is most of the time here.
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Rows(nnx.Module):
    """A prompt of given rows."""

    def __init__(self, rows_PD):
        self.rows = Tunable(jnp.asarray(rows_PD))

    def __call__(self):
        return self.rows[...]


def tiny_model(*, seed=0, prompt_rows=0, config=TINY):
    """A random model whose head leans towards the end token now and then, so that rows end at different lengths."""
    model = T5(config, nnx.Rngs(seed))
    model.head.kernel[...] = model.head.kernel[...].at[:, EOS_ID].multiply(2.0)
    if prompt_rows:
        model.embed.prompt = Rows(np.random.default_rng(seed).normal(size=(prompt_rows, config.d_model)).astype(np.float32))
    return model


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST)
def run(graphdef, state, batch):
    return nnx.merge(graphdef, state)(batch)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("max_tokens", "settings", "shared"), compiler_options=FAST)
def run_generate(graphdef, state, batch, keys_B, *, max_tokens, settings, shared):
    return decoding.generate(nnx.merge(graphdef, state), batch, max_tokens=max_tokens, settings=settings, keys_B=keys_B, shared=shared)


def generate(model, batch, *, max_tokens=MAX_TOKENS, keys_B=None, shared=0, **settings):
    chosen = Decoding(**settings)
    return np.asarray(run_generate(*nnx.split(model), batch, keys_B, max_tokens=max_tokens, settings=chosen, shared=shared))


def examples(n=6, seed=0):
    rng = np.random.default_rng(seed)
    return [{"inputs": [*rng.integers(3, 48, size=rng.integers(1, 12)).tolist(), EOS_ID], "targets": [EOS_ID]} for _ in range(n)]


def encoder_batch(rows, prompt, input_length=13):
    batch = features.layout(rows, input_length=input_length, target_length=1, prompt=prompt)
    batch = {name: value for name, value in batch.items() if name.startswith("encoder_")}
    tokens_T, slots_T = features.decoder_start(prompt)
    batch["decoder_start_tokens"] = np.tile(tokens_T, (len(rows), 1))
    if prompt.decoder_length:
        batch["decoder_start_slots"] = np.tile(slots_T, (len(rows), 1))
    return batch


def uncached(model, rows, prompt):
    """The likeliest continuation by running the whole model anew for every token."""
    written = [[] for _ in rows]
    for _ in range(MAX_TOKENS):
        padded = [{**row, "targets": [*own, 2]} for row, own in zip(rows, written, strict=True)]
        batch = features.layout(padded, input_length=13, target_length=MAX_TOKENS, prompt=prompt)
        logits_BTV = np.asarray(run(*nnx.split(model), batch))
        for row, own in enumerate(written):
            if EOS_ID not in own:
                own.append(int(np.argmax(logits_BTV[row, prompt.decoder_length + len(own)])))
    return [own + [0] * (MAX_TOKENS - len(own)) for own in written]


@pytest.mark.parametrize(
    "prompt",
    [
        PromptLayout(),
        PromptLayout(encoder_length=3),
        PromptLayout(encoder_length=2, decoder_length=3),
        PromptLayout(decoder_length=3, placement="after_first"),
        PromptLayout(encoder_length=2, placement="suffix"),
    ],
)
def test_cached_generation_equals_running_the_whole_model_anew(prompt):
    model = tiny_model(prompt_rows=prompt.encoder_length + prompt.decoder_length)
    rows = examples()
    tokens_BT = generate(model, encoder_batch(rows, prompt))
    assert tokens_BT.tolist() == uncached(model, rows, prompt)


def test_rows_end_at_their_own_end_token_and_are_zero_after_it():
    rows = examples(24)
    tokens_BT = generate(tiny_model(), encoder_batch(rows, PromptLayout()))
    lengths = set()
    for tokens_T in tokens_BT.tolist():
        end = tokens_T.index(EOS_ID) if EOS_ID in tokens_T else MAX_TOKENS - 1
        lengths.add(end)
        assert not any(tokens_T[end + 1 :])
    assert len(lengths) > 1, "the test wants rows that end at different lengths"


def test_generation_does_not_depend_on_batch_or_padding():
    model, prompt, rows = tiny_model(prompt_rows=4), PromptLayout(encoder_length=2, decoder_length=2), examples(8)
    together = generate(model, encoder_batch(rows, prompt, input_length=29))
    for row in (0, 3, 7):
        alone = generate(model, encoder_batch([rows[row]], prompt, input_length=len(rows[row]["inputs"])))
        assert alone[0].tolist() == together[row].tolist()


def test_one_token_needs_no_loop():
    rows, prompt = examples(3), PromptLayout()
    one = generate(tiny_model(), encoder_batch(rows, prompt), max_tokens=1)
    more = generate(tiny_model(), encoder_batch(rows, prompt), max_tokens=4)
    np.testing.assert_array_equal(one, more[:, :1])


@pytest.mark.parametrize("cut", [{}, {"top_k": 5}, {"top_p": 0.7}, {"top_k": 20, "top_p": 0.9}])
def test_sampling_depends_on_the_rows_key_alone(cut):
    model, rows, prompt = tiny_model(), examples(5), PromptLayout()
    keys_B = jax.random.split(jax.random.key(0), len(rows))

    def sample(chosen):
        batch = encoder_batch([rows[i] for i in chosen], prompt)
        return generate(model, batch, temperature=2.0, keys_B=keys_B[np.array(chosen)], **cut).tolist()

    whole = sample([0, 1, 2, 3, 4])
    assert sample([4, 2, 0, 1, 1]) == [whole[i] for i in (4, 2, 0, 1, 1)]
    assert whole != generate(model, encoder_batch(rows, prompt)).tolist()


@pytest.mark.parametrize("cold", [{"temperature": 1e-4}, {"temperature": 5.0, "top_k": 1}, {"temperature": 5.0, "top_p": 1e-6}])
def test_sampling_turns_greedy_when_one_token_is_left(cold):
    batch = encoder_batch(examples(5), PromptLayout())
    sampled = generate(tiny_model(), batch, keys_B=jax.random.split(jax.random.key(0), 5), **cold)
    np.testing.assert_array_equal(sampled, generate(tiny_model(), batch))


@pytest.mark.parametrize(("eos_ids", "pad_id"), [((EOS_ID,), 0), ((7, 30), 0), ((EOS_ID, 7, 12, 30), 47), ((), 5)])
def test_a_row_is_what_it_would_be_without_an_end_up_to_its_first_end_token(eos_ids, pad_id):
    batch = encoder_batch(examples(12), PromptLayout())
    endless = generate(tiny_model(), batch, eos_ids=())
    found = generate(tiny_model(), batch, eos_ids=eos_ids, pad_id=pad_id)
    lengths = set()
    for tokens_T, wanted_T in zip(found.tolist(), endless.tolist(), strict=True):
        end = next((place + 1 for place, token in enumerate(wanted_T) if token in eos_ids), MAX_TOKENS)
        assert tokens_T == wanted_T[:end] + [pad_id] * (MAX_TOKENS - end)
        lengths.add(end)
    assert (len(lengths) > 1) == bool(eos_ids), "the test wants rows that end at different lengths"


def test_the_start_token_is_the_one_that_is_set():
    batch = encoder_batch(examples(3), PromptLayout())
    other = batch | {"decoder_start_tokens": np.full((3, 1), 9, np.int32)}
    plain = {name: value for name, value in batch.items() if name != "decoder_start_tokens"}
    np.testing.assert_array_equal(generate(tiny_model(), plain, start_id=9), generate(tiny_model(), other))
    assert (generate(tiny_model(), other) != generate(tiny_model(), batch)).any()
    with pytest.raises(UserError, match=r"Decoding.start_id: wanted the token an encoder-decoder starts with"):
        generate(tiny_model(), plain, start_id=None)


DECODER = DecoderConfig(
    vocab_size=48, d_model=16, d_ff=24, num_layers=2, num_heads=4, num_kv_heads=2, head_width=4, tied=True, unroll_layers=False
)


def decoder_model(prompt_rows=0, **changes):
    model = Decoder(dataclasses.replace(DECODER, **changes), nnx.Rngs(0))
    if prompt_rows:
        model.embed.prompt = Rows(np.random.default_rng(0).normal(size=(prompt_rows, DECODER.d_model)).astype(np.float32))
    return model


def inputs_batch(rows, prompt, *, padding="right"):
    """The inputs alone: the decoder goes on from their last token."""
    batch = {name: value for name, value in encoder_batch(rows, prompt).items() if name.startswith("encoder_")}
    if padding == "left":
        turned = np.stack([np.roll(np.arange(len(own)), -own.sum()) for own in batch["encoder_segment_ids"]])
        batch = {name: np.take_along_axis(value, turned, axis=1) for name, value in batch.items()}
    return batch


def continued(model, batch, row):
    """The likeliest continuation of one row alone by running the whole model anew for every token."""
    real = batch["encoder_segment_ids"][row] > 0
    tokens = batch["encoder_input_tokens"][row, real].tolist()
    slots = batch["encoder_prompt_slots"][row, real].tolist() if "encoder_prompt_slots" in batch else [-1] * len(tokens)
    written = []
    while len(written) < MAX_TOKENS and EOS_ID not in written:
        left = real.size - len(tokens) + MAX_TOKENS - len(written)  # One length for all, so that one program is compiled.
        whole = {
            "decoder_input_tokens": np.array([tokens + written + [0] * left], np.int32),
            "decoder_prompt_slots": np.array([slots + [-1] * (len(written) + left)], np.int32),
            "decoder_segment_ids": np.array([[1] * (len(tokens) + len(written)) + [0] * left], np.int32),
        }
        written.append(int(np.argmax(run(*nnx.split(model), whole)[0, len(tokens) + len(written) - 1])))
    return written + [0] * (MAX_TOKENS - len(written))


@pytest.mark.parametrize(
    ("prompt", "padding", "changes"),
    [
        (PromptLayout(), "right", {}),
        (PromptLayout(), "left", {"positions": "learned", "max_positions": 64}),
        (PromptLayout(encoder_length=3), "right", {}),
        (PromptLayout(encoder_length=3), "left", {}),
        (PromptLayout(encoder_length=3, placement="suffix"), "right", {}),
    ],
)
def test_a_decoder_goes_on_from_its_last_input(prompt, padding, changes):
    model, rows = decoder_model(prompt.encoder_length, **changes), examples(4)
    batch = inputs_batch(rows, prompt, padding=padding)
    tokens_BT = generate(model, batch, start_id=None)
    assert tokens_BT.tolist() == [continued(model, batch, row) for row in range(len(rows))]


@pytest.mark.parametrize("beams", [{}, {"num_beams": 3}])
@pytest.mark.parametrize("start_id", [None, 0])
def test_a_prompt_that_all_rows_share_is_read_once_and_changes_nothing(start_id, beams):
    prompt = PromptLayout(encoder_length=3)
    batch = inputs_batch(examples(6), prompt)
    apart = generate(decoder_model(3), batch, start_id=start_id, **beams)
    np.testing.assert_array_equal(generate(decoder_model(3), batch, start_id=start_id, shared=3, **beams), apart)


def test_reading_a_shared_prompt_once_saves_its_positions_in_all_rows_but_one():
    batch = inputs_batch(examples(6), PromptLayout(encoder_length=13))
    graphdef, state = nnx.split(decoder_model(13))

    def operations(shared):
        read = jax.make_jaxpr(lambda state, batch: decoding.encode(nnx.merge(graphdef, state), batch, length=1, shared=shared))
        return counting.operations(read(state, batch).jaxpr)

    # Half of the positions are the prompt's, and five rows of six do without.
    assert operations(13) == pytest.approx(operations(0) * (6 + 1) / 12, rel=0.02)


def test_a_mask_that_lets_the_prompt_see_the_input_reads_them_together():
    batch = inputs_batch(examples(6), PromptLayout(encoder_length=3))
    model = decoder_model(3, mask="prefix")
    np.testing.assert_array_equal(generate(model, batch, start_id=0, shared=3), generate(model, batch, start_id=0))


def test_networks_make_their_prefixes_once_and_not_at_each_token():
    model, hidden, batch = tiny_model(), 7, encoder_batch(examples(3), PromptLayout())
    Prefix(length=2, hidden=hidden).attach(model, jax.random.key(0), vocabulary=None)
    graphdef, state = nnx.split(model)
    written = jax.make_jaxpr(lambda state: decoding.generate(nnx.merge(graphdef, state), batch, max_tokens=MAX_TOKENS))(state)

    def runs(jaxpr, inside=False):
        """For each product over the hidden width whether it stands in the loop over tokens."""
        for equation in jaxpr.eqns:
            loops = inside or equation.primitive.name == "while"
            if equation.primitive.name == "dot_general" and hidden in equation.invars[0].aval.shape:
                yield inside
            for value in equation.params.values():
                for inner in value if isinstance(value, list | tuple) else (value,):
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        yield from runs(inner, loops)

    assert sorted(runs(written.jaxpr)) == [False] * 3  # The encoder's, and the decoder's two.
    dropped = nnx.merge(*nnx.split(model))
    drop_network(dropped)
    np.testing.assert_array_equal(generate(model, batch), generate(dropped, batch))


def test_without_end_cuts_at_the_first_end_token_and_at_padding():
    assert decoding.without_end([5, 0, 6, 1, 0, 0]) == [5, 0, 6]
    assert decoding.without_end(np.array([5, 6, 0, 0])) == [5, 6]
    assert decoding.without_end([1]) == []
    assert decoding.without_end([5, 8, 1, 9], eos_ids=(9, 8)) == [5]
    assert decoding.without_end([5, 0, 4, 4], pad_id=4) == [5, 0]


def test_a_text_ends_before_the_first_stop_string():
    assert decoding.cut("one. two\nthree", ("\n", ". ")) == "one"
    assert decoding.cut("one", ("\n",)) == "one"
    assert decoding.cut("\none", ("\n",)) == ""
    assert decoding.cut("one\n", ()) == "one\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.5}, "Decoding.temperature: wanted 0 (greedy) or more, got -0.5"),
        ({"temperature": float("nan")}, "Decoding.temperature"),
        ({"temperature": 1.0, "top_k": 0}, "Decoding.top_k: wanted a whole number of 1 or more, got 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "Decoding.top_p: wanted more than 0 and at most 1, got 0.0"),
        ({"temperature": 1.0, "top_p": 1.5}, "Decoding.top_p"),
        ({"top_k": 5}, "set a temperature"),
        ({"top_p": 0.5}, "set a temperature"),
        ({"num_beams": 0}, "Decoding.num_beams: wanted a whole number of 1 or more, got 0"),
        ({"num_beams": 2, "temperature": 1.0}, "beam search draws nothing"),
        ({"num_beams": 2, "early_stopping": "always"}, "Decoding.early_stopping: wanted True, False or 'never', got 'always'"),
        ({"num_beams": 2, "length_penalty": float("inf")}, "Decoding.length_penalty: wanted a finite number, got inf"),
        ({"length_penalty": 0.6}, "set num_beams to 2 or more"),
        ({"early_stopping": True}, "set num_beams to 2 or more"),
        ({"eos_ids": (-1,)}, "Decoding.eos_ids: wanted token ids of 0 or more, got (-1,)"),
        ({"eos_ids": (3, 3)}, "Decoding.eos_ids: wanted each token once"),
        ({"stop_strings": ("",)}, "Decoding.stop_strings"),
        ({"pad_id": -1}, "Decoding.pad_id"),
        ({"start_id": -1}, "Decoding.start_id"),
    ],
)
def test_settings_that_cannot_be_are_one_line_that_names_them(settings, message):
    with pytest.raises(UserError) as refused:
        Decoding(**settings)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_what_gin_gives_as_a_list_or_a_text_is_taken():
    assert Decoding(eos_ids=[1, 2], stop_strings="\n") == Decoding(eos_ids=(1, 2), stop_strings=("\n",))
