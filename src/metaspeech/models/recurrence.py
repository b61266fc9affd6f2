"""An LSTM over a whole sequence whose first and second derivatives are written out.

torch's own second derivative goes through every step by itself and adds up a gradient as large as the weights at each.
Here a pass over the steps leaves what all of them have in common to one matrix product afterwards, in every derivative.

With a_t = x_t + h_{t-1} W the pre-activations (input, forget, candidate, output):

    c_t = f c_{t-1} + i g,    h_t = o tanh(c_t)

The second derivative rests on this: for cotangents u of the first derivative, <u, J' v> = <v, J u>, so it is the
reverse of the forward pass together with its tangent along u (Pearlmutter 1994, "Fast exact multiplication by the
Hessian"). Names: ``d_`` is a gradient, ``t_`` a tangent, ``dd_`` a gradient of the second derivative.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def recurrence(inputs: Tensor, weight: Tensor) -> Tensor:
    """The states of an LSTM that starts from zeros.

    Args:
        inputs: (time, sets, batch, 4 hidden) what the inputs and biases add to the pre-activations.
        weight: (sets, hidden, 4 hidden) from the state before; a set is a direction, or any LSTM of its own.

    Returns:
        (time, sets, batch, hidden). Can be differentiated twice.
    """
    states: Tensor = _Recurrence.apply(inputs, weight)  # type: ignore[no-untyped-call]
    return states


class _Recurrence(torch.autograd.Function):
    """inputs, weight -> states"""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        time, sets, batch, width = inputs.shape
        hidden = width // 4
        gates = torch.empty_like(inputs)  # after their activations
        cells = inputs.new_zeros(time + 1, sets, batch, hidden)  # before the first step, after each
        states = torch.zeros_like(cells)
        for t in range(time):
            a = torch.baddbmm(inputs[t], states[t], weight)
            torch.sigmoid(a, out=gates[t])
            torch.tanh(a[..., 2 * hidden : 3 * hidden], out=gates[t, ..., 2 * hidden : 3 * hidden])
            i, f, g, o = gates[t].chunk(4, dim=-1)
            torch.addcmul(f * cells[t], i, g, out=cells[t + 1])
            torch.mul(o, torch.tanh(cells[t + 1]), out=states[t + 1])
        ctx.save_for_backward(inputs, weight, gates, cells, states)
        return states[1:].clone()

    @staticmethod
    def backward(ctx: Any, *d_states: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = _Derivative.apply(d_states[0], *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return found


class _Derivative(torch.autograd.Function):
    """d_states, inputs, weight (and what the forward pass made of these) -> d_inputs, d_weight"""

    @staticmethod
    def forward(
        ctx: Any, d_states: Tensor, inputs: Tensor, weight: Tensor, gates: Tensor, cells: Tensor, states: Tensor
    ) -> tuple[Tensor, Tensor]:
        hidden = weight.shape[1]
        back = weight.transpose(1, 2)
        squashed = torch.tanh(cells[1:])
        i, f, g, o = gates.chunk(4, dim=-1)
        through = o * (1 - squashed**2)  # from a state to its cell
        from_state = squashed * o * (1 - o)  # to the output gate
        # from a cell to the pre-activations of the input gate, the forget gate and the candidate
        from_cell = torch.stack([g * i * (1 - i), cells[:-1] * f * (1 - f), i * (1 - g**2)], dim=-2)
        d_inputs = torch.empty_like(gates)
        d_cells, d_hiddens = torch.empty_like(squashed), torch.empty_like(squashed)
        d_hidden, d_cell = d_states[-1], torch.zeros_like(squashed[0])
        for t in reversed(range(len(gates))):
            d_hiddens[t] = d_hidden
            torch.addcmul(d_cell, d_hidden, through[t], out=d_cells[t])
            parts = d_inputs[t].view(*d_hidden.shape[:-1], 4, hidden)
            torch.mul(from_cell[t], d_cells[t].unsqueeze(-2), out=parts[..., :3, :])
            torch.mul(from_state[t], d_hidden, out=parts[..., 3, :])
            d_cell = d_cells[t] * f[t]
            if t:
                d_hidden = torch.baddbmm(d_states[t - 1], d_inputs[t], back)
        d_weight = _over_time(states[:-1], d_inputs)
        ctx.save_for_backward(weight, gates, cells, states, squashed, d_inputs, d_cells, d_hiddens)
        return d_inputs, d_weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *towards: Tensor) -> tuple[Tensor | None, ...]:
        t_inputs, t_weight = towards
        weight, gates, cells, states, squashed, d_inputs, d_cells, d_hiddens = ctx.saved_tensors
        hidden = weight.shape[1]
        i, f, g, o = gates.chunk(4, dim=-1)
        flat = 1 - squashed**2
        slopes = gates * (1 - gates)
        slopes[..., 2 * hidden : 3 * hidden] = 1 - g**2
        through = o * flat

        # The tangent of the forward pass: t_a are pre-activations, t_gates what the activations make of them
        t_a = t_inputs + _each_step(states[:-1], t_weight)
        t_gates, t_cells = torch.empty_like(gates), torch.zeros_like(cells)
        t_states = torch.zeros_like(cells)
        for t in range(len(gates)):
            if t:
                t_a[t] += torch.bmm(t_states[t], weight)
            torch.mul(slopes[t], t_a[t], out=t_gates[t])
            t_i, t_f, t_g, t_o = t_gates[t].chunk(4, dim=-1)
            moved = torch.addcmul(t_f * cells[t], f[t], t_cells[t])
            torch.addcmul(moved.addcmul_(t_i, g[t]), i[t], t_g, out=t_cells[t + 1])
            torch.addcmul(t_o * squashed[t], through[t], t_cells[t + 1], out=t_states[t + 1])

        # Its reverse, with d_hiddens, d_cells and d_inputs as the gradients of the tangents
        t_i, t_f, t_g, t_o = t_gates.chunk(4, dim=-1)
        curved = torch.cat([1 - 2 * i, 1 - 2 * f, -2 * g, 1 - 2 * o], dim=-1) * t_a * d_inputs
        of_cell = d_hiddens * flat * (t_o - 2 * o * squashed * t_cells[1:])
        of_gates = torch.cat(
            [d_cells * t_g, d_cells * t_cells[:-1], d_cells * t_i, d_hiddens * flat * t_cells[1:]], dim=-1
        )
        factors = torch.stack([g, cells[:-1], i], dim=-2)
        back, from_inputs = weight.transpose(1, 2), _each_step(d_inputs, t_weight.transpose(1, 2))
        dd_inputs = torch.empty_like(gates)
        dd_hidden, dd_cell = torch.zeros_like(squashed[0]), torch.zeros_like(squashed[0])
        for t in reversed(range(len(gates))):
            dd_cell = torch.addcmul(dd_cell + of_cell[t], dd_hidden, through[t])
            parts = of_gates[t].view(*dd_hidden.shape[:-1], 4, hidden)
            parts[..., :3, :] += factors[t] * dd_cell.unsqueeze(-2)
            parts[..., 3, :].addcmul_(dd_hidden, squashed[t])
            torch.addcmul(curved[t], slopes[t], of_gates[t], out=dd_inputs[t])
            dd_cell = torch.addcmul(d_cells[t] * t_f[t], dd_cell, f[t])
            if t:
                dd_hidden = torch.baddbmm(from_inputs[t], dd_inputs[t], back)
        dd_weight = _over_time(states[:-1], dd_inputs) + _over_time(t_states[:-1], d_inputs)
        return t_states[1:], dd_inputs, dd_weight, None, None, None


def _over_time(before: Tensor, after: Tensor) -> Tensor:
    """Sum over time and batch of the outer products: (time, sets, batch, n), (..., m) -> (sets, n, m)"""
    rows, columns = (one.transpose(0, 1).flatten(1, 2) for one in (before, after))
    return torch.bmm(rows.transpose(1, 2), columns)


def _each_step(values: Tensor, weight: Tensor) -> Tensor:
    """(time, sets, batch, n) @ (sets, n, m) -> (time, sets, batch, m), in one product a set."""
    time, sets, batch, _ = values.shape
    product = torch.bmm(values.transpose(0, 1).flatten(1, 2), weight)
    return product.view(sets, time, batch, -1).transpose(0, 1)
