"""The prompt: its first values, its places, and that it is nothing but embedded inputs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import checkpoints, trainable
from prompt_tuning.data import features
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import ClassLabels, File, Prompt, SampledVocabulary, String, Uniform, load_npy
from tests.interop import tiny
from tests.shared import shared_path

CONFIG = dataclasses.replace(tiny.V1_1, d_model=8, d_ff=8, num_heads=2)
VOCAB, WIDTH = CONFIG.vocab_size, CONFIG.d_model
KEY = jax.random.key(3)


class Letters:
    """A vocabulary of small letters: "a" is 3, "b" is 4."""

    def encode(self, text):
        return [ord(letter) - ord("a") + 3 for letter in text if letter.isalpha()]


@functools.cache
def embedding():
    return jnp.asarray(np.random.default_rng(0).normal(size=(VOCAB, WIDTH)).astype(np.float32))


def ids_of(rows):
    """The tokens whose embeddings these rows are."""
    found = (np.asarray(rows)[:, None, :] == np.asarray(embedding())[None]).all(-1)
    assert (found.sum(-1) == 1).all()
    return found.argmax(-1)


# First values.


@pytest.mark.parametrize(("variant", "low"), [("paper", -0.5), ("released", 0.0)])
def test_uniform_fills_the_range_of_its_variant(variant, low):
    rows = np.asarray(Uniform(variant=variant)(KEY, 500, embedding(), None))
    assert rows.shape == (500, WIDTH) and rows.dtype == np.float32
    assert low <= rows.min() < low + 0.005 and 0.495 < rows.max() <= 0.5
    assert abs(rows.mean() - (low + 0.5) / 2) < 0.02


def test_uniform_scale_stretches_it():
    assert np.abs(Uniform(scale=0.1)(KEY, 100, embedding(), None)).max() <= 0.1
    with pytest.raises(UserError, match="variant: wanted 'paper' or 'released', got 'popular'"):
        Uniform(variant="popular")(KEY, 2, embedding(), None)


def test_sampled_vocabulary_draws_each_of_the_most_common_tokens_once():
    assert sorted(ids_of(SampledVocabulary(most_common=12)(KEY, 12, embedding(), None))) == list(range(12))
    fewer = ids_of(SampledVocabulary(most_common=12)(KEY, 5, embedding(), None))
    assert len(set(fewer)) == 5 and max(fewer) < 12
    assert set(ids_of(SampledVocabulary()(KEY, VOCAB, embedding(), None))) == set(range(VOCAB))  # 5,000 or as many as there are.
    with pytest.raises(UserError, match="13 different tokens from the 12 most common"):
        SampledVocabulary(most_common=12)(KEY, 13, embedding(), None)


def test_initial_values_change_with_the_key_alone():
    draw = SampledVocabulary(most_common=30)
    assert (draw(KEY, 9, embedding(), None) == draw(KEY, 9, embedding(), None)).all()
    assert (draw(KEY, 9, embedding(), None) != draw(jax.random.key(4), 9, embedding(), None)).any()


def test_class_labels_are_the_means_of_their_subwords():
    rows = ClassLabels(labels=("abc", "d"), fallback=SampledVocabulary(most_common=7))(KEY, 4, embedding(), Letters())
    np.testing.assert_allclose(rows[0], np.asarray(embedding())[[3, 4, 5]].mean(0), rtol=1e-6)
    np.testing.assert_array_equal(rows[1], embedding()[6])
    assert max(ids_of(rows[2:])) < 7  # Rows past the labels come from the fallback.
    assert ClassLabels(labels=("abc", "d"))(KEY, 1, embedding(), Letters()).shape == (1, WIDTH)


@pytest.mark.parametrize(("labels", "says"), [((), "labels is empty"), (("a", "?"), r"'\?' has no tokens")])
def test_class_labels_without_tokens_are_refused(labels, says):
    with pytest.raises(UserError, match=says):
        ClassLabels(labels=labels)(KEY, 4, embedding(), Letters())


def test_a_string_gives_its_tokens_in_order():
    np.testing.assert_array_equal(ids_of(String("cab")(KEY, 3, embedding(), Letters())), [5, 3, 4])
    np.testing.assert_array_equal(ids_of(String("cab")(KEY, 2, embedding(), Letters())), [5, 3])
    longer = String("cab", fallback=SampledVocabulary(most_common=2))(KEY, 5, embedding(), Letters())
    np.testing.assert_array_equal(np.sort(ids_of(longer)[3:]), [0, 1])
    with pytest.raises(UserError, match="'' has no tokens"):
        String()(KEY, 3, embedding(), Letters())


def test_a_prompt_file_comes_back_as_it_was_written(tmp_path):
    rows = Uniform()(KEY, 6, embedding(), None)
    checkpoints.save_prompt_npy(tmp_path / "prompt.npy", rows)
    model = model_with(Prompt(length=6, initializer=File(str(tmp_path / "prompt.npy"))))
    np.testing.assert_array_equal(model.embed.prompt(), rows)


def test_a_prompt_file_of_both_stacks_comes_back(tmp_path):
    rows = Uniform()(KEY, 6, embedding(), None)
    checkpoints.save_prompt_npy(tmp_path / "prompt.npy", rows)
    model = model_with(Prompt(length=3, stacks="both", initializer=File(str(tmp_path / "prompt.npy"))))
    np.testing.assert_array_equal(model.embed.prompt(), rows)


def _wrong_shape(path):
    np.save(path, np.zeros((4, 9), np.float32))


def _not_finite(path):
    np.save(path, np.full((4, 8), np.nan, np.float32))


def _too_large(path):
    np.save(path, np.full((4, 8), 1e300))


def _pickled(path):
    np.save(path, np.array([[{}] * 8] * 4, object), allow_pickle=True)


def _integers(path):
    np.save(path, np.zeros((4, 8), np.int32))


def _texts(path):
    np.save(path, np.full((4, 8), "x"))


def _archive(path):
    with open(path, "wb") as file:
        np.savez(file, rows=np.zeros((4, 8), np.float32))


def _cut(path):
    np.save(path, np.zeros((4, 8), np.float32))
    path.write_bytes(path.read_bytes()[:150])


def _nonsense(path):
    path.write_bytes(b"prompt")


def _missing(path):
    del path


def _folder(path):
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_wrong_shape, r"wanted shape \[4, 8\].*got \[4, 9\].*PROMPT_LENGTH"),
        (_not_finite, "got 32 that are not"),
        (_too_large, "got 32 that are not"),
        (_pickled, "not a readable .npy array"),
        (_integers, "wanted an array of floating numbers, got int32"),
        (_texts, "wanted an array of floating numbers, got <U1"),
        (_archive, "got an archive"),
        (_cut, "not a readable .npy array"),
        (_nonsense, "not a readable .npy array"),
        (_missing, "no such file"),
        (_folder, "no such file"),
    ],
)
def test_a_wrong_prompt_file_is_refused_by_name(tmp_path, spoil, says):
    path = tmp_path / "mine.npy"
    spoil(path)
    with pytest.raises(UserError, match=f"mine.npy.*{says}"):
        model_with(Prompt(length=4, initializer=File(str(path))))


def test_the_released_prompts_load_as_they_are():
    files = sorted(shared_path("data/t5x_prompt_tuning/pretrained_prompts").rglob("*.npy"))
    assert len(files) == 3
    for file in files:
        rows = load_npy(str(file), (100, 768))
        np.testing.assert_array_equal(rows, np.load(file))
        assert rows.dtype == np.float32 and np.abs(rows).max() > 0
    with pytest.raises(UserError, match=r"wanted shape \[20, 768\].*got \[100, 768\]"):
        load_npy(str(files[0]), (20, 768))


# Attaching.


@functools.cache
def _base(config=CONFIG):
    return tiny.random_values(config)


def model_with(method, config=CONFIG, vocabulary=None):
    model = tiny.model_with(config, _base(config))
    sources = method.attach(model, KEY, vocabulary=vocabulary)
    assert set(sources) == {"embed/prompt/rows"}
    return model


INITIALIZERS = [Uniform(), SampledVocabulary(), ClassLabels(("ab", "c")), String("abc")]


@pytest.mark.parametrize("initializer", INITIALIZERS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("stacks", ["encoder", "decoder", "both"])
def test_attaching_leaves_the_base_bitwise_as_it_was(initializer, stacks):
    model = model_with(Prompt(length=4, initializer=initializer, stacks=stacks), vocabulary=Letters())
    values = {name: variable.get_value() for name, variable in trainable.named_variables(model)}
    rows = values.pop("embed/prompt/rows")
    assert rows.shape == (8 if stacks == "both" else 4, WIDTH)
    assert values.keys() == _base().keys()
    for name, value in values.items():
        np.testing.assert_array_equal(value, _base()[name], err_msg=name)


def test_both_stacks_have_their_own_first_values():
    rows = np.asarray(model_with(Prompt(length=4, initializer=Uniform(), stacks="both")).embed.prompt())
    assert (rows[:4] != rows[4:]).all()
    labels = model_with(Prompt(length=2, initializer=ClassLabels(("ab", "c")), stacks="both"), vocabulary=Letters())
    np.testing.assert_array_equal(labels.embed.prompt()[:2], labels.embed.prompt()[2:])


@pytest.mark.parametrize("initializer", INITIALIZERS, ids=lambda each: type(each).__name__)
def test_the_prompt_is_float32_over_a_bf16_base(initializer):
    config = dataclasses.replace(CONFIG, param_dtype="bfloat16", dtype="bfloat16")
    model = model_with(Prompt(length=4, initializer=initializer), config, Letters())
    assert model.embed.embedding[...].dtype == jnp.bfloat16
    assert model.embed.prompt().dtype == jnp.float32


def test_wrong_settings_are_refused_by_name():
    for settings, says in (
        ({"length": 0}, "Prompt.length"),
        ({"length": 2.5}, "Prompt.length"),
        ({"stacks": "neither"}, "Prompt.stacks"),
        ({"placement": "behind"}, "Prompt.placement"),
    ):
        with pytest.raises(UserError, match=says):
            Prompt(**settings)


def test_layouts_count_the_rows_of_each_stack():
    layout = {stacks: Prompt(length=7, stacks=stacks, placement="suffix").layout for stacks in ("encoder", "decoder", "both")}
    assert {name: (each.encoder_length, each.decoder_length) for name, each in layout.items()} == {
        "encoder": (7, 0),
        "decoder": (0, 7),
        "both": (7, 7),
    }
    assert {each.placement for each in layout.values()} == {"suffix"}


# What a prompt does: exactly what extra tokens with these embeddings would.


@functools.cache
def _forward():
    return jax.jit(lambda graphdef, state, batch: nnx.merge(graphdef, state)(batch))


def logits(model, batch):
    return np.asarray(_forward()(*nnx.split(model), batch))


def _examples():
    rng = np.random.default_rng(5)
    return [
        {"inputs": [*rng.integers(3, VOCAB, source).tolist(), 1], "targets": [*rng.integers(3, VOCAB, target).tolist(), 1]}
        for source, target in ((7, 4), (3, 2), (1, 1))
    ]


def _extended(rows):
    """The base with the prompt's rows as further tokens of its embedding and of its head: token VOCAB + r embeds as row r."""
    config = dataclasses.replace(CONFIG, vocab_size=VOCAB + len(rows))
    values = dict(_base())
    values["embed/embedding"] = np.concatenate([values["embed/embedding"], rows])
    values["head/kernel"] = np.concatenate([values["head/kernel"], np.zeros((WIDTH, len(rows)), np.float32)], axis=1)
    return tiny.model_with(config, values)


