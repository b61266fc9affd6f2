"""Derivatives of the query loss through the inner loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from metaspeech.meta.base import TaskGradient
from metaspeech.meta.inner import Graph, InnerLoop, Loss, Position, detached, finite
from metaspeech.models.base import Parameters, second_order
from metaspeech.seeds import mixed_seed


def query_loss(query: Loss, params: Mapping[str, Tensor], seed: int) -> Tensor:
    """The loss, with the same draws in the forward pass whatever the parameters are. Differentiated once only."""
    torch.manual_seed(mixed_seed(seed, "query"))
    with second_order(False):
        return finite(query(params)[0])


def unrolled(
    inner: InnerLoop,
    support: Loss,
    query: Loss,
    params: Parameters,
    start: Parameters,
    seed: int,
    graph: Graph,
    weights: Sequence[float] | None = None,
) -> TaskGradient:
    """d sum_k w_k L_Q(phi_k) / d params, by automatic differentiation through all steps. Memory is linear in steps.

    Args:
        support, query: losses as functions of parameters.
        params: leaves.
        start: where the inner loop begins, a function of ``params``.
        seed: of the task.
        graph: "second": exact; "first": inner gradients count as constants.
        weights: w_1 ... w_K; by default only the last loss counts.
    """
    weights = weights or [0.0] * (inner.steps - 1) + [1.0]
    position, before, total, after = inner.begin(start, seed), None, None, None
    for weight in weights:
        position, loss = inner.step(support, position, graph)
        before = loss if before is None else before
        if weight:
            after = query_loss(query, inner.parameters(position), seed)
            total = weight * after + (0.0 if total is None else total)
    assert total is not None
    assert before is not None
    assert after is not None
    return TaskGradient(_gradients(total, params), before.detach(), after.detach())


def recomputed(
    inner: InnerLoop, support: Loss, query: Loss, params: Parameters, start: Parameters, seed: int
) -> TaskGradient:
    """d L_Q(phi_K) / d params, exact, with the memory of one step: each step is taken again on the way back.

    Takes one more forward and backward pass a step than :func:`unrolled`.
    """
    with torch.no_grad():
        positions = [inner.begin(start, seed)]
    losses = []
    for _ in range(inner.steps):
        after, loss = inner.step(support, positions[-1], "none")
        positions.append(after)
        losses.append(loss)

    last = _leaves(positions.pop())
    loss = query_loss(query, inner.parameters(last), seed)
    towards_memory, towards_variables, towards_start = _pull([loss], [torch.ones_like(loss)], last)
    while positions:
        towards = [*towards_variables, *towards_memory]
        towards_memory, towards_variables, direct = _pull_through(inner, support, positions.pop(), towards)
        towards_start = [total + more for total, more in zip(towards_start, direct, strict=True)]

    first = inner.begin(start, seed)
    outputs = [*first.variables.values(), *start.values()]
    linked = [
        (output, gradient)
        for output, gradient in zip(outputs, [*towards_variables, *towards_start], strict=True)
        if output.requires_grad
    ]
    gradients = torch.autograd.grad(
        [output for output, _ in linked],
        list(params.values()),
        [gradient for _, gradient in linked],
        materialize_grads=True,
    )
    return TaskGradient(dict(zip(params, gradients, strict=True)), losses[0].detach(), loss.detach())


def _pull_through(
    inner: InnerLoop, support: Loss, position: Position, towards: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Gradients towards variables and memory after a step, as :func:`_pull` returns them. Its graph ends with it."""
    here = _leaves(position)
    ahead, _ = inner.step(support, here, "second")
    return _pull([*ahead.variables.values(), *_memory(ahead)], towards, here)


def _gradients(loss: Tensor, params: Parameters) -> Parameters:
    gradients = torch.autograd.grad(loss, list(params.values()), materialize_grads=True)
    return dict(zip(params, gradients, strict=True))


def _leaves(position: Position) -> Position:
    """The same position, cut from any graph, with everything in it a leaf that requires gradients."""
    position = detached(position)
    for value in (*position.start.values(), *position.variables.values(), *_memory(position)):
        value.requires_grad_()
    return position


def _memory(position: Position) -> list[Tensor]:
    return [value for kept in position.memory.values() for value in kept]


def _pull(
    outputs: Iterable[Tensor], towards: Iterable[Tensor], position: Position
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Gradients towards ``outputs`` as gradients towards a position's memory, its variables and its start."""
    memory, variables, start = _memory(position), list(position.variables.values()), list(position.start.values())
    pulled = list(
        torch.autograd.grad(list(outputs), [*memory, *variables, *start], list(towards), materialize_grads=True)
    )
    return pulled[: len(memory)], pulled[len(memory) : len(memory) + len(variables)], pulled[-len(start) :]
