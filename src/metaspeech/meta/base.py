"""What the outer loop knows of an algorithm, and the inner loop that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from metaspeech import config
from metaspeech.data.batch import Episode, SpeechBatch
from metaspeech.models.base import LossFn, Parameters


class NonFiniteLoss(Exception):
    """An inner or query loss became infinite or NaN. The task is skipped and counted, training goes on."""


@dataclass(frozen=True)
class InnerLoop:
    """Plain gradient descent on the support loss: phi <- phi - rate * clip(grad L_S(phi)).

    Args:
        steps: in training. Adaptation may take any number.
        rate: step size (alpha).
        clip: largest norm of a step's gradient over all adapted parameters; 0 for none. It is part of the graph.
        adapt_modules: name patterns of the parameters that adapt; the others stay at the meta-initialisation.
    """

    steps: int
    rate: float
    clip: float = 0.0
    adapt_modules: tuple[str, ...] = ("*",)

    @classmethod
    def from_config(cls, inner: config.Inner) -> InnerLoop:
        return cls(inner.steps, inner.rate, inner.clip, tuple(inner.adapt_modules))

    def adapted_names(self, params: Mapping[str, Tensor]) -> list[str]:
        return [name for name in params if any(fnmatch(name, pattern) for pattern in self.adapt_modules)]

    def step(
        self, loss_fn: LossFn, params: Parameters, batch: SpeechBatch, create_graph: bool = False
    ) -> tuple[Parameters, Tensor]:
        """One step from ``params``; the loss before it. With ``create_graph`` the result stays differentiable.

        Raises:
            NonFiniteLoss: the loss is infinite or NaN.
        """
        names = self.adapted_names(params)
        if not create_graph:
            params = {name: value.detach() for name, value in params.items()}
            for name in names:
                params[name].requires_grad_()
        loss = finite(loss_fn(params, batch)[0])
        gradients = torch.autograd.grad(loss, [params[name] for name in names], create_graph=create_graph)
        scale = self._clip_scale(gradients)
        updated = dict(params)
        for name, gradient in zip(names, gradients, strict=True):
            updated[name] = params[name] - self.rate * scale * gradient
        if not create_graph:
            updated = {name: value.detach() for name, value in updated.items()}
        return updated, loss

    def _clip_scale(self, gradients: Sequence[Tensor]) -> Tensor | float:
        if self.clip == 0:
            return 1.0
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        return torch.clamp(self.clip / (norm + 1e-12), max=1.0)


def finite(loss: Tensor) -> Tensor:
    if not bool(torch.isfinite(loss)):
        raise NonFiniteLoss(f"loss is {float(loss.detach())}")
    return loss


class MetaAlgorithm(ABC):
    """An algorithm turns episodes into an outer gradient, and adapts a start to a support set.

    It knows nothing of the model but ``loss_fn`` and nothing of the outer optimiser but what :meth:`optimiser` makes.
    """

    def __init__(self, inner: InnerLoop) -> None:
        self.inner = inner

    @abstractmethod
    def task_gradient(self, loss_fn: LossFn, params: Parameters, episode: Episode) -> tuple[Parameters, Tensor, Tensor]:
        """One task's outer gradient, its loss before adaptation and its loss after it, where the algorithm sees them.

        Args:
            params: leaves that require gradients.
        """

    @property
    @abstractmethod
    def evaluations_per_task(self) -> int:
        """Gradients of a support or query batch that :meth:`task_gradient` takes: the unit of equal compute."""

    def outer_gradient(
        self, loss_fn: LossFn, params: Mapping[str, Tensor], episodes: Sequence[Episode]
    ) -> tuple[Parameters, dict[str, float]]:
        """Mean over tasks of their outer gradients; tasks whose loss is not finite are left out and counted.

        Returns:
            gradients by parameter name; metrics: loss_before, loss_after (means over tasks), tasks, skipped.
        """
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        total = {name: torch.zeros_like(value) for name, value in params.items()}
        before = after = 0.0
        skipped = 0
        for episode in episodes:
            torch.manual_seed(episode.seed)
            try:
                gradients, loss_before, loss_after = self.task_gradient(loss_fn, leaves, episode)
                if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values()):
                    raise NonFiniteLoss("gradient is not finite")
            except NonFiniteLoss:
                skipped += 1
                continue
            for name, gradient in gradients.items():
                total[name] += gradient
            before, after = before + float(loss_before), after + float(loss_after)
        done = len(episodes) - skipped
        if done:
            total = {name: value / done for name, value in total.items()}
            before, after = before / done, after / done
        metrics = {"tasks": float(done), "skipped": float(skipped)}
        return total, metrics | ({"loss_before": before, "loss_after": after} if done else {})

    def adapt(
        self, loss_fn: LossFn, params: Mapping[str, Tensor], support: SpeechBatch, steps: int, rate: float | None = None
    ) -> Parameters:
        """``steps`` inner steps on the support set, without a graph. ``rate`` overrides the rate of training."""
        inner = self.inner if rate is None else replace(self.inner, rate=rate)
        adapted = {name: value.detach() for name, value in params.items()}
        with torch.enable_grad():
            for _ in range(steps):
                adapted, _ = inner.step(loss_fn, adapted, support)
        return adapted

    def optimiser(
        self, parameters: Sequence[Tensor], settings: config.MetaTrain, total_steps: int
    ) -> tuple[Optimizer, LRScheduler]:
        """The outer optimiser: Adam at a constant rate unless the algorithm says otherwise."""
        optimiser = Adam(parameters, lr=settings.rate)
        return optimiser, LambdaLR(optimiser, lambda step: 1.0)

    def outer_steps(self, settings: config.MetaTrain) -> int:
        """How many outer steps the budget of gradient evaluations pays for."""
        return settings.gradient_evaluations // (settings.meta_batch * self.evaluations_per_task)
