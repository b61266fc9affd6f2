"""A model's tasks from the files that the stages made."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from metaspeech.config import Params
from metaspeech.data.batch import Episode
from metaspeech.data.episodes import Pool, read_pool
from metaspeech.data.store import Store
from metaspeech.data.tensors import EpisodeMaker
from metaspeech.registry import SAMPLERS, resolve
from metaspeech.tasks.context import TaskContext
from metaspeech.tasks.representation import TaskVectors, read_vectors
from metaspeech.tasks.samplers import Sampler


@dataclass(frozen=True)
class TaskFiles:
    """Where they are; none is read before it is needed.

    Attributes:
        store: folder of the features.
        pool: the training speakers.
        vectors: of all tasks, for one model.
    """

    store: Path
    pool: Path
    vectors: Path

    def episodes(self, params: Params, needs: Collection[str]) -> EpisodeMaker:
        """Makes episodes with the fields that an algorithm ``needs``."""
        store = Store(self.store)
        if not needs:
            return EpisodeMaker(store, params.seed)
        context = TaskContext(store, self._vectors(params), self.speakers(), needs, params.episodes.shots)
        return EpisodeMaker(store, params.seed, context.add)

    def speakers(self) -> Pool:
        """Training speaker -> utt_ids."""
        return read_pool(self.pool)

    def outer_step(self, params: Params, episodes: EpisodeMaker, total: int) -> Callable[[int], list[Episode]]:
        """What outer step ``i`` of ``total`` trains on, as ``meta_train.sampler`` chooses its speakers."""
        settings, pool = params.meta_train, self.speakers()
        kind: type[Sampler] = resolve(SAMPLERS, settings.sampler)
        names = sorted(pool)
        similarity = self._vectors(params).similarity(names, names) if kind.informed else None
        sampler = kind(names, similarity, params.seed, settings.meta_batch, total)
        return episodes.outer_step(pool, sampler.speakers_of, params.episodes.shots, params.episodes.queries)

    def _vectors(self, params: Params) -> TaskVectors:
        return read_vectors(self.vectors, params.represent.use)
