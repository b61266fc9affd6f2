"""The way to MLflow, over the client's calls. The one importer of mlflow.

Every function here may raise, and may be called again with the same entries after it did: what is there already is not
made a second time. ``delivery.py`` decides what a failure means.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaspeech.tracking.record import Record
from metaspeech.tracking.spool import Header

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

Row = tuple[str, float, int, int]  # name, value, milliseconds since 1970, step
KIND = {"mlflow.experimentKind": "custom_model_development"}  # in the UI: machine learning
ID = "metaspeech.id"  # tag: made before the run, by which it is found when the answer to its making was lost
SETTINGS = {  # of MLflow; a user's own come first
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # delivery has its own
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
}


def tracking_uri(root: Path) -> str:
    """``MLFLOW_TRACKING_URI``, else a SQLite file in DVC's root: a queued experiment runs in a temporary copy."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{base_folder(root) / 'mlflow.db'}"


def base_folder(root: Path) -> Path:
    """Where runs of this project are kept: DVC's root, for a queued experiment that of the project it came from."""
    return Path(os.environ.get("DVC_ROOT") or root).resolve()


def connect(uri: str) -> MlflowClient:
    """A client. Loads mlflow, which takes seconds of CPU; makes a SQLite database, and talks to no server yet."""
    _make_database(uri)
    return _client(uri)


def _client(uri: str) -> MlflowClient:
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks of what we say in a line
    return MlflowClient(tracking_uri=uri)


class Server:
    """The runs of an experiment on a tracking server."""

    def __init__(self, uri: str, base: Path, experiment: str) -> None:
        """Finds or makes the experiment: one process at a time."""
        self._uri = uri
        self.client = connect(uri)
        with locked(uri):
            self.experiment_id = find_experiment(self.client, experiment, uri, base)

    def open(self, header: Header) -> tuple[str, str]:
        """The ids of the execution's parent run and of the run itself, found or made.

        One process at a time: two that meet a new execution would both make its parent run.
        """
        with locked(self._uri):
            parent_id = self._parent(header)
            own = self._by_id(header.id)
            run_id = own[0].info.run_id if own else self._interrupted(header, parent_id)
            if run_id is None:
                run_id = self._create(header.record, parent_id, header.id)
        self.log_about(run_id, header.record)
        self._log_inputs(parent_id, header.parent_inputs)
        return parent_id, run_id

    def log_about(self, run_id: str, record: Record) -> None:
        """What is known before a stage runs: params and lineage."""
        self.client.log_batch(run_id, params=_params(record.params))
        self._log_inputs(run_id, record.inputs)

    def log_rows(self, run_id: str, rows: Iterable[Row]) -> None:
        """Metrics, at most 1,000 in a call. One that is there already, with the same time, is not added again."""
        from mlflow.entities import Metric

        metrics = [Metric(_allowed(name), value, when, step) for name, value, when, step in rows]
        self.client.log_batch(run_id, metrics=metrics)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def upload(self, run_id: str, path: Path, folder: str) -> None:
        self.client.log_artifact(run_id, str(path), folder or None)

    def end(self, header: Header, parent_id: str, run_id: str, status: str, when: int) -> None:
        """The parent run takes the status of the stage that ran last. ``when``: milliseconds since 1970.

        A request that was given up as too slow may have been served after all: a run it made besides is deleted.
        """
        for other in self._by_id(header.id):
            if other.info.run_id != run_id:
                self.client.delete_run(other.info.run_id)
        for other in self._parents(header):
            if other.info.run_id != parent_id and not self._children(other.info.run_id, 1):
                self.client.delete_run(other.info.run_id)
        self.client.set_terminated(run_id, status, end_time=when)
        self.client.set_terminated(parent_id, status, end_time=when)

    def mirror(self, header: Header, parent_id: str, records: Iterable[Record]) -> None:
        """Gives each recorded stage without a finished run in this execution one, made from its record."""
        finished = {
            (run.data.tags.get("stage", ""), run.data.tags.get("item", ""))
            for run in self._children(parent_id, where="attributes.status = 'FINISHED'")
        }
        for record in records:
            if (record.stage, record.item) in finished or record.name == header.record.name:
                continue
            record.tags |= {
                "dvc.cached": str(record.execution != header.execution.key).lower(),
                "execution": header.execution.key,
                "made_by": record.run_id or record.execution,
            }
            mirrored_id = f"{header.id}-{record.name}"
            known = self._by_id(mirrored_id)
            run_id = known[0].info.run_id if known else self._create(record, parent_id, mirrored_id)
            self.log_about(run_id, record)
            began = _milliseconds(record.started)
            self.log_rows(run_id, [(name, one, began, 0) for name, one in record.metrics.items() if one is not None])
            self.client.set_terminated(run_id, record.status, end_time=began + int(1000 * record.seconds))

    def trial(self, sweep: str, number: int) -> str | None:
        """The parent run of a trial, the newest if there was a sweep of that name before."""
        found = self._search(f"tags.sweep = '{sweep}' and tags.trial = '{number}' and tags.role = 'pipeline'")
        return str(found[-1].info.run_id) if found else None

    def restored(self, name: str, params: Mapping[str, Any], when: int) -> str:
        """A parent run for a trial of which no stage ran, because DVC had the outs of all."""
        tags = {"role": "pipeline", "dvc.cached": "true"}
        made = self.client.create_run(self.experiment_id, start_time=when, tags=tags, run_name=name)
        self.client.log_batch(made.info.run_id, params=_params(params))
        self.client.set_terminated(made.info.run_id, "FINISHED", end_time=when)
        return str(made.info.run_id)

    def _log_inputs(self, run_id: str, inputs: Mapping[str, str]) -> None:
        """Data sets, told by path and digest."""
        from mlflow.entities import Dataset, DatasetInput

        datasets = [
            DatasetInput(Dataset(path, digest[:36], "local", json.dumps({"uri": path})))
            for path, digest in inputs.items()
        ]
        if datasets:
            self.client.log_inputs(run_id, datasets=datasets)

    def _parent(self, header: Header) -> str:
        known = self._parents(header)
        if known:
            run_id = str(known[0].info.run_id)
            self.client.update_run(run_id, status="RUNNING")
            return run_id
        tags = {key: value for key, value in header.parent_tags.items() if value}
        tags |= {"execution": header.execution.key, "role": "pipeline", **_source("dvc repro", header.execution.commit)}
        began = _milliseconds(header.record.started) - 1  # before its children, also where lists go by time
        made = self.client.create_run(self.experiment_id, start_time=began, tags=tags, run_name=header.parent_name)
        self.client.log_batch(made.info.run_id, params=_params(header.parent_params))
        return str(made.info.run_id)

    def _parents(self, header: Header) -> list[Run]:
        """Oldest first: all processes take the same one."""
        return self._search(f"tags.execution = '{header.execution.key}' and tags.role = 'pipeline'")

    def _by_id(self, run_id: str) -> list[Run]:
        return self._search(f"tags.`{ID}` = '{run_id}'")

    def _interrupted(self, header: Header, parent_id: str) -> str | None:
        """The run that an interrupted or failed start of the same stage left, to go on with."""
        record = header.record
        for run in self._children(
            parent_id, where=f"tags.stage = '{record.stage}' and attributes.status != 'FINISHED'"
        ):
            if run.data.tags.get("item", "") == record.item:
                self.set_tags(run.info.run_id, {ID: header.id})
                self.client.update_run(run.info.run_id, status="RUNNING")
                return str(run.info.run_id)
        return None

    def _children(self, parent_id: str, limit: int = 5000, where: str = "") -> list[Run]:
        condition = f"tags.mlflow.parentRunId = '{parent_id}'"
        return self._search(f"{condition} and {where}" if where else condition, limit)

    def _search(self, where: str, limit: int = 5000) -> list[Run]:
        order = ["attributes.start_time ASC", "attributes.run_id ASC"]
        return list(self.client.search_runs([self.experiment_id], where, order_by=order, max_results=limit))

    def _create(self, record: Record, parent_id: str, made_id: str) -> str:
        tags = {key: value for key, value in record.tags.items() if value}
        tags |= {"mlflow.parentRunId": parent_id, "role": "stage", ID: made_id}
        tags |= _source(f"pipelines.{record.stage}", record.tags.get("commit", ""))
        made = self.client.create_run(
            self.experiment_id, start_time=_milliseconds(record.started), tags=tags, run_name=record.name
        )
        return str(made.info.run_id)


