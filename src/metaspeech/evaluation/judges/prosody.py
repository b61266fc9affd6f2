"""Energy and duration against the real recording of the same text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from metaspeech.evaluation.judges.alignment import HOP, align, cepstra
from metaspeech.evaluation.judges.base import Candidate, Column, Query, Scores, Setting

WINDOW = 400  # samples: 25 ms
RANGE_DB = 40.0  # what lies further below an utterance's loudest frame is silence


class ProsodyError:
    """Pitch is another part of prosody: see :class:`~metaspeech.evaluation.judges.f0.PitchError`."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "energy_error",
            "Energy error (dB)",
            "lower",
            "Standard deviation of the difference in frame energy in dB (25 ms windows, 10 ms hop, floor 40 dB below "
            "the loudest frame) along the alignment of the cepstra: the overall level does not count.",
        ),
        Column(
            "duration_error",
            "Duration error (octaves)",
            "lower",
            "Absolute logarithm to base 2 of the ratio of speech lengths, from the first to the last frame within 40 "
            "dB of the loudest: 1 is twice or half as long, 0.14 is 10 % longer.",
        ),
    )
    trained_on: ClassVar[tuple[str, ...]] = ()
    dear: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("librosa", "scipy", "torchaudio")

    def __init__(self, setting: Setting) -> None:
        del setting

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> list[Scores]:
        reference, level = cepstra(query.audio), energy(query.audio)
        scores: list[Scores] = []
        for candidate in candidates:
            spoken = energy(candidate.audio)
            path, _ = align(reference, cepstra(candidate.audio))
            scores.append(
                {
                    "energy_error": float(np.std(level[path[:, 0]] - spoken[path[:, 1]])),
                    "duration_error": abs(float(np.log2(speech_frames(spoken) / speech_frames(level)))),
                }
            )
        return scores


def energy(audio: np.ndarray) -> np.ndarray:
    """(samples,) -> (samples // 160 + 1,) dB: mean square in windows around the frames of :func:`cepstra`."""
    power = np.pad(np.asarray(audio, dtype=np.float64) ** 2, WINDOW // 2)
    sums = np.concatenate([[0.0], np.cumsum(power)])
    starts = np.arange(len(audio) // HOP + 1) * HOP
    decibels = 10 * np.log10(np.maximum((sums[starts + WINDOW] - sums[starts]) / WINDOW, 1e-12))
    return np.asarray(np.maximum(decibels, decibels.max() - RANGE_DB))


def speech_frames(decibels: np.ndarray) -> int:
    """From the first to the last frame above the floor; at least 1."""
    above = np.flatnonzero(decibels > decibels.max() - RANGE_DB)
    return int(above[-1] - above[0] + 1)
