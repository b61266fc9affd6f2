"""What a sweep finds of its trials, on their runs: MLflow's pages compare trials by the objectives then."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metaspeech.tracking.delivery import say
from metaspeech.tracking.reasons import public, reason
from metaspeech.tracking.server import Server, missing_database, tracking_uri
from metaspeech.tracking.spool import waiting

STATE = "trial_state"  # tag
PATIENCE = 30.0  # seconds at the end of a sweep; a client gives a request up after 10


@dataclass(frozen=True)
class Trial:
    """One that has ended."""

    number: int
    name: str  # of its DVC experiment and MLflow run
    state: str
    ended: int  # milliseconds since 1970
    figures: Mapping[str, float] = field(default_factory=dict)  # of the objectives, for those that are complete
    params: Mapping[str, object] = field(default_factory=dict)  # those searched


class Trials(threading.Thread):
    """Logs trials beside a sweep, which neither waits for the server nor stops with it.

    Nothing is kept here: Optuna's study holds it all, and a trial that is told of again changes nothing.
    """

    def __init__(self, study: str, root: Path, experiment: str) -> None:
        super().__init__(name="metaspeech trials", daemon=True)
        self._study, self._uri, self._base, self._experiment = study, tracking_uri(root), root, experiment
        self._told: dict[int, Trial] = {}
        self._logged: set[int] = set()
        self._failure = ""
        self._wake = threading.Event()
        self._closing = False

    def tell(self, trials: Iterable[Trial]) -> None:
        """All that have ended, those told of before too."""
        if missing_database(self._uri):
            return  # no stage has logged anything: there is nothing to add to, and mlflow need not be loaded
        self._told |= {trial.number: trial for trial in trials}
        self._wake.set()

    def close(self) -> None:
        """Waits for the last ones, and says so where they could not be logged."""
        self._closing = True
        self._wake.set()
        self.join(PATIENCE)
        missing = len(self._told) - len(self._logged)
        if missing:
            trials = f"{missing} trial{'s' if missing > 1 else ''}"
            why = self._failure or "no answer in time"
            say(
                f"warning: what {trials} found is not yet at MLflow at {public(self._uri)}: {why}. It is in the study; "
                "the same command with --report sends it."
            )

    def run(self) -> None:
        server = None
        while True:
            self._wake.wait()
            self._wake.clear()
            closing, self._failure = self._closing, ""
            try:
                for trial in [one for one in list(self._told.values()) if one.number not in self._logged]:
                    server = server or Server(self._uri, self._base, self._experiment)
                    if self._log(server, trial):
                        self._logged.add(trial.number)
            except Exception as error:  # of whatever kind: the sweep goes on
                self._failure = reason(error)
            if closing:
                return

    def _log(self, server: Server, trial: Trial) -> bool:
        """Whether it has a run: one whose stages have not been delivered gets its figures the next time."""
        tags = {"sweep": self._study, "trial": str(trial.number), STATE: trial.state}
        run_id = server.trial(self._study, trial.number)
        if run_id is None:
            if not trial.figures:
                return True  # it failed or was stopped before a stage began
            if any(True for _ in waiting(self._base)):
                self._failure = "the runs of its stages are still on their way"
                return False
            run_id = server.restored(trial.name, trial.params, trial.ended)  # DVC's cache had it all
        server.set_tags(run_id, tags)
        server.log_rows(run_id, [(name, value, trial.ended, 0) for name, value in trial.figures.items()])
        return True
