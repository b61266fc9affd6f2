"""The inner loop on speakers that training never saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from metaspeech.data.batch import Episode, SpeechBatch
from metaspeech.meta.base import MetaAlgorithm, NonFiniteLoss
from metaspeech.models.base import LossFn, Parameters, loss_function, parameters_of
from metaspeech.training import deltas


@dataclass(frozen=True)
class AdaptationTask:
    """One stored episode at one number of shots."""

    episode_id: str
    shots: int
    episode: Episode

    def to(self, device: torch.device | str) -> AdaptationTask:
        return AdaptationTask(self.episode_id, self.shots, self.episode.to(device))


def query_loss(loss_fn: LossFn, params: Mapping[str, Tensor], batch: SpeechBatch, seed: int) -> dict[str, float]:
    """The loss and its terms, with the same draw of dropout masks whatever the parameters are."""
    torch.manual_seed(seed)
    with torch.no_grad():
        loss, terms = loss_fn(params, batch)
    return {"loss": float(loss), **{name: float(value) for name, value in terms.items()}}


def adaptation_curve(
    loss_fn: LossFn,
    algorithm: MetaAlgorithm,
    params: Mapping[str, Tensor],
    episode: Episode,
    steps: Sequence[int],
    rate: float,
) -> Iterator[tuple[int, dict[str, float], Parameters]]:
    """After each number of steps: the query loss with its terms, and the adapted parameters.

    Once a loss is no longer finite the remaining steps have a loss of infinity and the last finite parameters.
    """
    adapted = {name: value.detach() for name, value in params.items()}
    done, diverged = 0, False
    for step in sorted(set(steps)):
        torch.manual_seed(episode.seed + done)
        try:
            if not diverged:
                adapted = algorithm.adapt(loss_fn, adapted, episode.support, step - done, rate)
        except NonFiniteLoss:
            diverged = True
        done = step
        losses = query_loss(loss_fn, adapted, episode.query, episode.seed)
        yield step, {name: float("inf") for name in losses} if diverged else losses, adapted


def compare_rates(
    loss_fn: LossFn,
    algorithm: MetaAlgorithm,
    params: Mapping[str, Tensor],
    episodes: Sequence[Episode],
    rates: Sequence[float],
    steps: int,
) -> dict[float, float]:
    """Mean query loss over ``episodes`` after ``steps`` inner steps at each rate."""
    losses = {}
    for rate in rates:
        curves = [list(adaptation_curve(loss_fn, algorithm, params, one, [steps], rate)) for one in episodes]
        losses[rate] = sum(curve[-1][1]["loss"] for curve in curves) / len(curves)
    return losses


class Adapter(pl.LightningModule):
    """Runs every test task and keeps its curve; adapted parameters go to ``folder`` as deltas."""

    def __init__(self, model: nn.Module, algorithm: MetaAlgorithm, steps: Sequence[int], rate: float, folder: Path) -> None:
        super().__init__()
        self.model, self.algorithm, self.steps, self.rate, self.folder = model, algorithm, steps, rate, folder
        self.rows: list[dict[str, Any]] = []

    def test_step(self, task: AdaptationTask, index: int) -> None:
        base = parameters_of(self.model)
        adapted: dict[int, Parameters] = {}
        curve = adaptation_curve(
            loss_function(self.model), self.algorithm, base, task.episode, self.steps, self.rate
        )
        for step, losses, params in curve:
            owner = {"episode_id": task.episode_id, "speaker": task.episode.speaker, "shots": task.shots}
            self.rows.append({**owner, "step": step, **losses})
            if step > 0:
                adapted[step] = params
        deltas.write(self.folder / f"{task.episode_id}-{task.shots}.safetensors", base, adapted)
