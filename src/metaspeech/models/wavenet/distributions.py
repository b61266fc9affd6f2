"""What WaveNet may say of the next sample: each output's channels, how it reads samples, and its cost in bits.

All three describe a waveform in [-1, 1]. Bits are comparable between "logistics" and "gaussian", which count steps of
16 bits, but not with "mulaw", which counts 256 companded classes.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from metaspeech.models.wavenet.sampling.weights import CLASSES, LEAST_LOG_SCALE

MU = CLASSES - 1
MIXTURES = 10
START_LOG_SCALE = -3.0
HALF_STEP = 1 / 65535  # half of a 16-bit step


class Output(Protocol):
    """A distribution over the next sample."""

    channels: int
    """That describe it: what the network ends in."""

    def start(self) -> Tensor:
        """(channels,) a description that fits silence and quiet speech: what training begins with."""

    def input_layer(self, channels: int) -> nn.Module:
        """Previous sample as :meth:`encode` gives it -> (..., channels)."""

    def encode(self, waveform: Tensor) -> Tensor:
        """Samples in [-1, 1] as the network reads and predicts them."""

    def bits(self, description: Tensor, samples: Tensor) -> Tensor:
        """Cost of each encoded sample: -log2 of its probability. (..., channels), (...) -> (...)"""


class MuLaw:
    """Softmax over 256 classes of companded amplitude (van den Oord et al. 2016, section 2.2)."""

    channels = CLASSES

    def start(self) -> Tensor:
        return torch.zeros(CLASSES)

    def input_layer(self, channels: int) -> nn.Module:
        """A vector a class. At first it is near a linear function of the companded amplitude: classes that sound alike
        begin alike, which random vectors take long to learn."""
        table = nn.Embedding(CLASSES, channels)
        with torch.no_grad():
            amplitude = torch.linspace(-1, 1, CLASSES)[:, None]
            table.weight.mul_(0.1).add_(amplitude * torch.empty(channels).uniform_(-2, 2))
        return table

    def encode(self, waveform: Tensor) -> Tensor:
        return companded(waveform)

    def bits(self, description: Tensor, samples: Tensor) -> Tensor:
        losses = functional.cross_entropy(description.flatten(0, -2), samples.flatten(), reduction="none")
        return losses.view(samples.shape) / math.log(2)


class Logistics:
    """Mixture of ten logistics, discretised to 16 bits (Salimans et al. 2017; for speech van den Oord et al. 2017)."""

    channels = 3 * MIXTURES

    def start(self) -> Tensor:
        means = torch.linspace(-0.1, 0.1, MIXTURES)
        return torch.cat([torch.zeros(MIXTURES), means, torch.full((MIXTURES,), START_LOG_SCALE)])

    def input_layer(self, channels: int) -> nn.Module:
        return Scalar(channels)

    def encode(self, waveform: Tensor) -> Tensor:
        return waveform.clamp(-1, 1)

    def bits(self, description: Tensor, samples: Tensor) -> Tensor:
        logits, means, log_scales = description.chunk(3, dim=-1)
        log_scales = log_scales.clamp(min=LEAST_LOG_SCALE)
        centred, inverse = samples[..., None] - means, torch.exp(-log_scales)
        upper, lower = (centred + HALF_STEP) * inverse, (centred - HALF_STEP) * inverse
        # log(sigmoid(upper) - sigmoid(lower)), written so that neither tail underflows
        inside = functional.logsigmoid(upper) + functional.logsigmoid(-lower) + torch.log1p(-torch.exp(lower - upper))
        below, above = functional.logsigmoid(upper), functional.logsigmoid(-lower)
        edge = samples[..., None]
        each = torch.where(edge <= -1 + HALF_STEP, below, torch.where(edge >= 1 - HALF_STEP, above, inside))
        mixture = torch.logsumexp(functional.log_softmax(logits, dim=-1) + each, dim=-1)
        return -mixture / math.log(2)


class Gaussian:
    """One Gaussian (Ping et al. 2019, "ClariNet", section 3.1); bits are of its density times a 16-bit step."""

    channels = 2

    def start(self) -> Tensor:
        return torch.tensor([0.0, START_LOG_SCALE])

    def input_layer(self, channels: int) -> nn.Module:
        return Scalar(channels)

    def encode(self, waveform: Tensor) -> Tensor:
        return waveform.clamp(-1, 1)

    def bits(self, description: Tensor, samples: Tensor) -> Tensor:
        mean, log_scale = description.unbind(-1)
        log_scale = log_scale.clamp(min=LEAST_LOG_SCALE)
        nats = 0.5 * ((samples - mean) * torch.exp(-log_scale)).square() + log_scale + 0.5 * math.log(2 * math.pi)
        return (nats - math.log(2 * HALF_STEP)) / math.log(2)


class Scalar(nn.Module):
    """(...) -> (..., channels), affine."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels).uniform_(-2, 2))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, samples: Tensor) -> Tensor:
        return samples[..., None] * self.weight + self.bias


OUTPUTS: dict[str, type[Output]] = {"mulaw": MuLaw, "logistics": Logistics, "gaussian": Gaussian}


def companded(waveform: Tensor) -> Tensor:
    """Samples in [-1, 1] to classes 0 to 255 (ITU-T G.711's mu-law, mu = 255); the sampler's ``decode`` goes back."""
    magnitude = torch.log1p(MU * waveform.abs().clamp(max=1)) / math.log1p(MU)
    return ((torch.sign(waveform) * magnitude + 1) / 2 * MU + 0.5).long()
