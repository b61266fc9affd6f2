"""Feeds Lightning: what outer step `i` trains on follows from (seed, i) alone.

One Lightning epoch is the stretch between two checkpoints. Loaders are made anew for each epoch, so that a run that
starts again from a checkpoint sees exactly the episodes that it would have seen undisturbed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset


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
