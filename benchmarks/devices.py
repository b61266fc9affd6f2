"""What ``devices: 2`` is worth: ``python -m benchmarks.devices [--rounds 9]``; a table, then one JSON line.

Outer steps a second of the small Tacotron by MAML and FOMAML, four tasks a step, through the trainer that the stage
meta_train uses, in the steady state: without start-up, first step, validation and checkpoints. Three set-ups are
compared: one process of one thread, one of two, and two of one. All are up at once and work in turn, the same outer
steps in each round, while the others wait; figures are medians over rounds, ratios of those within a round. A task has
five utterances to adapt on and five to measure on, and they differ in length. Needs two idle cores:
``cores_of_others`` says how many were used by something else, and above 0.1 the figures mean little.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import monotonic, process_time
from typing import Any

import numpy as np
import pytorch_lightning as pl

from metaspeech import config
from metaspeech.data.batch import Episode, SpeechBatch, collate
from metaspeech.data.module import StepModule
from metaspeech.models.base import FeatureSpec
from metaspeech.registry import ALGORITHMS, resolve
from metaspeech.training.checkpoint import build_model
from metaspeech.training.compute import set_up_torch
from metaspeech.training.meta_learner import MetaLearner
from metaspeech.training.trainer import fit, make_trainer

FEATURES = FeatureSpec(symbols=40, n_mels=80, hop=256, sample_rate=16000)
UTTERANCES, SHORTEST, LONGEST, FRAMES_A_CHARACTER, META_BATCH = 5, 48, 96, 4, 4
SETUPS = {"one thread": (1, 1), "two threads": (1, 2), "devices: 2": (2, 1)}  # processes, threads of each
STEPS = {"maml": 1, "fomaml": 3}  # outer steps a round


Drivers = dict[tuple[str, str], Connection]  # by algorithm and set-up
Round = tuple[dict[tuple[str, str], float], float]


@dataclass(frozen=True)
class Case:
    """One training, which takes its first outer step and then ``rounds`` turns of ``steps`` when it is told to."""

    algorithm: str
    processes: int
    threads: int
    steps: int
    rounds: int

    @property
    def total(self) -> int:
        return 1 + self.rounds * self.steps


class Turns(pl.Callback):
    """Answers how long a turn took, from the end of a step to the end of another, and waits for the next.

    The answer is in seconds on the clock and in seconds of the first process on a core.
    """

    def __init__(self, case: Case, driver: Connection) -> None:
        self.case, self.driver, self.since, self.used = case, driver, monotonic(), process_time()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if (trainer.global_step - 1) % self.case.steps:
            return
        if trainer.is_global_zero:
            self.driver.send((monotonic() - self.since, process_time() - self.used))
            if trainer.global_step < self.case.total:
                self.driver.recv()
        trainer.strategy.barrier()
        self.since, self.used = monotonic(), process_time()


def train(case: Case, driver: Connection) -> None:
    """What the stage meta_train does, on episodes drawn here."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the progress bar is drawn, but six of them are no sight
    params = config.from_mapping(
        {
            "device": "cpu",
            "threads": case.threads,
            "tacotron": {"preset": "small"},
            "meta_train": {"meta_batch": META_BATCH},
        }
    )
    set_up_torch(params)
    algorithm = resolve(ALGORITHMS, case.algorithm).from_params(params)
    learner = MetaLearner(build_model("tacotron", params, FEATURES).train(), algorithm, params.meta_train, case.total)
    module = StepModule(outer_step, case.total, case.total)
    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder) / "partial-benchmark"
        trainer = make_trainer(params, 1, lambda *_: None, partial, case.processes, log_every_n_steps=1)
        trainer.callbacks.append(Turns(case, driver))  # type: ignore[attr-defined]
        fit(trainer, learner, module, partial)


def outer_step(step: int) -> list[Episode]:
    return [episode(step * META_BATCH + place) for place in range(META_BATCH)]


def episode(index: int) -> Episode:
    return Episode(f"speaker-{index}", batch(2 * index), batch(2 * index + 1), index)


def batch(seed: int) -> SpeechBatch:
    draw, noise = random.Random(seed), np.random.default_rng(seed)
    frames = [draw.randint(SHORTEST, LONGEST) for _ in range(UTTERANCES)]
    return collate(
        [
            (
                [draw.randrange(1, FEATURES.symbols) for _ in range(length // FRAMES_A_CHARACTER)],
                noise.standard_normal((length, FEATURES.n_mels), dtype=np.float32),
                np.zeros(length * FEATURES.hop, dtype=np.float32),
            )
            for length in frames
        ]
    )


def started(rounds: int) -> Drivers:
    """All trainings, each after its first outer step."""
    context = multiprocessing.get_context("spawn")
    drivers: Drivers = {}
    for algorithm, steps in STEPS.items():
        for setup, (processes, threads) in SETUPS.items():
            drivers[algorithm, setup], other = context.Pipe()
            context.Process(target=train, args=(Case(algorithm, processes, threads, steps, rounds), other)).start()
            other.close()  # so that a training that fails is noticed
            drivers[algorithm, setup].recv()
    return drivers


def one_round(drivers: Drivers) -> Round:
    """A turn of each: seconds an outer step; and how many cores others used, at most, in a turn."""
    seconds, others = {}, []
    for (algorithm, setup), driver in drivers.items():
        before = _busy()
        driver.send(None)
        clock, used = driver.recv()
        seconds[algorithm, setup] = clock / STEPS[algorithm]
        processes, _ = SETUPS[setup]
        others.append((_busy() - before - processes * used) / clock)
    return seconds, max(0.0, *others)


def _busy() -> float:
    """Seconds that all cores together have worked since the machine was started (Linux)."""
    user, nice, system, _, _, interrupt, soft_interrupt, stolen, *_ = map(
        int, Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    )
    return (user + nice + system + interrupt + soft_interrupt + stolen) / os.sysconf("SC_CLK_TCK")


def summary(rounds: Sequence[Round]) -> dict[str, float]:
    """Medians over rounds, printed as a table too."""
    figures = {"cores_of_others": round(median(others for _, others in rounds), 2)}
    print(f"{'outer steps a second':22}" + "".join(f"{setup:>14}" for setup in SETUPS))
    for algorithm in STEPS:
        rates = {setup: [1 / seconds[algorithm, setup] for seconds, _ in rounds] for setup in SETUPS}
        print(f"{algorithm:22}" + "".join(f"{median(rates[setup]):14.3f}" for setup in SETUPS))
        for other in ("one thread", "two threads"):
            ratios = [two / one for two, one in zip(rates["devices: 2"], rates[other], strict=True)]
            print(f"  devices: 2 / {other}: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
            figures[f"{algorithm}_devices2_vs_{other.replace(' ', '_')}"] = round(median(ratios), 3)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    drivers = started(rounds)
    print(json.dumps(summary([one_round(drivers) for _ in range(rounds)])))


if __name__ == "__main__":
    main()
