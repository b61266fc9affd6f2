"""Memory to mel frames: teacher-forced over a whole utterance, or one step after another on its own output.

Under teacher forcing the inputs of every step are known. So the prenet, the input projection of the attention LSTM,
the decoder LSTM (which never feeds the attention) and the projections run once over all steps; only the attention
LSTM and the attention itself are left in the loop over time. Where it is known what is spoken when, that takes the
place of the attention, and no loop is left.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from metaspeech.models.layers import Lstm, LstmCell, dropout, length_mask, update_cell
from metaspeech.models.shared_weight import SharedWeight
from metaspeech.models.tacotron.attention import LocationSensitiveAttention, Memory
from metaspeech.models.tacotron.sizes import Sizes

STOP_THRESHOLD = 0.5


class Prenet(nn.Module):
    """Two layers with dropout that stays on at inference (section 2.2). (..., mels) -> (..., prenet)"""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout, self.outputs = dropout, outputs
        self.layers = nn.ModuleList([nn.Linear(inputs, outputs, bias=False), nn.Linear(outputs, outputs, bias=False)])

    def forward(self, x: Tensor, masks: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """``masks`` are scaled dropout masks, one a layer; drawn from torch's generator where none are given."""
        for number, layer in enumerate(self.layers):
            x = torch.relu(layer(x))
            x = dropout(x, self.dropout, True) if masks is None else x * masks[number]
        return x

    def masks(self, seeds: list[int], steps: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Dropout masks (batch, steps, prenet) that depend on each utterance's own seed only."""
        keep = 1 - self.dropout
        drawn = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            drawn.append((torch.rand(steps, 2, self.outputs, generator=generator) < keep) / keep)
        first, second = torch.stack(drawn).to(like).unbind(2)  # (B, S, 2, P)
        return first, second


class Decoder(nn.Module):
    """Attention LSTM, attention, decoder LSTM, projections to frames and stop token."""

    def __init__(self, n_mels: int, reduction_factor: int, sizes: Sizes, prenet_dropout: float, dropout: float) -> None:
        super().__init__()
        self.n_mels, self.reduction_factor, self.dropout = n_mels, reduction_factor, dropout
        self.prenet = Prenet(n_mels, sizes.prenet, prenet_dropout)
        self.attention_rnn = LstmCell(sizes.prenet + sizes.encoder, sizes.attention_rnn)
        self.attention = LocationSensitiveAttention(sizes)
        self.decoder_rnn = Lstm(sizes.attention_rnn + sizes.encoder, sizes.decoder_rnn)
        self.projection = nn.Linear(sizes.decoder_rnn + sizes.encoder, n_mels * reduction_factor)
        self.stop = nn.Linear(sizes.decoder_rnn + sizes.encoder, 1)

    def forward(
        self, memory: Tensor, lengths: Tensor, mels: Tensor, spoken: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Teacher-forced.

        Args:
            memory: (batch, characters, encoder); lengths (batch,) in characters.
            mels: (batch, frames, mels), frames a multiple of the reduction factor.
            spoken: (batch, steps, characters) weights to attend with in place of the attention's own.

        Returns:
            states (batch, steps, decoder_rnn + encoder), to be projected; alignments (batch, steps, characters), the
            attention's own: with ``spoken``, where it would look next if it had looked there so far.
        """
        # (B, T, M) -> (B, S, M): the last frame of each group, shifted by one step
        last = mels[:, self.reduction_factor - 1 :: self.reduction_factor]
        inputs = self.prenet(torch.cat([torch.zeros_like(last[:, :1]), last[:, :-1]], dim=1))
        remembered = self.attention.remember(memory, length_mask(lengths, memory.shape[1]))
        if spoken is None:
            hiddens, contexts, alignments = self._attend(inputs, remembered)
        else:
            hiddens, contexts, alignments = self._follow(inputs, remembered, spoken)
        decoded = self.decoder_rnn(torch.cat([hiddens, contexts], dim=-1))
        decoded = torch.cat([dropout(decoded, self.dropout, self.training), contexts], dim=-1)
        return decoded, alignments

    def _attend(self, inputs: Tensor, remembered: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """States of the attention LSTM, contexts and alignments, each (batch, steps, ...), step after step."""
        width, rnn = self.prenet.outputs, self.attention_rnn
        projected = inputs @ rnn.weight_ih[:, :width].T + (rnn.bias_ih + rnn.bias_hh)
        recurrent = SharedWeight(torch.cat([rnn.weight_ih[:, width:], rnn.weight_hh], dim=1).T)
        hidden, cell, context, history = self._start(remembered.values)
        hiddens, contexts, alignments = [], [], []
        for gates in projected.unbind(1):
            gates = gates + recurrent.product(torch.cat([context, hidden], dim=1))
            hidden, cell = update_cell(gates, cell)
            hidden = dropout(hidden, self.dropout, self.training)
            context, weights = self.attention(hidden, history, remembered)
            history = torch.stack([weights, history[:, 1] + weights], dim=1)
            hiddens.append(hidden)
            contexts.append(context)
            alignments.append(weights)
        return torch.stack(hiddens, dim=1), torch.stack(contexts, dim=1), torch.stack(alignments, dim=1)

    def _follow(self, inputs: Tensor, remembered: Memory, spoken: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same where the attention has always looked at what is ``spoken``, in all steps at once."""
        contexts = torch.bmm(spoken, remembered.values)
        before = functional.pad(contexts, (0, 0, 1, -1))  # of the step before
        hiddens = self.attention_rnn(torch.cat([inputs, before], dim=-1))
        hiddens = dropout(hiddens, self.dropout, self.training)
        return hiddens, contexts, self.attention.following(hiddens, spoken, remembered)

    def project(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, steps, decoder_rnn + encoder) -> mels (batch, frames, mels), stop logits (batch, steps)"""
        frames = self.projection(states).reshape(len(states), -1, self.n_mels)  # (B, S, r M) -> (B, S r, M)
        return frames, self.stop(states)[..., 0]

    def generate(
        self, memory: Tensor, lengths: Tensor, seeds: list[int], max_frames: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Free-running, each step on the frame before it, until every utterance has stopped or hit its limit.

        Returns:
            mels (batch, frames, mels), frames an utterance (batch,), alignments (batch, steps, characters), stopped
            (batch,) bool: False where the limit ended the utterance.
        """
        limits = (max_frames.to(memory.device) + self.reduction_factor - 1) // self.reduction_factor
        masks = self.prenet.masks(seeds, int(limits.max()), memory)
        remembered = self.attention.remember(memory, length_mask(lengths, memory.shape[1]))
        hidden, cell, context, history = self._start(memory)
        decoder_hidden = decoder_cell = memory.new_zeros(len(memory), self.decoder_rnn.hidden)
        frame = memory.new_zeros(len(memory), self.n_mels)
        steps = torch.zeros_like(limits)
        stopped = torch.zeros_like(limits, dtype=torch.bool)
        frames, alignments = [], []
        for step in range(int(limits.max())):
            x = self.prenet(frame, (masks[0][:, step], masks[1][:, step]))
            rnn = self.attention_rnn
            gates = torch.cat([x, context], dim=1) @ rnn.weight_ih.T + rnn.bias_ih + hidden @ rnn.weight_hh.T
            hidden, cell = update_cell(gates + rnn.bias_hh, cell)
            context, weights = self.attention(hidden, history, remembered)
            history = torch.stack([weights, history[:, 1] + weights], dim=1)
            decoder_hidden, decoder_cell = self.decoder_rnn.step(
                torch.cat([hidden, context], dim=1), decoder_hidden, decoder_cell
            )
            decoded = torch.cat([decoder_hidden, context], dim=1)
            group = self.projection(decoded).reshape(len(memory), self.reduction_factor, self.n_mels)
            frame = group[:, -1]
            frames.append(group)
            alignments.append(weights)
            running = ~stopped & (steps < limits)
            steps = steps + running
            stopped = stopped | (running & (torch.sigmoid(self.stop(decoded)[:, 0]) > STOP_THRESHOLD))
            if bool((stopped | (steps >= limits)).all()):
                break
        return torch.cat(frames, dim=1), steps * self.reduction_factor, torch.stack(alignments, dim=1), stopped

    def _start(self, memory: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """State, cell, context and attention history before the first step."""
        hidden = memory.new_zeros(len(memory), self.attention_rnn.weight_hh.shape[1])
        return hidden, hidden, torch.zeros_like(memory[:, 0]), memory.new_zeros(len(memory), 2, memory.shape[1])
