"""Episodes and joint batches as tensors: what was drawn by name, looked up in the store."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from metaspeech.data.batch import Episode, SpeechBatch, collate
from metaspeech.data.episodes import EpisodeSpec, joint_batch, pooled, train_episode
from metaspeech.data.speeds import Player
from metaspeech.data.store import Store
from metaspeech.seeds import mixed_seed

SORTED = 8  # steps of joint training whose utterances are sorted by length


class EpisodeMaker:
    """Episodes as tensors, from stored lists or drawn.

    Args:
        store: with the recordings.
        seed: of what is drawn.
        complete: adds to an episode what an algorithm needs besides recordings.
    """

    def __init__(
        self, store: Store, seed: int, complete: Callable[[Episode, EpisodeSpec], Episode] | None = None
    ) -> None:
        self.store, self.seed, self._complete = store, seed, complete

    def stored(self, spec: EpisodeSpec, shots: int | None = None) -> Episode:
        """A stored episode, with the first ``shots`` of its support."""
        support = spec.support[:shots] if shots else spec.support
        return self._episode(replace(spec, support=support), spec.episode_id)

    def outer_step(
        self, pool: Mapping[str, Sequence[str]], speakers_of: Callable[[int], Sequence[str]], shots: int, queries: int
    ) -> Callable[[int], list[Episode]]:
        """What outer step ``i`` trains on: an episode of each of ``speakers_of(i)``, which are always as many."""
        manifest = self.store.manifest
        texts = dict(zip(manifest.index, manifest["text"], strict=True))

        def make(step: int) -> list[Episode]:
            speakers = speakers_of(step)
            episodes = []
            for index, speaker in enumerate(speakers, start=step * len(speakers)):
                spec = train_episode(pool, texts, speaker, shots, queries, self.seed, index)
                episodes.append(self._episode(spec, index))
            return episodes

        return make

    def joint(
        self, pool: Mapping[str, Sequence[str]], size: int, speeds: Sequence[float] = (1.0,)
    ) -> Callable[[int], tuple[SpeechBatch, Tensor]]:
        """What pretraining step ``i`` trains on: a batch over all speakers, and the number of each one's speaker.

        A speaker counts as another one at each of the ``speeds``, of which one is drawn for every utterance. The
        batches of ``SORTED`` steps are drawn at once and sorted by length, so that little of them is padding.
        """
        numbers = {speaker: number for number, speaker in enumerate(sorted(pool))}
        everything, speaker_of = pooled(pool), self.store.manifest["speaker"]
        player = Player(self.store)

        def make(step: int) -> tuple[SpeechBatch, Tensor]:
            turn, place = divmod(step, SORTED)
            utterances = joint_batch(everything, size * SORTED, self.seed, turn)
            draws = random.Random(mixed_seed(self.seed, f"speeds and order of {turn}"))
            drawn = list(zip(utterances, draws.choices(range(len(speeds)), k=len(utterances)), strict=True))
            drawn.sort(key=lambda one: self.store.frames(one[0]) / speeds[one[1]])
            first = size * draws.sample(range(SORTED), SORTED)[place]
            batch = drawn[first : first + size]
            speakers = [numbers[speaker_of[utterance]] * len(speeds) + speed for utterance, speed in batch]
            items = [player.at(utterance, speeds[speed]) for utterance, speed in batch]
            starts = [self.store.starts(utterance) / speeds[speed] for utterance, speed in batch]
            return collate(items, starts), torch.tensor(speakers)

        return make

    def _episode(self, spec: EpisodeSpec, item: int | str) -> Episode:
        support, query = self.store.batch(spec.support), self.store.batch(spec.query)
        episode = Episode(spec.speaker, support, query, mixed_seed(self.seed, item))
        return self._complete(episode, spec) if self._complete else episode
