"""What the outer loop knows of an algorithm."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from metaspeech import config
from metaspeech.data.batch import Episode
from metaspeech.meta.inner import InnerLoop, Loss, NonFiniteLoss, on
from metaspeech.models.base import LossFn, Parameters

LOG = logging.getLogger("metaspeech")

MEANS = ("loss_before", "loss_after", "gradient_norm")  # of what is counted in an outer step, the means over tasks


@dataclass(frozen=True)
class OuterStep:
    """Outer step ``index`` of ``total``, for algorithms whose objective changes on the way."""

    index: int = 0
    total: int = 1

    @property
    def share(self) -> float:
        """Of meta-training that lies behind, 0 to 1."""
        return self.index / self.total


@dataclass(frozen=True)
class TaskGradient:
    """What an algorithm has made of one task.

    Attributes:
        gradients: by name, of the model's parameters and of what is learned besides.
        before, after: the loss before adaptation and after it, where the algorithm sees them.
    """

    gradients: Parameters
    before: Tensor
    after: Tensor


class MetaAlgorithm(ABC):
    """An algorithm turns episodes into an outer gradient, and adapts a start to a support set.

    It knows nothing of the model but ``loss_fn`` and nothing of the outer optimiser but what :meth:`optimiser` makes.
    ``params`` are the model's parameters and, under names of their own, what the algorithm has learned besides.
    """

    untrained_start: ClassVar[bool] = False
    """Whether it starts from a model as it is built, not from what pretraining made of it."""

    meta_trained: ClassVar[bool] = True
    """Whether it takes outer steps at all."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """Fields of an Episode that it reads besides support and query: representation, neighbour."""

    def __init__(self, inner: InnerLoop) -> None:
        self.inner = inner

    @classmethod
    def from_params(cls, params: config.Params) -> Self:
        """Builds it from params.yaml, as a model's own section says (:func:`metaspeech.config.for_model`)."""
        return cls(InnerLoop.from_config(params.inner))

    @abstractmethod
    def task_gradient(self, loss_fn: LossFn, params: Parameters, episode: Episode, at: OuterStep) -> TaskGradient:
        """One task's outer gradient.

        Args:
            params: leaves that require gradients.

        Raises:
            NonFiniteLoss: a loss is infinite or NaN.
        """

    @abstractmethod
    def evaluations(self, at: OuterStep) -> int:
        """Gradients of a support or query batch that :meth:`task_gradient` takes: the unit of equal compute."""

    def learned(self, loss_fn: LossFn, params: Mapping[str, Tensor]) -> Parameters:
        """What is learned besides the model's parameters, at its first value. Draws from torch's generator."""
        return self.inner_of(loss_fn).learned(params)

    def inner_of(self, loss_fn: LossFn) -> InnerLoop:
        """The inner loop for this model."""
        return self.inner

    def support_loss(self, loss_fn: LossFn, params: Mapping[str, Tensor], episode: Episode) -> Loss:
        """What the inner loop descends, on a task that it starts at ``params``."""
        return on(loss_fn, episode.support)

    def task_start(self, loss_fn: LossFn, params: Mapping[str, Tensor], episode: Episode) -> Parameters:
        """Where the inner loop begins on a task: ``params``, unless the algorithm knows better."""
        return dict(params)

    def outer_gradient(
        self,
        loss_fn: LossFn,
        params: Mapping[str, Tensor],
        episodes: Sequence[Episode],
        at: OuterStep = OuterStep(),
        clip: float = 0.0,
    ) -> tuple[Parameters, dict[str, float]]:
        """Mean over tasks of their outer gradients; tasks whose loss is not finite are left out, counted and named.

        The order of ``episodes`` changes no bit.

        Args:
            clip: the largest norm of a task's gradient, which a longer one is shortened to; 0: any. Through inner
                steps that overshoot, a gradient may be ten thousand times as long as the next task's: clipping the
                mean instead would leave nothing of the others.

        Returns:
            gradients by name; metrics: loss_before, loss_after, gradient_norm before clipping (means over tasks),
            tasks, skipped.
        """
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        total: Parameters = {}
        sums = dict.fromkeys(MEANS, 0.0)
        skipped = 0
        for episode in sorted(episodes, key=lambda one: (one.speaker, one.seed)):
            try:
                task = self.task_gradient(loss_fn, leaves, episode, at)
                norm = float(torch.stack([value.norm() for value in task.gradients.values()]).norm())
                if not math.isfinite(norm):
                    raise NonFiniteLoss("gradient is not finite")
            except NonFiniteLoss as reason:
                LOG.warning("outer step %d: task of %s left out: %s", at.index, episode.speaker, reason)
                skipped += 1
                continue
            scale = clip / norm if 0 < clip < norm else 1.0
            total = {
                name: torch.add(total[name], value, alpha=scale) if total else value if scale == 1 else scale * value
                for name, value in task.gradients.items()
            }
            for name, value in zip(MEANS, (float(task.before), float(task.after), norm), strict=True):
                sums[name] += value
            del task  # or its gradients would take memory beside the next task's
        done = len(episodes) - skipped
        if done > 1:
            total = {name: value / done for name, value in total.items()}
        total = total or {name: torch.zeros_like(value) for name, value in params.items()}
        metrics = {"tasks": float(done), "skipped": float(skipped)}
        return total, metrics | ({name: value / done for name, value in sums.items()} if done else {})

    def adaptation(
        self, loss_fn: LossFn, params: Mapping[str, Tensor], episode: Episode, rate: float | None = None
    ) -> Iterator[Parameters]:
        """The parameters after 0, 1, 2, ... inner steps on the support set, without a graph and without end.

        ``rate`` overrides the rate of training. Raises NonFiniteLoss as a step is taken on a loss that is not finite.
        """
        inner = self.inner_of(loss_fn) if rate is None else self.inner_of(loss_fn).at_rate(rate)
        start = self.task_start(loss_fn, {name: value.detach() for name, value in params.items()}, episode)
        loss = self.support_loss(loss_fn, start, episode)
        for position in inner.walk(loss, inner.begin(start, episode.seed)):
            yield inner.parameters(position)

    def adapt(
        self, loss_fn: LossFn, params: Mapping[str, Tensor], episode: Episode, steps: int, rate: float | None = None
    ) -> Parameters:
        """The parameters after ``steps`` inner steps, see :meth:`adaptation`."""
        return next(islice(self.adaptation(loss_fn, params, episode, rate), steps, None))

    def optimiser(
        self, parameters: Mapping[str, Tensor], settings: config.MetaTrain, total_steps: int
    ) -> tuple[Optimizer, LRScheduler]:
        """The outer optimiser of all meta-parameters: Adam at a constant rate unless the algorithm says otherwise."""
        optimiser = Adam(parameters.values(), lr=settings.rate)
        return optimiser, LambdaLR(optimiser, lambda step: 1.0)

    def gradient_evaluations(self, outer_steps: int, meta_batch: int) -> int:
        """That so many outer steps take."""
        return meta_batch * sum(self.evaluations(OuterStep(index, outer_steps)) for index in range(outer_steps))

    def outer_steps(self, settings: config.MetaTrain) -> int:
        """How many outer steps the budget of gradient evaluations pays for."""
        affordable, too_many = 0, settings.gradient_evaluations // settings.meta_batch + 1
        while too_many - affordable > 1:
            middle = (affordable + too_many) // 2
            within = self.gradient_evaluations(middle, settings.meta_batch) <= settings.gradient_evaluations
            affordable, too_many = (middle, too_many) if within else (affordable, middle)
        return affordable
