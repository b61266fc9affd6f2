"""A matrix that many steps of a loop multiply by, whose gradient is taken once for all steps.

Left to itself, autograd makes a gradient as large as the matrix at every step and adds them up, in every derivative.
Here a step of the backward pass only notes its operands, and one product of all that was noted gives the gradient. A
chain of tokens puts the steps in an order: backward, a step comes before all earlier ones, and the weight last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SharedWeight:
    """A weight for every step of one loop, one after the other.

    Args:
        weight: (inputs, outputs). Gradients can be differentiated again, in the same way.
    """

    def __init__(self, weight: Tensor) -> None:
        self._notes = _Notes(weight)
        self._token: Tensor = _Enter.apply(weight, self._notes)  # type: ignore[no-untyped-call]

    def product(self, x: Tensor) -> Tensor:
        """(rows, inputs) -> (rows, outputs)"""
        y: Tensor
        y, self._token = _Product.apply(x, self._token, self._notes)  # type: ignore[no-untyped-call]
        return y


class _Notes:
    """What a backward pass has noted so far. The graph holds this, and this does not hold the graph."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self._noted: list[tuple[Tensor, Tensor]] = []
        self._back: SharedWeight | None = None  # the same for this backward pass, which may be differentiated too

    def note(self, x: Tensor, d_y: Tensor) -> Tensor:
        """One step: the gradient of x."""
        if self._back is None:
            self._back = SharedWeight(self.weight.T)
            # A pass that does not ask for the gradient of the weight must leave nothing to the next one.
            torch.autograd.Variable._execution_engine.queue_callback(self.forget)
        self._noted.append((x, d_y))
        return self._back.product(d_y)

    def gradient(self) -> Tensor:
        """Of the weight, after the last step."""
        x, d_y = (torch.cat(parts) for parts in zip(*reversed(self._noted), strict=True))
        return x.T @ d_y

    def forget(self) -> None:
        self._noted, self._back = [], None


class _Enter(torch.autograd.Function):
    """weight -> token"""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, notes: _Notes) -> Tensor:
        ctx.notes = notes
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *d_token: Tensor) -> tuple[Tensor, None]:
        return ctx.notes.gradient(), None


class _Product(torch.autograd.Function):
    """x, token -> y, next token"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, notes: _Notes) -> tuple[Tensor, Tensor]:
        ctx.notes = notes
        ctx.save_for_backward(x)
        return x @ notes.weight, token.clone()

    @staticmethod
    def backward(ctx: Any, *towards: Tensor) -> tuple[Tensor, Tensor, None]:
        d_y, d_token = towards
        (x,) = ctx.saved_tensors
        return ctx.notes.note(x, d_y), d_token, None
