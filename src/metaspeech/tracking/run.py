"""The run of a stage: what it logs goes to its record and, in batches, to MLflow.

No failure of the tracking server stops a stage: the first is reported, and the stage goes on with its record only.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaspeech.tracking.execution import Execution, current
from metaspeech.tracking.record import Record
from metaspeech.tracking.server import Row, Server, tracking_uri

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

BATCH = 500  # metrics in a request
FLUSH_SECONDS = 10.0


class StageRun:
    """Every method is safe to call when there is no tracking server."""

    def __init__(self, record: Record, execution: Execution, uri: str) -> None:
        self.record = record
        self.execution = execution
        self.uri = uri
        self._server: Server | None = None
        self._buffer: list[Row] = []
        self._flushed = time.monotonic()

    @property
    def run_id(self) -> str | None:
        """Of MLflow; None when the server could not be reached."""
        return self.record.run_id

    def log_metrics(self, values: Mapping[str, float | int | None], step: int | None = None) -> None:
        """Buffers numbers (None is left out); they reach the server some seconds later, or at the end."""
        now = int(time.time() * 1000)
        numbers = {name: float(value) for name, value in values.items() if value is not None}
        self.record.metrics |= numbers
        self._buffer += [(name, value, now, step or 0) for name, value in numbers.items()]
        if len(self._buffer) >= BATCH or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Sends what is buffered."""
        rows, self._buffer, self._flushed = self._buffer, [], time.monotonic()
        for first in range(0, len(rows), BATCH):
            self._call(partial(_send, rows[first : first + BATCH]))

    def log_figure(self, figure: Figure, name: str) -> None:
        """A matplotlib figure as ``figures/<name>.png`` (another suffix is kept)."""
        file = name if Path(name).suffix else f"{name}.png"
        self._call(lambda server: server.client.log_figure(server.run_id, figure, f"figures/{file}"))

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """A table that MLflow can show, as ``tables/<name>.json``."""
        self._call(lambda server: server.client.log_table(server.run_id, table, f"tables/{name}.json"))

    def log_artifact(self, path: str | Path, folder: str = "") -> None:
        """A file, or a folder with what it holds, under ``folder`` of the run's artifacts."""
        log = "log_artifacts" if Path(path).is_dir() else "log_artifact"
        self._call(lambda server: getattr(server.client, log)(server.run_id, str(path), folder or None))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags of the run, kept in the record too."""
        self.record.tags.update(tags)
        self._call(lambda server: server.set_tags(tags))

    def _call(self, action: Callable[[Server], Any]) -> None:
        if self._server is None:
            return
        try:
            action(self._server)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._server = None
        self.record.run_id = None  # incomplete there: the last stage mirrors it from the record
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        message = (
            f"warning: MLflow at {self.uri} cannot be used: {reason}. The stage goes on without tracking; its results "
            "are not affected."
        )
        print(re.sub("//[^/@ ]*@", "//", message), file=sys.stderr, flush=True)  # no password of a server's address

    def _start(self, root: Path, experiment: str, headline: Mapping[str, Any]) -> None:
        try:
            self._server = Server(self.uri, root, experiment, self.execution, self.record, headline)
            self.record.run_id = self._server.run_id
        except Exception as error:
            self._give_up(error)

    def _end(self) -> None:
        self.log_metrics({"seconds": self.record.seconds, "memory_mib": self.record.memory_mib})
        self.flush()
        self._call(lambda server: server.end(self.record.status))


@contextmanager
def stage_run(
    stage: str,
    item: str = "",
    *,
    record: Path,
    params: Mapping[str, Any] | None = None,
    root: Path | None = None,
    execution: Execution | None = None,
    headline: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    experiment: str = "metaspeech",
) -> Iterator[StageRun]:
    """Opens the run of a stage, and writes its record to ``record`` at the end, also when the stage failed.

    Args:
        params: the flat params that the stage reads.
        root: the project's root.
        headline: the flat params by which executions are told apart; they go on the parent run.
        inputs: path -> digest of the data that the stage reads.
    """
    root = root or Path.cwd()
    params = dict(params or {})
    execution = execution or current(root, params)
    entry = Record(
        stage=stage,
        item=item,
        execution=execution.key,
        status="FINISHED",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        run_id=None,
        params=params,
        inputs=dict(inputs or {}),
    )
    entry.tags = {"stage": stage, "item": item, **execution.tags(entry.name)}
    run = StageRun(entry, execution, tracking_uri(root))
    started = time.monotonic()
    run._start(root, experiment, headline or {})
    try:
        yield run
    except BaseException as error:
        entry.status = "FAILED" if isinstance(error, Exception) else "KILLED"
        raise
    finally:
        entry.seconds = round(time.monotonic() - started, 3)
        entry.memory_mib = peak_memory()
        run._end()
        entry.write(record)


def mirror_cached(run: StageRun, records: Iterable[Record], summary: str = "evaluate") -> list[str]:
    """Gives each recorded stage that has no finished run in this execution one, made from its record.

    Such a stage was taken from DVC's cache (tag ``dvc.cached`` = true), or ran while the server was away. The metrics
    of the stage ``summary`` also go on the parent run, for the comparison of executions.

    Returns:
        The names of the mirrored stages.
    """
    mirrored: list[str] = []

    def mirror(server: Server) -> None:
        finished = server.finished()
        for record in records:
            if record.stage == summary:
                server.log_last_values(server.parent_id, record)
            if (record.stage, record.item) in finished or record.name == run.record.name:
                continue
            record.tags |= {
                "dvc.cached": str(record.execution != run.execution.key).lower(),
                "execution": run.execution.key,
                "made_by": record.run_id or record.execution,
            }
            server.mirror(record)
            mirrored.append(record.name)

    run._call(mirror)
    return mirrored


def peak_memory() -> float | None:
    """MiB, the most that this process has held; None where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")  # Linux
        return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)
    except (OSError, ValueError, IndexError):
        return None


def _send(rows: list[Row], server: Server) -> None:
    server.log_rows(server.run_id, rows)