def _as_tokens(batch):
    """The batch with prompt slots written as those further tokens."""
    out = dict(batch)
    for stack in ("encoder", "decoder"):
        slots = out.pop(f"{stack}_prompt_slots", None)
        if slots is not None:
            tokens = f"{stack}_input_tokens"
            out[tokens] = np.where(slots >= 0, VOCAB + slots, out[tokens]).astype(np.int32)
    return out


@pytest.mark.parametrize("stacks", ["encoder", "decoder", "both"])
@pytest.mark.parametrize("placement", ["before", "after_first", "suffix"])
def test_a_prompt_is_its_rows_fed_as_embeddings(stacks, placement):
    method = Prompt(length=3, initializer=Uniform(scale=2.0), stacks=stacks, placement=placement)
    model = model_with(method)
    batch = features.layout(_examples(), input_length=9, target_length=6, prompt=method.layout)
    got = logits(model, batch)
    by_hand = logits(_extended(np.asarray(model.embed.prompt())), _as_tokens(batch))[..., :VOCAB]
    counted = batch["decoder_segment_ids"] > 0
    np.testing.assert_allclose(got[counted], by_hand[counted], rtol=1e-5, atol=1e-5)
    # And it is not the model without a prompt: the rows matter.
    other = model_with(dataclasses.replace(method, initializer=Uniform(scale=0.1)))
    targets = batch["decoder_loss_weights"] > 0
    assert np.abs(logits(other, batch)[targets] - got[targets]).max() > 1e-2


