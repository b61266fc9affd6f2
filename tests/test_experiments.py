"""DVC experiments, sweeps and remotes with the real pipeline at its smallest, in a repository of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import sweeping
import yaml
from mlflow.tracking import MlflowClient
from sweeping import run, wait_for

from metaspeech.sweeps import study
from tools import smoke

SMALLEST = ["models=[tacotron]", "algorithms=[fomaml]", "represent.representations=[speaker_embedding]",
            "adapt.rates=[0.2]", "adapt.horizon_tasks=0"]  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A commit in which everything up to adapt has run."""
    target = tmp_path_factory.mktemp("experiments") / "project"
    smoke.copy(target)
    (target / ".dvc/config.local").unlink()  # here with git
    (target / ".gitignore").write_text((smoke.ROOT / ".gitignore").read_text())
    (target / ".dvcignore").write_text((smoke.ROOT / ".dvcignore").read_text())
    settings = [part for one in SMALLEST for part in ("--set", one)]
    in_project(target, sys.executable, "-m", "pipelines.profile", "apply", "smoke", *settings)
    in_project(target, "git", "init", "--quiet", "--initial-branch", "main")
    in_project(target, "dvc", "repro", "adapt")
    sweeping.commit(target, "start")
    return target


def in_project(project: Path, *command: str, status: int | None = 0) -> str:
    return run(project, *command, status=status, library="src")


def parents(project: Path) -> list[dict[str, str]]:
    client = MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("metaspeech")
    runs = client.search_runs([experiment.experiment_id])
    return [run.data.tags for run in runs if "mlflow.parentRunId" not in run.data.tags]


