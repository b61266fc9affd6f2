"""A training inside a sweep: says how it goes after every validation, and ends when it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from metaspeech.errors import Stopped
from metaspeech.sweeps import progress


class TrialProgress(pl.Callback):
    """Of several processes the first one writes; all stop after the same outer step."""

    def __init__(self, path: Path, item: tuple[str, ...], steps: int) -> None:
        self.path, self.item, self.steps = path, item, steps

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            progress.append(self.path, self.item, trainer.global_step / max(1, self.steps), values)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.strategy.broadcast(progress.stop_file(self.path).exists()):
            raise Stopped("the sweep has stopped this trial: others did better by now")


def trial_callbacks(item: tuple[str, ...], steps: int) -> list[pl.Callback]:
    """Empty outside of a sweep."""
    path = progress.file_of_this_process()
    return [TrialProgress(path, item, steps)] if path else []
