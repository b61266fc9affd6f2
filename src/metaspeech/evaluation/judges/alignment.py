"""Cepstra and dynamic time warping: which frame of a synthesis corresponds to which of the recording."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from librosa.sequence import dtw
from scipy.fft import dct
from scipy.spatial.distance import cdist

from metaspeech.audio.features import LogMel
from metaspeech.evaluation.judges.base import RATE

HOP = 160  # samples: 10 ms
BANDS = 80
COEFFICIENTS = 24  # 1 to 24; number 0, the level, is left out
RANGE_DB = 60.0  # what lies further below an utterance's loudest band is taken as silence
DB = 20 / np.log(10)  # of a natural logarithm of magnitude


def cepstra(audio: np.ndarray) -> np.ndarray:
    """(samples,) -> (samples // 160 + 1, 24): DCT of the log-mel, in dB.

    Scaled so that the Euclidean distance of two frames is the root mean square over the mel bands of the difference
    between their smoothed spectra in dB, without the level. For the cepstrum c of a natural log spectrum that is the
    usual 10 / ln 10 * sqrt(2 sum (c - c')^2) (Kubichek 1993).
    """
    log_mel = _log_mel()(torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))).numpy()
    decibels = np.maximum(DB * log_mel, DB * log_mel.max() - RANGE_DB)
    coefficients = dct(decibels, norm="ortho", axis=1)[:, 1 : COEFFICIENTS + 1]
    return np.asarray(coefficients / np.sqrt(BANDS), dtype=np.float64)


def align(reference: np.ndarray, candidate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest monotonic path through the Euclidean distances of two sequences of frames.

    Steps are (1, 1), (0, 1) and (1, 0), all of weight 1 (Sakoe and Chiba 1978, symmetric without slope constraint).

    Args:
        reference: (frames, dimensions).
        candidate: (other frames, dimensions).

    Returns:
        The path, (length, 2) indices into reference and candidate from the first pair to the last, and the distance of
        each pair on it, (length,).
    """
    distances = cdist(reference, candidate)
    path = dtw(C=distances)[1][::-1]
    return path, distances[path[:, 0], path[:, 1]]


@cache
def _log_mel() -> LogMel:
    return LogMel(RATE, n_fft=1024, win=400, hop=HOP, n_mels=BANDS, fmin=0.0, fmax=RATE / 2)
