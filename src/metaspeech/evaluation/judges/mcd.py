"""Mel-cepstral distortion against the real recording of the same text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from metaspeech.evaluation.judges.alignment import align, cepstra
from metaspeech.evaluation.judges.base import Column, Enrolment, Query, Scores


class MelCepstralDistortion:
    """Mean distance along the alignment. Implementations differ, so figures compare only within one of them."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "mcd",
            "MCD (dB)",
            "lower",
            "Mel-cepstral distortion in dB: coefficients 1 to 24 of the DCT of an 80-band log-mel at 16 kHz, 25 ms "
            "windows, 10 ms hop, floor 60 dB below the loudest band; dynamic time warping, mean over its path.",
        ),
    )

    def __init__(self, enrolment: Enrolment) -> None:
        del enrolment

    def __call__(self, query: Query, candidates: Sequence[np.ndarray]) -> list[Scores]:
        reference = cepstra(query.audio)
        return [{"mcd": float(align(reference, cepstra(one))[1].mean())} for one in candidates]
