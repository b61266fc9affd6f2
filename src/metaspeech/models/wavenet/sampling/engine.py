"""What a backend offers to the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metaspeech.models.wavenet.sampling.weights import Floats

Doubles = NDArray[np.float64]


class Streams(Protocol):
    """Utterances that go forward together, each with its own queues."""

    def run(
        self, uniforms: Doubles, temperature: float, forced: Floats | None = None, outputs: Floats | None = None
    ) -> Floats:
        """The next samples of every stream, drawn from where the call before stopped.

        Args:
            uniforms: (streams, samples, 2) in [0, 1).
            forced: (streams, samples) fed back instead of what is drawn.
            outputs: (streams, samples, O), filled with the network's outputs before the softmax.

        Returns:
            (streams, samples): classes of mu-law, or values in [-1, 1].
        """

    def keep(self, which: Sequence[int]) -> None:
        """Goes on with these streams only."""

    def close(self) -> None:
        """Frees memory."""


class Engine(Protocol):
    """One network, ready to sample."""

    width: int
    """Streams that share a pass at most."""
    chunk: int
    """Samples between two looks at whether to go on: tenths of a second of computing."""
    parallel: bool
    """Whether several threads at once make it faster."""

    def open(self, conditionings: Sequence[Floats]) -> Streams:
        """Streams before their first sample; conditioning (blocks, L, G) each, checked."""
