"""Feeds Lightning: what outer step `i` trains on follows from (seed, i) alone.

One Lightning epoch is the stretch between two checkpoints. Loaders are made anew for each epoch, so that a run that
starts again from a checkpoint sees exactly the episodes that it would have seen undisturbed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset

from metaspeech.data.batch import Episode, SpeechBatch
from metaspeech.data.episodes import EpisodeSpec, joint_batch, train_episode
from metaspeech.data.store import Store


class StepRange(Dataset[Any]):
    """Item `i` is what step ``start + i`` trains on."""

    def __init__(self, start: int, stop: int, make: Callable[[int], Any]) -> None:
        self.start, self.stop, self.make = start, stop, make

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Any:
        if index >= len(self):
            raise IndexError(index)
        return self.make(self.start + index)


class StepModule(pl.LightningDataModule):
    """``total_steps`` training steps in epochs of ``steps_per_epoch``; validation items are the same each time."""

    def __init__(
        self,
        make: Callable[[int], Any],
        total_steps: int,
        steps_per_epoch: int,
        validation: Sequence[Any] = (),
    ) -> None:
        super().__init__()
        self.make, self.total_steps, self.steps_per_epoch = make, total_steps, steps_per_epoch
        self.validation = validation

    @property
    def epochs(self) -> int:
        return -(-self.total_steps // self.steps_per_epoch)

    def train_dataloader(self) -> DataLoader[Any]:
        epoch = self.trainer.current_epoch if self.trainer else 0
        start = epoch * self.steps_per_epoch
        stop = min(start + self.steps_per_epoch, self.total_steps)
        return DataLoader(StepRange(start, stop, self.make), batch_size=None, shuffle=False)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        if not self.validation:
            return []
        return DataLoader(StepRange(0, len(self.validation), self.validation.__getitem__), batch_size=None)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(StepRange(0, self.total_steps, self.make), batch_size=None)


class EpisodeMaker:
    """Episodes as tensors, from stored lists or drawn."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.seed = store, seed

    def stored(self, spec: EpisodeSpec, shots: int | None = None) -> Episode:
        """A stored episode, with the first ``shots`` of its support."""
        support = spec.support[:shots] if shots else spec.support
        seed = mixed_seed(self.seed, spec.episode_id)
        return Episode(spec.speaker, self.store.batch(support), self.store.batch(spec.query), seed)

    def outer_step(
        self, pool: Mapping[str, Sequence[str]], meta_batch: int, shots: int, queries: int
    ) -> Callable[[int], list[Episode]]:
        """What outer step ``i`` trains on: episodes ``i * meta_batch`` and following."""
        texts = self.store.manifest["text"].to_dict()

        def make(step: int) -> list[Episode]:
            indices = range(step * meta_batch, (step + 1) * meta_batch)
            specs = [train_episode(pool, texts, shots, queries, self.seed, index) for index in indices]
            return [
                Episode(spec.speaker, self.store.batch(spec.support), self.store.batch(spec.query), mixed_seed(self.seed, i))
                for i, spec in zip(indices, specs, strict=True)
            ]  # fmt: skip

        return make

    def joint(self, pool: Mapping[str, Sequence[str]], size: int) -> Callable[[int], SpeechBatch]:
        """What pretraining step ``i`` trains on: a batch over all speakers."""
        return lambda step: self.store.batch(joint_batch(pool, size, self.seed, step))


def mixed_seed(seed: int, item: int | str) -> int:
    """A seed for one item of a run, the same on every machine."""
    import hashlib

    return int.from_bytes(hashlib.sha256(f"{seed}/{item}".encode()).digest()[:6], "big")
