"""The way to MLflow, over the client's calls. The one importer of mlflow.

Every function here may raise: :class:`~metaspeech.tracking.run.StageRun` decides what a failure means.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaspeech.tracking.execution import Execution
from metaspeech.tracking.record import Record

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

Row = tuple[str, float, int, int]  # name, value, milliseconds since 1970, step
SETTINGS = {  # of MLflow; a user's own come first
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default keeps a stage waiting for minutes on a server that is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


def tracking_uri(root: Path) -> str:
    """``MLFLOW_TRACKING_URI``, else a SQLite file in DVC's root: a queued experiment runs in a temporary copy."""
    default = Path(os.environ.get("DVC_ROOT") or root).resolve() / "mlflow.db"
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{default}"


class Server:
    """The runs of one stage and of its execution on a tracking server."""

    def __init__(
        self, uri: str, root: Path, experiment: str, execution: Execution, record: Record, headline: Mapping[str, Any]
    ) -> None:
        """Finds or makes the experiment, the parent run and the stage's run.

        One process at a time: two that meet a new database, or a new execution, would both create its tables or its
        parent run.
        """
        with _lock(uri):
            self.client = _client(uri)
            self.experiment_id = _experiment(self.client, experiment, uri, root)
            self.parent_id = self._parent(execution, headline)
            self.run_id = self._interrupted(record) or self._create(record)
        self.log_about(self.run_id, record)

    def log_about(self, run_id: str, record: Record) -> None:
        """What is known before a stage runs: params and lineage."""
        from mlflow.entities import Dataset, DatasetInput

        self.client.log_batch(run_id, params=_params(record.params))
        inputs = [
            DatasetInput(Dataset(path, digest[:36], "local", json.dumps({"uri": path})))
            for path, digest in record.inputs.items()
        ]
        if inputs:
            self.client.log_inputs(run_id, datasets=inputs)

    def log_rows(self, run_id: str, rows: Iterable[Row]) -> None:
        """Metrics, at most 1,000 in a call."""
        from mlflow.entities import Metric

        metrics = [Metric(_allowed(name), value, when, step) for name, value, when, step in rows]
        self.client.log_batch(run_id, metrics=metrics)

    def log_last_values(self, run_id: str, record: Record) -> None:
        """The metrics that a record keeps."""
        when = int(datetime.fromisoformat(record.started).timestamp() * 1000)
        self.log_rows(run_id, [(name, value, when, 0) for name, value in record.metrics.items() if value is not None])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def end(self, status: str) -> None:
        """The parent run takes the status of the stage that ran last."""
        self.client.set_terminated(self.run_id, status)
        self.client.set_terminated(self.parent_id, status)

    def finished(self) -> set[tuple[str, str]]:
        """(stage, item) of the finished runs of this execution."""
        runs = self._children("attributes.status = 'FINISHED'")
        return {(run.data.tags.get("stage", ""), run.data.tags.get("item", "")) for run in runs}

    def mirror(self, record: Record) -> None:
        """A run made from the record of a stage that did not run in this execution."""
        run_id = self._create(record)
        self.log_about(run_id, record)
        self.log_last_values(run_id, record)
        self.client.set_terminated(run_id, record.status)

    def _parent(self, execution: Execution, headline: Mapping[str, Any]) -> str:
        known = self.client.search_runs(
            [self.experiment_id],
            f"tags.execution = '{execution.key}' and tags.role = 'pipeline'",
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        if known:
            run_id = str(known[0].info.run_id)
            self.client.update_run(run_id, status="RUNNING")
            return run_id
        tags = {**execution.tags(""), "role": "pipeline"}
        made = self.client.create_run(self.experiment_id, run_name=execution.experiment or execution.key, tags=tags)
        self.client.log_batch(made.info.run_id, params=_params(headline))
        return str(made.info.run_id)

    def _interrupted(self, record: Record) -> str | None:
        """The run that an interrupted or failed start of the same stage left, to go on with."""
        for run in self._children(f"tags.stage = '{record.stage}' and attributes.status != 'FINISHED'"):
            if run.data.tags.get("item", "") == record.item:
                self.client.update_run(run.info.run_id, status="RUNNING")
                return str(run.info.run_id)
        return None

    def _children(self, where: str) -> list[Run]:
        return list(
            self.client.search_runs(
                [self.experiment_id], f"tags.mlflow.parentRunId = '{self.parent_id}' and {where}", max_results=5000
            )
        )

    def _create(self, record: Record) -> str:
        tags = {key: value for key, value in record.tags.items() if value}
        tags |= {"mlflow.parentRunId": self.parent_id, "role": "stage"}
        return str(self.client.create_run(self.experiment_id, run_name=record.name, tags=tags).info.run_id)


def _client(uri: str) -> MlflowClient:
    for key, value in SETTINGS.items():
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


def _params(params: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(_allowed(key), str(value)[:500]) for key, value in params.items()]


def _allowed(name: str) -> str:
    """MLflow refuses other characters in the names of metrics and params."""
    return re.sub(r"[^\w\-. /:]", "_", name)


@contextmanager
def _lock(uri: str) -> Iterator[None]:
    digest = hashlib.sha256(uri.encode()).hexdigest()[:12]
    with open(Path(tempfile.gettempdir()) / f"metaspeech-{os.getuid()}-{digest}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
