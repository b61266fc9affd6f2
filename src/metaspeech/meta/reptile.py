"""Reptile (Nichol et al. 2018, "On First-Order Meta-Learning Algorithms", algorithm 2, the batched version)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from metaspeech import config
from metaspeech.data.batch import Episode
from metaspeech.meta.base import MetaAlgorithm
from metaspeech.models.base import LossFn, Parameters


class Reptile(MetaAlgorithm):
    """theta <- theta + eps * mean_i(phi_i - theta), eps annealed to 0.

    The outer gradient is theta - phi. With plain SGD at rate eps, which :meth:`optimiser` makes, the update is the
    published formula. There is no query loss in training: inner steps alternate over the task's two batches.
    """

    @property
    def evaluations_per_task(self) -> int:
        return self.inner.steps

    def task_gradient(self, loss_fn: LossFn, params: Parameters, episode: Episode) -> tuple[Parameters, Tensor, Tensor]:
        adapted, before = self.inner.step(loss_fn, params, episode.support)
        last = before
        for step in range(1, self.inner.steps):
            batch = episode.query if step % 2 else episode.support
            adapted, last = self.inner.step(loss_fn, adapted, batch)
        return {name: params[name].detach() - adapted[name] for name in params}, before.detach(), last.detach()

    def optimiser(
        self, parameters: Sequence[Tensor], settings: config.MetaTrain, total_steps: int
    ) -> tuple[Optimizer, LRScheduler]:
        optimiser = SGD(parameters, lr=settings.reptile_rate)
        return optimiser, LambdaLR(optimiser, lambda step: 1 - step / total_steps)
