"""What an outer step costs: ``python -m benchmarks.outer_step [--rounds 7]``; a table, then one JSON line.

The small Tacotron, batches of five utterances of the default corpus' length, three inner steps, one task, one thread.
The unit U is forward and backward over support and query once. Ratios are medians over rounds, each round measuring
everything once by processor time; ``limit`` is what counting floating-point operations gives (docs/algorithms.md).
``loop`` is U for the same Tacotron as it is usually written, every step of the decoder one after the other, which has
the same loss. Peak memory is measured in processes of their own, for one, two and four tasks.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from time import thread_time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from metaspeech import config
from metaspeech.data.batch import Episode, SpeechBatch
from metaspeech.meta.base import MetaAlgorithm
from metaspeech.models.base import FeatureSpec, ModelLoss, loss_function, parameters_of
from metaspeech.models.layers import length_mask
from metaspeech.models.tacotron.decoder import Decoder
from metaspeech.models.tacotron.model import TacotronModel
from metaspeech.registry import ALGORITHMS, resolve
from metaspeech.tracking.run import peak_memory

FEATURES = FeatureSpec(symbols=40, n_mels=80, hop=256, sample_rate=16000)
UTTERANCES, CHARACTERS, FRAMES, INNER, RATE = 5, 18, 72, 3, 0.1
LAW = {"fomaml": (INNER + 1) / 2, "reptile": INNER / 2, "maml": (9 * INNER + 3) / 6}


class LoopedDecoder(Decoder):
    """Teacher forcing as it is usually written: prenet, both LSTM cells, attention and projections in every step."""

    def forward(self, memory: Tensor, lengths: Tensor, mels: Tensor) -> tuple[Tensor, Tensor]:
        hidden, cell, context, history = self._start(memory)
        decoder_hidden = decoder_cell = memory.new_zeros(len(memory), self.decoder_rnn.hidden)
        keys, outside = self.attention.memory(memory), ~length_mask(lengths, memory.shape[1])
        frame = torch.zeros_like(mels[:, 0])
        states, alignments = [], []
        for step in range(mels.shape[1] // self.reduction_factor):
            rnn = self.attention_rnn
            hidden, cell = torch.lstm_cell(
                torch.cat([self.prenet(frame), context], dim=1),
                (hidden, cell), rnn.weight_ih, rnn.weight_hh, rnn.bias_ih, rnn.bias_hh,
            )  # fmt: skip
            located = functional.conv1d(
                history, self.attention.location_convolution.weight, padding=self.attention.kernel // 2
            )
            location = self.attention.location_projection(located.transpose(1, 2))
            scores = self.attention.score(torch.tanh(keys + location + self.attention.query(hidden)[:, None]))[..., 0]
            weights = torch.softmax(scores.masked_fill(outside, -torch.inf), dim=-1)
            context = torch.bmm(weights[:, None], memory)[:, 0]
            history = torch.stack([weights, history[:, 1] + weights], dim=1)
            decoder_hidden, decoder_cell = torch.lstm_cell(
                torch.cat([hidden, context], dim=1), (decoder_hidden, decoder_cell), *self.decoder_rnn._weights()
            )
            states.append(torch.cat([decoder_hidden, context], dim=1))
            alignments.append(weights)
            frame = mels[:, (step + 1) * self.reduction_factor - 1]
        return torch.stack(states, dim=1), torch.stack(alignments, dim=1)

    def project(self, states: Tensor) -> tuple[Tensor, Tensor]:
        frames = [self.projection(state).reshape(len(state), -1, self.n_mels) for state in states.unbind(1)]
        return torch.cat(frames, dim=1), torch.stack([self.stop(state)[:, 0] for state in states.unbind(1)], dim=1)


def model(looped: bool = False) -> TacotronModel:
    torch.manual_seed(0)
    made = TacotronModel(config.Tacotron(preset="small", prenet_dropout=0.0), FEATURES)
    if looped:
        made.decoder.__class__ = LoopedDecoder
    return made


def batch(seed: int) -> SpeechBatch:
    generator = torch.Generator().manual_seed(seed)
    return SpeechBatch(
        tokens=torch.randint(1, FEATURES.symbols, (UTTERANCES, CHARACTERS), generator=generator),
        token_lengths=torch.full((UTTERANCES,), CHARACTERS),
        mels=torch.randn(UTTERANCES, FRAMES, FEATURES.n_mels, generator=generator),
        mel_lengths=torch.full((UTTERANCES,), FRAMES),
        audio=torch.zeros(UTTERANCES, FRAMES * FEATURES.hop),
        audio_lengths=torch.full((UTTERANCES,), FRAMES * FEATURES.hop),
    )


def task(seed: int) -> Episode:
    return Episode(f"speaker-{seed}", batch(2 * seed), batch(2 * seed + 1), seed)


def unit(net: TacotronModel) -> Callable[[], None]:
    one = task(0)

    def step() -> None:
        for part in (one.support, one.query):
            torch.autograd.grad(net(part)[0], list(net.parameters()), materialize_grads=True)

    return step


def problem(
    kind: str, tasks: int = 1, **values: Any
) -> tuple[MetaAlgorithm, ModelLoss, dict[str, Tensor], list[Episode]]:
    """What ``outer_gradient`` is called on and with. ``values``: of the inner loop, and ``recompute``."""
    net = model()
    inner = {"steps": INNER, "rate": RATE, "clip": 0.0, "adapt_modules": ["*"]} | values
    recompute = {"recompute": inner.pop("recompute", False)}
    algorithm = resolve(ALGORITHMS, kind).from_params(config.from_mapping({"inner": inner, "meta_train": recompute}))
    loss_fn, start, episodes = loss_function(net), parameters_of(net), [task(seed) for seed in range(tasks)]
    return algorithm, loss_fn, start | algorithm.learned(loss_fn, start), episodes


def outer(kind: str, tasks: int = 1, **values: Any) -> Callable[[], None]:
    algorithm, loss_fn, start, episodes = problem(kind, tasks, **values)
    return lambda: algorithm.outer_gradient(loss_fn, start, episodes) and None


def torchopt_maml() -> Callable[[], None]:
    import torchopt

    net, one = model(), task(0)

    def step() -> None:
        adapted = copy.deepcopy(net)
        leaves, inner = list(adapted.parameters()), torchopt.MetaSGD(adapted, lr=RATE)
        for _ in range(INNER):
            inner.step(adapted(one.support)[0])
        torch.autograd.grad(adapted(one.query)[0], leaves, materialize_grads=True)

    return step


def higher_maml() -> Callable[[], None]:
    import higher

    net, one = model(), task(0)
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE)

    def step() -> None:
        with higher.innerloop_ctx(net, optimiser, copy_initial_weights=False) as (adapted, inner):
            for _ in range(INNER):
                inner.step(adapted(one.support)[0])
            torch.autograd.grad(adapted(one.query)[0], list(net.parameters()), materialize_grads=True)

    return step


def cases() -> dict[str, Callable[[], None]]:
    return {
        "U": unit(model()),
        "loop": unit(model(looped=True)),
        "fomaml": outer("fomaml"),
        "reptile": outer("reptile"),
        "maml": outer("maml"),
        "maml, recomputed": outer("maml", recompute=True),
        "maml by torchopt": torchopt_maml(),
        "maml by higher": higher_maml(),
        "anil": outer("anil"),
        "anil, naive": outer("maml", adapt_modules=list(TacotronModel.head_modules)),
    }


def timed(step: Callable[[], None]) -> float:
    started = thread_time()
    step()
    return thread_time() - started


def peak(kind: str, tasks: int, recompute: bool) -> float:
    """MiB by which a process grows in an outer step."""
    command = [sys.executable, "-m", "benchmarks.outer_step", "--peak", kind, str(tasks), str(int(recompute))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def grown(kind: str, tasks: int, recompute: bool) -> float:
    step = outer(kind, tasks, recompute=recompute)
    before = highest()
    step()
    return highest() - before


def highest() -> float:
    """MiB, the most this process has held (Linux)."""
    held = peak_memory()
    assert held is not None, "the system does not say what a process has held"
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.peak:
        print(grown(given.peak[0], int(given.peak[1]), given.peak[2] == "1"))
        return
    same = [float(net(task(0).support)[0].detach()) for net in (model(), model(looped=True))]
    assert abs(same[0] - same[1]) < 1e-4 * same[0], f"the looped Tacotron has another loss: {same}"
    steps = cases()
    for step in steps.values():
        step()
    rounds = [{name: timed(step) for name, step in steps.items()} for _ in range(given.rounds)]

    def ratio(name: str, to: str = "U") -> float:
        return round(median(one[name] / one[to] for one in rounds), 3)

    print(f"{'':18} {'/ U':>6} {'limit':>6} {'/ limit':>8}")
    for name in steps:
        law = LAW.get(name.partition(" by ")[0])
        print(f"{name:18} {ratio(name):6.2f} {law or '':>6} {ratio(name) / law if law else float('nan'):8.2f}")
    memory = {f"{n} tasks": peak("maml", n, False) for n in (1, 2, 4)} | {"recomputed": peak("maml", 1, True)}
    print("peak memory of second order, MiB:", {name: round(value) for name, value in memory.items()})
    figures = {
        "U_seconds": round(median(one["U"] for one in rounds), 4),
        "fomaml_of_law": round(ratio("fomaml") / LAW["fomaml"], 3),
        "maml_of_law": round(ratio("maml") / LAW["maml"], 3),
        "maml_vs_torchopt": ratio("maml", "maml by torchopt"),
        "maml_vs_higher": ratio("maml", "maml by higher"),
        "U_of_loop": ratio("U", "loop"),
        "anil_of_naive": ratio("anil", "anil, naive"),
        "recompute_time": ratio("maml, recomputed", "maml"),
        "recompute_memory": round(memory["recomputed"] / memory["1 tasks"], 3),
        "memory_of_4_tasks": round(memory["4 tasks"] / memory["1 tasks"], 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
