"""Location-sensitive attention (Chorowski et al. 2015, equations 8 and 9, as used by Tacotron 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from metaspeech.models.tacotron.sizes import Sizes


class Memory(NamedTuple):
    """What stays the same over decoder steps, computed once."""

    values: Tensor  # (batch, characters, encoder)
    keys: Tensor  # (batch, characters, attention)
    padding: Tensor  # (batch, characters) 0 inside, -inf outside
    location: Tensor  # (2 * kernel, attention) location filters and their projection, folded into one


class LocationSensitiveAttention(nn.Module):
    """Scores from the query, the memory and where the attention has been so far."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.kernel = sizes.location_kernel
        self.query = nn.Linear(sizes.attention_rnn, sizes.attention, bias=False)
        self.memory = nn.Linear(sizes.encoder, sizes.attention, bias=False)
        self.location_convolution = nn.Conv1d(2, sizes.location_filters, sizes.location_kernel, bias=False)
        self.location_projection = nn.Linear(sizes.location_filters, sizes.attention, bias=False)
        self.score = nn.Linear(sizes.attention, 1, bias=False)

    def remember(self, memory: Tensor, mask: Tensor) -> Memory:
        """Args: memory (batch, characters, encoder); mask (batch, characters), True inside."""
        folded = torch.einsum("af,fck->cka", self.location_projection.weight, self.location_convolution.weight)
        padding = torch.zeros(mask.shape, dtype=memory.dtype, device=memory.device).masked_fill(~mask, -torch.inf)
        return Memory(memory, self.memory(memory), padding, folded.flatten(0, 1))

    def forward(self, query: Tensor, history: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """One decoder step.

        Args:
            query: (batch, attention_rnn) state of the attention LSTM.
            history: (batch, 2, characters) the last weights and their sum so far.

        Returns:
            context (batch, encoder), weights (batch, characters).
        """
        weights = self._weights(query, history, memory)
        context = torch.bmm(weights[:, None], memory.values)[:, 0]
        return context, weights

    def following(self, queries: Tensor, weights: Tensor, memory: Memory) -> Tensor:
        """What it would attend to in every step, had it attended before as ``weights`` say: all steps at once.

        Args:
            queries: (batch, steps, attention_rnn).
            weights: (batch, steps, characters).

        Returns:
            (batch, steps, characters)
        """
        before = functional.pad(weights, (0, 0, 1, -1))  # of the step before
        history = torch.stack([before, before.cumsum(dim=1)], dim=2)  # (B, S, 2, N)
        each_step = memory._replace(keys=memory.keys[:, None], padding=memory.padding[:, None])
        return self._weights(queries, history, each_step)

    def _weights(self, query: Tensor, history: Tensor, memory: Memory) -> Tensor:
        """(..., attention_rnn) and (..., 2, characters) to (..., characters)"""
        windows = functional.pad(history, (self.kernel // 2, self.kernel // 2)).unfold(-1, self.kernel, 1)
        location = windows.transpose(-3, -2).flatten(-2) @ memory.location  # (..., N, 2K) -> (..., N, A)
        scores = self.score(torch.tanh(memory.keys + location + self.query(query)[..., None, :]))
        return torch.softmax(scores[..., 0] + memory.padding, dim=-1)