def _make_database(uri: str) -> None:
    """The SQLite database of a URI, if it is not there yet: by one process, whole or absent.

    MLflow makes its tables in dozens of steps. Two processes that meet a new database would both make them, and one
    that ends between two steps leaves a database that MLflow can neither use nor mend.
    """
    if not missing_database(uri):
        return
    path = Path(uri.removeprefix("sqlite:///"))
    with locked(uri):
        if path.exists():
            return
        for left in path.parent.glob(f".{path.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            made = Path(folder).resolve() / path.name
            _client(f"sqlite:///{made}").search_experiments(max_results=1)
            os.replace(made, path)


def missing_database(uri: str) -> bool:
    """Whether this is a SQLite file that has not been made."""
    return uri.startswith("sqlite:///") and "?" not in uri and not Path(uri.removeprefix("sqlite:///")).exists()


def find_experiment(client: MlflowClient, name: str, uri: str, base: Path) -> str:
    """Its id. A server knows where its artifacts go; a local database gets a folder beside it, fixed at creation."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if not uri.startswith(("http://", "https://", "databricks")):
        folder = Path(uri.removeprefix("sqlite:///")).parent if uri.startswith("sqlite:///") else base
        location = (folder.resolve() / "mlartifacts" / name).as_uri()
    return str(client.create_experiment(name, artifact_location=location, tags=KIND))


def _params(params: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(_allowed(key), str(value)[:500]) for key, value in params.items()]


def _allowed(name: str) -> str:
    """MLflow refuses other characters in the names of metrics and params."""
    return re.sub(r"[^\w\-. /:]", "_", name)


def _source(name: str, commit: str) -> dict[str, str]:
    """What the UI says of the origin of a run."""
    tags = {"mlflow.source.name": name, "mlflow.source.type": "LOCAL", "mlflow.source.git.commit": commit}
    return {key: value for key, value in tags.items() if value}


def _milliseconds(started: str) -> int:
    return int(datetime.fromisoformat(started).timestamp() * 1000)


@contextmanager
def locked(uri: str) -> Iterator[None]:
    """One process of this user at a time talks to this server."""
    digest = hashlib.sha256(uri.encode()).hexdigest()[:12]
    with open(Path(tempfile.gettempdir()) / f"metaspeech-{os.getuid()}-{digest}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
