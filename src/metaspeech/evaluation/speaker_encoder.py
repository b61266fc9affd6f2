"""The pretrained speaker encoder: Resemblyzer (GE2E, Wan et al. 2018), whose weights lie in its package.

The one importer of resemblyzer. Its import and its first mel take seconds, so both wait for the first call.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

SAMPLE_RATE = 16000
DIMENSION = 256
_PARTIALS_PER_SECOND = 1.3
_MIN_COVERAGE = 0.75  # of the last partial; both are the package's defaults
_ROWS = 8  # partials a forward pass
_MIN_SPEECH = SAMPLE_RATE // 4  # samples that voice activity detection must leave


def embed(waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """Who speaks, as a vector for each waveform.

    The package's own recipe (volume, silence cut out by voice activity detection, windows of 1.6 s, mean over windows),
    in batches. A vector does not depend on the other waveforms of the call, to the bit.

    Args:
        waveforms: each (samples,) float in [-1, 1] at 16 kHz.

    Returns:
        (waveforms, 256) float32, rows of length 1. The cosine of two rows is their dot product.
    """
    if not len(waveforms):
        return np.zeros((0, DIMENSION), dtype=np.float32)
    windows = [_windows(np.asarray(waveform, dtype=np.float32)) for waveform in waveforms]
    partials = _forward(np.concatenate(windows))
    ends = np.cumsum([len(item) for item in windows])
    means = np.stack([part.mean(axis=0) for part in np.split(partials, ends[:-1])])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), dtype=np.float32)


@cache
def _package() -> tuple[Any, Any]:
    """The module and its network on the CPU."""
    with warnings.catch_warnings():  # deprecations inside the package's own imports
        warnings.simplefilter("ignore")
        import resemblyzer
    with torch.random.fork_rng(devices=[]):  # its layers draw initial weights before they load the trained ones
        return resemblyzer, resemblyzer.VoiceEncoder("cpu", verbose=False).eval()


def _windows(waveform: np.ndarray) -> np.ndarray:
    """(samples,) -> (windows, 160 frames, 40 mels)"""
    resemblyzer, encoder = _package()
    speech = waveform
    if np.any(waveform):
        with np.errstate(all="ignore"):
            speech = resemblyzer.preprocess_wav(waveform)
        if len(speech) < _MIN_SPEECH:
            speech = waveform
    samples, frames = encoder.compute_partial_slices(len(speech), _PARTIALS_PER_SECOND, _MIN_COVERAGE)
    missing = max(0, samples[-1].stop - len(speech))
    mel = resemblyzer.wav_to_mel_spectrogram(np.pad(speech, (0, missing)))
    return np.stack([mel[window] for window in frames])


def _forward(windows: np.ndarray) -> np.ndarray:
    """(windows, frames, mels) -> (windows, 256). Every pass has the same number of rows: the last is filled with zeros,
    since a product of another shape may round otherwise."""
    encoder = _package()[1]
    filled = np.concatenate([windows, np.zeros((-len(windows) % _ROWS, *windows.shape[1:]), windows.dtype)])
    with torch.inference_mode():
        passes = [encoder(torch.from_numpy(filled[row : row + _ROWS])) for row in range(0, len(filled), _ROWS)]
    return np.asarray(torch.cat(passes)[: len(windows)].numpy())
