"""What some algorithms are told of a task besides its recordings: its vector, and its nearest neighbour in training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from metaspeech.data.batch import Episode
from metaspeech.data.episodes import EpisodeSpec
from metaspeech.data.store import Store
from metaspeech.errors import UserError


class TaskContext:
    """Adds to episodes what an algorithm needs.

    Args:
        table: of :func:`~metaspeech.tasks.representation.read_representation`.
        pool: training speaker -> utt_ids.
        needs: names of fields of Episode: representation, neighbour.
        recordings: of the neighbour, at most.
    """

    def __init__(
        self,
        store: Store,
        table: pd.DataFrame,
        pool: Mapping[str, Sequence[str]],
        needs: Collection[str],
        recordings: int,
    ) -> None:
        self.store, self.pool, self.needs, self.recordings = store, pool, needs, recordings
        self._vectors = dict(zip(table["id"], table["vector"], strict=True))
        self._speakers = [speaker for speaker in sorted(pool) if speaker in self._vectors]

    def add(self, episode: Episode, spec: EpisodeSpec) -> Episode:
        """The episode with what is needed."""
        if "representation" in self.needs:
            episode = replace(episode, representation=torch.from_numpy(self.vector(spec)))
        if "neighbour" in self.needs:
            recordings = sorted(self.pool[self.nearest(spec)])[: self.recordings]
            episode = replace(episode, neighbour=self.store.batch(recordings))
        return episode

    def vector(self, spec: EpisodeSpec) -> np.ndarray:
        """Of a stored task; of a training episode, its speaker's."""
        name = spec.speaker if spec.split == "train" else spec.episode_id
        try:
            return np.asarray(self._vectors[name], dtype=np.float32)
        except KeyError:
            raise UserError(
                f"representation.parquet: no vector for '{name}'. Make the episodes again: dvc repro -sf episodes"
            ) from None

    def nearest(self, spec: EpisodeSpec) -> str:
        """The training speaker, another than the task's own, whose vector has the largest cosine with the task's."""
        vector = self.vector(spec)
        others = [speaker for speaker in self._speakers if speaker != spec.speaker]
        return max(others, key=lambda speaker: (_cosine(vector, self._vectors[speaker]), speaker))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
