"""The inner loop on speakers that training never saw: what the query loss does step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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
