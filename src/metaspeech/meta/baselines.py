"""What a meta-learned start has to beat, under the same interface and at the same number of gradient evaluations."""

from __future__ import annotations

import torch
from torch import Tensor

from metaspeech.data.batch import Episode
from metaspeech.meta.base import MetaAlgorithm, finite
from metaspeech.models.base import LossFn, Parameters


class Transfer(MetaAlgorithm):
    """Joint training goes on: the gradient of all of a task's utterances at theta, without an inner loop."""

    @property
    def evaluations_per_task(self) -> int:
        return 2

    def task_gradient(self, loss_fn: LossFn, params: Parameters, episode: Episode) -> tuple[Parameters, Tensor, Tensor]:
        support = finite(loss_fn(params, episode.support)[0])
        query = finite(loss_fn(params, episode.query)[0])
        gradients = torch.autograd.grad(0.5 * (support + query), list(params.values()))
        return dict(zip(params, gradients, strict=True)), support.detach(), query.detach()
