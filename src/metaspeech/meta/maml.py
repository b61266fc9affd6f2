"""Model-agnostic meta-learning (Finn et al. 2017, "Model-Agnostic Meta-Learning for Fast Adaptation", algorithm 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from metaspeech.data.batch import Episode
from metaspeech.meta.base import MetaAlgorithm, finite
from metaspeech.models.base import LossFn, Parameters


class Maml(MetaAlgorithm):
    """The exact gradient: d L_Q(phi_K) / d theta, through all K inner steps. Memory is linear in K."""

    @property
    def evaluations_per_task(self) -> int:
        return self.inner.steps + 1

    def task_gradient(self, loss_fn: LossFn, params: Parameters, episode: Episode) -> tuple[Parameters, Tensor, Tensor]:
        # cuDNN's recurrent layers have no second derivative.
        with torch.backends.cudnn.flags(enabled=False):
            adapted, before = self.inner.step(loss_fn, params, episode.support, create_graph=True)
            for _ in range(self.inner.steps - 1):
                adapted, _ = self.inner.step(loss_fn, adapted, episode.support, create_graph=True)
            loss = finite(loss_fn(adapted, episode.query)[0])
            gradients = torch.autograd.grad(loss, list(params.values()))
        return dict(zip(params, gradients, strict=True)), before.detach(), loss.detach()


class Fomaml(MetaAlgorithm):
    """First order: the gradient of L_Q at phi_K, applied to theta (Finn et al. 2017, section 5.2)."""

    @property
    def evaluations_per_task(self) -> int:
        return self.inner.steps + 1

    def task_gradient(self, loss_fn: LossFn, params: Parameters, episode: Episode) -> tuple[Parameters, Tensor, Tensor]:
        adapted, before = self.inner.step(loss_fn, params, episode.support)
        for _ in range(self.inner.steps - 1):
            adapted, _ = self.inner.step(loss_fn, adapted, episode.support)
        leaves = {name: value.detach().requires_grad_() for name, value in adapted.items()}
        loss = finite(loss_fn(leaves, episode.query)[0])
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        return dict(zip(leaves, gradients, strict=True)), before.detach(), loss.detach()
