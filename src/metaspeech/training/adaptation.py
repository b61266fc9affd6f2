"""The inner loop on speakers that training never saw: what the query loss does step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from metaspeech.data.batch import Episode, SpeechBatch
from metaspeech.meta.base import MetaAlgorithm
from metaspeech.meta.inner import NonFiniteLoss
from metaspeech.models.base import LossFn, Parameters
from metaspeech.seeds import mixed_seed


def query_loss(loss_fn: LossFn, params: Mapping[str, Tensor], batch: SpeechBatch, seed: int) -> dict[str, float]:
    """The loss and its terms, with the same draw of dropout masks whatever the parameters are."""
    torch.manual_seed(mixed_seed(seed, "query"))
    with torch.no_grad():
        loss, terms = loss_fn(params, batch)
    return {"loss": float(loss), **{name: float(value) for name, value in terms.items()}}


def adaptation_curve(
    loss_fn: LossFn,
    algorithm: MetaAlgorithm,
    params: Mapping[str, Tensor],
    episode: Episode,
    steps: Sequence[int],
    rate: float | None,
) -> Iterator[tuple[int, dict[str, float], Parameters]]:
    """After each number of steps: the query loss with its terms, and the adapted parameters.

    Once a loss is no longer finite the remaining steps have a loss of infinity and the last finite parameters.
    """
    path = algorithm.adaptation(loss_fn, params, episode, rate)
    adapted, done, diverged = next(path), 0, False
    for step in sorted(set(steps)):
        try:
            while done < step and not diverged:
                adapted, done = next(path), done + 1
        except NonFiniteLoss:
            diverged = True
        losses = query_loss(loss_fn, adapted, episode.query, episode.seed)
        yield step, {name: float("inf") for name in losses} if diverged else losses, adapted


def horizon_steps(steps: Sequence[int], furthest: int) -> tuple[int, ...]:
    """Steps beyond those of adaptation at which the loss is looked at: ``furthest``, its half, the half of that ..."""
    beyond = []
    step = furthest
    while step > max(steps):
        beyond.append(step)
        step //= 2
    return tuple(reversed(beyond))


def horizon_summary(curves: pd.DataFrame) -> dict[str, float]:
    """What becomes of adaptation far beyond the steps of training, over the tasks that were followed so far.

    Args:
        curves: a row a task and step: episode_id, step, loss.

    Returns:
        horizon_step: the last step. horizon_loss: mean loss there. horizon_diverged: tasks whose loss there is not
        finite or above what it was before adaptation. Nothing when no task was followed.
    """
    if curves.empty:
        return {}
    last = int(curves["step"].max())
    by_task = curves.pivot(index="episode_id", columns="step", values="loss")
    diverged = ~(by_task[last] <= by_task[0])
    return {
        "horizon_step": last,
        "horizon_loss": float(by_task[last].mean()),
        "horizon_diverged": int(diverged.sum()),
        "horizon_tasks": len(by_task),
    }