@pytest.mark.parametrize("length", [1, 150])
def test_a_prompt_of_any_length_trains_each_of_its_rows(length):
    method = Prompt(length=length, initializer=Uniform())
    model = model_with(method)
    batch = features.layout(_examples(), input_length=9, target_length=6, prompt=method.layout)
    graphdef, tuned, frozen = trainable.split(model, method.trainable)

    @jax.jit
    def gradient_of(rows, frozen):
        return jax.grad(lambda rows: jnp.square(nnx.merge(graphdef, rows, frozen)(batch)[:, :2]).mean())(rows)

    gradient = trainable.named(nnx.to_pure_dict(gradient_of(tuned, frozen)))["embed/prompt/rows"]
    assert gradient.shape == (length, WIDTH)
    assert (np.abs(gradient).max(axis=1) > 0).all()


@functools.cache
def _cached():
    def run(graphdef, state, batch, start_tokens, start_slots, tokens):
        model = nnx.merge(graphdef, state)
        segments = batch["encoder_segment_ids"]
        encoded = model.encode(batch["encoder_input_tokens"], slots_BS=batch.get("encoder_prompt_slots"), segment_ids_BS=segments)
        cache = model.init_cache(encoded, segments, length=start_tokens.shape[1] + tokens.shape[1])
        first, cache = model.decode_step(start_tokens, cache, slots_BT=start_slots)
        steps = [first]
        for place in range(tokens.shape[1]):
            following, cache = model.decode_step(tokens[:, place : place + 1], cache)
            steps.append(following)
        return jnp.concatenate(steps, axis=1)

    return jax.jit(run)


