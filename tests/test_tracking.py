"""Runs in MLflow, against a real SQLite database and a real server; and what happens without one."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow.tracking import MlflowClient

from metaspeech.errors import Stopped
from metaspeech.tracking import Execution, Record, current, stage_run
from metaspeech.tracking.lineage import upstream

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _no_outer_settings(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)


def execution(name: str = "one") -> Execution:
    return Execution("c0ffee", False, name, "", "12345678", ())


def runs(uri: str) -> list:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("metaspeech")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def uri(root: Path) -> str:
    return f"sqlite:///{root}/mlflow.db"


def test_a_stage_is_a_child_run_with_all_it_logged(root):
    audio = root / "voice.wav"
    audio.write_bytes(b"RIFF")
    with stage_run(
        "adapt",
        "tacotron-maml",
        record=root / "runs" / "adapt.json",
        params={"inner.rate": 0.2},
        root=root,
        execution=execution(),
        headline={"seed": 1},
        inputs={"data/prepared": "0123456789abcdef0123456789abcdef.dir"},
    ) as run:
        for step in range(1200):  # more than MLflow takes in one request
            run.log_metrics({"loss": 1 / (step + 1)}, step=step)
        run.log_metrics({"phoneme error (%)": 12.5, "absent": None})
        run.log_figure(Figure(), "curves")
        run.log_table(pd.DataFrame({"speaker": ["p1"], "similarity": [0.9]}), "speakers")
        run.log_artifact(audio, "audio")
        run.set_tags({"judge": "encoder"})

    client = MlflowClient(tracking_uri=uri(root))
    parent, child = runs(uri(root))
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.info.run_name, child.info.run_name) == ("one", "adapt@tacotron-maml")
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert parent.data.params == {"seed": "1"}
    assert child.data.params == {"inner.rate": "0.2"}
    history = client.get_metric_history(child.info.run_id, "loss")
    assert [one.step for one in history] == list(range(1200))
    assert child.data.metrics["phoneme error ___"] == 12.5
    assert {"seconds", "loss"} <= set(child.data.metrics)
    assert "absent" not in child.data.metrics
    assert child.data.tags | {"judge": "encoder", "commit": "c0ffee", "dirty": "false"} == child.data.tags
    assert child.data.tags["reproduce"] == "dvc exp apply one && dvc repro adapt@tacotron-maml"
    assert [one.dataset.name for one in child.inputs.dataset_inputs] == ["data/prepared"]
    assert child.inputs.dataset_inputs[0].dataset.digest.startswith("0123456789abcdef")
    artifacts = root / "mlartifacts" / "metaspeech" / child.info.run_id / "artifacts"
    assert sorted(str(path.relative_to(artifacts)) for path in artifacts.rglob("*.*")) == [
        "audio/voice.wav",
        "figures/curves.png",
        "tables/speakers.json",
    ]


def test_stages_of_an_execution_share_its_parent_and_other_executions_do_not(root):
    for name, stage in (("one", "corpus"), ("one", "prepare"), ("two", "corpus")):
        with stage_run(stage, record=root / f"{stage}.json", root=root, execution=execution(name)):
            pass
    by_name = [(run.info.run_name, run.data.tags["execution"]) for run in runs(uri(root))]
    assert sorted(by_name) == [
        ("corpus", "one-12345678"),
        ("corpus", "two-12345678"),
        ("one", "one-12345678"),
        ("prepare", "one-12345678"),
        ("two", "two-12345678"),
    ]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (Stopped, "KILLED")]
)
def test_a_stage_that_ends_early_says_so_and_its_next_start_goes_on_in_the_same_run(root, error, status):
    record = root / "runs" / "pretrain.json"
    ended = stage_run("pretrain", record=record, root=root, execution=execution())
    run = ended.__enter__()
    run.log_metrics({"loss": 3.0}, step=1)
    ended.__exit__(error, error(), None)
    assert {one.info.status for one in runs(uri(root))} == {status}
    assert Record.read(record).status == status
    assert Record.read(record).metrics["loss"] == 3.0

    with stage_run("pretrain", record=record, root=root, execution=execution()) as again:
        again.log_metrics({"loss": 2.0}, step=2)
    assert again.run_id == run.run_id
    assert {one.info.status for one in runs(uri(root))} == {"FINISHED"}
    history = MlflowClient(tracking_uri=uri(root)).get_metric_history(again.run_id, "loss")
    assert [(one.step, one.value) for one in history] == [(1, 3.0), (2, 2.0)]


def test_cached_stages_are_mirrored_once_with_their_values(root):
    names = {"corpus": "", "meta_train": "tacotron-maml", "evaluate": ""}
    for stage, item in names.items():
        record = root / f"{stage}.json"
        with stage_run(
            stage, item, record=record, params={"a": 1}, root=root, execution=execution("one"), inputs={"data": "abc"}
        ) as run:
            run.log_metrics({"loss": 0.5, "undefined": math.nan})
    with stage_run("evaluate", record=root / "evaluate.json", root=root, execution=execution("two")) as run:
        run.log_metrics({"similarity": 0.8})  # this one ran again
    records = [Record.read(root / f"{stage}.json") for stage in names]
    with stage_run("report", record=root / "report.json", root=root, execution=execution("two")) as run:
        run.mirror(records)
        run.mirror(records)

    second = {one.info.run_name: one for one in runs(uri(root)) if one.data.tags["execution"] == "two-12345678"}
    assert set(second) == {"two", "corpus", "meta_train@tacotron-maml", "evaluate", "report"}
    mirrored = second["meta_train@tacotron-maml"]
    assert mirrored.data.tags["dvc.cached"] == "true"
    assert mirrored.data.tags["made_by"] == Record.read(root / "meta_train.json").run_id
    assert mirrored.data.metrics["loss"] == 0.5
    assert mirrored.data.params == {"a": "1"}
    assert [one.dataset.name for one in mirrored.inputs.dataset_inputs] == ["data"]
    assert "dvc.cached" not in second["evaluate"].data.tags


def test_processes_that_meet_a_new_database_make_one_parent(tmp_path):
    code = (
        "import sys; from pathlib import Path; from metaspeech.tracking import *\n"
        "root, item = Path(sys.argv[1]), sys.argv[2]\n"
        "with stage_run('adapt', item, record=root / f'{item}.json', root=root, "
        "execution=Execution('', False, 'one', '', 'x', ())) as run:\n"
        "    run.log_metrics({'loss': 1.0})\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen([*command, str(item)], cwd=REPO / "src") for item in range(3)]
    assert [process.wait(timeout=120) for process in started] == [0, 0, 0]
    names = [run.info.run_name for run in runs(uri(tmp_path))]
    assert sorted(names) == ["adapt@0", "adapt@1", "adapt@2", "one"]


def test_killed_while_it_makes_the_database_it_leaves_none_that_is_half_made(tmp_path):
    code = (
        "import sys; from pathlib import Path; from metaspeech.tracking import *\n"
        "root = Path(sys.argv[1])\n"
        "with stage_run('adapt', 'killed', record=root / 'killed.json', root=root, "
        "execution=Execution('', False, 'one', '', 'x', ())) as run:\n"
        "    run.log_metrics({'loss': 1.0})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=REPO / "src")
    making = lambda: [one for one in tmp_path.glob(".mlflow.db-*/mlflow.db") if one.stat().st_size > 0]  # noqa: E731
    deadline = time.monotonic() + 60
    while not making():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (tmp_path / "mlflow.db").exists()
    with stage_run("corpus", record=tmp_path / "corpus.json", root=tmp_path, execution=execution()):
        pass
    assert {"corpus", "adapt@killed"} <= {run.info.run_name for run in runs(uri(tmp_path))}
    assert not list(tmp_path.glob(".mlflow.db-*"))


def test_a_server_over_http_gets_runs_and_artifacts(root, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", uri(root), "--artifacts-destination", str(root / "served")]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *options, *store],
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"{address}/health", server)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with stage_run("corpus", record=root / "corpus.json", root=root, execution=execution()) as run:
            run.log_metrics({"utterances": 5})
            run.log_artifact(root / "mlflow.db", "files")
        child = MlflowClient(tracking_uri=address).get_run(run.run_id)
        assert child.info.status == "FINISHED"
        assert child.data.metrics["utterances"] == 5
        assert [path.name for path in (root / "served").rglob("files/*")] == ["mlflow.db"]
        assert not (root / "mlartifacts").exists()
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(address: str, server: subprocess.Popen) -> None:
    for _ in range(240):
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the server did not start in two minutes")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A git checkout with one commit."""
    (tmp_path / "params.yaml").write_text("seed: 1\ninner:\n  rate: 0.2\n  modules: ['*']\nper_model: {}\n")
    (tmp_path / "code.py").write_text("1\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    return tmp_path


def test_the_command_to_reproduce_names_commit_and_changed_values(checkout):
    flat = {"seed": 1, "inner.rate": 0.2, "inner.modules": ["*"]}
    same = current(checkout, flat)
    assert same.reproduce("adapt") == f"git checkout {same.commit} && dvc repro adapt"
    (checkout / "params.yaml").write_text("anything: else\n")
    changed = current(checkout, flat | {"inner.rate": 0.1, "inner.modules": ["a*", "b"]})
    assert changed.reproduce("") == (
        f'git checkout {same.commit} && dvc exp run -S inner.rate=0.1 -S \'inner.modules=["a*", "b"]\''
    )
    assert not changed.dirty  # a changed params.yaml is told by the command
    assert changed.key != same.key == current(checkout, flat).key
    one_model = current(checkout, flat | {"new.key": 1, "per_model.tacotron.inner.rate": 0.1})
    assert one_model.overrides == ("+per_model.tacotron.inner.rate=0.1",)
    (checkout / "code.py").write_text("2\n")
    assert current(checkout, flat).dirty


def test_outside_git_only_the_command_is_left(tmp_path):
    outside = current(tmp_path, {"seed": 1})
    assert outside.tags("adapt") == {"execution": outside.key, "reproduce": "dvc repro adapt"}


def test_lineage_names_upstream_outs_only(tmp_path):
    lock = tmp_path / "dvc.lock"
    assert upstream(lock, ["data/prepared"]) == {}
    out = {"hash": "md5", "md5": "aa", "path": "data/prepared"}
    stages = {
        "prepare": {"outs": [out, {"hash": "md5", "md5": "bb", "path": "results/runs/prepare.json"}]},
        "adapt@a": {"outs": [{"md5": "cc", "path": "results/adapt/a/curves.parquet"}]},
        "episodes": {"outs": [{"md5": "dd", "path": "data/episodes"}]},
    }
    lock.write_text(json.dumps({"schema": "2.0", "stages": stages}))
    assert upstream(lock, ["data/prepared", "src/metaspeech"]) == {"data/prepared": "aa"}
    assert upstream(lock, ["results/adapt"]) == {"results/adapt/a/curves.parquet": "cc"}
    assert upstream(lock, ["data/episodes/train.parquet", "data/prep"]) == {"data/episodes": "dd"}
