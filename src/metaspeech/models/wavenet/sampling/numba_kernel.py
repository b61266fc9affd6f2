"""The sampler compiled by Numba, for where there is no C++ compiler.

Numba's compilation takes seconds, once: its cache lies beside this file. Products run over rows of weights, four at a
time, so that LLVM keeps them in vectors; one stream at a time, threads beside one another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from metaspeech.errors import UserError
from metaspeech.models.wavenet.sampling.engine import Doubles
from metaspeech.models.wavenet.sampling.weights import LEAST_LOG_SCALE, OUTPUTS, Floats, SamplerWeights

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "boundscheck": False}
_CONTRACT = {"contract", "nsz"}  # multiplications and additions may fuse; nothing else may change
MULAW, LOGISTICS, GAUSSIAN = range(len(OUTPUTS))


class NumbaEngine:
    """Weights as they come, but for the gates' taps, which follow one another."""

    width, chunk, parallel = 1, 2048, True

    def __init__(self, weights: SamplerWeights) -> None:
        self.settings = weights
        self.output = OUTPUTS.index(weights.output)
        self.arrays = (
            weights.inputs,
            weights.gates.reshape(weights.layers, -1, weights.gate),
            weights.mixes,
            weights.mix_biases,
            weights.head1,
            weights.head1_bias,
            weights.head2,
            weights.head2_bias,
        )
        self.dilations = np.array(weights.dilations, np.int64)

    def open(self, conditionings: Sequence[Floats]) -> NumbaStreams:
        return NumbaStreams(self, conditionings)


class NumbaStreams:
    """A row of queues, and what was drawn last, for every stream."""

    def __init__(self, engine: NumbaEngine, conditionings: Sequence[Floats]) -> None:
        self.engine, settings, self.time = engine, engine.settings, 0
        reach = (settings.kernel - 1) * sum(settings.dilations)
        self.conditionings = list(conditionings)
        self.queues = [np.zeros((reach, settings.residual), np.float32) for _ in conditionings]
        self.previous = [settings.silence] * len(self.conditionings)

    def run(
        self, uniforms: Doubles, temperature: float, forced: Floats | None = None, outputs: Floats | None = None
    ) -> Floats:
        engine, length = self.engine, uniforms.shape[1]
        samples = np.empty(uniforms.shape[:2], np.float32)
        nothing = np.empty(0, np.float32)
        for number, conditioning in enumerate(self.conditionings):
            done = _run(
                engine.output,
                engine.settings.hold,
                engine.settings.kernel,
                engine.dilations,
                engine.arrays,
                conditioning,
                self.queues[number],
                self.time,
                np.float32(self.previous[number]),
                uniforms[number],
                temperature,
                nothing if forced is None else forced[number],
                samples[number],
                nothing.reshape(0, 0) if outputs is None else outputs[number],
            )
            if done < length:
                raise UserError(f"WaveNet sampler: outputs of stream {number} are not finite")
            self.previous[number] = float((samples if forced is None else forced)[number, -1])
        self.time += length
        return samples

    def keep(self, which: Sequence[int]) -> None:
        self.conditionings = [self.conditionings[number] for number in which]
        self.queues = [self.queues[number] for number in which]
        self.previous = [self.previous[number] for number in which]

    def close(self) -> None:
        self.queues = []


@njit(fastmath=_CONTRACT, **_OPTIONS)
def _add_product(sums, x, weights):  # type: ignore[no-untyped-def]
    """sums[j] += sum over i of x[i] weights[i, j]"""
    rows, columns = weights.shape
    whole = rows - rows % 8
    for i in range(0, whole, 8):
        a, b, c, d, e, f, g, h = x[i], x[i + 1], x[i + 2], x[i + 3], x[i + 4], x[i + 5], x[i + 6], x[i + 7]
        for j in range(columns):
            y = sums[j] + a * weights[i, j]
            y = y + b * weights[i + 1, j]
            y = y + c * weights[i + 2, j]
            y = y + d * weights[i + 3, j]
            y = y + e * weights[i + 4, j]
            y = y + f * weights[i + 5, j]
            y = y + g * weights[i + 6, j]
            sums[j] = y + h * weights[i + 7, j]
    for i in range(whole, rows):
        for j in range(columns):
            sums[j] += x[i] * weights[i, j]


@njit(fastmath=_CONTRACT, **_OPTIONS)
def _exponential(x):  # type: ignore[no-untyped-def]
    """e^x for -87 <= x <= 88: 2^whole times a polynomial (Cephes). Without branches, so that loops vectorise."""
    big = np.float32(12582912.0)  # adding it leaves no room for a fraction
    whole = (x * np.float32(1.44269504088896341) + big) - big
    r = x - whole * np.float32(0.693359375) + whole * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    return p * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(fastmath=_CONTRACT, **_OPTIONS)
