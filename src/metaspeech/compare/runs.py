"""Executions of the pipeline as MLflow has them."""

from __future__ import annotations

import difflib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from metaspeech.errors import UserError
from metaspeech.tracking.reasons import public, reason
from metaspeech.tracking.server import connect

if TYPE_CHECKING:
    from mlflow.entities import Run

TABLE = "tables/speakers.json"  # logged by evaluate and report
SHORTEST_ID = 6  # characters by which a run may be named


@dataclass(frozen=True)
class Executed:
    """One execution.

    Attributes:
        params: of the parent run and, where they agree, of its stages.
        data: path -> digest of what the evaluation read.
        tasks: digest of the test tasks; empty where that was not logged.
        speakers: a row a condition (model, algorithm, shots, step) and speaker, with a mean for each metric.
    """

    name: str
    run_id: str
    commit: str
    dirty: bool
    params: dict[str, str]
    data: dict[str, str]
    tasks: str
    speakers: pd.DataFrame


class Store:
    """The executions on a tracking server."""

    def __init__(self, uri: str) -> None:
        """Raises UserError when it cannot be reached."""
        self._uri = uri
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
            raise UserError(
                f"{uri.removeprefix('sqlite:///')}: no such file, so there are no runs. Make some: dvc repro"
            )
        try:
            self._client = connect(uri)
            self._experiments = [one.experiment_id for one in self._client.search_experiments()]
            self._parents = self._search("tags.role = 'pipeline'")
        except Exception as error:
            raise UserError(f"MLflow at {public(uri)}: {reason(error)}") from None

    def read(self, names: Sequence[str]) -> list[Executed]:
        """See :meth:`find`; all are found before the first is read."""
        return [self._read(run) for run in [self.find(name) for name in names]]

    def find(self, name: str) -> Run:
        """By the name of a parent run, of a DVC experiment, by an execution's key or by (the beginning of) an id of
        any of its runs. Raises UserError when there is none, or more than one."""
        found = [run for run in self._parents if name in _names(run)]
        if not found and len(name) >= SHORTEST_ID:
            found = [run for run in self._parents if run.info.run_id.startswith(name)]
        if not found and len(name) >= SHORTEST_ID:
            found = self._parents_of_child(name)
        if not found:
            raise UserError(f"no run is called '{name}'. {self._near(name)}")
        if len(found) > 1:
            listed = "\n".join(f"  {run.info.run_id}  {_when(run)}  {run.info.run_name}" for run in found)
            raise UserError(
                f"{len(found)} runs are called '{name}'. Name one by its id (a few characters do):\n{listed}"
            )
        return found[0]

    def _parents_of_child(self, beginning: str) -> list[Run]:
        children = [run for run in self._search("tags.role = 'stage'") if run.info.run_id.startswith(beginning)]
        ids = {run.data.tags.get("mlflow.parentRunId") for run in children}
        return [run for run in self._parents if run.info.run_id in ids]

    def _near(self, name: str) -> str:
        known = {one for run in self._parents for one in _names(run)}
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        if near:
            return f"Did you mean {' or '.join(near)}?"
        latest = [run.info.run_name for run in reversed(self._parents)][:5]
        return f"The latest are: {', '.join(latest)}" if latest else f"There are no runs at {public(self._uri)}"

    def _read(self, parent: Run) -> Executed:
        """Raises UserError when it has not been evaluated."""
        children = self._search(f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
        tags = parent.data.tags
        evaluated = [run for run in children if run.data.tags.get("stage") == "evaluate"]
        return Executed(
            name=parent.info.run_name,
            run_id=parent.info.run_id,
            commit=tags.get("commit", ""),
            dirty=tags.get("dirty") == "true",
            params=_params(parent, children),
            data={name: digest for run in evaluated for name, digest in _inputs(run)},
            tasks=next((run.data.tags["tasks"] for run in evaluated if "tasks" in run.data.tags), ""),
            speakers=self._speakers(parent, children),
        )

    def _speakers(self, parent: Run, children: Sequence[Run]) -> pd.DataFrame:
        for stage in ("evaluate", "report"):
            for run in reversed([one for one in children if one.data.tags.get("stage") == stage]):
                if any(one.path == TABLE for one in self._client.list_artifacts(run.info.run_id, "tables")):
                    return self._table(run.info.run_id)
        stages = {run.data.tags.get("stage") for run in children}
        missing = "its table of speakers is not there" if "evaluate" in stages else "it has not been evaluated"
        raise UserError(
            f"{parent.info.run_name}: {missing}, so there is nothing to compare. Run it to the end: "
            f"{tags if (tags := parent.data.tags.get('reproduce')) else 'dvc repro'}"
        )

    def _table(self, run_id: str) -> pd.DataFrame:
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = Path(self._client.download_artifacts(run_id, TABLE, folder))
                content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                return pd.DataFrame(content["data"], columns=content["columns"])
            except Exception as error:
                raise UserError(f"{TABLE} of run {run_id} cannot be read: {reason(error)}") from None

    def _search(self, where: str) -> list[Run]:
        """Oldest first."""
        found: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs(
                self._experiments, where, order_by=["attributes.start_time ASC"], max_results=1000, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found


def _params(parent: Run, children: Sequence[Run]) -> dict[str, str]:
    """What stages disagree on is that of their items: each seed trains with its own."""
    values: dict[str, set[str]] = {}
    for run in children:
        for key, value in run.data.params.items():
            values.setdefault(key, set()).add(value)
    return {key: next(iter(one)) for key, one in values.items() if len(one) == 1} | parent.data.params


def _inputs(run: Run) -> list[tuple[str, str]]:
    logged = run.inputs.dataset_inputs if run.inputs else []
    return [(one.dataset.name, one.dataset.digest) for one in logged]


def _names(run: Run) -> set[str]:
    tags = run.data.tags
    names = {run.info.run_name, tags.get("DVC_EXP_NAME", ""), tags.get("execution", ""), run.info.run_id}
    return {one for one in names if one}


def _when(run: Run) -> str:
    return datetime.fromtimestamp(run.info.start_time / 1000).strftime("%Y-%m-%d %H:%M")
