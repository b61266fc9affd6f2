"""Runs in MLflow: one parent for a pipeline execution, one child for each of its stages. The one importer of mlflow.

No failure of the tracking server stops a stage: it is reported once, and the stage goes on with its record only.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaspeech.tracking.execution import Execution, current
from metaspeech.tracking.record import Record

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

BATCH = 500  # metrics in a request
FLUSH_SECONDS = 10.0
QUIET = {  # settings of MLflow; a user's own come first
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default keeps a stage waiting for minutes on a server that is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


def tracking_uri(root: Path) -> str:
    """``MLFLOW_TRACKING_URI``, else a SQLite file in DVC's root: a queued experiment runs in a temporary copy."""
    default = Path(os.environ.get("DVC_ROOT") or root).resolve() / "mlflow.db"
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{default}"


class StageRun:
    """The run of one stage. Every method is safe to call when there is no tracking server."""

    def __init__(self, record: Record, execution: Execution, uri: str) -> None:
        self.record = record
        self.execution = execution
        self.uri = uri
        self.parent_id: str | None = None
        self._client: MlflowClient | None = None
        self._buffer: list[tuple[str, float, int, int]] = []  # name, value, milliseconds, step
        self._flushed = time.monotonic()

    @property
    def run_id(self) -> str | None:
        """Of MLflow; None when the server could not be reached."""
        return self.record.run_id

    def log_metrics(self, values: Mapping[str, float | int | None], step: int | None = None) -> None:
        """Buffers numbers; they reach the server in batches, at the latest some seconds later or at the end."""
        now = int(time.time() * 1000)
        for name, value in values.items():
            if value is None:
                continue
            self.record.metrics[name] = float(value)
            if self._client is not None:
                self._buffer.append((_allowed(name), float(value), now, step or 0))
        if len(self._buffer) >= BATCH or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Sends what is buffered."""
        while self._buffer:
            part = self._buffer[:BATCH]
            del self._buffer[:BATCH]
            self._call(partial(_send, part))
        self._flushed = time.monotonic()

    def log_figure(self, figure: Figure, name: str) -> None:
        """A matplotlib figure as ``figures/<name>.png`` (another suffix is kept)."""
        file = name if Path(name).suffix else f"{name}.png"
        self._call(lambda client, run_id: client.log_figure(run_id, figure, f"figures/{file}"))

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """A table that MLflow can show, as ``tables/<name>.json``."""
        self._call(lambda client, run_id: client.log_table(run_id, table, f"tables/{name}.json"))

    def log_artifact(self, path: str | Path, folder: str = "") -> None:
        """A file, or a folder with what it holds, under ``folder`` of the run's artifacts."""
        log = "log_artifacts" if Path(path).is_dir() else "log_artifact"
        self._call(lambda client, run_id: getattr(client, log)(run_id, str(path), folder or None))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags of the run, kept in the record too."""
        self.record.tags.update(tags)
        self._call(lambda client, run_id: client.log_batch(run_id, tags=_tags(tags)))

    def _call(self, action: Callable[[MlflowClient, str], Any]) -> None:
        """Runs ``action`` on the server; its first failure is reported and ends tracking for this stage."""
        if self._client is None or self.run_id is None:
            return
        try:
            action(self._client, self.run_id)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._client = None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        print(
            f"warning: MLflow at {_without_password(self.uri)} cannot be used: {reason}. The stage goes on without "
            "tracking; its results are not affected.",
            file=sys.stderr,
            flush=True,
        )

    def _start(self, experiment: str, root: Path, headline: Mapping[str, Any]) -> None:
        try:
            with _one_at_a_time(self.uri):
                self._client = _connect(self.uri)
                experiment_id = _experiment(self._client, experiment, self.uri, root)
                self.parent_id = _parent(self._client, experiment_id, self.execution, headline)
                self.record.run_id = _child(self._client, experiment_id, self.parent_id, self.record)
        except Exception as error:
            self._give_up(error)
        self._call(lambda client, run_id: client.log_batch(run_id, params=_parameters(self.record.params)))
        self._call(lambda client, run_id: client.log_inputs(run_id, datasets=_datasets(self.record.inputs)))

    def _end(self) -> None:
        self.log_metrics({"seconds": self.record.seconds})
        self.flush()
        self._call(lambda client, run_id: client.set_terminated(run_id, self.record.status))
        self._call(lambda client, _: client.set_terminated(str(self.parent_id), self.record.status))
        if self._client is None:
            self.record.run_id = None  # incomplete there: to be mirrored from the record


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
    run._start(experiment, root, headline or {})
    try:
        yield run
    except BaseException as error:
        entry.status = "FAILED" if isinstance(error, Exception) else "KILLED"
        raise
    finally:
        entry.seconds = round(time.monotonic() - started, 3)
        run._end()
        entry.write(record)


def mirror_cached(run: StageRun, records: Iterable[Path], summary: str = "evaluate") -> list[str]:
    """Gives each recorded stage that has no finished run in this execution one, made from its record.

    Such a stage was taken from DVC's cache (tag ``dvc.cached`` = true), or ran while the server was away. The metrics
    of the stage ``summary`` also go on the parent run, for the comparison of executions.

    Returns:
        The names of the mirrored stages.
    """
    mirrored: list[str] = []

    def mirror(client: MlflowClient, run_id: str) -> None:
        assert run.parent_id is not None
        experiment_id = client.get_run(run_id).info.experiment_id
        present = _children(client, experiment_id, run.parent_id, "attributes.status = 'FINISHED'")
        finished = {(one.data.tags.get("stage"), one.data.tags.get("item", "")) for one in present}
        for record in map(Record.read, records):
            if record.stage == summary:
                client.log_batch(run.parent_id, metrics=_last_values(record))
            if (record.stage, record.item) in finished or record.name == run.record.name:
                continue
            elsewhere = record.execution != run.execution.key
            record.tags |= {
                "dvc.cached": str(elsewhere).lower(),
                "execution": run.execution.key,
                "made_by": record.run_id or record.execution,
            }
            mirror_id = _create(client, experiment_id, run.parent_id, record)
            client.log_batch(mirror_id, metrics=_last_values(record), params=_parameters(record.params))
            client.log_inputs(mirror_id, datasets=_datasets(record.inputs))
            client.set_terminated(mirror_id, record.status)
            mirrored.append(record.name)

    run._call(mirror)
    return mirrored


def _connect(uri: str) -> MlflowClient:
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _experiment(client: MlflowClient, name: str, uri: str, root: Path) -> str:
    """Its id. A server knows where its artifacts go; a local database gets a folder beside it, fixed at creation."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if not uri.startswith(("http://", "https://", "databricks")):
        folder = Path(uri.removeprefix("sqlite:///")).parent if uri.startswith("sqlite:///") else root
        location = (folder.resolve() / "mlartifacts" / name).as_uri()
    return str(client.create_experiment(name, artifact_location=location))


