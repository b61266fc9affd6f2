"""Results of an execution read back from MLflow alone: no file of the project is needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from metaspeech.errors import UserError
from metaspeech.evaluation.summary import Summary
from metaspeech.tracking.reasons import public, reason
from metaspeech.tracking.server import connect

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

FOLDER, FILE = "summary", "summary.json"  # where evaluate and report log the summary
STAGES = ("evaluate", "report")
MOST = 50_000  # runs looked through


def summary_of(run: str, uri: str, experiment: str = "metaspeech") -> Summary:
    """What the evaluation of an execution found.

    An execution that took its evaluation from DVC's cache has it from its own report, or else from the run that
    computed it, when that is on the same server.

    Args:
        run: name or id of the parent run; of several with the same name the latest. Empty: the latest that has results.
        uri: of the tracking server.
        experiment: its name there.

    Raises:
        UserError: the server cannot be reached, or has no such run, or no results of it.
    """
    try:
        client = connect(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise UserError(f"{public(uri)}: no experiment '{experiment}'. Check tracking.experiment and the address")
        parents = _search(client, found.experiment_id, "tags.role = 'pipeline'")
        chosen = [one for one in parents if run in ("", one.info.run_id, one.info.run_name)]
        if not chosen:
            names = ", ".join(f"'{one.info.run_name}'" for one in parents[:5])
            raise UserError(f"{public(uri)}: no run '{run}' in '{experiment}'. The latest are: {names or 'none'}")
        for parent in chosen if run == "" else chosen[:1]:
            for run_id in _sources(client, parent):
                summary = _summary(client, run_id)
                if summary is not None:
                    return summary
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"MLflow at {public(uri)} cannot be read: {reason(error)}") from None
    raise UserError(
        f"{public(uri)}: run '{chosen[0].info.run_name}' has no {FOLDER}/{FILE}: its evaluation has not ended, or the "
        "run that computed it is on another server. Make it: dvc repro --force evaluate"
    )


def _sources(client: MlflowClient, parent: Run) -> Iterator[str]:
    """Ids of the runs that may hold the summary: the latest of this execution, then those that a copy was made from."""
    where = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    runs = [
        one
        for one in _search(client, parent.info.experiment_id, where)
        if one.data.tags.get("stage") in STAGES and one.info.status == "FINISHED"
    ]
    yield from (one.info.run_id for one in runs)
    made_by = {one.data.tags.get("made_by", "") for one in runs if one.data.tags.get("stage") == STAGES[0]}
    known = {one.info.run_id for one in _search(client, parent.info.experiment_id, "tags.role = 'stage'")}
    yield from sorted(made_by & known)


def _summary(client: MlflowClient, run_id: str) -> Summary | None:
    """None where the run has none."""
    path = f"{FOLDER}/{FILE}"
    if path not in {file.path for file in client.list_artifacts(run_id, FOLDER)}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return Summary.read(Path(client.download_artifacts(run_id, path, folder)))


def _search(client: MlflowClient, experiment_id: str, where: str) -> list[Run]:
    """The latest first."""
    found: list[Run] = []
    token = None
    while len(found) < MOST:
        page = client.search_runs(
            [experiment_id], where, order_by=["attributes.start_time DESC"], max_results=1000, page_token=token
        )
        found += page
        token = page.token
        if not token:
            break
    return found
