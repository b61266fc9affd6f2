"""How fast WaveNet samples: ``python -m benchmarks.wavenet_sampling [--rounds 7]``; a table, then one JSON line.

20 layers (dilations 1 to 512, twice), kernel 2, residual 64, gate 128, skip and head 128, 256 classes, 80 mels, 16 kHz,
random weights, one thread. Variants take turns within a round, and ratios are medians over the rounds of the two times
in the same round. Times are of the processor (``time.thread_time``), so that others on the machine disturb less; the
wall clock's real-time factor is beside it.

``public`` is what public code does step by step, after r9y9/wavenet_vocoder: modules, buffers shifted and cloned, the
projection of the conditioning computed anew every sample, a one-hot input, a categorical distribution. ``roof`` is the
matrix products alone, by the same packed weights and tiles as the C++ sampler, with inputs that wait for nothing; where
the sampler reads the weights of past taps once for several samples, so does it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from statistics import median
from time import perf_counter, thread_time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from metaspeech.models.wavenet.sampling import SamplerWeights, backends
from metaspeech.models.wavenet.sampling.engine import Engine
from metaspeech.models.wavenet.sampling.native import NativeEngine
from metaspeech.models.wavenet.sampling.sampler import open_engine

RATE = 16000
DILATIONS = tuple(2**layer for layer in range(10)) * 2
RESIDUAL, GATE, SKIP, HEAD, CLASSES, MELS, HOLD = 64, 128, 128, 128, 256, 80, 16
TARGETS = {"vs_public": 100, "of_roof": 0.85, "realtime_factor": 1, "batched_gain": 2, "numba_vs_public": 40}


class Convolution(nn.Module):
    """A dilated convolution with a buffer of its past inputs, shifted by one every step."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.linear, self.dilation = nn.Linear(kernel * inputs, outputs), dilation
        self.reach = (kernel - 1) * dilation + 1
        self.buffer = torch.zeros(1, self.reach, inputs)

    def forward(self, x: Tensor) -> Tensor:
        """(1, 1, inputs) -> (1, 1, outputs)"""
        if self.reach > 1:
            self.buffer[:, :-1] = self.buffer[:, 1:].clone()
            self.buffer[:, -1] = x[:, -1]
            x = self.buffer[:, :: self.dilation]
        return self.linear(x.reshape(1, -1))[:, None]