def table_command() -> list[str]:
    """That of ``make experiments``."""
    said = subprocess.run(
        ["make", "-n", "--no-print-directory", "experiments"],
        cwd=smoke.ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return shlex.split(said[said.index("dvc exp show") :].replace("\\\n", " "))  # shlex keeps such a newline


@pytest.mark.slow
def test_queued_experiments_run_two_at_a_time_and_later_edits_do_not_reach_them(project):
    """Their runs are in the project's own MLflow store, and what comes before meta_train is not made again."""
    in_project(project, "dvc", "exp", "run", "--queue", "-S", "inner.rate=0.1,0.3", "adapt")
    edited = project / "src/metaspeech/meta/baselines.py"
    before = edited.read_text()
    edited.write_text("raise SystemExit('edited after it was queued')\n")
    try:
        in_project(project, "dvc", "queue", "start", "-j", "2")
        wait_for(lambda: in_project(project, "dvc", "queue", "status").count("Success") == 2, seconds=400)
    finally:
        edited.write_text(before)
        in_project(project, "dvc", "queue", "stop", "--kill", status=None)
    names = in_project(project, "dvc", "exp", "list", "--name-only").split()
    assert len(names) == 2
    for name in names:
        log = in_project(project, "dvc", "queue", "logs", name)
        assert "Stage 'prepare' didn't change, skipping" in log
        assert "Running stage 'meta_train@tacotron-fomaml-1'" in log
    assert set(names) <= {tags.get("DVC_EXP_NAME") for tags in parents(project)}

    table = in_project(project, *table_command(), "--md")
    rows = [line for line in table.splitlines() if any(name in line for name in names)]
    assert len(rows) == 2
    assert {"0.1", "0.3"} <= {cell.strip() for row in rows for cell in row.split("|")}
    assert table.count("validation_loss") == 1
    assert len(rows[0]) < 150, "fits on a screen"

    assert "loss_2" in in_project(project, "dvc", "exp", "diff", *names)
    in_project(project, "dvc", "exp", "branch", names[0], "kept")
    assert "kept" in in_project(project, "git", "branch", "--list", "kept")
    in_project(project, "dvc", "exp", "apply", names[0], status=None)  # names what was never made, and fails by that
    assert yaml.safe_load((project / "params.yaml").read_text())["inner"]["rate"] in (0.1, 0.3)
    assert "inner.rate" in in_project(project, "dvc", "params", "diff")
    in_project(project, "git", "checkout", "--quiet", "params.yaml", "dvc.lock")


@pytest.mark.slow
def test_a_sweep_of_the_real_pipeline(project):
    """Two trials at the same time, their MLflow runs tagged, what training says of itself on the way."""
    space = project / ".metaspeech" / "real.yaml"
    space.parent.mkdir(exist_ok=True)
    space.write_text(
        "target: meta_train\n"
        "prune: true\n"
        "objectives: [{model: tacotron, metric: validation_after, direction: minimise}]\n"
        "search: {inner.rate: {low: 0.01, high: 0.5, log: true}}\n"
    )
    sweep = (sys.executable, "-m", "metaspeech.cli", "sweep", str(space), "--trials", "2", "--jobs", "2")
    forecast = in_project(project, *sweep, "--dry-run")
    assert "made once: corpus, prepare, episodes, pretrain, represent; by each trial: meta_train" in forecast
    assert "forecast: " in forecast
    output = in_project(project, *sweep)
    assert output.count(": complete, ") == 2
    folder = project / ".metaspeech/sweeps/real"
    for trial in study.load("real", folder, "").trials:
        assert trial.value > 0
        tags = [tags for tags in parents(project) if tags.get("DVC_EXP_NAME") == f"sweep-real-{trial.number}"]
        assert [(one["sweep"], one["trial"], one["trial_state"]) for one in tags] == [
            ("real", str(trial.number), "complete")
        ]
        told = [json.loads(line) for line in (folder / f"progress/{trial.number}.jsonl").read_text().splitlines()]
        assert told[-1]["item"] == ["tacotron", "fomaml", "1"]
        assert told[-1]["values"]["validation_after"] == pytest.approx(trial.value, rel=1e-4)
        assert [one["done"] for one in told] == sorted(one["done"] for one in told)
        assert "Running stage 'prepare'" not in (folder / f"logs/{trial.number}.log").read_text()


@pytest.mark.slow
def test_a_stage_told_to_stop_ends_and_says_so(project):
    """As a sweep tells it, by the file beside the one that it writes to."""
    told = project / ".metaspeech" / "told.jsonl"
    told.with_suffix(".stop").touch()
    environment = sweeping.environment("src") | {"METASPEECH_PROGRESS": str(told), "MLFLOW_TRACKING_URI": "nowhere://"}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.meta_train", "tacotron", "fomaml", "1"],
        cwd=project, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told.with_suffix(".stop").unlink()
    assert done.returncode == 2
    assert "error in meta_train tacotron fomaml 1: the sweep has stopped this trial" in done.stderr
    in_project(project, "git", "checkout", "--quiet", ".")


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_results_go_to_a_remote_and_into_a_fresh_clone(tmp_path, monkeypatch, kind):
    project = sweeping.make_project(tmp_path / "project")
    run(project, "dvc", "repro")
    if kind == "folder":
        run(project, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
        push_and_pull(project, tmp_path)
        return
    pytest.importorskip("dvc_s3", reason="the extra s3 is not installed")
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(key, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import boto3

        address = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="speech")
        run(project, "dvc", "remote", "add", "--default", "store", "s3://speech/metaspeech")
        run(project, "dvc", "remote", "modify", "store", "endpointurl", address)
        push_and_pull(project, tmp_path)
    finally:
        server.stop()


def push_and_pull(project: Path, folder: Path) -> None:
    sweeping.commit(project, "results and where they are kept")
    assert "pushed" in run(project, "dvc", "push")
    run(folder, "git", "clone", "--quiet", str(project), "clone")
    assert not (folder / "clone/results").exists()
    run(folder / "clone", "dvc", "pull")
    for name in ("data/corpus.txt", "results/adapt/tacotron-maml-1/metrics.json"):
        assert (folder / "clone" / name).read_bytes() == (project / name).read_bytes()
    assert "up to date" in run(folder / "clone", "dvc", "status")
    assert not os.path.samefile(project / "data", folder / "clone/data")
