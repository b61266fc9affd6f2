"""The report's tables rebuilt from MLflow alone, from a database and from a server over HTTP."""

from __future__ import annotations

import shutil
from pathlib import Path

import evaluated
import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from benchmarks.servers import MlflowServer
from metaspeech.cli import app
from metaspeech.errors import UserError
from metaspeech.evaluation.summary import Summary
from metaspeech.report.markdown import build_markdown
from metaspeech.report.results import Results
from metaspeech.report.tables import comparison_rows, result_rows
from metaspeech.tracking import Execution, Record, stage_run
from metaspeech.tracking.results import summary_of
from pipelines._stage import run_stage
from pipelines.evaluate import evaluate

REPO = Path(__file__).resolve().parents[1]
PARAMS = {
    **evaluated.PARAMS,
    "models": ["wavenet", "tacotron"],
    "adapt": evaluated.PARAMS["adapt"] | {"shots": [1, 2]},
    "evaluate": evaluated.PARAMS["evaluate"] | {"shots": [1, 2], "judges": ["mcd"]},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A project up to the evaluation."""
    folder = tmp_path_factory.mktemp("made")
    evaluated.write_inputs(folder, evaluated.params(**PARAMS))
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    shutil.copy(REPO / "dvc.yaml", folder)
    return folder


@pytest.fixture(scope="module")
def migrated(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def backend(tmp_path, migrated, monkeypatch) -> str:
    """A database of its own."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(params=["a database", "a server over HTTP"])
def store(request, tmp_path, backend):
    """The address of a tracking server."""
    if request.param == "a database":
        yield backend
        return
    server = MlflowServer(tmp_path, backend)
    server.start()
    yield server.address
    server.stop()


@pytest.fixture
def project(made, tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    for name in ("DVC_EXP_NAME", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    return folder


def parents(uri: str) -> list:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("metaspeech").experiment_id
    return client.search_runs([experiment], "tags.role = 'pipeline'", order_by=["attributes.start_time DESC"])


def test_the_main_table_comes_back_from_mlflow_alone(project, store, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    run_stage("evaluate", evaluate, [])
    results = Results(project / "results/evaluate")  # what the page is made of
    page = build_markdown(results.summary, PARAMS["report"]["title"])
    shutil.rmtree(project)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    (parent,) = parents(store)
    for named in (parent.info.run_name, parent.info.run_id, ""):
        again = summary_of(named, store)
        assert again.settings == results.summary.settings
        for system in results.summary.systems:
            rows = result_rows(again, system.name)
            assert rows == result_rows(results.summary, system.name)
            assert len(rows) == 2 + 2 * len(system.steps) or system.role == "vocoder"
            assert comparison_rows(again, system.name) == comparison_rows(results.summary, system.name)
        for name, table in results.summary.tables().items():
            pd.testing.assert_frame_equal(getattr(again, name), table)
    assert build_markdown(again, PARAMS["report"]["title"]) == page
    told = CliRunner().invoke(app, ["results", parent.info.run_name])
    assert told.exit_code == 0
    assert told.output.splitlines()[2:] == [*page.splitlines()[2:], ""]


def test_an_execution_whose_evaluation_was_cached_has_it_too(project, tmp_path, backend):
    """From its report, and without one from the run that computed it."""
    run_stage("evaluate", evaluate, [])
    expected = Summary.read(Path("results/evaluate/summary.json"))
    later = Execution("c0ffee", False, "later", "", "12345678", ())
    with stage_run("report", record=tmp_path / "report.json", execution=later) as run:
        run.mirror([Record.read(Path("results/runs/evaluate.json"))])
    pd.testing.assert_frame_equal(summary_of("later", backend).conditions, expected.conditions)

    lonely = Execution("c0ffee", False, "lonely", "", "87654321", ())
    with stage_run("report", record=tmp_path / "report.json", execution=lonely) as run:
        run.log_artifact("results/evaluate/summary.json", "summary")
    pd.testing.assert_frame_equal(summary_of("lonely", backend).conditions, expected.conditions)


def test_what_is_not_there_is_said(tmp_path, backend):
    with pytest.raises(UserError, match="no experiment 'metaspeech'"):
        summary_of("", backend)
    with stage_run("corpus", record=tmp_path / "r.json", execution=Execution("", False, "one", "", "1", ())):
        pass
    with pytest.raises(UserError, match=r"no run 'two' in 'metaspeech'. The latest are: 'one'"):
        summary_of("two", backend)
    with pytest.raises(UserError, match=r"run 'one' has no summary/summary.json: its evaluation has not ended"):
        summary_of("one", backend)
    with pytest.raises(UserError, match=r"MLflow at http://127.0.0.1:9 cannot be read"):
        summary_of("one", "http://me:secret@127.0.0.1:9")
