"""From frames to what steers each sample: at the rate of frames, and so at little cost."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LONGEST_HOLD = 16  # samples: 1 ms at 16 kHz, within which a spectrum does not change


def hold_of(hop: int) -> int:
    """Samples that share a conditioning vector: the largest divisor of ``hop`` up to 16."""
    return max(length for length in range(1, LONGEST_HOLD + 1) if hop % length == 0)


class Conditioning(nn.Module):
    """Two convolutions over frames, then a learned upsampler to one vector for every ``hold`` samples.

    The upsampler is a transposed convolution whose kernel is twice its stride: a vector depends on the two frames that
    it lies between. It stops short of the sample rate because its last factor would only repeat what it has; layers
    then project a sixteenth of the vectors.
    """

    def __init__(self, n_mels: int, width: int, channels: int, hop: int) -> None:
        """``width``: of the frames' vectors; ``channels``: of the vectors that come out."""
        super().__init__()
        self.hold = hold_of(hop)
        self.factor, self.channels = hop // self.hold, channels
        self.frames = nn.Linear(3 * n_mels, width)
        self.context = nn.Linear(3 * width, width)
        self.upsample = nn.Linear(2 * width, self.factor * channels)

    def forward(self, mels: Tensor) -> Tensor:
        """(batch, frames, mels) -> (batch, frames, width), to be upsampled whole or in part."""
        encoded = torch.tanh(self.frames(_with_neighbours(mels)))
        return encoded + torch.tanh(self.context(_with_neighbours(encoded)))

    def upsampled(self, encoded: Tensor) -> Tensor:
        """(batch, frames + 1, width) -> (batch, frames * factor, channels): what lies between the frames."""
        pairs = torch.cat([encoded[:, :-1], encoded[:, 1:]], dim=-1)
        blocks: Tensor = self.upsample(pairs)
        return blocks.view(encoded.shape[0], -1, self.channels)


def _with_neighbours(x: Tensor) -> Tensor:
    """(batch, frames, n) -> (batch, frames, 3 n): what a convolution of three taps reads."""
    padded = functional.pad(x, (0, 0, 1, 1))
    return torch.cat([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], dim=-1)
