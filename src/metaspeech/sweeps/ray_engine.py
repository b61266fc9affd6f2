"""Trials on the machines of a Ray cluster, by Ray Tune.

The study stays the one store of trials. Tune asks it for values (:class:`StudySearch`) and for whether a trial may go
on (:class:`StudyScheduler`), places trials and notices when a machine is lost; what Tune itself writes down is never
read again. A sweep that is given again knows the rungs of earlier trials too, which Tune's own ASHA would not.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from metaspeech.cluster import Cluster, counted, first_line
from metaspeech.errors import UserError
from metaspeech.sweeps.engine import Run, Tell, Wanted, finished, hopeless, next_trial, settle
from metaspeech.sweeps.space import Space
from metaspeech.sweeps.study import retry, suggest
from metaspeech.sweeps.trials import Outcome

if TYPE_CHECKING:
    import optuna

    Running = tuple[optuna.Trial, float]  # and when it began

REDUCTION = 2  # of ASHA: at each rung the better half of those that came so far goes on
LOST = 6  # trials one after the other, after which it is not the machines
STEP_SECONDS = 2.0  # after which Tune hears of a trial that has nothing to say, and may end it
END_SECONDS = 60.0  # that a trial has to end when it is asked to
ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours to see
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class RayEngine:
    """Inside of :func:`metaspeech.cluster.connected`."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder

    def threads(self, jobs: int) -> int:
        return self.cluster.share(jobs)[0]

    def run(self, study: optuna.Study, space: Space, run: Run, wanted: Wanted, tell: Tell) -> None:
        import optuna

        if space.prune:
            study.pruner = optuna.pruners.SuccessiveHalvingPruner(
                min_resource=1, reduction_factor=REDUCTION, min_early_stopping_rate=0
            )
        cpus, gpus = self.cluster.share(wanted.jobs)
        own = " and ".join([counted(cpus, "CPU"), *([counted(gpus, "GPU")] if gpus else [])])
        tell(f"Ray: {self.cluster.described()}; {own} a trial")
        search = StudySearch(study, space, wanted, tell)
        os.environ.update(ENVIRONMENT)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a lost machine is said in a line of ours
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(RemoteTrial, run=run), {"cpu": cpus, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                search_alg=search, scheduler=StudyScheduler(search), num_samples=-1, reuse_actors=False
            ),
            run_config=tune.RunConfig(
                name=f"tune-{time.time_ns()}",
                storage_path=str(self.folder / "ray"),
                stop=search,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),  # the study itself puts a lost trial in its queue
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
        finally:
            search.let_go()
        if search.error:
            raise search.error


