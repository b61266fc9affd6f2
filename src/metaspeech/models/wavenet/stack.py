"""The dilated gated layers."""

from __future__ import annotations

import math
from typing import cast

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

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
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
    """All layers with residual paths between them, their skip paths added up, and the two layers after that."""

    def __init__(self, sizes: Sizes, start: Tensor) -> None:
        """``start``: (channels,) what the network says of every sample before training."""
        super().__init__()
        self.layers = nn.ModuleList(Layer(sizes, dilation) for dilation in sizes.dilations)
        self.residuals = nn.ModuleList(nn.Linear(sizes.gate, sizes.residual) for _ in sizes.dilations[1:])
        with torch.no_grad():  # so that the sum over layers stays of the input's size
            for residual in self.each_residual:
                residual.weight.div_(math.sqrt(len(sizes.dilations)))
        # One matrix over all layers' outputs is the sum of the layers' own skip convolutions.
        self.skip = nn.Linear(len(self.layers) * sizes.gate, sizes.skip)
        self.head = nn.Linear(sizes.skip, sizes.head)
        self.last = nn.Linear(sizes.head, len(start))
        nn.init.zeros_(self.last.weight)
        self.last.bias = nn.Parameter(start.clone())

    @property
    def each_layer(self) -> list[Layer]:
        return cast(list[Layer], list(self.layers))

    @property
    def each_residual(self) -> list[nn.Linear]:
        return cast(list[nn.Linear], list(self.residuals))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """(batch, samples, residual), (batch, blocks, conditioning) -> (batch, samples, channels)"""
        return self.described(self.gated(x, conditioning))

    def gated(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """(batch, samples, residual), (batch, blocks, conditioning) -> (batch, samples, layers * gate)"""
        first, *others = self.each_layer
        gated = [first(x, conditioning)]
        for residual, layer in zip(self.each_residual, others, strict=True):
            x = x + residual(gated[-1])
            gated.append(layer(x, conditioning))
        return torch.cat(gated, dim=-1)

    def described(self, gated: Tensor) -> Tensor:
        """(batch, samples, layers * gate) -> (batch, samples, channels)"""
        skip = torch.relu(self.skip(gated))
        described: Tensor = self.last(torch.relu(self.head(skip)))
        return described
