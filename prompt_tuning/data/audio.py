"""From sound to what Whisper reads: the log-mel spectrogram, and batches of audio and tokens (Radford et al. 2022, arXiv:2212.04356).

What this file follows: 16 kHz, windows of 25 ms every 10 ms, 80 mel bands (128 from large-v3 on), the logarithm cut at 8 decades below the
loudest and scaled to about [-1, 1], 30 s a row, silence after what is shorter (section 2.2, and the released code, which takes Slaney's mel
scale). Everything here is NumPy.

Letters: B rows, L samples, F frames, M mel bands, N bins of the Fourier transform, S source positions, T target length.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data import features
from prompt_tuning.errors import UserError

SAMPLE_RATE = 16000
WINDOW_SECS = 30
_WINDOW = 400
_HOP = 160
_SAMPLES = WINDOW_SECS * SAMPLE_RATE
# Slaney's mel scale is linear up to 1,000 Hz, 15 mel, and logarithmic above: 27 mel for a factor of 6.4.
_LINEAR_HZ, _LINEAR_MEL, _MEL_PER_LOG = 1000.0, 15.0, 27.0 / np.log(6.4)


@functools.cache
def mel_filters(mels: int) -> np.ndarray:
    """The weight of each Fourier bin in each band, [N, M]: triangles of equal width in mel from 0 to 8,000 Hz, of equal area (Slaney)."""
    top_mel = _LINEAR_MEL + _MEL_PER_LOG * np.log(SAMPLE_RATE / 2 / _LINEAR_HZ)
    mel = np.linspace(0.0, top_mel, mels + 2)
    linear = mel * _LINEAR_HZ / _LINEAR_MEL
    edges_hz = np.where(mel < _LINEAR_MEL, linear, _LINEAR_HZ * np.exp((mel - _LINEAR_MEL) / _MEL_PER_LOG))
    bins_hz = np.linspace(0.0, SAMPLE_RATE / 2, _WINDOW // 2 + 1)[:, None]
    low, middle, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    triangles = np.minimum((bins_hz - low) / (middle - low), (high - bins_hz) / (high - middle))
    return np.maximum(triangles, 0.0) * (2.0 / (high - low))


def log_mel(samples: np.ndarray, *, mels: int = 80) -> np.ndarray:
    """The log-mel spectrogram of one window of sound, float32 [3000, M].

    Args:
      samples: at 16 kHz, one channel, in [-1, 1]; at most 30 s (`windows` cuts what is longer), silence is put after less.
      mels: bands.

    Raises UserError for more than one channel, more than 30 s, and samples that are no finite floating numbers.
    """
    samples = _checked(samples)
    if len(samples) > _SAMPLES:
        raise UserError(
            f"audio: wanted at most {WINDOW_SECS} s a row, got {len(samples) / SAMPLE_RATE:.1f} s; cut it with data.audio.windows"
        )
    padded = np.pad(np.pad(samples, (0, _SAMPLES - len(samples))), _WINDOW // 2, mode="reflect")
    frames_FL = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][: _SAMPLES // _HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    power_FN = np.abs(np.fft.rfft(frames_FL * hann, axis=1)) ** 2
    logs_FM = np.log10(np.maximum(power_FN @ mel_filters(mels), 1e-10))
    return ((np.maximum(logs_FM, logs_FM.max() - 8.0) + 4.0) / 4.0).astype(np.float32)


def windows(samples: np.ndarray) -> Iterator[np.ndarray]:
    """The sound in pieces of 30 s, the last one shorter; one empty piece of no sound."""
    samples = _checked(samples)
    for start in range(0, max(len(samples), 1), _SAMPLES):
        yield samples[start : start + _SAMPLES]


def layout(
    examples: Sequence[Mapping[str, Any]],
    *,
    start: Sequence[int],
    target_length: int,
    mels: int = 80,
    prompt: features.PromptLayout = features.NO_PROMPT,
) -> features.Batch:
    """Lays out one example a row.

    Args:
      examples: each with `audio`, samples as for `log_mel`, and `targets`, token ids with the model's end token.
      start: what the decoder is given before the targets: Whisper's start, language, task and no-timestamps tokens.
      target_length: tokens of the targets; longer ones are cut. The start and the prompt come on top.
      mels: bands.
      prompt: where prompt rows stand; `after_first` and `suffix` are after the first start token in the decoder.

    Returns:
      `encoder_input_features` [B, 3000, M]; `encoder_segment_ids` [B, S], all ones; and what `features.layout` gives of the decoder and
      the prompt's slots. The loss is on the targets alone.

    Raises UserError for an example with empty targets, and for an empty start.
    """
    if not len(start):
        raise UserError("audio.layout: start is empty; wanted the decoder's start tokens, as Whisper's start, language and task")
    # The text layout writes slots, segments and the decoder, with a stand-in for each position of the audio.
    stand_ins = np.ones(_SAMPLES // _HOP // 2, np.int32)
    given = len(start) - 1
    rows: list[dict[str, Any]] = [
        {"inputs": stand_ins, "targets": [*start[1:], *example["targets"][:target_length]]} for example in examples
    ]
    for row in rows:
        if len(row["targets"]) == given:
            raise UserError("an example has empty targets; wanted at least one token; drop the row or give its text")
    batch = features.layout(rows, input_length=len(stand_ins), target_length=given + target_length, prompt=prompt)
    del batch["encoder_input_tokens"]
    first = int(np.flatnonzero(features.decoder_start(prompt)[1] == features.TOKEN_SLOT)[0])
    batch["decoder_input_tokens"][:, first] = start[0]
    weights_BT = batch["decoder_loss_weights"]
    weights_BT[np.cumsum(weights_BT, axis=1) <= given] = 0.0
    batch["encoder_input_features"] = np.stack([log_mel(example["audio"], mels=mels) for example in examples])
    return batch


def _checked(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise UserError(f"audio: wanted one channel of samples, got an array of shape {list(samples.shape)}; average the channels")
    if samples.dtype.kind != "f":
        raise UserError(f"audio: wanted floating samples in [-1, 1] at {SAMPLE_RATE} Hz, got {samples.dtype}; divide integers by 2^15")
    if not np.isfinite(samples).all():
        raise UserError("audio: wanted finite samples, got some that are not; read the file again")
    return samples
