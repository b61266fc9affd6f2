"""Reptile (Nichol et al. 2018, "On First-Order Meta-Learning Algorithms", algorithm 2, the batched version)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from metaspeech import config
from metaspeech.data.batch import Episode
from metaspeech.meta.adapted import is_learned
from metaspeech.meta.base import MetaAlgorithm, OuterStep, TaskGradient
from metaspeech.meta.inner import on
from metaspeech.models.base import LossFn, Parameters


class Reptile(MetaAlgorithm):
    """theta <- theta + eps * mean_i(phi_i - theta), eps annealed to 0.

    The outer gradient is theta - phi. With plain SGD at rate eps, which :meth:`optimiser` makes, the update is the
    published formula. There is no query loss in training: inner steps alternate over the task's two batches. What is
    learned besides the model's parameters (factors of adapters) stays as it was drawn.
    """

    def evaluations(self, at: OuterStep) -> int:
        return self.inner.steps

    def task_gradient(self, loss_fn: LossFn, params: Parameters, episode: Episode, at: OuterStep) -> TaskGradient:
        batches = (on(loss_fn, episode.support), on(loss_fn, episode.query))
        position, before = self.inner.step(batches[0], self.inner.begin(params, episode.seed))
        last = before
        for step in range(1, self.inner.steps):
            position, last = self.inner.step(batches[step % 2], position)
        phi = self.inner.parameters(position)
        moved = {name: value.detach() * 0 if is_learned(name) else value.detach() - phi[name].detach()
                 for name, value in params.items()}  # fmt: skip
        return TaskGradient(moved, before.detach(), last.detach())

    def optimiser(
        self, parameters: Mapping[str, Tensor], settings: config.MetaTrain, total_steps: int
    ) -> tuple[Optimizer, LRScheduler]:
        optimiser = SGD(parameters.values(), lr=settings.reptile_rate)
        return optimiser, LambdaLR(optimiser, lambda step: 1 - step / total_steps)
