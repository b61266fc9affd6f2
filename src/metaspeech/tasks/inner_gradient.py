"""A task as the direction in which its first inner step goes."""

from __future__ import annotations

import zlib

import numpy as np

from metaspeech.tasks.recordings import Recordings
from metaspeech.tasks.representation import cosine

BUCKETS = 1024


class InnerGradient:
    """The gradient of the loss on the task's recordings at the common start, as a count sketch (Charikar et al. 2002).

    (1024,). Every element of the gradient is added with a random sign to a random one of the buckets, which leaves
    inner products what they are in expectation, with a standard error of |a| |b| / 32.
    """

    label = "Inner gradient"
    of_model = True

    def __init__(self) -> None:
        self._places: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}

    def vector(self, recordings: Recordings) -> np.ndarray:
        sketch = np.zeros(BUCKETS)
        for name, gradient in recordings.gradients.mean.items():
            values = gradient.flatten().cpu().numpy()
            buckets, signs = self._place(name, len(values))
            sketch += np.bincount(buckets, weights=signs * values, minlength=BUCKETS)
        return sketch.astype(np.float32)

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return cosine(a, b)

    def _place(self, name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Bucket and sign of each element of a parameter: the same for all tasks, and on every machine."""
        if (name, size) not in self._places:
            draw = np.random.default_rng(zlib.crc32(name.encode()))
            signs = draw.integers(0, 2, size, dtype=np.int8) * 2 - 1
            self._places[name, size] = draw.integers(0, BUCKETS, size, dtype=np.int16), signs
        return self._places[name, size]
