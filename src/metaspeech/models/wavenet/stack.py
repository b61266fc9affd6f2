"""The dilated gated layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from metaspeech.models.wavenet.sizes import Sizes


class Layer(nn.Module):
    """Dilated causal convolution, gated (van den Oord et al. 2016, equation 2 with local conditioning, section 2.5).

    Convolutions are written as matrix products over all samples at once: as ``Conv1d`` they fall into a slow path at
    small batches.
    """

    def __init__(self, sizes: Sizes, dilation: int) -> None:
        super().__init__()
        self.kernel, self.dilation = sizes.kernel, dilation
        self.convolution = nn.Linear(sizes.kernel * sizes.residual, 2 * sizes.gate)
        self.conditioning = nn.Linear(sizes.conditioning, 2 * sizes.gate, bias=False)
        self.residual = nn.Linear(sizes.gate, sizes.residual)
        with torch.no_grad():  # so that the sum over layers stays of the input's size
            self.residual.weight.div_(math.sqrt(len(sizes.dilations)))

    def gated(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """(batch, samples, residual), (batch, blocks, conditioning) -> (batch, samples, gate)"""
        taps = [self._delayed(x, (self.kernel - 1 - tap) * self.dilation) for tap in range(self.kernel)]
        z = self.convolution(torch.cat(taps, dim=-1))
        blocks = self.conditioning(conditioning)
        z = (z.view(*blocks.shape[:2], -1, z.shape[-1]) + blocks[:, :, None]).view(z.shape)
        content, gate = z.chunk(2, dim=-1)
        return (2 * torch.sigmoid(2 * content) - 1) * torch.sigmoid(gate)  # tanh, several times faster on a CPU

    @staticmethod
    def _delayed(x: Tensor, samples: int) -> Tensor:
        """Nothing came before the first sample."""
        return functional.pad(x, (0, 0, samples, 0))[:, : x.shape[1]] if samples else x


class Stack(nn.Module):
    """All layers, their skip paths added up, and the two layers after that."""

    def __init__(self, sizes: Sizes, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(sizes, dilation) for dilation in sizes.dilations)
        # One matrix over all layers' outputs is the sum of the layers' own skip convolutions.
        self.skip = nn.Linear(len(self.layers) * sizes.gate, sizes.skip)
        self.head = nn.Linear(sizes.skip, sizes.head)
        self.last = nn.Linear(sizes.head, channels)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """(batch, samples, residual), (batch, blocks, conditioning) -> (batch, samples, channels)"""
        gated = []
        for layer in self.layers:
            gated.append(layer.gated(x, conditioning))
            x = x + layer.residual(gated[-1])
        skip = torch.relu(self.skip(torch.cat(gated, dim=-1)))
        described: Tensor = self.last(torch.relu(self.head(skip)))
        return described
