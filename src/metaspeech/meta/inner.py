"""The inner loop, which all algorithms share: gradient steps on the support loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from metaspeech import config
from metaspeech.data.batch import SpeechBatch
from metaspeech.errors import UserError
from metaspeech.meta.adapted import Adapted, LowRank, Weights
from metaspeech.meta.descent import DESCENTS, Descent, Memory
from metaspeech.models.base import Parameters, Terms
from metaspeech.seeds import mixed_seed

Graph = Literal["none", "first", "second"]
"""What of a step stays differentiable: nothing; all but the gradient, which counts as a constant; all."""

Loss = Callable[[Mapping[str, Tensor]], tuple[Tensor, Terms]]  # of parameters, on whatever batch


class NonFiniteLoss(Exception):
    """An inner or query loss became infinite or NaN. The task is skipped and counted, training goes on."""


def finite(loss: Tensor) -> Tensor:
    """The loss itself. Raises NonFiniteLoss when it is infinite or NaN."""
    if not bool(torch.isfinite(loss)):
        raise NonFiniteLoss(f"loss is {float(loss.detach())}")
    return loss


class Rates(Protocol):
    """Step sizes, which an algorithm may learn."""

    def learned(self, variables: Mapping[str, Tensor], rate: float, steps: int) -> Parameters:
        """What is learned, by name, at its first value."""

    def of(self, params: Mapping[str, Tensor], variable: str, step: int) -> Tensor | float | None:
        """The step size of a variable in step ``step``, counted from 0; None: the loop's own rate."""


class OneRate:
    """The loop's own rate, everywhere and always."""

    def learned(self, variables: Mapping[str, Tensor], rate: float, steps: int) -> Parameters:
        return {}

    def of(self, params: Mapping[str, Tensor], variable: str, step: int) -> None:
        return None


@dataclass(frozen=True)
class Position:
    """Where an inner loop has got to.

    Attributes:
        start: the parameters that it began with, and what is learned besides.
        variables: of the loop, now.
        memory: of its optimiser, now.
        step: how many steps were taken.
        seed: of the task. A forward pass of step k draws from (seed, k), whatever was drawn before it.
    """

    start: Parameters
    variables: Parameters
    memory: Memory
    step: int
    seed: int


@dataclass(frozen=True)
class InnerLoop:
    """variables <- variables - rate * descent(clip(grad L_S)).

    Args:
        steps: in training. Adaptation may take any number.
        rate: step size (alpha).
        clip: largest norm of a step's gradient over all variables; 0 for none. It is part of the graph.
        adapted: what moves; everything else stays where meta-training has got to.
        rates: learned step sizes, relative to which ``scale`` is.
        descent: what is made of a gradient.
        scale: of learned rates; 1 in training.
    """

    steps: int
    rate: float
    clip: float = 0.0
    adapted: Adapted = Weights()
    rates: Rates = OneRate()
    descent: Descent = DESCENTS["sgd"]
    scale: float = 1.0

    @classmethod
    def from_config(cls, inner: config.Inner) -> InnerLoop:
        modules = tuple(inner.adapt_modules)
        adapted: dict[str, Adapted] = {
            "weights": Weights(modules),
            "vectors": Weights(modules, vectors_only=True),
            "low_rank": LowRank(inner.low_rank, modules),
        }
        return cls(inner.steps, inner.rate, inner.clip, adapted[inner.adapts], descent=DESCENTS[inner.optimiser])

    def at_rate(self, rate: float) -> InnerLoop:
        """The same loop at another rate. Learned rates are scaled by as much."""
        return replace(self, rate=rate, scale=self.scale * rate / self.rate)

    def learned(self, params: Mapping[str, Tensor]) -> Parameters:
        """What is learned besides the model's parameters, at its first value. Draws from torch's generator."""
        factors = self.adapted.learned(params)
        variables = self.adapted.variables({**params, **factors})
        return factors | self.rates.learned(variables, self.rate, self.steps)

    def begin(self, params: Mapping[str, Tensor], seed: int) -> Position:
        """Before the first step."""
        variables = self.adapted.variables(params)
        if not variables:
            raise UserError(
                "inner.adapt_modules: no parameter that may adapt has such a name. Expected patterns of names such as "
                f"{', '.join(list(params)[:4])}"
            )
        variables = {
            name: value if value.requires_grad else value.clone().requires_grad_() for name, value in variables.items()
        }
        return Position(dict(params), variables, self.descent.begin(variables), 0, seed)

    def parameters(self, position: Position) -> Parameters:
        """The model's parameters at a position, and what is learned besides."""
        return self.adapted.apply(position.start, position.variables)

    def step(self, loss: Loss, position: Position, graph: Graph = "none") -> tuple[Position, Tensor]:
        """One step, and the loss before it.

        Raises:
            NonFiniteLoss: the loss is infinite or NaN.
        """
        if graph == "none":
            position = detached(position)
            for value in position.variables.values():
                value.requires_grad_()
        torch.manual_seed(mixed_seed(position.seed, position.step))
        before = finite(loss(self.parameters(position))[0])
        names = list(position.variables)
        gradients = torch.autograd.grad(
            before, list(position.variables.values()), create_graph=graph == "second", materialize_grads=True
        )
        clipped = dict(zip(names, _clip(gradients, self.clip), strict=True))
        directions, memory = self.descent.directions(clipped, position.memory, position.step)
        moved = {
            name: _against(value, directions[name], self._rate(position, name))
            for name, value in position.variables.items()
        }
        after = replace(position, variables=moved, memory=memory, step=position.step + 1)
        return (detached(after) if graph == "none" else after), before

    def walk(self, loss: Loss, position: Position) -> Iterator[Position]:
        """The position itself, then step after step, without end and without a graph."""
        position = detached(position)
        while True:
            yield position
            with torch.enable_grad():
                position, _ = self.step(loss, position)

    def _rate(self, position: Position, name: str) -> Tensor | float:
        rate = self.rates.of(position.start, name, position.step)
        return self.rate if rate is None else self.scale * rate


def detached(position: Position) -> Position:
    """A position whose tensors are cut from any graph."""
    return replace(
        position,
        start={name: value.detach() for name, value in position.start.items()},
        variables={name: value.detach() for name, value in position.variables.items()},
        memory={name: tuple(value.detach() for value in kept) for name, kept in position.memory.items()},
    )


def on(loss_fn: Callable[[Mapping[str, Tensor], SpeechBatch], tuple[Tensor, Terms]], batch: SpeechBatch) -> Loss:
    """The loss on one batch, as a function of the parameters alone."""
    return lambda params: loss_fn(params, batch)


def _against(value: Tensor, direction: Tensor, rate: Tensor | float) -> Tensor:
    """value - rate * direction, in one pass over memory: of a large model the passes are what a step costs."""
    if isinstance(rate, Tensor):
        return torch.addcmul(value, rate, direction, value=-1)
    return torch.add(value, direction, alpha=-rate)


def _clip(gradients: Sequence[Tensor], largest: float) -> Sequence[Tensor]:
    """Scaled to a common norm of ``largest`` at most; as they are where that takes nothing away."""
    if largest == 0:
        return gradients
    flat = [gradient.reshape(-1) for gradient in gradients]
    # The root has no derivative at 0, which a part of a fresh network can give.
    scale = largest / (torch.stack([torch.dot(one, one) for one in flat]).sum() + 1e-24).sqrt()
    return gradients if bool(scale >= 1) else [gradient * scale for gradient in gradients]
