"""How fast WaveNet trains: ``python -m benchmarks.wavenet_training [--rounds 7]``; a table, then one JSON line.

Forward and backward of one batch of windows, at one thread, for the small preset and for the layers of the sampling
benchmark (20 layers, 64/128 channels). Beside each, in the same rounds: ``products``, the matrix products of the same
shapes alone, forward and both backward ones, which is the limit of this arithmetic here; and ``conv1d``, the same
network written with ``torch.nn.Conv1d`` as public code has it, with the conditioning projected at every sample. Ratios
are medians over the rounds of processor times in the same round.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import thread_time
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from metaspeech.config import Wavenet
from metaspeech.data.batch import SpeechBatch
from metaspeech.models.base import FeatureSpec
from metaspeech.models.wavenet.model import WaveNetModel
from metaspeech.models.wavenet.sizes import PRESETS, Sizes

FEATURES = FeatureSpec(symbols=40, n_mels=80, hop=256, sample_rate=16000)
LARGE = Sizes(cycles=2, layers=10, kernel=2, residual=64, gate=64, skip=128, head=128, frames=256, conditioning=80)


@dataclass(frozen=True)
class Case:
    """A network, windows of a batch, and their length in samples."""

    name: str
    sizes: Sizes
    batch: int
    window: int

    @property
    def seconds(self) -> float:
        """Of audio in a step."""
        return self.batch * self.window / FEATURES.sample_rate


CASES = [
    Case("small, 4 windows", PRESETS["small"], 4, 2048),
    Case("small, 1 window", PRESETS["small"], 1, 2048),
    Case("20 layers 64/128, 4 windows", LARGE, 4, 4096),
    Case("20 layers 64/128, 1 window", LARGE, 1, 4096),
]


class Conv1dWaveNet(nn.Module):
    """The same network as public code writes it. (batch, samples) classes, (batch, conditioning, samples)"""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.input = nn.Embedding(256, sizes.residual)
        gate = 2 * sizes.gate
        self.convolutions = nn.ModuleList(
            nn.Conv1d(sizes.residual, gate, sizes.kernel, dilation=dilation) for dilation in sizes.dilations
        )
        self.conditionings = nn.ModuleList(nn.Conv1d(sizes.conditioning, gate, 1) for _ in sizes.dilations)
        self.residuals = nn.ModuleList(nn.Conv1d(sizes.gate, sizes.residual, 1) for _ in sizes.dilations)
        self.skips = nn.ModuleList(nn.Conv1d(sizes.gate, sizes.skip, 1) for _ in sizes.dilations)
        self.head, self.last = nn.Conv1d(sizes.skip, sizes.head, 1), nn.Conv1d(sizes.head, 256, 1)

    def forward(self, classes: Tensor, conditioning: Tensor) -> Tensor:
        x = self.input(functional.pad(classes, (1, 0), value=128)[:, :-1]).transpose(1, 2)
        total: Tensor | float = 0.0
        layers = zip(
            self.sizes.dilations, self.convolutions, self.conditionings, self.residuals, self.skips, strict=True
        )
        for dilation, convolution, projection, residual, skip in layers:
            padded = functional.pad(x, ((self.sizes.kernel - 1) * dilation, 0))
            content, gate = (convolution(padded) + projection(conditioning)).chunk(2, dim=1)
            gated = torch.tanh(content) * torch.sigmoid(gate)
            total = total + skip(gated)
            x = x + residual(gated)
        logits = self.last(torch.relu(self.head(torch.relu(total))))
        return functional.cross_entropy(logits, classes)


def ours(case: Case) -> Callable[[], None]:
    with patch.dict(PRESETS, small=case.sizes):
        model = WaveNetModel(Wavenet(preset="small", window=case.window), FEATURES)
    frames, samples = 3 * case.window // FEATURES.hop, 3 * case.window
    batch = SpeechBatch(
        tokens=torch.ones(case.batch, 1, dtype=torch.int64),
        token_lengths=torch.ones(case.batch, dtype=torch.int64),
        mels=torch.randn(case.batch, frames, FEATURES.n_mels),
        mel_lengths=torch.full((case.batch,), frames),
        audio=0.1 * torch.randn(case.batch, samples),
        audio_lengths=torch.full((case.batch,), samples),
    )

    def step() -> None:
        loss, _ = model(batch)
        torch.autograd.grad(loss, list(model.parameters()))

    return step


def conv1d(case: Case) -> Callable[[], None]:
    model = Conv1dWaveNet(case.sizes)
    classes = torch.randint(0, 256, (case.batch, case.window))
    conditioning = torch.randn(case.batch, case.sizes.conditioning, case.window)

    def step() -> None:
        torch.autograd.grad(model(classes, conditioning), list(model.parameters()), allow_unused=True)

    return step


def products(case: Case) -> Callable[[], None]:
    """A layer's matrices (convolution, residual), the skip matrix and the head: forward, by input and by weight."""
    sizes, rows = case.sizes, case.batch * case.window
    layers = len(sizes.dilations)
    shapes = [
        *[(sizes.kernel * sizes.residual, 2 * sizes.gate)] * layers,
        *[(sizes.gate, sizes.residual)] * (layers - 1),
        (layers * sizes.gate, sizes.skip),
        (sizes.skip, sizes.head),
        (sizes.head, 256),
    ]
    inputs = {width: torch.randn(rows, width) for pair in shapes for width in pair}
    weights = {shape: torch.randn(shape) for shape in shapes}
    results = {
        shape: (torch.empty(rows, shape[1]), torch.empty(rows, shape[0]), torch.empty(shape)) for shape in shapes
    }

    def step() -> None:
        for shape in shapes:
            x, gradient, weight = inputs[shape[0]], inputs[shape[1]], weights[shape]
            out, by_input, by_weight = results[shape]
            torch.mm(x, weight, out=out)
            torch.mm(gradient, weight.T, out=by_input)
            torch.mm(x.T, gradient, out=by_weight)

    return step


def timed(step: Callable[[], None]) -> float:
    started = thread_time()
    step()
    return thread_time() - started


def measure(case: Case, rounds: int) -> dict[str, float | str]:
    torch.manual_seed(0)
    steps = {"ours": ours(case), "conv1d": conv1d(case), "products": products(case)}
    for step in steps.values():
        step()
    times = [{name: timed(step) for name, step in steps.items()} for _ in range(rounds)]
    return {
        "case": case.name,
        "audio_seconds_per_second": round(case.seconds / median(one["ours"] for one in times), 3),
        "of_products": round(median(one["products"] / one["ours"] for one in times), 3),
        "conv1d_of_products": round(median(one["products"] / one["conv1d"] for one in times), 3),
        "vs_conv1d": round(median(one["conv1d"] / one["ours"] for one in times), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    results = [measure(case, rounds) for case in CASES]
    for result in results:
        print(
            f"{result['case']:>30}: {result['audio_seconds_per_second']:6.2f} s of audio a second and core, "
            f"{result['of_products']:.0%} of its matrix products alone (conv1d {result['conv1d_of_products']:.0%}), "
            f"{result['vs_conv1d']:.2f}x conv1d"
        )
    print(json.dumps({"rounds": rounds, "threads": 1, "cases": results}))


if __name__ == "__main__":
    main()