@pytest.mark.parametrize(("stacks", "placement"), [("decoder", "before"), ("decoder", "after_first"), ("both", "suffix")])
def test_cached_decoding_with_a_decoder_prompt_equals_all_positions_at_once(stacks, placement):
    method = Prompt(length=3, initializer=Uniform(scale=2.0), stacks=stacks, placement=placement)
    model = model_with(method)
    batch = features.layout(_examples(), input_length=9, target_length=6, prompt=method.layout)
    start_tokens, start_slots = features.decoder_start(method.layout)
    rows, start = len(batch["decoder_input_tokens"]), len(start_tokens)
    np.testing.assert_array_equal(batch["decoder_input_tokens"][:, :start], np.tile(start_tokens, (rows, 1)))
    np.testing.assert_array_equal(batch["decoder_prompt_slots"][:, :start], np.tile(start_slots, (rows, 1)))
    following = batch["decoder_input_tokens"][:, start:]
    parts = [np.tile(each, (rows, 1)) for each in (start_tokens, start_slots)]
    cached = _cached()(*nnx.split(model), batch, *parts, following)
    np.testing.assert_allclose(cached, logits(model, batch), rtol=1e-5, atol=1e-5)


def test_a_model_without_a_token_embedding_is_refused():
    with pytest.raises(UserError, match="token embedding"):
        Prompt(length=2).attach(nnx.Module(), KEY, vocabulary=None)
