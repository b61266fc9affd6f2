"""What an outage of the tracking server costs: ``python -m benchmarks.tracking_outage``; ends in one JSON line.

The tiny Tacotron is meta-trained three times by FOMAML, as the stage meta_train does it, and logs every outer step to
``mlflow server`` with PostgreSQL (``--backend sqlite``: without). In the second training server and database are killed
(SIGKILL) after a third of the steps, and start again ``--outage`` seconds later. ``lost`` and ``doubled`` count metrics
by name and step that the server does not have, or has more than once, when all has been delivered;
``time_ratio`` compares the second training with the mean of the two others, ``noise`` the third with the first.
``step_ratio`` and ``step_noise`` are the same of the median time of an outer step, during the outage and over the same
steps of the others; ``delivery_share`` is the processor time of the thread that delivers, over the training's, with the
outage and without; ``longest_call_ms`` is the longest that a call to log took. Ratios of time need an idle machine with
two cores, for the server takes one of them when it starts; the share does not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from benchmarks.devices import FEATURES, episode
from benchmarks.servers import MlflowServer, Postgres
from metaspeech import config
from metaspeech.data.batch import Episode
from metaspeech.data.module import StepModule
from metaspeech.registry import ALGORITHMS, resolve
from metaspeech.tracking import Execution, stage_run
from metaspeech.tracking.delivery import Carrier
from metaspeech.tracking.server import connect
from metaspeech.tracking.spool import waiting
from metaspeech.training.checkpoint import build_model
from metaspeech.training.compute import set_up_torch
from metaspeech.training.meta_learner import MetaLearner
from metaspeech.training.trainer import fit, make_trainer


class Victim:
    """The server, and the database behind it."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.database = Postgres() if backend == "postgres" else None
        if self.database:
            self.database.start()
            self.database.create_database()
        self.server = MlflowServer(folder, self.database.uri if self.database else f"sqlite:///{folder}/server.db")
        self.server.start()

    def kill(self) -> None:
        self.server.kill()
        if self.database:
            self.database.kill()

    def start(self) -> None:
        if self.database:
            self.database.start()
        self.server.start()

    def stop(self) -> None:
        self.server.stop()
        if self.database:
            self.database.stop()


@dataclass
class Training:
    """What one training logged, and how long it took."""

    seconds: float = 0.0
    longest_call: float = 0.0
    delivery_share: float = 0.0
    logged: Counter[tuple[str, int]] = field(default_factory=Counter)
    steps: dict[int, float] = field(default_factory=dict)  # step -> when it was logged
    outage: tuple[float, float] = (0.0, 0.0)

    def outage_steps(self) -> list[int]:
        """Those that ended during the outage."""
        began, ended = self.outage
        return [step for step, when in self.steps.items() if began <= when <= ended]

    def step_seconds(self, steps: list[int]) -> float:
        """The median over some steps."""
        gaps = {step: self.steps[step] - self.steps[before] for before, step in itertools.pairwise(sorted(self.steps))}
        return median(gaps[step] for step in steps if step in gaps)


