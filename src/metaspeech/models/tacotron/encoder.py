"""Characters to memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metaspeech.models.layers import Convolution, Lstm, dropout, length_mask
from metaspeech.models.tacotron.sizes import Sizes


class Encoder(nn.Module):
    """Embedding, convolutions, bidirectional LSTM. (batch, characters) -> (batch, characters, encoder)"""

    def __init__(self, symbols: int, sizes: Sizes, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Embedding(symbols, sizes.embedding)
        nn.init.normal_(self.embedding.weight, std=0.3)
        self.convolutions = nn.ModuleList(
            Convolution(sizes.embedding, sizes.embedding, sizes.encoder_kernel)
            for _ in range(sizes.encoder_convolutions)
        )
        self.lstm = Lstm(sizes.embedding, sizes.encoder // 2, bidirectional=True)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.encode(self.embedding(tokens), lengths)

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        """From embedded characters (batch, characters, embedding)."""
        mask = length_mask(lengths, x.shape[1])
        for convolution in self.convolutions:
            x = dropout(torch.relu(convolution(x, mask)), self.dropout, self.training)
        return self.lstm.forward_lengths(x, lengths)