def _gate(z, gated):  # type: ignore[no-untyped-def]
    """tanh of the first half times sigmoid of the second; beyond the limits float32 shows no difference."""
    half = len(gated)
    one, ten, forty = np.float32(1.0), np.float32(10.0), np.float32(40.0)
    for j in range(half):
        a = _exponential(np.float32(-2.0) * min(max(z[j], -ten), ten))
        b = _exponential(-min(max(z[half + j], -forty), forty))
        gated[j] = (one - a) / ((one + a) * (one + b))


@njit(fastmath=_CONTRACT, **_OPTIONS)
def _relu(x):  # type: ignore[no-untyped-def]
    for j in range(len(x)):
        x[j] = max(x[j], np.float32(0.0))


@njit(fastmath=_CONTRACT, **_OPTIONS)
def _draw_class(logits, weights, temperature, uniform):  # type: ignore[no-untyped-def]
    """Inverse of the cumulative distribution of softmax(logits / temperature). ``weights`` is room for as many."""
    top, best = logits[0], 0
    for j in range(1, len(logits)):
        if logits[j] > top:
            top, best = logits[j], j
    if temperature == 0.0:
        return best
    factor = np.float32(min(1.0 / temperature, 1e30))
    for j in range(len(logits)):
        weights[j] = _exponential(max((logits[j] - top) * factor, np.float32(-87.0)))
    total = 0.0
    for j in range(len(logits)):
        total += weights[j]
    left = uniform * total
    for j in range(len(logits) - 1):
        if left < weights[j]:
            return j
        left -= weights[j]
    return len(logits) - 1


@njit(**_OPTIONS)
def _draw_scalar(output, y, weights, temperature, uniforms):  # type: ignore[no-untyped-def]
    if output == GAUSSIAN:
        mean, log_scale = float(y[0]), float(y[1])
        noise = math.sqrt(-2.0 * math.log(max(uniforms[0], 1e-7))) * math.cos(2.0 * math.pi * uniforms[1])
    else:
        mixtures = len(y) // 3
        one = _draw_class(y[:mixtures], weights, 0.0 if temperature == 0.0 else 1.0, uniforms[0])
        mean, log_scale = float(y[mixtures + one]), float(y[2 * mixtures + one])
        u = min(max(uniforms[1], 1e-5), 1.0 - 1e-5)
        noise = math.log(u) - math.log1p(-u)
    x = mean + temperature * math.exp(min(max(log_scale, LEAST_LOG_SCALE), 88.0)) * noise
    return np.float32(min(max(x, -1.0), 1.0))


@njit(fastmath=_CONTRACT, **_OPTIONS)
def _run(  # type: ignore[no-untyped-def]
    output, hold, kernel, dilations, arrays, conditioning, queue, time, previous, uniforms, temperature, forced,
    samples, outputs,
):  # fmt: skip
    """Fills ``samples`` and returns their number, or that of the sample whose outputs are not finite."""
    inputs, gates, mixes, mix_biases, head1, head1_bias, head2, head2_bias = arrays
    layers, residual, half = len(dilations), inputs.shape[1], mixes.shape[1]
    x = np.empty(kernel * residual, np.float32)  # the taps, oldest first
    h = x[(kernel - 1) * residual :]
    z, gated = np.empty(2 * half, np.float32), np.empty(half, np.float32)
    mixed = np.empty(mixes.shape[2], np.float32)
    skip, hidden = np.empty(len(head1), np.float32), np.empty(len(head2), np.float32)
    y, weights = np.empty(len(head2_bias), np.float32), np.empty(len(head2_bias), np.float32)
    for sample in range(len(samples)):
        block = conditioning[time // hold]
        if output == MULAW:
            h[:] = inputs[int(previous)]
        else:
            for j in range(residual):
                h[j] = previous * inputs[0, j] + inputs[1, j]
        skip[:] = np.float32(0.0)
        first = 0
        for layer in range(layers):
            dilation = dilations[layer]
            reach = (kernel - 1) * dilation
            for tap in range(kernel - 1):
                x[tap * residual : (tap + 1) * residual] = queue[first + (time + tap * dilation) % reach]
            z[:] = block[layer]
            _add_product(z, x, gates[layer])
            _gate(z, gated)
            if reach:
                queue[first + time % reach] = h
            first += reach
            mixed[:] = mix_biases[layer]
            _add_product(mixed, gated, mixes[layer])
            for j in range(residual):
                h[j] += mixed[j]
            for j in range(len(skip)):
                skip[j] += mixed[residual + j]
        _relu(skip)
        hidden[:] = head1_bias
        _add_product(hidden, skip, head1)
        _relu(hidden)
        y[:] = head2_bias
        _add_product(y, hidden, head2)

        for j in range(len(y)):
            if not math.isfinite(y[j]):
                return sample
        if outputs.size:
            outputs[sample] = y
        if output == MULAW:
            samples[sample] = _draw_class(y, weights, temperature, uniforms[sample, 0])
        else:
            samples[sample] = _draw_scalar(output, y, weights, temperature, uniforms[sample])
        previous = forced[sample] if len(forced) else samples[sample]
        time += 1
    return len(samples)
