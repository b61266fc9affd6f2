"""Does it sound like the speaker, and more so than like others?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from metaspeech.evaluation.judges.base import Candidate, Column, Query, Scores, Setting
from metaspeech.evaluation.speaker_encoder import embed


class SpeakerSimilarity:
    """Cosine between a pretrained encoder's vector of the utterance and the centroids of real speakers."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "similarity",
            "Speaker similarity",
            "higher",
            "Cosine (Resemblyzer, GE2E) to the centroid of up to ten real recordings of the speaker, none of "
            "which is synthesised here.",
        ),
        Column(
            "impostor_similarity",
            "Similarity to others",
            "lower",
            "Mean cosine to the centroids of the other test speakers.",
        ),
        Column("margin", "Similarity margin", "higher", "Speaker similarity less similarity to others."),
    )

    trained_on: ClassVar[tuple[str, ...]] = ("librispeech", "voxceleb1", "voxceleb2")  # of LibriSpeech train-other-500
    dear: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("librosa", "resemblyzer", "torch")

    def __init__(self, setting: Setting) -> None:
        self._speakers = sorted(setting.enrolment)
        self._centroids = np.stack([centroid(embed(setting.enrolment[speaker])) for speaker in self._speakers])

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> list[Scores]:
        """Also ``impostor_scores``: the cosines to each other test speaker, in the order of their names."""
        cosines = embed([one.audio for one in candidates]) @ self._centroids.T  # (candidates, speakers)
        own = np.array([speaker == query.speaker for speaker in self._speakers])
        scores: list[Scores] = []
        for row in cosines:
            similarity = float(row[own].mean())
            impostors = float(row[~own].mean()) if (~own).any() else float("nan")
            scores.append(
                {
                    "similarity": similarity,
                    "impostor_similarity": impostors,
                    "margin": similarity - impostors,
                    "impostor_scores": [float(cosine) for cosine in row[~own]],
                }
            )
        return scores


def centroid(vectors: np.ndarray) -> np.ndarray:
    """(recordings, dimension) -> (dimension,) of length 1."""
    mean = vectors.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))
