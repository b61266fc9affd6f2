"""What a judge is: it listens to speech and gives numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

RATE = 16000  # Hz: every judge listens at this rate

Scores = Mapping[str, float | list[float]]  # numbers by column; a list is kept in the utterance table and not averaged
UNKNOWN = "unknown"  # among the corpora that a judge was trained on


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


@dataclass(frozen=True)
class Setting:
    """What a judge may know of an evaluation before it listens."""

    enrolment: Mapping[str, Sequence[np.ndarray]]  # real recordings of every test speaker at RATE, none of them a query
    texts: Sequence[str]  # all that are to be said


@dataclass(frozen=True)
class Candidate:
    """What is judged: a synthesis, or a recording."""

    audio: np.ndarray  # (samples,) float32 at RATE, finite, at least one sample
    alignment: np.ndarray | None = None  # (decoder steps, characters), where an acoustic model spoke


class Judge(Protocol):
    """Judges are made once a process and asked for one query at a time.

    What a judge says of a candidate depends on that candidate, the query and the setting alone, to the bit: scores are
    remembered.

    Attributes:
        columns: what it measures.
        trained_on: public corpora that its weights have seen, in small letters (those that can be a corpus here by
            their names in the registry); ``UNKNOWN`` where nobody says; empty where nothing is learned.
        dear: whether it is asked for only some queries (``evaluate.dear_queries``).
        packages: whose versions change its scores.
    """

    columns: ClassVar[tuple[Column, ...]]
    trained_on: ClassVar[tuple[str, ...]]
    dear: ClassVar[bool]
    packages: ClassVar[tuple[str, ...]]

    def __init__(self, setting: Setting) -> None: ...

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> Sequence[Scores]:
        """Scores for each candidate, keyed by column name, in the order of the candidates.

        NaN is what cannot be measured, such as the pitch of a candidate without voice.
        """
