"""A task as what it asks of a model's parameters (Achille et al. 2019, "Task2Vec", section 3)."""

from __future__ import annotations

import numpy as np

from metaspeech.tasks.recordings import Recordings
from metaspeech.tasks.representation import cosine


class Task2Vec:
    """The diagonal of the Fisher information at the common start, averaged over each output unit of each parameter.

    (units,), none below zero. The paper averages over each filter of a probe network. Here the empirical Fisher of the
    model's own training loss is taken, which for Tacotron is not a log-likelihood.
    """

    label = "Task2Vec"
    of_model = True

    def vector(self, recordings: Recordings) -> np.ndarray:
        squares = recordings.gradients.square.values()
        units = [square.flatten(1).mean(1) if square.dim() > 1 else square.mean()[None] for square in squares]
        return np.concatenate([unit.cpu().numpy() for unit in units]).astype(np.float32)

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """1 minus the paper's symmetric distance: the cosine of F_a / (F_a + F_b) and F_b / (F_a + F_b), to which a
        unit counts as much as another whatever the scale of its parameters."""
        return np.stack([[_symmetric(one, other) for other in b] for one in a])


def _symmetric(one: np.ndarray, other: np.ndarray) -> float:
    both = one + other
    asked = both > 0
    if not asked.any():
        return 0.0
    return float(cosine((one[asked] / both[asked])[None], (other[asked] / both[asked])[None])[0, 0])
