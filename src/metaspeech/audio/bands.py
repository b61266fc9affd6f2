"""Mels whose bands vary as they do in a speaker's recordings.

A model that a few steps have adapted still speaks with too little variance, and with something of the voice that it
came from. Where the same texts are at hand as the model speaks them and as the speaker read them, the linear map
between the two says what is left to do: that of Gaussian optimal transport (Olkin and Pukelsheim 1982; in speech it
extends the compensation of global variance of Toda and Tokuda 2007 from each band to all of them together).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHRINKAGE_FRAMES = 300  # of which half of the covariance between bands is believed; docs/study.md has what others do
MOST_GAIN = 2.0  # of a direction, and its inverse the least: what a voice differs by, not what a bad alignment does
_LEAST_STD = 1e-3  # of a band, in natural log-mel
_LEAST_VARIANCE = 1e-3  # of a direction, relative to a band's


@dataclass(frozen=True)
class BandMap:
    """``mel @ matrix + offset``.

    Attributes:
        matrix: (bands, bands) float32.
        offset: (bands,) float32.
    """

    matrix: np.ndarray
    offset: np.ndarray

    def __call__(self, mel: np.ndarray) -> np.ndarray:
        """(frames, bands) natural log-mel -> the same."""
        return np.asarray(mel @ self.matrix + self.offset, dtype=np.float32)


def fit(spoken: np.ndarray, recorded: np.ndarray) -> BandMap | None:
    """The map that gives ``spoken`` the mean and covariance of ``recorded``, and moves it as little as can be.

    Covariances between bands are shrunk towards none, the more the fewer frames there are, and no direction is
    stretched or pressed by more than ``MOST_GAIN``.

    Args:
        spoken: (frames, bands) natural log-mel, of a model.
        recorded: (frames, bands) natural log-mel, of the speaker, about the same texts.

    Returns:
        None where nothing can be learned: fewer than two frames, or a mel that is not finite.
    """
    if min(len(spoken), len(recorded)) < 2 or not (np.isfinite(spoken).all() and np.isfinite(recorded).all()):
        return None
    unit = np.maximum(recorded.std(axis=0, dtype=np.float64), _LEAST_STD)
    root, inverse = _roots(_covariance(spoken / unit))
    between, _ = _roots(root @ _covariance(recorded / unit) @ root)
    gains, directions = np.linalg.eigh(inverse @ between @ inverse)
    gains = np.clip(gains, 1 / MOST_GAIN, MOST_GAIN)
    matrix = (directions * gains) @ directions.T * unit / unit[:, None]
    offset = recorded.mean(axis=0, dtype=np.float64) - spoken.mean(axis=0, dtype=np.float64) @ matrix
    return BandMap(matrix.astype(np.float32), offset.astype(np.float32))


def _covariance(mel: np.ndarray) -> np.ndarray:
    believed = len(mel) / (len(mel) + SHRINKAGE_FRAMES)
    covariance = np.atleast_2d(np.cov(mel, rowvar=False, dtype=np.float64))
    return np.asarray(believed * covariance + (1 - believed) * np.diag(np.diag(covariance)))


def _roots(symmetric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square root of a positive matrix, and its inverse."""
    values, vectors = np.linalg.eigh(symmetric)
    values = np.sqrt(np.maximum(values, _LEAST_VARIANCE))
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T