def train(folder: Path, name: str, steps: int, victim: Victim | None, outage: float) -> Training:
    """Meta-training as a stage; the victim is killed after a third of the steps."""
    params = config.from_mapping(
        {"device": "cpu", "threads": 1, "tacotron": {"preset": "tiny"}, "meta_train": {"checkpoint_every": steps}}
    )
    set_up_torch(params)
    found = Training()

    def outer_step(step: int) -> list[Episode]:
        return [episode(2 * step + place) for place in range(params.meta_train.meta_batch)]

    def down_and_up() -> None:
        assert victim
        victim.kill()
        time.sleep(outage)
        found.outage = (began, time.monotonic())
        victim.start()

    execution = Execution("", False, name, "", "outage", ())
    with stage_run("meta_train", record=folder / f"{name}.json", root=folder, execution=execution) as run:
        thread = threading.Thread(target=down_and_up)
        began = 0.0

        def log(values: dict[str, float], step: int) -> None:
            nonlocal began
            before = time.perf_counter()
            run.log_metrics(values, step)
            found.longest_call = max(found.longest_call, time.perf_counter() - before)
            found.logged.update((metric, step) for metric in values)
            found.steps.setdefault(step, time.monotonic())
            if victim and step >= steps // 3 and not began:
                began = time.monotonic()
                thread.start()

        algorithm = resolve(ALGORITHMS, "fomaml").from_params(params)
        learner = MetaLearner(build_model("tacotron", params, FEATURES), algorithm, params.meta_train, steps)
        module = StepModule(outer_step, steps, params.meta_train.checkpoint_every)
        trainer = make_trainer(params, module.epochs, log, folder / f"partial-{name}", log_every_n_steps=1)
        started = time.monotonic()
        fit(trainer, learner, module, folder / f"partial-{name}")
        found.seconds = time.monotonic() - started
        found.delivery_share = delivery_seconds() / found.seconds
    if victim:
        thread.join()
        if not found.outage[1]:
            raise SystemExit("training ended before the outage did: give more --steps")
    return found


def delivery_seconds() -> float:
    """Processor time of the thread that delivers."""
    (thread,) = [one.native_id for one in threading.enumerate() if one.name == "metaspeech delivery"]
    return sum(one.user_time + one.system_time for one in psutil.Process().threads() if one.id == thread)


def missing_and_doubled(address: str, name: str, training: Training) -> tuple[int, int]:
    """Metrics by name and step that the server does not have, or has more than once."""
    client = connect(address)
    experiment = client.get_experiment_by_name("metaspeech")
    where = f"tags.execution = '{name}-outage' and tags.role = 'stage'"
    (run,) = client.search_runs([experiment.experiment_id], where)
    there: Counter[tuple[str, int]] = Counter()
    for metric in {metric for metric, _ in training.logged}:
        there.update((metric, one.step) for one in client.get_metric_history(run.info.run_id, metric))
    lost = sum((training.logged - there).values())
    return lost, sum((there - training.logged).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=900, help="outer steps of each training")
    parser.add_argument("--outage", type=float, default=60.0, help="seconds")
    parser.add_argument("--backend", choices=["postgres", "sqlite"], default="postgres")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        victim = Victim(folder, options.backend)
        try:
            os.environ["MLFLOW_TRACKING_URI"] = victim.server.address
            before = train(folder, "before", options.steps, None, 0.0)
            disturbed = train(folder, "outage", options.steps, victim, options.outage)
            after = train(folder, "after", options.steps, None, 0.0)
            kept = len(waiting(folder))
            failures = Carrier(victim.server.address, folder).round() if kept else {}
            counts = [
                missing_and_doubled(victim.server.address, name, one)
                for name, one in (("before", before), ("outage", disturbed), ("after", after))
            ]
        finally:
            victim.stop()
    steps = disturbed.outage_steps()
    result = {
        "backend": options.backend,
        "steps": options.steps,
        "outage_seconds": round(disturbed.outage[1] - disturbed.outage[0], 1),
        "training_seconds": [round(one.seconds, 1) for one in (before, disturbed, after)],
        "metrics": sum(disturbed.logged.values()),
        "lost": sum(lost for lost, _ in counts),
        "doubled": sum(doubled for _, doubled in counts),
        "left_after_the_stage": kept,
        "not_delivered": failures,
        "time_ratio": round(2 * disturbed.seconds / (before.seconds + after.seconds), 3),
        "noise": round(after.seconds / before.seconds, 3),
        "step_ratio": round(
            2 * disturbed.step_seconds(steps) / (before.step_seconds(steps) + after.step_seconds(steps)), 3
        ),
        "step_noise": round(after.step_seconds(steps) / before.step_seconds(steps), 3),
        "delivery_share": [round(one.delivery_share, 4) for one in (disturbed, before)],
        "longest_call_ms": round(1000 * max(one.longest_call for one in (before, disturbed, after)), 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