def _parent(client: MlflowClient, experiment_id: str, execution: Execution, headline: Mapping[str, Any]) -> str:
    known = client.search_runs(
        [experiment_id],
        f"tags.execution = '{execution.key}' and tags.role = 'pipeline'",
        order_by=["attributes.start_time ASC"],
        max_results=1,
    )
    if known:
        client.update_run(known[0].info.run_id, status="RUNNING")
        return str(known[0].info.run_id)
    tags = {**execution.tags(""), "role": "pipeline"}
    tags["reproduce"] = tags["reproduce"].rstrip()
    made = client.create_run(experiment_id, run_name=execution.experiment or execution.key, tags=tags)
    client.log_batch(made.info.run_id, params=_parameters(headline))
    return str(made.info.run_id)


def _child(client: MlflowClient, experiment_id: str, parent_id: str, record: Record) -> str:
    """An interrupted run of the same stage goes on; otherwise a new one."""
    where = f"tags.stage = '{record.stage}' and attributes.status != 'FINISHED'"
    for run in _children(client, experiment_id, parent_id, where):
        if run.data.tags.get("item", "") == record.item:
            client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)
    return _create(client, experiment_id, parent_id, record)


def _children(client: MlflowClient, experiment_id: str, parent_id: str, where: str) -> list[Run]:
    return list(client.search_runs([experiment_id], f"tags.mlflow.parentRunId = '{parent_id}' and {where}"))


def _create(client: MlflowClient, experiment_id: str, parent_id: str, record: Record) -> str:
    tags = {key: value for key, value in record.tags.items() if value}
    tags |= {"mlflow.parentRunId": parent_id, "role": "stage"}
    return str(client.create_run(experiment_id, run_name=record.name, tags=tags).info.run_id)


def _send(rows: list[tuple[str, float, int, int]], client: MlflowClient, run_id: str) -> None:
    client.log_batch(run_id, metrics=_metrics(rows))


def _metrics(rows: Iterable[tuple[str, float, int, int]]) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(*row) for row in rows]


def _last_values(record: Record) -> list[Any]:
    when = int(datetime.fromisoformat(record.started).timestamp() * 1000)
    return _metrics((_allowed(key), value, when, 0) for key, value in record.metrics.items() if value is not None)


def _parameters(params: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(_allowed(key), str(value)[:500]) for key, value in params.items()]


def _tags(tags: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(key, str(value)) for key, value in tags.items()]


def _datasets(inputs: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import Dataset, DatasetInput

    return [
        DatasetInput(Dataset(path, digest[:36], "local", f'{{"uri": "{path}"}}')) for path, digest in inputs.items()
    ]


def _allowed(name: str) -> str:
    """MLflow refuses other characters in the names of metrics and params."""
    return re.sub(r"[^\w\-. /:]", "_", name)


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Two processes that meet a new database or execution would both create its tables or its parent run."""
    digest = hashlib.sha256(uri.encode()).hexdigest()[:12]
    with open(Path(tempfile.gettempdir()) / f"metaspeech-{os.getuid()}-{digest}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
