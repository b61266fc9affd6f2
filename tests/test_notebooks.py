"""The notebooks run from beginning to end, on a small project and where there is nothing yet."""

from __future__ import annotations

import os
from pathlib import Path

import evaluated
import jupytext
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from metaspeech.tracking import stage_run
from pipelines.evaluate import evaluate

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Data, tasks, an evaluation, and runs of two executions in MLflow."""
    folder = tmp_path_factory.mktemp("project")
    before = Path.cwd()
    os.chdir(folder)
    try:
        settings = evaluated.params(
            evaluate=evaluated.PARAMS["evaluate"] | {"judges": ["mcd", "similarity", "phonemes"]}
        )
        evaluated.write_inputs(folder, settings)
        evaluate(evaluated.stage("evaluate", settings))
        (folder / "dvc.yaml").touch()  # by which a notebook knows the project
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def settled(monkeypatch):
    """The sources of this checkout, and no other tracking server."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT}")
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)


def test_every_notebook_is_tested_here():
    tested = {"results", "corpus_and_tasks", "sinusoid", "mlflow_curves", "listening"}
    assert {path.stem for path in NOTEBOOKS.glob("*.py")} == tested


def test_results(project, settled):
    done = run("results", project)
    assert pictures(done) == 3
    assert "measurably ahead" in printed(done)


def test_results_say_what_to_run_without_any(tmp_path, settled):
    with pytest.raises(CellExecutionError, match="make repro"):
        run("results", tmp_path)


def test_corpus_and_tasks(project, settled):
    done = run("corpus_and_tasks", project)
    assert pictures(done) == 2
    assert "0 of them are in a task that is evaluated" in printed(done)
    assert shown(done, "<audio") == 1


def test_listening(project, settled):
    done = run("listening", project)
    assert pictures(done) == 1
    assert "MAML and Transfer after 1 steps" in printed(done)
    assert shown(done, "<audio") == 2 * 5  # two speakers: the recording, two algorithms at two steps


def test_mlflow_curves(project, settled, monkeypatch):
    losses = {"one": {0: 2.0, 1: 1.5}, "two": {0: 1.9, 1: 1.25}}
    for name, curve in losses.items():
        monkeypatch.setenv("DVC_EXP_NAME", name)
        for algorithm in ("transfer", "maml"):
            with stage_run(
                "adapt", f"tacotron-{algorithm}-1", record=project / f"runs/{name}-{algorithm}.json", root=project
            ) as track:
                for step, loss in curve.items():
                    track.log_metrics({"query_loss": loss}, step=step)
    monkeypatch.delenv("DVC_EXP_NAME")
    done = run("mlflow_curves", project)
    assert pictures(done) == 1
    tables = [output["data"]["text/html"] for output in outputs(done) if "text/html" in output.get("data", {})]
    assert "1.25" in tables[1]
    assert "-0.25" in tables[2], "the last execution against the one before"


@pytest.mark.parametrize("name", ["corpus_and_tasks", "mlflow_curves", "listening"])
def test_without_anything_a_sentence_says_so(name, tmp_path, settled):
    done = run(name, tmp_path)
    assert "The rest has nothing to show." in printed(done)
    assert pictures(done) == 0


def test_sinusoid(settled, tmp_path):
    """With a fifth of the outer steps: what is meta-trained comes further in ten steps all the same."""
    notebook = jupytext.read(NOTEBOOKS / "sinusoid.py")
    for cell in notebook.cells:
        for long, short in (('"transfer", 500', '"transfer", 100'), ('"reptile", 1000', '"reptile", 300'),
                            ('"maml", 500', '"maml", 200')):  # fmt: skip
            cell.source = cell.source.replace(f"Recipe({long}", f"Recipe({short}")
    assert sum("Recipe(" in cell.source and ", 100, 1)" in cell.source for cell in notebook.cells) == 1
    done = execute(notebook, tmp_path)
    assert pictures(done) == 2
    errors = {line.split()[0]: [float(one) for one in line.split()[1:7]] for line in printed(done).splitlines()
              if line.startswith(("Transfer", "Reptile", "MAML"))}  # fmt: skip
    assert errors["MAML"][-1] < errors["MAML"][0]
    assert errors["MAML"][-1] < errors["Transfer"][-1]


def run(name, folder):
    return execute(jupytext.read(NOTEBOOKS / f"{name}.py"), folder)


def execute(notebook, folder):
    resources = {"metadata": {"path": str(folder)}}
    return NotebookClient(notebook, timeout=300, resources=resources, kernel_name="python3").execute()


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(notebook):
    return "".join(output.get("text", "") for output in outputs(notebook) if output.get("name") == "stdout")


def pictures(notebook):
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def shown(notebook, tag):
    return sum(tag in output.get("data", {}).get("text/html", "") for output in outputs(notebook))
