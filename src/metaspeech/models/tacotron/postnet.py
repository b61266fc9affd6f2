"""A residual correction of the whole spectrogram by convolutions over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metaspeech.models.layers import Convolution, dropout
from metaspeech.models.tacotron.sizes import Sizes


class Postnet(nn.Module):
    """(batch, frames, mels) -> (batch, frames, mels), to be added to its input."""

    def __init__(self, n_mels: int, sizes: Sizes, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        widths = [n_mels] + [sizes.postnet] * (sizes.postnet_convolutions - 1)
        self.convolutions = nn.ModuleList(
            Convolution(inputs, sizes.postnet, sizes.postnet_kernel) for inputs in widths[:-1]
        )
        self.last = nn.Conv1d(sizes.postnet, n_mels, sizes.postnet_kernel, padding=sizes.postnet_kernel // 2)
        # Starts as no correction at all, so that early training is not disturbed by it.
        nn.init.zeros_(self.last.weight)
        nn.init.constant_(self.last.bias, 0.0)  # type: ignore[arg-type]

    def forward(self, mels: Tensor, mask: Tensor) -> Tensor:
        x = mels
        for convolution in self.convolutions:
            x = dropout(torch.tanh(convolution(x, mask)), self.dropout, self.training)
        correction: Tensor = self.last((x * mask[..., None]).transpose(1, 2)).transpose(1, 2)
        return correction
