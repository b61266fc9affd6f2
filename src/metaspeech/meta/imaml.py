"""Implicit MAML (Rajeswaran et al. 2019, "Meta-Learning with Implicit Gradients", algorithms 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from metaspeech import config
from metaspeech.data.batch import Episode
from metaspeech.errors import UserError
from metaspeech.meta.base import MetaAlgorithm, OuterStep, TaskGradient
from metaspeech.meta.inner import InnerLoop, Loss, on
from metaspeech.meta.unrolled import query_loss
from metaspeech.models.base import LossFn, Parameters, Terms, second_order
from metaspeech.seeds import mixed_seed

Vector = Sequence[Tensor]
LEAST_CURVATURE = 0.1  # along a direction: a step of the solver goes at most ten times as far as the gradient does


class Imaml(MetaAlgorithm):
    """The inner loop minimises L_S(phi) + strength / 2 |phi - theta|^2; its minimum, not the way there, is
    differentiated: (I + H / strength)^-1 grad L_Q, solved by conjugate gradients. Memory does not grow with the steps.

    The gradient is exact at the minimum. Short of it, it is as far off as the inner loop and the solver are.

    Args:
        strength: lambda of the paper.
        solver_steps: of conjugate gradients.
        damping: added to the strength where the solver takes it. The gradient is exact without; with it, it goes
            towards that of FOMAML, as public implementations of the paper have it.
    """

    def __init__(self, inner: InnerLoop, strength: float = 2.0, solver_steps: int = 5, damping: float = 0.0) -> None:
        super().__init__(inner)
        self.strength, self.solver_steps, self.damping = strength, solver_steps, damping

    @classmethod
    def from_params(cls, params: config.Params) -> Self:
        if params.inner.adapts == "low_rank":
            raise UserError("inner.adapts: imaml has no low_rank. Set it to weights or vectors, or leave imaml out")
        own = params.per_algorithm.imaml
        return cls(InnerLoop.from_config(params.inner), own.strength, own.solver_steps, own.damping)

    def evaluations(self, at: OuterStep) -> int:
        """A product with the Hessian counts as one."""
        return self.inner.steps + 1 + self.solver_steps

    def support_loss(self, loss_fn: LossFn, params: Mapping[str, Tensor], episode: Episode) -> Loss:
        centre = self.inner.adapted.variables(params)
        plain = on(loss_fn, episode.support)

        def near(moved: Mapping[str, Tensor]) -> tuple[Tensor, Terms]:
            loss, terms = plain(moved)
            distance = sum(((moved[name] - value.detach()).square().sum() for name, value in centre.items()), loss * 0)
            return loss + 0.5 * self.strength * distance, terms

        return near

    def task_gradient(self, loss_fn: LossFn, params: Parameters, episode: Episode, at: OuterStep) -> TaskGradient:
        inner, seed = self.inner, episode.seed
        support = self.support_loss(loss_fn, params, episode)
        position, before = inner.step(support, inner.begin(params, seed))
        for _ in range(inner.steps - 1):
            position, _ = inner.step(support, position)

        variables = list(position.variables)
        fixed = [name for name in params if name not in variables]
        leaves = {**params, **{name: value.requires_grad_() for name, value in position.variables.items()}}
        here, there = [leaves[name] for name in variables], [leaves[name] for name in fixed]
        with second_order():
            loss = query_loss(on(loss_fn, episode.query), leaves, seed)
            gradients = torch.autograd.grad(loss, [*here, *there], materialize_grads=True)
            towards, direct = gradients[: len(here)], gradients[len(here) :]

            torch.manual_seed(mixed_seed(seed, inner.steps))
            slope = torch.autograd.grad(loss_fn(leaves, episode.support)[0], here, create_graph=True)

            def product(vector: Vector) -> list[Tensor]:
                """(I + H / strength) v"""
                curved = torch.autograd.grad(slope, here, vector, retain_graph=True, materialize_grads=True)
                return [v + c / (self.strength + self.damping) for v, c in zip(vector, curved, strict=True)]

            solved = conjugate_gradients(product, towards, self.solver_steps)
            mixed = torch.autograd.grad(slope, there, solved, materialize_grads=True) if there else ()
        outer = dict(zip(variables, solved, strict=True))
        outer |= {name: d - m / (self.strength + self.damping) for name, d, m in zip(fixed, direct, mixed, strict=True)}
        return TaskGradient({name: outer[name].detach() for name in params}, before.detach(), loss.detach())


def conjugate_gradients(product: Callable[[Vector], list[Tensor]], target: Vector, steps: int) -> list[Tensor]:
    """x with A x = target, A symmetric and positive definite, given by its products (Hestenes and Stiefel 1952).

    Where A turns out not to be clearly positive definite, as away from a minimum, the solution so far is returned, or
    the target itself if there is none (truncated as by Steihaug 1983).
    """
    x = [torch.zeros_like(value) for value in target]
    residual = [value.clone() for value in target]
    direction, size = list(residual), _dot(residual, residual)
    for done in range(steps):
        if float(size) < 1e-30:
            break
        image = product(direction)
        curvature = _dot(direction, image)
        if float(curvature) <= LEAST_CURVATURE * float(_dot(direction, direction)):
            return x if done else residual
        along = size / curvature
        x = [value + along * step for value, step in zip(x, direction, strict=True)]
        residual = [value - along * step for value, step in zip(residual, image, strict=True)]
        previous, size = size, _dot(residual, residual)
        direction = [value + size / previous * step for value, step in zip(residual, direction, strict=True)]
    return x


def _dot(a: Vector, b: Vector) -> Tensor:
    return torch.stack([(one * other).sum() for one, other in zip(a, b, strict=True)]).sum()
