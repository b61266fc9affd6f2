"""MAML++ (Antoniou et al. 2019, "How to train your MAML", sections 4 and 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from metaspeech import config
from metaspeech.data.batch import Episode
from metaspeech.meta.adapted import LEARNED
from metaspeech.meta.base import MetaAlgorithm, OuterStep, TaskGradient
from metaspeech.meta.inner import InnerLoop, on
from metaspeech.meta.unrolled import unrolled
from metaspeech.models.base import LossFn, Parameters, second_order

LEAST_WEIGHT = 0.03  # of a loss that is not the last, times 1 / K
FINAL_RATE = 1e-5  # of the outer optimiser
RATES = f"{LEARNED}rates/"


class RateOfLayerAndStep:
    """A rate for each layer and inner step (LSLR). A step beyond those of training has the rate of the last one.

    Learned are the logarithms: an outer step then changes a rate by a proportion, whatever its size, and none becomes
    negative. The paper learns the rates themselves, which is unstable where they are of the size of the outer rate.
    """

    def learned(self, variables: Mapping[str, Tensor], rate: float, steps: int) -> Parameters:
        some = next(iter(variables.values()))
        return {_name(variable): some.new_full((steps,), math.log(rate)) for variable in variables}

    def of(self, params: Mapping[str, Tensor], variable: str, step: int) -> Tensor:
        logarithms = params[_name(variable)]
        return logarithms[min(step, len(logarithms) - 1)].exp()


class MamlPlusPlus(MetaAlgorithm):
    """MAML with learned rates a layer and step, the query loss after every step, and second order after a while.

    Its batch statistics a step have no counterpart here, where no model has batch normalisation.

    Args:
        multi_step: share of meta-training over which the losses after all steps fade out (E of the paper).
        first_order: share of meta-training, at its beginning, with first-order gradients.
        rates_rate: outer rate of the logarithms of inner rates.
    """

    def __init__(
        self, inner: InnerLoop, multi_step: float = 0.5, first_order: float = 0.25, rates_rate: float = 0.02
    ) -> None:
        super().__init__(replace(inner, rates=RateOfLayerAndStep()))
        self.multi_step, self.first_order, self.rates_rate = multi_step, first_order, rates_rate

    @classmethod
    def from_params(cls, params: config.Params) -> Self:
        settings = params.per_algorithm.mamlpp
        return cls(InnerLoop.from_config(params.inner), settings.multi_step, settings.first_order, settings.rates_rate)

    def evaluations(self, at: OuterStep) -> int:
        return self.inner.steps + sum(weight > 0 for weight in self.weights(at))

    def weights(self, at: OuterStep) -> list[float]:
        """Of the query losses after steps 1 to K."""
        fading = round(self.multi_step * at.total)
        return multi_step_weights(self.inner.steps, at.index, fading)

    def task_gradient(self, loss_fn: LossFn, params: Parameters, episode: Episode, at: OuterStep) -> TaskGradient:
        second = at.share >= self.first_order
        with second_order(second):
            return unrolled(
                self.inner, self.support_loss(loss_fn, params, episode), on(loss_fn, episode.query),
                params, params, episode.seed, "second" if second else "first", self.weights(at),
            )  # fmt: skip

    def optimiser(
        self, parameters: Mapping[str, Tensor], settings: config.MetaTrain, total_steps: int
    ) -> tuple[Optimizer, LRScheduler]:
        """Rates have an outer rate of their own: at that of the weights they would hardly move."""
        rates = [value for name, value in parameters.items() if name.startswith(RATES)]
        others = [value for name, value in parameters.items() if not name.startswith(RATES)]
        groups: list[dict[str, Any]] = [{"params": others}, {"params": rates, "lr": self.rates_rate}]
        optimiser = Adam(groups, lr=settings.rate)
        return optimiser, CosineAnnealingLR(optimiser, max(1, total_steps), eta_min=min(FINAL_RATE, settings.rate))


def multi_step_weights(steps: int, epoch: int, epochs: int) -> list[float]:
    """Weights of the losses after each inner step: equal at first, the last one alone from ``epochs`` on."""
    if epoch >= epochs or steps == 1:
        return [0.0] * (steps - 1) + [1.0]
    equal, decay = 1 / steps, 1 / (steps * epochs)
    other = max(equal - epoch * decay, LEAST_WEIGHT / steps)
    last = min(equal + epoch * (steps - 1) * decay, 1 - (steps - 1) * LEAST_WEIGHT / steps)
    return [other] * (steps - 1) + [last]


def _name(variable: str) -> str:
    return f"{RATES}{variable}"
