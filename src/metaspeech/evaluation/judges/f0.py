"""Pitch against the real recording of the same text."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from metaspeech.evaluation.judges.alignment import HOP, align, cepstra
from metaspeech.evaluation.judges.base import RATE, Candidate, Column, Query, Scores, Setting

with warnings.catch_warnings():  # about pkg_resources, inside the package
    warnings.simplefilter("ignore")
    import pyworld


class PitchError:
    """F0 by WORLD's DIO and StoneMask, compared along the alignment of the cepstra."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "f0_error",
            "F0 error (cents)",
            "lower",
            "Median absolute difference of F0 in cents (DIO and StoneMask, 10 ms) over aligned frames that are voiced "
            "in both recordings; a median, so that octave errors of the pitch tracker do not decide it.",
        ),
        Column(
            "voicing_error",
            "Voicing error",
            "lower",
            "Share of aligned frames that are voiced in one recording and not in the other.",
        ),
    )

    trained_on: ClassVar[tuple[str, ...]] = ()
    dear: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("librosa", "pyworld", "scipy", "torchaudio")

    def __init__(self, setting: Setting) -> None:
        del setting

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> list[Scores]:
        reference, reference_f0 = cepstra(query.audio), pitch(query.audio)
        scores = []
        for candidate in candidates:
            path, _ = align(reference, cepstra(candidate.audio))
            scores.append(compare(reference_f0[path[:, 0]], pitch(candidate.audio)[path[:, 1]]))
        return scores


def pitch(audio: np.ndarray) -> np.ndarray:
    """(samples,) -> (samples // 160 + 1,) Hz, 0 where unvoiced."""
    samples = np.asarray(audio, dtype=np.float64)
    f0, times = pyworld.dio(samples, RATE, frame_period=1000 * HOP / RATE)
    return np.asarray(pyworld.stonemask(samples, f0, times, RATE))


def compare(reference: np.ndarray, candidate: np.ndarray) -> Scores:
    """Errors between two aligned F0 tracks in Hz, 0 where unvoiced."""
    voiced, spoken = reference > 0, candidate > 0
    both = voiced & spoken
    cents = 1200 * np.log2(candidate[both] / reference[both])
    return {
        "f0_error": float(np.median(np.abs(cents))) if both.any() else float("nan"),
        "voicing_error": float(np.mean(voiced != spoken)),
    }
