"""The pipeline with independent stages side by side, which ``make repro`` runs: ``python -m pipelines.repro``.

Everything up to the representations runs as ``dvc repro`` runs it. Then ``--jobs`` calls of ``dvc repro`` share the
items of meta-training and adaptation, each with its share of the cores, and one more does the rest. Small models do
not fill the threads of one stage: on two cores two stages at once take less than one after the other.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
from rich.console import Console

from metaspeech import config
from metaspeech.errors import UserError
from metaspeech.parallel import worker_count
from metaspeech.together import Lane, run_together

LOGS = Path(".metaspeech/repro")
SHARED = "represent"  # the last stage that all items need
ITEMS = ("meta_train", "adapt")  # of these an item needs the one before it, and no other item
MEMORY_GIB = 3  # of one item, generously
MOST = 8  # more gain little, and each reads the corpus for itself


def jobs_by_default(params: config.Params, items: int) -> int:
    """As many as cores and memory allow; one where a GPU does the work."""
    if params.device != "cpu" and shutil.which("nvidia-smi"):
        return 1
    cores = worker_count(0) // max(params.devices, params.threads, 1)
    room = int(psutil.virtual_memory().available / 2**30 / MEMORY_GIB)
    return max(1, min(cores, room, items, MOST))


def shares(params: config.Params, jobs: int) -> list[list[str]]:
    """DVC's targets for each job, in order. Models take turns, so that every job has some of the slow one's."""
    items = []
    for turn, (seed, algorithm) in enumerate(itertools.product(params.seeds, params.algorithms)):
        first = turn % len(params.models)
        models = [*params.models[first:], *params.models[:first]]
        items += [f"{model}-{algorithm}-{seed}" for model in models]
    return [[f"{stage}@{item}" for item in items[job::jobs] for stage in ITEMS] for job in range(jobs)]


def repro(params: config.Params, jobs: int, console: Console) -> int:
    """Status of the first ``dvc repro`` that failed, or 0."""
    if jobs == 1 or _dvc("status", "--quiet") == 0:
        return _dvc("repro")
    if status := _dvc("repro", SHARED):
        return status
    call = _command("--wait-for-lock", "repro", "--single-item")  # DVC locks also those stages that it only looks at
    lanes = [
        Lane(f"[{number}]", [*call, *targets], LOGS / f"{number}.log")
        for number, targets in enumerate(shares(params, jobs), 1)
    ]
    console.print(f"\nMeta-training and adaptation, {jobs} stages at a time. What they say: {LOGS}/", highlight=False)
    threads = str(max(1, worker_count(0) // jobs))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    if not run_together(lanes, environment, lambda line: line.startswith("Running stage"), console):
        for lane in lanes:
            if lane.status:
                console.print(f"\n{lane.name} failed. The end of {lane.log}:", highlight=False)
                console.print("\n".join(lane.said[-12:]), markup=False, highlight=False)
        return next(lane.status for lane in lanes if lane.status)
    return _dvc("repro")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dvc", *arguments]


def _dvc(*arguments: str) -> int:
    return subprocess.run(_command(*arguments), check=False).returncode


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=0, help="stages at a time; 0: by cores and memory")
    given = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # stages would go on without whoever waits for them
    try:
        params = config.load("params.yaml")
        items = len(params.models) * len(params.algorithms) * len(params.seeds)
        if not 0 <= given.jobs <= items:
            raise UserError(f"--jobs: {given.jobs}: expected 0 (by cores and memory) to {items}, the items there are")
        sys.exit(repro(params, given.jobs or jobs_by_default(params, items), Console()))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted. The same command goes on where this one stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
