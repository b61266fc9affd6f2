"""From the spool to the server, beside the stage: a server that is down or slow neither stops nor slows it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from metaspeech.tracking.parcel import Parcel
from metaspeech.tracking.reasons import is_final, public, reason
from metaspeech.tracking.server import Server, base_folder, tracking_uri
from metaspeech.tracking.spool import FOLDER, Spool, waiting

EVERY = 2.0  # seconds between rounds
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds after a failure; doubled each time
PATIENCE, LOCAL_PATIENCE = 5.0, 60.0  # seconds without an answer at the end of a stage; a new database takes its time


class Delivery(threading.Thread):
    """Sends what earlier runs left, then what this run logs, until :meth:`finish`.

    It lives in the process that starts it; one that is forked from that has only the spool, to which it may append.
    """

    def __init__(self, spool: Spool, root: Path) -> None:
        super().__init__(name="metaspeech delivery", daemon=True)
        self._own = Parcel(spool)
        self._carrier = Carrier(tracking_uri(root), base_folder(root), self._answered)
        self._wake, self._finishing, self._done = threading.Event(), threading.Event(), threading.Event()
        self._answer = time.monotonic()
        self._said: dict[str, str] = {}

    @property
    def run_id(self) -> str | None:
        """Of MLflow; None until the server has answered."""
        return self._own.state.run_id

    def run(self) -> None:
        """No failure leaves this function."""
        pause = FIRST_WAIT
        while not self._done.is_set():
            finishing = self._finishing.is_set()
            try:
                failures = self._carrier.round(self._own)
            except Exception as error:
                failures = {"Delivery": reason(error)}
            self._tell(failures)
            if finishing and (failures or self._own.delivered):
                self._done.set()
            self._wake.wait(pause if failures else EVERY)
            self._wake.clear()
            pause = min(2 * pause, LONGEST_WAIT) if failures else FIRST_WAIT

    def finish(self) -> bool:
        """After the last entry: whether all of this run is there. Waits only as long as the server takes entries."""
        local = self._carrier.uri.startswith("sqlite:")
        patience = LOCAL_PATIENCE if local else PATIENCE
        self._answer = time.monotonic()
        self._finishing.set()
        self._wake.set()
        while not self._done.wait(0.02) and time.monotonic() - self._answer < patience:
            pass
        in_time = self._done.is_set()
        self._done.set()
        return in_time and self._own.delivered

    def _answered(self) -> None:
        self._answer = time.monotonic()

    def _tell(self, failures: dict[str, str]) -> None:
        """Each kind of failure once, and when it is over."""
        for what, why in failures.items():
            if what not in self._said:
                say(
                    f"warning: {what} at {public(self._carrier.uri)}: {why}. The stage goes on; what it logs is kept "
                    f"in {FOLDER}/spool and delivered later."
                )
        for what in self._said.keys() - failures.keys():
            say(f"{what} at {public(self._carrier.uri)} answers again; what was kept is delivered.")
        self._said = failures


class Carrier:
    """Takes spools to a tracking server."""

    def __init__(self, uri: str, base: Path, answered: Callable[[], None] = lambda: None) -> None:
        self.uri, self._base, self._answered = uri, base, answered
        self._servers: dict[str, Server] = {}

    def round(self, own: Parcel | None = None) -> dict[str, str]:
        """Sends once what there is: what was left for this server, then ``own``. What failed -> why.

        Artifacts come last: a full artifact store holds up no metrics.
        """
        failures: dict[str, str] = {}
        left = list(self._left())
        try:
            for parcel in [*left, own] if own else left:
                try:
                    parcel.send_log(self._server(parcel.header.experiment), self._answered)
                except Exception as error:
                    failures["MLflow"] = reason(error)
                    if not is_final(error):
                        return failures  # it will not take the others either
            for parcel in [*left, own] if own else left:
                if parcel.state.run_id:
                    try:
                        parcel.send_artifacts(self._server(parcel.header.experiment), self._answered)
                    except Exception as error:
                        failures["MLflow's artifact store"] = reason(error)
                        return failures
        finally:
            for parcel in left:
                parcel.close()
        return failures

    def _left(self) -> Iterator[Parcel]:
        """What processes that have ended left for this server, oldest first; held until closed."""
        for spool in waiting(self._base):
            header = spool.readable_header()
            if header and header.uri == public(self.uri) and spool.hold():
                if spool.readable_header():
                    yield Parcel(spool, left=True)
                else:  # delivered and removed meanwhile
                    spool.let_go()

    def _server(self, experiment: str) -> Server:
        if experiment not in self._servers:
            self._servers[experiment] = Server(self.uri, self._base, experiment)
            self._answered()
        return self._servers[experiment]


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
