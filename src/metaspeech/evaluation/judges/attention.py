"""Did the acoustic model read its text once and in order: its attention, not its sound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from metaspeech.evaluation.judges.base import Candidate, Column, Query, Scores, Setting

NEAR = 1  # characters


class AttentionFailures:
    """Nothing can be said of recordings and of vocoders on recorded mels, which have no attention (NaN)."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "focus_rate",
            "Focus rate",
            "higher",
            "Mean over decoder steps of the largest attention weight (Ren et al. 2019, FastSpeech).",
        ),
        Column(
            "skipped",
            "Skipped",
            "lower",
            "Share of characters that the path of the largest attention weights comes never within one character of.",
        ),
        Column(
            "repeated",
            "Repeated",
            "lower",
            "Share of decoder steps at which the path of the largest attention weights jumps back by more than one "
            "character.",
        ),
    )
    trained_on: ClassVar[tuple[str, ...]] = ()
    dear: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, setting: Setting) -> None:
        del setting

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> list[Scores]:
        del query
        return [failures(one.alignment) for one in candidates]


def failures(alignment: np.ndarray | None) -> Scores:
    """Of (decoder steps, characters) with rows that sum to 1. For a_s, the largest weight's place in row s:

    - focus_rate: mean over s of max over n of the weights.
    - skipped: share of characters n with |a_s - n| > 1 for every s.
    - repeated: share of steps s > 0 with a_s < a_(s-1) - 1.
    """
    if alignment is None or not alignment.size or not np.isfinite(alignment).all():
        return {name.name: float("nan") for name in AttentionFailures.columns}
    path = alignment.argmax(axis=1)
    distance = np.abs(path[:, None] - np.arange(alignment.shape[1])).min(axis=0)
    return {
        "focus_rate": float(alignment.max(axis=1).mean()),
        "skipped": float(np.mean(distance > NEAR)),
        "repeated": float(np.mean(np.diff(path) < -NEAR)) if len(path) > 1 else 0.0,
    }
