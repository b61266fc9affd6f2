"""Who asks for trials and where they run. The local engine runs them as processes of this machine, Ray's (in
ray_engine.py) on the machines of a cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from metaspeech.errors import UserError
from metaspeech.parallel import worker_count
from metaspeech.sweeps.space import Space
from metaspeech.sweeps.study import OWNER, REASON, SAME_AS, SECONDS, owner, retry, suggest
from metaspeech.sweeps.trials import Outcome, Report

if TYPE_CHECKING:
    import optuna

Run = Callable[[int, Mapping[str, Any], Report, threading.Event], Outcome]  # TrialRunner.run
Tell = Callable[[str], None]
HOPELESS = 3  # failures with no success, after which a sweep stops


@dataclass(frozen=True)
class Wanted:
    """How far a sweep is to go."""

    trials: int  # finished ones that the study is to have; those of earlier sweeps count
    jobs: int = 1  # at the same time
    seconds: float | None = None  # after which no new trial is begun


class Engine(Protocol):
    """Runs trials of a study until there are as many as wanted. What is finished is in the study at once.

    Raises:
        UserError: it makes no sense to go on.
        KeyboardInterrupt: after running trials were ended and put in the queue again.
    """

    def threads(self, jobs: int) -> int:
        """For each of so many trials at the same time."""
        ...

    def run(self, study: optuna.Study, space: Space, run: Run, wanted: Wanted, tell: Tell) -> None: ...


class LocalEngine:
    """A thread a running trial; the trial itself is a process."""

    def threads(self, jobs: int) -> int:
        return max(1, worker_count(0) // jobs)

    def run(self, study: optuna.Study, space: Space, run: Run, wanted: Wanted, tell: Tell) -> None:
        stop, began = threading.Event(), time.monotonic()
        running: dict[Future[Outcome], tuple[optuna.Trial, float]] = {}
        with ThreadPoolExecutor(wanted.jobs) as pool:
            try:
                while True:
                    in_time = wanted.seconds is None or time.monotonic() - began < wanted.seconds
                    while in_time and len(running) < wanted.jobs and finished(study) + len(running) < wanted.trials:
                        trial = next_trial(study, space, tell)
                        if trial:
                            values = space.values(suggest(trial, space.search))
                            future = pool.submit(run, trial.number, values, reporter(trial), stop)
                            running[future] = (trial, time.monotonic())
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        trial, started = running[future]
                        settle(study, trial, future.result(), time.monotonic() - started, tell)
                        del running[future]
                        hopeless(study)
            except BaseException:
                stop.set()
                for future, (trial, started) in running.items():
                    if future.exception():  # waits for the end
                        retry(study, trial.number, "the sweep was interrupted")
                    else:
                        settle(study, trial, future.result(), time.monotonic() - started, tell)
                raise


def next_trial(study: optuna.Study, space: Space, tell: Tell) -> optuna.Trial | None:
    """Asks for a trial. None: one with the same values has finished before, and its figures hold for this one too."""
    from optuna.trial import TrialState

    trial = study.ask()
    trial.set_user_attr(OWNER, owner())
    suggest(trial, space.search)
    for other in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        if other.params == trial.params:
            trial.set_user_attr(SAME_AS, other.number)
            study.tell(trial, other.values)
            tell(f"trial {trial.number}: the values of trial {other.number}, not run again")
            return None
    return trial


def reporter(trial: optuna.Trial) -> Report:
    """Hands intermediate values on, and says whether Optuna would stop."""

    def report(value: float, rung: int) -> bool:
        trial.report(value, rung)
        return bool(trial.should_prune())

    return report


def settle(study: optuna.Study, trial: optuna.Trial, outcome: Outcome, seconds: float, tell: Tell) -> None:
    """Writes down how a trial has ended."""
    from optuna.trial import TrialState

    if outcome.state == "interrupted":
        retry(study, trial.number, outcome.reason)
        return
    trial.set_user_attr(SECONDS, round(seconds, 1))
    if outcome.reason:
        trial.set_user_attr(REASON, outcome.reason)
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    study.tell(trial, outcome.values or None, state=states[outcome.state])
    found = ", ".join(f"{value:.4g}" for value in outcome.values) or outcome.reason
    values = ", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                       for key, value in trial.params.items())  # fmt: skip
    tell(f"trial {trial.number}: {outcome.state}, {found} ({values}; {seconds:.0f} s)")


def finished(study: optuna.Study) -> int:
    """Trials that have an end of their own: those that were interrupted do not count."""
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
    return sum(trial.state != TrialState.FAIL or SECONDS in trial.user_attrs for trial in ended)


def hopeless(study: optuna.Study) -> None:
    """Raises UserError where nothing but failures came of the first trials."""
    from optuna.trial import TrialState

    ended = [trial for trial in study.get_trials(deepcopy=False) if SECONDS in trial.user_attrs]
    if len(ended) >= HOPELESS and all(trial.state == TrialState.FAIL for trial in ended):
        raise UserError(f"the first {len(ended)} trials have failed, the last one so: {ended[-1].user_attrs[REASON]}")


@contextmanager
def local_engine(address: str, folder: Path, project: Path) -> Iterator[Engine]:
    if address:
        raise UserError(f"--address {address}: of a cluster, so give --engine ray too")
    yield LocalEngine()


@contextmanager
def ray_engine(address: str, folder: Path, project: Path) -> Iterator[Engine]:
    from metaspeech.cluster import connected
    from metaspeech.sweeps.snapshot import dvc_cache

    with connected(address, [folder, dvc_cache(project)]) as cluster:
        from metaspeech.sweeps.ray_engine import RayEngine

        yield RayEngine(cluster, folder)


Opened = Callable[[str, Path, Path], AbstractContextManager[Engine]]  # (address, the study's folder, the project)
ENGINES: dict[str, Opened] = {"local": local_engine, "ray": ray_engine}
