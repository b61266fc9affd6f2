"""Mel-cepstral distortion against the real recording of the same text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from metaspeech.evaluation.judges.alignment import align, cepstra
from metaspeech.evaluation.judges.base import Candidate, Column, Query, Scores, Setting


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

    trained_on: ClassVar[tuple[str, ...]] = ()
    dear: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("librosa", "scipy", "torchaudio")

    def __init__(self, setting: Setting) -> None:
        del setting

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> list[Scores]:
        reference = cepstra(query.audio)
        return [{"mcd": float(align(reference, cepstra(one.audio))[1].mean())} for one in candidates]
