"""Is it intelligible: what does a phoneme recogniser hear? English only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import hama
import jiwer
import numpy as np

from metaspeech.evaluation.judges.base import RATE, UNKNOWN, Candidate, Column, Query, Scores, Setting

PAD = RATE // 5  # samples of silence either side: without them the recogniser misses the ends of short words
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


class PhonemeError:
    """Phoneme error rate of hama's recogniser against hama's own pronunciation of the text.

    Both were trained on the same phoneme set, so the rate of real speech (0.1 to 0.3 for native sentences) is the floor
    to compare with, not 0. Insertions can take it above 1.
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "phoneme_error",
            "Phoneme error",
            "lower",
            "Phoneme error rate (hama recogniser against hama's pronunciation of the text, 0.2 s of silence added at "
            "both ends). For English only. The real recording's own rate is the floor.",
        ),
    )

    trained_on: ClassVar[tuple[str, ...]] = (UNKNOWN,)
    dear: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("hama", "jiwer")

    def __init__(self, setting: Setting) -> None:
        del setting
        self._recogniser = hama.ASRModel()

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> list[Scores]:
        reference = pronunciation(query.text)
        return [{"phoneme_error": error_rate(reference, self.recognise(one.audio))} for one in candidates]

    def recognise(self, audio: np.ndarray) -> list[str]:
        """The phonemes heard in (samples,) at 16 kHz."""
        return list(self._recogniser(np.pad(np.asarray(audio, dtype=np.float32), PAD), RATE).phonemes)


def pronunciation(text: str) -> list[str]:
    """The phonemes of a text. Marks and digits are passed over: the model would read them in some other language."""
    return [phoneme for word in WORD.findall(text.lower()) for phoneme in _word(word)]


def error_rate(reference: Sequence[str], heard: Sequence[str]) -> float:
    """Edits for each phoneme of the reference; NaN without a reference."""
    return float(jiwer.wer(" ".join(reference), " ".join(heard))) if reference else float("nan")


@cache
def _word(word: str) -> tuple[str, ...]:
    return tuple(one.phoneme for one in _pronouncer()(word).alignments if one.phoneme.strip())


@cache
def _pronouncer() -> hama.G2PModel:
    return hama.G2PModel()