class StudySearch(Searcher, tune.Stopper):
    """Values of the next trial and the end of each, between Tune and the study."""

    def __init__(self, study: optuna.Study, space: Space, wanted: Wanted, tell: Tell) -> None:
        super().__init__()
        self.study, self.space, self.wanted, self._tell = study, space, wanted, tell
        self.running: dict[str, Running] = {}
        self.error: UserError | None = None
        self.failure: Exception | None = None  # of the trial that ends with an error next
        self.lost = 0  # trials one after the other
        self.began = time.monotonic()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Tune writes down its search. All that this one knows is in the study, and threads cannot be written."""
        return object, ()

    def suggest(self, trial_id: str) -> Any:
        while self._more() and len(self.running) < self.wanted.jobs:
            trial = next_trial(self.study, self.space, self._tell)
            if trial:
                self.running[trial_id] = (trial, time.monotonic())
                values = self.space.values(suggest(trial, self.space.search))
                return {"number": trial.number, "values": json.dumps(values)}
        return None if self.running else Searcher.FINISHED

    def report(self, trial_id: str, value: float, rung: int) -> bool:
        """Whether to stop."""
        trial, _ = self.running[trial_id]
        trial.report(value, rung)
        return bool(trial.should_prune())

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial, began = self.running.pop(trial_id)
        outcome = self._outcome(trial.number, result or {}, error)
        settle(self.study, trial, outcome, time.monotonic() - began, self._tell)
        if outcome.state == "interrupted":
            self._tell(f"trial {trial.number}: {outcome.reason}")
        try:
            hopeless(self.study)
        except UserError as stop:
            self.error = self.error or stop

    def _outcome(self, number: int, result: Mapping[str, Any], error: bool) -> Outcome:
        if not error:
            self.lost = 0
        if error and isinstance(self.failure, RayTaskError):  # of the code, not of the machine
            result = {"error": f"trial {number} cannot be run there: {first_line(self.failure)}"}
        elif error:
            self.lost += 1
            if self.lost >= LOST:
                self.error = UserError(
                    f"{self.lost} trials one after the other were lost with their process or machine, the last one so: "
                    f"{first_line(self.failure)}. Finished trials are kept: give the same command to go on"
                )
            return Outcome("interrupted", reason="its process or its machine was lost, so it will be run again")
        if "error" in result:
            self.error = UserError(result["error"])
            return Outcome("interrupted", reason="the sweep has stopped")
        if "outcome" in result:
            return Outcome(**json.loads(result["outcome"]))
        return Outcome("pruned", reason="others did better by then")

    def let_go(self) -> None:
        """What was running when Tune ended is put in the queue again."""
        for trial, _ in self.running.values():
            retry(self.study, trial.number, "the sweep was interrupted")
        self.running.clear()

    def _more(self) -> bool:
        in_time = self.wanted.seconds is None or time.monotonic() - self.began < self.wanted.seconds
        return in_time and not self.error and finished(self.study) + len(self.running) < self.wanted.trials

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.error is not None

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is kept elsewhere."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see :meth:`save`."""


class StudyScheduler(FIFOScheduler):
    """Asynchronous successive halving (ASHA, Li et al. 2020), by what the study knows of all its trials."""

    def __init__(self, search: StudySearch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._search = search

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        stop = "rung" in result and self._search.report(trial.trial_id, result["value"], result["rung"])
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._search.failure = trial.get_pickled_error()


class RemoteTrial(tune.Trainable):
    """A trial on a node: a step ends with a value on the way, with the outcome, or with nothing new."""

    def setup(self, config: dict[str, Any], run: Run) -> None:  # type: ignore[override]
        self._told: queue.Queue[dict[str, Any]] = queue.Queue()
        self._answers: queue.Queue[bool] = queue.Queue()
        self._stop, self._asked = threading.Event(), False
        arguments = (run, config["number"], json.loads(config["values"]))
        self._thread = threading.Thread(target=self._work, args=arguments, daemon=True)
        self._thread.start()

    def step(self) -> dict[str, Any]:
        self._answer(stop=False)
        try:
            result = self._told.get(timeout=STEP_SECONDS)
        except queue.Empty:
            return {}
        self._asked = "rung" in result
        return result

    def cleanup(self) -> None:
        """After the outcome, or before it where the trial is to end: by the scheduler or with the sweep."""
        if not self._asked:
            self._stop.set()
        self._answer(stop=True)
        self._thread.join(END_SECONDS)
        self._stop.set()
        self._thread.join(END_SECONDS)

    def _answer(self, stop: bool) -> None:
        if self._asked:
            self._asked = False
            self._answers.put(stop)

    def _work(self, run: Run, number: int, values: Mapping[str, Any]) -> None:
        def report(value: float, rung: int) -> bool:
            self._told.put({"value": value, "rung": rung})
            while True:
                with suppress(queue.Empty):
                    return self._answers.get(timeout=1)
                if self._stop.is_set():
                    return False

        try:
            outcome = run(number, values, report, self._stop)
            self._told.put({"outcome": json.dumps(vars(outcome)), "done": True})
        except UserError as error:
            self._told.put({"error": str(error), "done": True})
        except BaseException as error:
            self._told.put({"error": f"trial {number}: {error!r}", "done": True})
