"""The inner loop over all stored test tasks, driven by Lightning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from metaspeech.data.batch import Episode
from metaspeech.meta.base import MetaAlgorithm
from metaspeech.models.base import Parameters, loss_function, parameters_of
from metaspeech.training import deltas
from metaspeech.training.adaptation import adaptation_curve


@dataclass(frozen=True)
class AdaptationTask:
    """One stored episode at one number of shots."""

    episode_id: str
    shots: int
    episode: Episode

    def to(self, device: torch.device | str) -> AdaptationTask:
        return AdaptationTask(self.episode_id, self.shots, self.episode.to(device))


class Adapter(pl.LightningModule):
    """Runs every test task and keeps its curve; adapted parameters go to ``folder`` as deltas."""

    def __init__(
        self,
        model: nn.Module,
        algorithm: MetaAlgorithm,
        steps: Sequence[int],
        rate: float,
        folder: Path,
        learned: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self.model, self.algorithm, self.steps, self.rate, self.folder = model, algorithm, steps, rate, folder
        self.learned = learned
        self.rows: list[dict[str, Any]] = []

    def test_step(self, task: AdaptationTask, index: int) -> None:
        base = parameters_of(self.model)
        start = base | {name: value.to(self.device) for name, value in self.learned.items()}
        adapted: dict[int, Parameters] = {}
        curve = adaptation_curve(loss_function(self.model), self.algorithm, start, task.episode, self.steps, self.rate)
        for step, losses, params in curve:
            owner = {"episode_id": task.episode_id, "speaker": task.episode.speaker, "shots": task.shots}
            self.rows.append({**owner, "step": step, **losses})
            adapted[step] = {name: params[name] for name in base}
        deltas.write(self.folder / f"{task.episode_id}-{task.shots}.safetensors", base, adapted)
