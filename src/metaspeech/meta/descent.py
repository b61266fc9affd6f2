"""What an inner loop makes of a gradient: differentiable, and without state that outlives a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from metaspeech.models.base import Parameters

Memory = dict[str, tuple[Tensor, ...]]  # what is kept for each variable from step to step

MOMENTUM = 0.9
DECAY = 0.999  # of the mean of squared gradients
EPSILON = 1e-8


class Descent(Protocol):
    """An optimiser as a pure function."""

    def begin(self, variables: Mapping[str, Tensor]) -> Memory:
        """Before the first step."""

    def directions(self, gradients: Mapping[str, Tensor], memory: Memory, step: int) -> tuple[Parameters, Memory]:
        """What to go against, times the rate, and what to remember. ``step`` counts from 0."""


class Sgd:
    """The gradient itself."""

    def begin(self, variables: Mapping[str, Tensor]) -> Memory:
        return {}

    def directions(self, gradients: Mapping[str, Tensor], memory: Memory, step: int) -> tuple[Parameters, Memory]:
        return dict(gradients), memory


class Momentum:
    """Heavy ball (Polyak 1964): v <- 0.9 v + g."""

    def begin(self, variables: Mapping[str, Tensor]) -> Memory:
        return {name: (value.new_zeros(value.shape),) for name, value in variables.items()}

    def directions(self, gradients: Mapping[str, Tensor], memory: Memory, step: int) -> tuple[Parameters, Memory]:
        velocity = {name: MOMENTUM * memory[name][0] + gradient for name, gradient in gradients.items()}
        return velocity, {name: (value,) for name, value in velocity.items()}


class Adam:
    """Adam without its first moment (beta1 = 0), as Reptile has it in the inner loop (Nichol et al. 2018, section 6.1).

    The small constant lies inside the root: the root itself has no derivative at a gradient of zero.
    """

    def begin(self, variables: Mapping[str, Tensor]) -> Memory:
        return {name: (value.new_zeros(value.shape),) for name, value in variables.items()}

    def directions(self, gradients: Mapping[str, Tensor], memory: Memory, step: int) -> tuple[Parameters, Memory]:
        squares = {
            name: DECAY * memory[name][0] + (1 - DECAY) * gradient.square() for name, gradient in gradients.items()
        }
        unbiased = 1 - DECAY ** (step + 1)
        directions = {
            name: gradient / (squares[name] / unbiased + EPSILON**2).sqrt() for name, gradient in gradients.items()
        }
        return directions, {name: (value,) for name, value in squares.items()}


DESCENTS: dict[str, Descent] = {"sgd": Sgd(), "momentum": Momentum(), "adam": Adam()}
