"""The log-mel spectrogram against transformers', and batches of audio."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.data import audio
from prompt_tuning.data.features import NO_PROMPT, PromptLayout
from prompt_tuning.errors import UserError


def sound(seconds, seed=0):
    """Noise over a few tones that come and go."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * audio.SAMPLE_RATE)) / audio.SAMPLE_RATE
    tones = sum(np.sin(2 * np.pi * rng.uniform(50, 7500) * time) * np.sin(rng.uniform(0.1, 3) * time) ** 2 for _ in range(4))
    return (0.2 * tones + 10.0 ** rng.uniform(-4, -1) * rng.normal(size=time.shape)).astype(np.float32)


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("seconds", [0.01, 3.7, 30.0])
def test_log_mel_is_transformers(mels, seconds):
    import transformers

    samples = sound(seconds)
    extractor = transformers.WhisperFeatureExtractor(feature_size=mels)
    wanted = extractor(samples, sampling_rate=audio.SAMPLE_RATE, return_tensors="np")["input_features"][0].T
    found = audio.log_mel(samples, mels=mels)
    assert found.shape == (3000, mels) and found.dtype == np.float32
    # Theirs is computed in float32.
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("mels", [80, 128])
def test_every_band_hears_something_and_bands_rise(mels):
    filters = audio.mel_filters(mels)
    assert filters.shape == (201, mels) and (filters >= 0).all() and (filters.max(0) > 0).all()
    loudest = filters.argmax(0)
    assert (np.diff(loudest) >= 0).all()


@given(st.floats(1e-3, 1.0), st.integers(0, 20))
@settings(deadline=None, max_examples=5)
def test_loudness_shifts_the_logarithm(gain, seed):
    # A factor of 10 is two decades of power, 2 / 4 after scaling; nothing is below 10 decades, -1.5.
    samples = sound(1.0, seed)
    found, wanted = audio.log_mel(gain * samples), audio.log_mel(samples) + np.log10(gain) / 2
    np.testing.assert_allclose(found, np.maximum(wanted, -1.5), atol=1e-4)


def test_windows_are_the_sound():
    samples = sound(71.3)
    pieces = list(audio.windows(samples))
    assert [len(piece) for piece in pieces] == [480000, 480000, len(samples) - 960000]
    np.testing.assert_array_equal(np.concatenate(pieces), samples)
    assert [len(piece) for piece in audio.windows(samples[:0])] == [0]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 100), np.float32), r"one channel.*\[2, 100\]"),
        (np.zeros(100, np.int16), "floating samples.*int16"),
        (np.array([0.0, np.nan]), "finite"),
        (np.zeros(480001, np.float32), "at most 30 s.*windows"),
    ],
)
def test_what_is_no_window_of_sound_is_refused(samples, message):
    with pytest.raises(UserError, match=message):
        audio.log_mel(samples)


START = [50, 51, 52]


def laid_out(prompt=NO_PROMPT):
    examples = [{"audio": sound(0.5), "targets": [7, 8, 2]}, {"audio": sound(0.3, 1), "targets": [9, 2]}]
    return audio.layout(examples, start=START, target_length=4, prompt=prompt)


def test_layout_asks_for_the_targets_alone():
    batch = laid_out()
    assert batch["encoder_input_features"].shape == (2, 3000, 80) and "encoder_input_tokens" not in batch
    np.testing.assert_array_equal(batch["encoder_input_features"][1], audio.log_mel(sound(0.3, 1)))
    assert (batch["encoder_segment_ids"] == np.ones((2, 1500))).all()
    np.testing.assert_array_equal(batch["decoder_input_tokens"], [[50, 51, 52, 7, 8, 0], [50, 51, 52, 9, 0, 0]])
    np.testing.assert_array_equal(batch["decoder_loss_weights"], [[0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0]])
    asked = [row[weights > 0].tolist() for row, weights in zip(batch["decoder_target_tokens"], batch["decoder_loss_weights"], strict=True)]
    assert asked == [[7, 8, 2], [9, 2]]


@pytest.mark.parametrize(
    ("placement", "tokens", "slots"),
    [
        ("before", [0, 0, 50, 51, 52, 7, 8, 0], [3, 4, -1, -1, -1, -1, -1, -1]),
        ("after_first", [50, 0, 0, 51, 52, 7, 8, 0], [-1, 3, 4, -1, -1, -1, -1, -1]),
    ],
)
def test_prompt_rows_have_slots_in_both_stacks(placement, tokens, slots):
    batch = laid_out(PromptLayout(encoder_length=3, decoder_length=2, placement=placement))
    np.testing.assert_array_equal(batch["decoder_input_tokens"][0], tokens)
    np.testing.assert_array_equal(batch["decoder_prompt_slots"][0], slots)
    at = 0 if placement == "before" else 1
    assert batch["encoder_prompt_slots"].shape == batch["encoder_segment_ids"].shape == (2, 1503)
    np.testing.assert_array_equal(batch["encoder_prompt_slots"][0, at : at + 3], [0, 1, 2])
    assert (batch["encoder_prompt_slots"][0] >= 0).sum() == 3
    asked = batch["decoder_target_tokens"][0][batch["decoder_loss_weights"][0] > 0]
    np.testing.assert_array_equal(asked, [7, 8, 2])


def test_empty_targets_and_an_empty_start_are_refused():
    with pytest.raises(UserError, match="empty targets"):
        audio.layout([{"audio": sound(0.1), "targets": []}], start=START, target_length=4)
    with pytest.raises(UserError, match="start is empty"):
        audio.layout([{"audio": sound(0.1), "targets": [3]}], start=[], target_length=4)