class Layer(nn.Module):
    """Gated, with residual and skip outputs."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.convolution = Convolution(RESIDUAL, GATE, 2, dilation)
        self.conditioning = Convolution(MELS, GATE)
        self.residual, self.skip = Convolution(GATE // 2, RESIDUAL), Convolution(GATE // 2, SKIP)

    def forward(self, x: Tensor, conditioning: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.convolution(x).split(GATE // 2, dim=-1)
        c, d = self.conditioning(conditioning).split(GATE // 2, dim=-1)
        gated = torch.tanh(a + c) * torch.sigmoid(b + d)
        return x + self.residual(gated), self.skip(gated)


class Public(nn.Module):
    """As public implementations sample."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Convolution(CLASSES, RESIDUAL)
        self.layers = nn.ModuleList(Layer(dilation) for dilation in DILATIONS)
        self.head = nn.ModuleList([nn.ReLU(), Convolution(SKIP, HEAD), nn.ReLU(), Convolution(HEAD, CLASSES)])

    @torch.no_grad()
    def sample(self, conditioning: Tensor, samples: int) -> Tensor:
        """(1, samples, mels) -> (1, samples, classes), one-hot"""
        x = functional.one_hot(torch.tensor([[CLASSES // 2]]), CLASSES).float()
        drawn = []
        for time in range(samples):
            h, skips = self.first(x), torch.zeros(1)
            for layer in self.layers:
                h, skip = layer(h, conditioning[:, time : time + 1])
                skips = skips + skip
            for module in self.head:
                skips = module(skips)
            probabilities = functional.softmax(skips.view(1, -1), dim=1)
            x = torch.distributions.OneHotCategorical(probabilities).sample()[:, None]
            drawn.append(x)
        return torch.cat(drawn, dim=1)


def random_weights() -> SamplerWeights:
    noise = np.random.default_rng(0)

    def array(*shape: int, fan: int) -> np.ndarray:
        return (noise.standard_normal(shape) / fan**0.5).astype(np.float32)

    layers, half, mixed = len(DILATIONS), GATE // 2, RESIDUAL + SKIP
    return SamplerWeights(
        output="mulaw",
        dilations=DILATIONS,
        hold=HOLD,
        inputs=array(CLASSES, RESIDUAL, fan=1),
        gates=array(layers, 2, RESIDUAL, GATE, fan=2 * RESIDUAL),
        mixes=array(layers, half, mixed, fan=half),
        mix_biases=array(layers, mixed, fan=half),
        head1=array(SKIP, HEAD, fan=SKIP),
        head1_bias=array(HEAD, fan=SKIP),
        head2=array(HEAD, CLASSES, fan=HEAD),
        head2_bias=array(CLASSES, fan=HEAD),
    )


def sampling(engine: Engine, streams: int) -> Callable[[int], None]:
    """Draws so many samples of every stream, from silence; what hoists the conditioning counts too."""
    noise = np.random.default_rng(1)
    mels, projection = torch.randn(4000 // HOLD * 4, MELS), torch.randn(MELS, len(DILATIONS) * GATE) / MELS

    def run(samples: int) -> None:
        hoisted = (mels[: -(-samples // HOLD)] @ projection).view(-1, len(DILATIONS), GATE).numpy()
        opened = engine.open([hoisted] * streams)
        opened.run(noise.random((streams, samples, 2)), 1.0)
        opened.close()

    return run


def variants() -> dict[str, tuple[Callable[[int], object], int, int]]:
    """Name: what draws samples, samples a round, streams."""
    public, mels = Public().eval(), torch.randn(1, 4000, MELS)
    weights, missing = random_weights(), backends()
    found: dict[str, tuple[Callable[[int], object], int, int]] = {
        "public": (lambda samples: public.sample(mels, samples), 150, 1),
        "reference": (sampling(open_engine(weights, "reference"), 1), 300, 1),
    }
    if not missing["numba"]:
        found["numba"] = (sampling(open_engine(weights, "numba"), 1), 4000, 1)
    if missing["native"]:
        print(f"no C++ sampler: {missing['native']}")
        return found
    engine = NativeEngine(weights)
    for streams in (1, 2, 4, 8):
        found[f"native x{streams}"] = (sampling(engine, streams), 8000 // streams, streams)
    for streams in (1, 2, 4, 8):
        found[f"roof x{streams}"] = (lambda n, streams=streams: engine.products(streams, n), 8000 // streams, streams)
    for isa in ("portable", "avx2"):
        if not missing[f"native-{isa}"] and engine.isa != isa:
            found[f"native {isa}"] = (sampling(NativeEngine(weights, isa), 1), 4000, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = variants()
    busy: dict[str, list[float]] = {name: [] for name in found}  # seconds of the processor a sample of one stream
    wall: dict[str, list[float]] = {name: [] for name in found}
    for number in range(arguments.rounds + 1):
        for name, (run, samples, streams) in found.items():
            started, cpu = perf_counter(), thread_time()
            run(samples)
            if number:  # the first round compiles and warms up
                busy[name].append((thread_time() - cpu) / (samples * streams))
                wall[name].append((perf_counter() - started) / (samples * streams))

    def ratio(slow: str, fast: str) -> float | None:
        if slow not in found or fast not in found:
            return None
        return median(a / b for a, b in zip(busy[slow], busy[fast], strict=True))

    print(f"{'variant':<16}{'us a sample':>12}{'samples/s':>12}{'real time':>11}{'wall':>8}{'vs public':>11}")
    for name in found:
        seconds, clock = median(busy[name]), median(wall[name])
        print(
            f"{name:<16}{1e6 * seconds:>12.1f}{1 / seconds:>12.0f}{1 / seconds / RATE:>11.3f}{1 / clock / RATE:>8.3f}"
            f"{ratio('public', name) or 0:>11.1f}"
        )
    gains = {streams: ratio("native x1", f"native x{streams}") for streams in (2, 4, 8)}
    results = {
        "vs_public": ratio("public", "native x1"),
        "of_roof": ratio("roof x1", "native x1"),
        "realtime_factor": 1 / median(busy["native x1"]) / RATE if "native x1" in found else None,
        "batched_gain": gains[8],
        "numba_vs_public": ratio("public", "numba"),
    }
    for name, target in TARGETS.items():
        value = results[name]
        verdict = "not measured" if value is None else "met" if value >= target else "MISSED"
        print(f"{name}: {'-' if value is None else f'{value:.3g}'} (target {target}: {verdict})")
    results |= {
        "realtime_factor_wall": 1 / median(wall["native x1"]) / RATE if "native x1" in found else None,
        **{f"batched_gain_{streams}": gain for streams, gain in gains.items()},
        **{f"of_roof_x{streams}": ratio(f"roof x{streams}", f"native x{streams}") for streams in (2, 4, 8)},
        "samples_per_second": {name: round(1 / median(busy[name])) for name in found},
        "rounds": arguments.rounds,
        "load": os.getloadavg()[0],
    }
    print(json.dumps(results, default=float))


if __name__ == "__main__":
    main()
