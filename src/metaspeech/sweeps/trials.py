"""One trial: ``dvc exp run --temp`` with the chosen values, watched while it runs, its figures read at the end."""

from __future__ import annotations

import fcntl
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from metaspeech import config, guard
from metaspeech.errors import UserError
from metaspeech.sweeps import progress
from metaspeech.sweeps.snapshot import Snapshot, environment, reason
from metaspeech.sweeps.space import Objective, Space, assignment, with_values
from metaspeech.sweeps.stages import Stages, figures, metric_files

RUNGS = 4  # a training is looked at after each quarter, so that trainings of different lengths can be compared
SIGNAL = "validation_after"  # query loss of the validation tasks after the inner loop
LOOK_SECONDS = 0.5

State = Literal["complete", "pruned", "failed", "interrupted"]
Report = Callable[[float, int], bool]  # (value, rung) -> whether to stop


@dataclass(frozen=True)
class Outcome:
    """How a trial has ended."""

    state: State
    values: list[float] = field(default_factory=list)  # of the objectives
    reason: str = ""  # why it has none


@dataclass(frozen=True)
class TrialRunner:
    """What all trials of a study have in common."""

    study: str
    folder: Path  # of the study
    snapshot: Snapshot
    space: Space
    base: Mapping[str, Any]  # nested params with the fixed values
    stages: Stages
    tracking_uri: str
    threads: int  # for each trial

    def experiment(self, number: int) -> str:
        """The name of a trial's DVC experiment and MLflow run."""
        return f"sweep-{self.study}-{number}"

    def log(self, number: int) -> Path:
        return self.folder / "logs" / f"{number}.log"

    def run(self, number: int, values: Mapping[str, Any], report: Report, stop: threading.Event) -> Outcome:
        """Runs a trial to its end.

        Args:
            number: of the trial in its study.
            values: of the searched keys.
            report: is given what validation finds on the way.
            stop: when set, the trial is ended where it is.

        Raises:
            UserError: the objectives are not among the figures, which would be so for every trial.
        """
        try:
            params = config.from_mapping(with_values(self.base, values, f"trial {number}"))
        except UserError as error:  # of two searched keys one may demand something of the other
            return Outcome("failed", reason=str(error))
        told = self.folder / "progress" / f"{number}.jsonl"
        told.parent.mkdir(exist_ok=True)
        for old in (told, progress.stop_file(told)):
            old.unlink(missing_ok=True)
        status = self._watch(self._start(number, values, told), told, report, stop)
        if stop.is_set():
            return Outcome("interrupted", reason="the sweep was interrupted")
        if status:
            if progress.stop_file(told).exists():
                return Outcome("pruned", reason="others did better by then")
            return Outcome("failed", reason=reason(self.log(number)))
        self.snapshot.hand_over(self.experiment(number))
        return self._outcome(number, params)

    def _start(self, number: int, values: Mapping[str, Any], told: Path) -> subprocess.Popen[bytes]:
        settings = [part for key, value in values.items() for part in ("-S", assignment(key, value))]
        command = ["exp", "run", "--temp", "--name", self.experiment(number), *settings, self.space.target]
        log = self.log(number)
        log.parent.mkdir(exist_ok=True)
        with self._starting(), log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-I", guard.__file__, sys.executable, "-m", "dvc", *command],
                cwd=self.snapshot.path,
                env=environment(
                    {
                        "MLFLOW_TRACKING_URI": self.tracking_uri,
                        "METASPEECH_SWEEP": self.study,
                        "METASPEECH_TRIAL": str(number),
                        "OMP_NUM_THREADS": str(self.threads),
                        progress.VARIABLE: str(told),
                    }
                ),
                stdin=subprocess.PIPE,  # when it closes, the guard ends all of it
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the sweep alone
            )
            while process.poll() is None and b"Reproducing experiment" not in log.read_bytes():
                time.sleep(LOOK_SECONDS / 5)
        return process

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """DVC notes down one experiment at a time, whatever machine it is on."""
        with open(self.folder / "starting", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _watch(self, process: subprocess.Popen[bytes], told: Path, report: Report, stop: threading.Event) -> int:
        """Until the process has ended. Returns its status."""
        reported: set[int] = set()
        while process.poll() is None:
            if stop.wait(LOOK_SECONDS):
                end(process)
                break
            for rung, value in rungs(progress.read(told), self.space.objectives[0]).items():
                if rung not in reported and self.space.prune:
                    reported.add(rung)
                    if report(value, rung):
                        progress.stop_file(told).touch()
        return process.wait()

    def _outcome(self, number: int, params: config.Params) -> Outcome:
        values = []
        for objective in self.space.objectives:
            found: list[float | None] = []
            for file in metric_files(self.stages[self.space.target], objective, params):
                content = json.loads(self.snapshot.output(self.experiment(number), file))
                found += figures(content, objective, params, file)
            numbers = [value for value in found if value is not None and math.isfinite(value)]
            if len(numbers) < len(found):
                return Outcome("failed", reason=f"{objective.name} is not finite: the training has diverged")
            values.append(fmean(numbers))
        return Outcome("complete", values)


def rungs(found: list[progress.Progress], objective: Objective) -> dict[int, float]:
    """Quarter of the training that was reached -> the first validation there; the end itself is left out.

    Only the objective's model counts (the first part of ``acoustic+vocoder``).
    """
    reached: dict[int, float] = {}
    for one in found:
        rung = int(RUNGS * one.done)
        if one.item[0] == objective.model.partition("+")[0] and 0 < rung < RUNGS and SIGNAL in one.values:
            reached.setdefault(rung, one.values[SIGNAL])
    return reached


def end(process: subprocess.Popen[bytes]) -> None:
    """A guarded command with all that it started: asked first, then killed."""
    assert process.stdin
    process.stdin.close()
    process.wait()


def end_leftovers(folder: Path) -> int:
    """Ends processes that a killed sweep has left in this study. Returns how many."""
    import psutil

    found = 0
    for process in psutil.process_iter():
        try:
            if process.environ().get(progress.VARIABLE, "").startswith(f"{folder}{os.sep}"):
                process.kill()
                found += 1
        except psutil.Error:
            continue
    return found
