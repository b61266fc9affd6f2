"""Building blocks that are pure functions of their parameters, so that meta-gradients pass through them.

``torch.nn.LSTM`` keeps its weights in a list of its own, which outlives a functional call; here the weights are plain
parameters with the same names and layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from metaspeech.models.base import differentiated_twice
from metaspeech.models.recurrence import recurrence


def length_mask(lengths: Tensor, longest: int) -> Tensor:
    """True inside each sequence. (batch,) -> (batch, longest)"""
    return torch.arange(longest, device=lengths.device)[None, :] < lengths[:, None]


class Lstm(nn.Module):
    """One layer, batch first, optionally in both directions. (batch, time, inputs) -> (batch, time, outputs)"""

    def __init__(self, inputs: int, hidden: int, bidirectional: bool = False) -> None:
        super().__init__()
        self.hidden, self.bidirectional = hidden, bidirectional
        self._suffixes = ("", "_reverse") if bidirectional else ("",)
        bound = 1 / math.sqrt(hidden)
        for suffix in self._suffixes:
            for name, shape in (
                ("weight_ih_l0", (4 * hidden, inputs)),
                ("weight_hh_l0", (4 * hidden, hidden)),
                ("bias_ih_l0", (4 * hidden,)),
                ("bias_hh_l0", (4 * hidden,)),
            ):
                self.register_parameter(name + suffix, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

    def _weights(self) -> list[Tensor]:
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        return [getattr(self, name + suffix) for suffix in self._suffixes for name in names]

    def _start(self, like: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        zeros = like.new_zeros(len(self._suffixes), batch, self.hidden)
        return zeros, zeros

    def forward(self, x: Tensor) -> Tensor:
        if differentiated_twice():
            return self._recur(x, x.flip(1) if self.bidirectional else x, lambda states: states.flip(1))
        start = self._start(x, x.shape[0])
        output, _, _ = torch.lstm(x, start, self._weights(), True, 1, 0.0, False, self.bidirectional, True)
        return output

    def step(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the forward direction: (batch, inputs) and the state so far to the next state."""
        weight_ih, weight_hh, bias_ih, bias_hh = self._weights()[:4]
        return update_cell(x @ weight_ih.T + bias_ih + hidden @ weight_hh.T + bias_hh, cell)

    def forward_lengths(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The same for padded sequences: the backward direction starts at each sequence's own end."""
        if differentiated_twice():
            place = torch.arange(x.shape[1], device=x.device)[None]
            mirrored = torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)[..., None]

            def turned(values: Tensor) -> Tensor:
                return values.gather(1, mirrored.expand_as(values))

            return self._recur(x, turned(x), turned) * length_mask(lengths, x.shape[1])[..., None]
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        start = self._start(x, x.shape[0])
        data, _, _ = torch.lstm(
            packed.data, packed.batch_sizes, start, self._weights(), True, 1, 0.0, False, self.bidirectional
        )
        packed = PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        output, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return output

    def _recur(self, x: Tensor, mirrored: Tensor, turn: Callable[[Tensor], Tensor]) -> Tensor:
        """All directions at once; the second reads ``mirrored``, and what it gives is turned back."""
        weights = self._weights()
        directions = [(x, *weights[:4]), (mirrored, *weights[4:])][: len(self._suffixes)]
        inputs = [read @ weight_ih.T + (bias_ih + bias_hh) for read, weight_ih, _, bias_ih, bias_hh in directions]
        recurrent = torch.stack([weight_hh.T for _, _, weight_hh, _, _ in directions])
        states = recurrence(torch.stack(inputs).permute(2, 0, 1, 3).contiguous(), recurrent)
        forward, *backward = states.permute(1, 2, 0, 3).unbind(0)  # (T, D, B, H) -> D times (B, T, H)
        return torch.cat([forward, *map(turn, backward)], dim=-1)


class LstmCell(nn.Module):
    """An LSTM for a loop over time, whose input projection may be computed beforehand for all steps at once."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(hidden)
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden, inputs).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden, hidden).uniform_(-bound, bound))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden).uniform_(-bound, bound))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """All steps, where all inputs are known: (batch, time, inputs) -> (batch, time, hidden)"""
        if differentiated_twice():
            inputs = (x @ self.weight_ih.T + (self.bias_ih + self.bias_hh)).transpose(0, 1)  # (T, B, 4 H)
            states = recurrence(inputs[:, None].contiguous(), self.weight_hh.T[None])
            return states[:, 0].transpose(0, 1)
        zeros = x.new_zeros(1, x.shape[0], self.weight_hh.shape[1])
        weights: list[Tensor] = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        return torch.lstm(x, (zeros, zeros), weights, True, 1, 0.0, False, False, True)[0]


def update_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Next state and cell from the gates' pre-activations (batch, 4 hidden): input, forget, candidate, output."""
    i, f, g, o = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


class Convolution(nn.Module):
    """Same-length convolution over time with layer normalisation over channels.

    (batch, time, inputs) -> (batch, time, outputs). Positions outside the mask are zero before and after, so that an
    utterance does not depend on the padding that its batch gives it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x * mask[..., None]
        x = self.convolution(x.transpose(1, 2)).transpose(1, 2)
        normed: Tensor = self.norm(x)
        return normed


def dropout(x: Tensor, probability: float, active: bool) -> Tensor:
    return functional.dropout(x, probability, active) if probability > 0 else x
