"""Whose episodes an outer step trains on. What a step gets follows from (seed, step) alone, so that training can be
taken up anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from metaspeech.data.episodes import turn_speaker


class Sampler(Protocol):
    """Draws training speakers.

    Args:
        speakers: all of them, in alphabetical order.
        similarity: of each to each, (speakers, speakers); None for a sampler whose ``informed`` is False.
        size: speakers an outer step.
        total: outer steps.
    """

    informed: bool
    """Whether it goes by similarity."""

    def __init__(
        self, speakers: Sequence[str], similarity: np.ndarray | None, seed: int, size: int, total: int
    ) -> None: ...

    def speakers_of(self, step: int) -> list[str]:
        """``size`` speakers."""


class Uniform:
    """Every run of as many episodes as there are speakers has each speaker once, in an order drawn anew."""

    informed = False

    def __init__(
        self, speakers: Sequence[str], similarity: np.ndarray | None, seed: int, size: int, total: int
    ) -> None:
        self.speakers, self.seed, self.size = list(speakers), seed, size

    def speakers_of(self, step: int) -> list[str]:
        return [turn_speaker(self.speakers, self.seed, step * self.size + place) for place in range(self.size)]


class Diverse:
    """Unlike voices together: the first of an outer step in turn, each further one with a probability that grows with
    its distance from the nearest of those drawn (as the centres of k-means++, Arthur and Vassilvitskii 2007)."""

    informed = True

    def __init__(
        self, speakers: Sequence[str], similarity: np.ndarray | None, seed: int, size: int, total: int
    ) -> None:
        assert similarity is not None
        self.speakers, self.seed, self.size = list(speakers), seed, size
        self.distance = np.maximum(0.0, 1.0 - similarity)

    def speakers_of(self, step: int) -> list[str]:
        draw = np.random.default_rng([self.seed, 3, step])
        chosen = [self.speakers.index(turn_speaker(self.speakers, self.seed, step))]
        while len(chosen) < self.size:
            undrawn = np.ones(len(self.speakers))
            undrawn[chosen] = 0.0
            if not undrawn.any():
                undrawn[:] = 1.0
            weights = undrawn * self.distance[chosen].min(axis=0) ** 2
            weights = weights if weights.any() else undrawn
            chosen.append(int(draw.choice(len(self.speakers), p=weights / weights.sum())))
        return [self.speakers[place] for place in chosen]


class HardFirst:
    """A curriculum from the outliers to all alike.

    A speaker's hardness h is the mean distance to the other speakers, in standard deviations; the speakers of a step
    are drawn with probabilities proportional to exp(2 (1 - t) h), t being the share of training that lies behind.
    """

    informed = True

    def __init__(
        self, speakers: Sequence[str], similarity: np.ndarray | None, seed: int, size: int, total: int
    ) -> None:
        assert similarity is not None
        self.speakers, self.seed, self.size, self.total = list(speakers), seed, size, total
        others = ~np.eye(len(speakers), dtype=bool)
        distance = np.where(others, 1.0 - similarity, 0.0).sum(axis=1) / max(1, len(speakers) - 1)
        self.hardness = (distance - distance.mean()) / (distance.std() or 1.0)

    def speakers_of(self, step: int) -> list[str]:
        draw = np.random.default_rng([self.seed, 3, step])
        weights = np.exp(2.0 * (1.0 - step / max(1, self.total)) * self.hardness)
        several = self.size > len(self.speakers)
        chosen = draw.choice(len(self.speakers), self.size, replace=several, p=weights / weights.sum())
        return [self.speakers[place] for place in chosen]
