"""The sampler in PyTorch: a circular queue a layer, all streams in a batch, on any device.

Short enough to be compared with the equations; the other backends are compared with it. It launches some ten small
operations a layer and sample, which is what its time goes into.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metaspeech.errors import UserError
from metaspeech.models.wavenet.sampling.engine import Doubles
from metaspeech.models.wavenet.sampling.weights import LEAST_LOG_SCALE, Floats, SamplerWeights


class ReferenceEngine:
    """Weights as tensors."""

    width, chunk, parallel = 64, 256, False

    def __init__(self, weights: SamplerWeights, device: str | torch.device = "cpu") -> None:
        def tensor(array: Floats) -> Tensor:
            return torch.from_numpy(array).to(device)

        self.settings, self.device = weights, torch.device(device)
        self.inputs = tensor(weights.inputs)
        self.gates = tensor(weights.gates.reshape(weights.layers, -1, weights.gate))  # (L, k R, G)
        self.mixes, self.mix_biases = tensor(weights.mixes), tensor(weights.mix_biases)
        self.head1, self.head1_bias = tensor(weights.head1), tensor(weights.head1_bias)
        self.head2, self.head2_bias = tensor(weights.head2), tensor(weights.head2_bias)

    def open(self, conditionings: Sequence[Floats]) -> ReferenceStreams:
        return ReferenceStreams(self, conditionings)


class ReferenceStreams:
    """The queues of a batch: for each layer the last (k - 1) d inputs of every stream."""

    def __init__(self, engine: ReferenceEngine, conditionings: Sequence[Floats]) -> None:
        self.engine, settings, self.time = engine, engine.settings, 0
        blocks = max(len(one) for one in conditionings)
        padded = [np.pad(one, ((0, blocks - len(one)), (0, 0), (0, 0))) for one in conditionings]
        self.conditioning = torch.from_numpy(np.stack(padded, axis=2)).to(engine.device)  # (blocks, L, B, G)
        self.previous = torch.full((len(conditionings),), settings.silence, device=engine.device)
        reaches = [(settings.kernel - 1) * dilation for dilation in settings.dilations]
        self.queues = [
            torch.zeros(reach, len(conditionings), settings.residual, device=engine.device) for reach in reaches
        ]

    @torch.inference_mode()
    def run(
        self, uniforms: Doubles, temperature: float, forced: Floats | None = None, outputs: Floats | None = None
    ) -> Floats:
        device, output = self.engine.device, self.engine.settings.output
        draws = torch.from_numpy(uniforms).to(device)
        fed_back = None if forced is None else torch.from_numpy(forced).to(device)
        samples, described, finite = [], [], torch.ones((), dtype=torch.bool, device=device)
        for number in range(uniforms.shape[1]):
            y = self._step()
            sample = draw(y, output, draws[:, number], temperature)
            self.previous = sample if fed_back is None else fed_back[:, number]
            samples.append(sample)
            finite = finite & y.isfinite().all()
            if outputs is not None:
                described.append(y)
        if outputs is not None:
            outputs[:] = torch.stack(described, dim=1).cpu().numpy()
        if not bool(finite):  # one look a chunk: each would wait for a GPU
            raise UserError("WaveNet sampler: outputs are not finite")
        drawn: Floats = torch.stack(samples, dim=1).cpu().numpy()
        return drawn

    def _step(self) -> Tensor:
        """(B, O) of the next sample."""
        engine, settings = self.engine, self.engine.settings
        block = self.conditioning[self.time // settings.hold]
        if settings.output == "mulaw":
            h = engine.inputs[self.previous.long()]
        else:
            h = self.previous[:, None] * engine.inputs[0] + engine.inputs[1]
        skip = h.new_zeros(len(h), settings.skip)
        for layer, (dilation, queue) in enumerate(zip(settings.dilations, self.queues, strict=True)):
            taps = [queue[(self.time + tap * dilation) % len(queue)] for tap in range(settings.kernel - 1)]
            z = torch.addmm(block[layer], torch.cat([*taps, h], dim=1), engine.gates[layer])
            content, gate = z.chunk(2, dim=1)
            if len(queue):
                queue[self.time % len(queue)] = h
            mixed = torch.addmm(engine.mix_biases[layer], content.tanh() * gate.sigmoid(), engine.mixes[layer])
            h = h + mixed[:, : settings.residual]
            skip = skip + mixed[:, settings.residual :]
        self.time += 1
        hidden = torch.addmm(engine.head1_bias, skip.relu(), engine.head1).relu()
        return torch.addmm(engine.head2_bias, hidden, engine.head2)

    def keep(self, which: Sequence[int]) -> None:
        chosen = torch.tensor(which, device=self.engine.device)
        self.conditioning, self.previous = self.conditioning[:, :, chosen], self.previous[chosen]
        self.queues = [queue[:, chosen] for queue in self.queues]

    def close(self) -> None:
        self.queues = []


def draw(y: Tensor, output: str, uniforms: Tensor, temperature: float) -> Tensor:
    """One sample of each row's distribution, of two uniforms. (B, O), (B, 2) float64 -> (B,) float32"""
    if output == "mulaw":
        return _draw_class(y, uniforms[:, 0], temperature).float()
    y = y.double()
    if output == "gaussian":
        mean, log_scale = y.unbind(1)
        radius = torch.sqrt(-2 * torch.log(uniforms[:, 0].clamp(min=1e-7)))
        noise = radius * torch.cos(2 * math.pi * uniforms[:, 1])
    else:
        logits, means, log_scales = y.chunk(3, dim=1)
        one = _draw_class(logits.float(), uniforms[:, 0], 1.0 if temperature else 0.0)[:, None]
        mean, log_scale = means.gather(1, one)[:, 0], log_scales.gather(1, one)[:, 0]
        u = uniforms[:, 1].clamp(1e-5, 1 - 1e-5)
        noise = torch.log(u) - torch.log1p(-u)
    x = mean + temperature * torch.exp(log_scale.clamp(min=LEAST_LOG_SCALE)) * noise
    return x.clamp(-1, 1).float()


def _draw_class(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """Inverse of the cumulative distribution of softmax(logits / temperature)."""
    if temperature == 0:
        return logits.argmax(dim=1)
    weights = torch.exp((logits - logits.amax(dim=1, keepdim=True)) / temperature).double()
    cumulative = weights.cumsum(dim=1)
    below = cumulative <= uniforms[:, None] * cumulative[:, -1:]
    return below.sum(dim=1).clamp(max=logits.shape[1] - 1)
