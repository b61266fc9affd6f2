"""What some algorithms are told of a task besides its recordings: its vector, and its nearest neighbour in training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch

from metaspeech.data.batch import Episode
from metaspeech.data.episodes import EpisodeSpec
from metaspeech.data.store import Store
from metaspeech.tasks.representation import TaskVectors


class TaskContext:
    """Adds to episodes what an algorithm needs.

    Args:
        vectors: of all tasks.
        pool: training speaker -> utt_ids.
        needs: names of fields of Episode: representation, neighbour.
        recordings: of the neighbour, at most.
    """

    def __init__(
        self,
        store: Store,
        vectors: TaskVectors,
        pool: Mapping[str, Sequence[str]],
        needs: Collection[str],
        recordings: int,
    ) -> None:
        self.store, self.vectors, self.pool, self.needs, self.recordings = store, vectors, pool, needs, recordings

    def add(self, episode: Episode, spec: EpisodeSpec) -> Episode:
        """The episode with what is needed."""
        if "representation" in self.needs:
            episode = replace(episode, representation=torch.from_numpy(self.vectors.of(_task(spec))))
        if "neighbour" in self.needs:
            recordings = sorted(self.pool[self.nearest(spec)])[: self.recordings]
            episode = replace(episode, neighbour=self.store.batch(recordings))
        return episode

    def nearest(self, spec: EpisodeSpec) -> str:
        """The training speaker, another than the task's own, who is most similar to the task."""
        others = [speaker for speaker in sorted(self.pool) if speaker != spec.speaker]
        return self.vectors.nearest(_task(spec), others)[0][0]


def _task(spec: EpisodeSpec) -> str:
    """The vector of a stored task is its own; that of a training episode its speaker's."""
    return spec.speaker if spec.split == "train" else spec.episode_id
