"""What a judge is: it listens to speech and gives numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

RATE = 16000  # Hz: every judge listens at this rate

Scores = dict[str, float]
Enrolment = Mapping[str, Sequence[np.ndarray]]


@dataclass(frozen=True)
class Query:
    """What was to be said, by whom, and how it sounds when that speaker says it."""

    utt_id: str
    speaker: str
    text: str
    audio: np.ndarray  # (samples,) float32 at RATE: the real recording


@dataclass(frozen=True)
class Column:
    """One number that a judge gives for an utterance."""

    name: str
    label: str
    better: Literal["lower", "higher"]
    explanation: str  # one sentence: which variant of the measure, in which unit


class Judge(Protocol):
    """Judges are made once a process and asked for one query at a time."""

    columns: ClassVar[tuple[Column, ...]]

    def __init__(self, enrolment: Enrolment) -> None:
        """``enrolment``: real recordings of every test speaker at RATE, none of them a query."""

    def __call__(self, query: Query, candidates: Sequence[np.ndarray]) -> list[Scores]:
        """Scores for each candidate ((samples,) at RATE, finite, at least one sample), keyed by column name.

        NaN is what cannot be measured, such as the pitch of a candidate without voice.
        """
