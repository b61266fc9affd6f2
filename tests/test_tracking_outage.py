"""A tracking server that is away, slow, refuses or is full: the stage goes on, and nothing is lost or told twice."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from benchmarks.servers import Missing, MlflowServer, PasswordProxy, Postgres, free_port
from metaspeech.cli import app
from metaspeech.tracking import Execution, Record, delivery, stage_run
from metaspeech.tracking.parcel import BATCH, batches
from metaspeech.tracking.reasons import public, reason
from metaspeech.tracking.server import Server
from metaspeech.tracking.spool import Spool, waiting
from metaspeech.training.trainer import finish, fit, make_trainer

REPO = Path(__file__).resolve().parents[1]
SECRET = "a-long-enough-password"
SLOW = 0.5  # seconds: no call may take so long


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(delivery, "EVERY", 0.3)
    monkeypatch.setattr(delivery, "LONGEST_WAIT", 1.0)


@pytest.fixture(scope="module")
def sqlite_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sqlite")
    server = MlflowServer(folder, f"sqlite:///{folder}/server.db")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def database():
    try:
        database = Postgres()
    except Missing as reason:
        pytest.skip(str(reason))
    try:
        database.start()
        database.create_database()
        yield database
    finally:
        database.stop()


@pytest.fixture(scope="module")
def postgres_server(database, tmp_path_factory):
    server = MlflowServer(tmp_path_factory.mktemp("postgres"), database.uri)
    server.start()
    yield server
    server.stop()


def execution(name: str) -> Execution:
    return Execution("c0ffee", False, name, "", "12345678", ())


def runs(address: str, name: str) -> dict[str, list]:
    """The runs of an execution, by their names."""
    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("metaspeech")
    found = client.search_runs([experiment.experiment_id], f"tags.execution = '{execution(name).key}'")
    return {one.info.run_name: [run for run in found if run.info.run_name == one.info.run_name] for one in found}


def the_run(address: str, name: str, stage: str):
    (run,) = runs(address, name)[stage]
    assert len(runs(address, name)[name]) == 1, "one parent"
    return run


def steps(address: str, run, metric: str) -> list[int]:
    history = MlflowClient(tracking_uri=address).get_metric_history(run.info.run_id, metric)
    return sorted(one.step for one in history)


def start(root: Path, name: str, stage: str = "pretrain", **more):
    return stage_run(stage, record=root / "runs" / f"{stage}.json", root=root, execution=execution(name), **more)


@pytest.mark.parametrize(("kind", "victim"), [("sqlite_server", "sqlite_server"), ("postgres_server", "database")])
def test_training_goes_on_while_the_server_is_killed_and_every_step_arrives_once(
    kind, victim, request, tmp_path, monkeypatch, capfd
):
    """SIGKILL of the server, or of the database behind it, which starts again some seconds later."""
    server, victim = request.getfixturevalue(kind), request.getfixturevalue(victim)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    values, logged = tiny.params(), Counter()
    with start(tmp_path, "killed") as run:

        def log(found: dict[str, float], step: int) -> None:
            run.log_metrics(found, step)
            logged.update((metric, step) for metric in found)
            if step == 4 and "loss_after" in found:
                wait_until(lambda: run_exists(server.address, "killed", "pretrain"))
                victim.kill()
                threading.Timer(3.0, victim.start).start()

        learner, data = tiny.learner("tacotron", "fomaml", values, 12), tiny.module(values, 12)
        trainer = make_trainer(values, data.epochs, log, tmp_path / "partial-x", log_every_n_steps=1)
        fit(trainer, learner, data, tmp_path / "partial-x")
        finish(tmp_path / "partial-x")
        run.log_table(pd.DataFrame({"speaker": ["p1"]}), "speakers")
        run.log_metrics({"not finite": math.nan})
        wait_until(lambda: server.process.poll() is None and answers(server))
    assert len(logged) > 12
    deliver(tmp_path)
    found = the_run(server.address, "killed", "pretrain")
    assert found.info.status == "FINISHED"
    for metric in {name for name, _ in logged}:
        assert steps(server.address, found, metric) == sorted(step for name, step in logged if name == metric), metric
    assert math.isnan(found.data.metrics["not finite"])
    assert not waiting(tmp_path)
    assert "warning: MLflow at" in capfd.readouterr().err


def run_exists(address: str, name: str, stage: str) -> bool:
    try:
        return stage in runs(address, name)
    except AttributeError:  # the experiment is not there yet
        return False


def answers(server: MlflowServer) -> bool:
    try:
        MlflowClient(tracking_uri=server.address).search_experiments()
    except Exception:
        return False
    return True


def wait_until(condition, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def deliver(root: Path):
    done = CliRunner().invoke(app, ["deliver", str(root)])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_server_that_hangs_slows_no_call_and_makes_no_run_twice(sqlite_server, tmp_path, monkeypatch, capfd):
    """Stopped before the first request: those that were given up as too slow are served later all the same."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_server.address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with start(tmp_path, "first"):
        pass  # the experiment is there, so that what hangs is the making of runs
    sqlite_server.signal(signal.SIGSTOP)
    longest, step, began = 0.0, 0, time.monotonic()
    try:
        with start(tmp_path, "slow") as run:
            while time.monotonic() - began < 6.0:
                before = time.perf_counter()
                run.log_metrics({"loss": 1.0 / (1 + step)}, step=step)
                run.set_tags({"at": str(step)})
                longest = max(longest, time.perf_counter() - before)
                step += 1
                time.sleep(0.02)
            ending = time.monotonic()
        assert time.monotonic() - ending < 10, "the end waits no longer than it says"
    finally:
        sqlite_server.signal(signal.SIGCONT)
    assert longest < SLOW
    assert step > 50
    assert "no answer in time" in capfd.readouterr().err
    assert waiting(tmp_path), "kept"
    assert "delivered" in deliver(tmp_path)
    found = the_run(sqlite_server.address, "slow", "pretrain")
    assert steps(sqlite_server.address, found, "loss") == list(range(step))
    assert found.data.tags["at"] == str(step - 1)


def test_without_a_server_everything_is_kept_and_delivered_by_a_later_stage(
    sqlite_server, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{free_port()}")
    began = time.monotonic()
    audio = tmp_path / "voice.wav"
    audio.write_bytes(b"RIFF")
    with start(tmp_path, "absent", "prepare", params={"a": 1}, inputs={"data": "abc"}) as run:
        run.log_metrics({"utterances": 10})
        run.log_figure(Figure(), "f")
        run.log_table(pd.DataFrame({"speaker": ["p1"]}), "speakers")
        run.log_image(np.eye(4), "alignment", 3)
        run.log_artifact(audio, "audio")
        run.set_tags({"a": "b"})
        audio.write_bytes(b"made again since")
        run.mirror([])
    assert time.monotonic() - began < 20
    warned = capfd.readouterr().err
    assert warned.count("warning: MLflow at 127.0.0.1") == 0
    assert warned.count("warning: MLflow at http://127.0.0.1") == 1
    assert "connection refused" in warned
    assert "metaspeech deliver" in warned
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "secret" not in warned
    assert not [path for path in kept if b"secret" in path.read_bytes()]
    record = Record.read(tmp_path / "runs/prepare.json")
    assert (record.run_id, record.metrics["utterances"], record.tags["a"]) == (None, 10.0, "b")

    (spool,) = waiting(tmp_path)
    header = json.loads((spool.folder / "run.json").read_text())
    (spool.folder / "run.json").write_text(json.dumps({**header, "uri": sqlite_server.address}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_server.address)
    with start(tmp_path, "absent", "episodes"):
        pass
    found = the_run(sqlite_server.address, "absent", "prepare")
    assert (found.info.status, found.data.metrics["utterances"], found.data.params) == ("FINISHED", 10.0, {"a": "1"})
    assert found.data.tags["a"] == "b"
    client = MlflowClient(tracking_uri=sqlite_server.address)
    folders = {
        one.path: client.list_artifacts(found.info.run_id, one.path) for one in client.list_artifacts(found.info.run_id)
    }
    assert {name: len(held) for name, held in folders.items()} == {"audio": 1, "figures": 1, "images": 2, "tables": 1}
    voice = client.download_artifacts(found.info.run_id, "audio/voice.wav", str(tmp_path))
    assert Path(voice).read_bytes() == b"RIFF", "as it was when it was logged"
    assert json.loads(found.data.tags["mlflow.loggedArtifacts"]) == [{"path": "tables/speakers.json", "type": "table"}]
    began_ms = found.info.start_time / 1000
    assert abs(began_ms - pd.Timestamp(record.started).timestamp()) < 0.01, "when it really began"
    assert not waiting(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from metaspeech.tracking import Execution, stage_run
root = Path(sys.argv[1])
execution = Execution("c0ffee", False, "dead", "", "12345678", ())
with stage_run("pretrain", record=root / "r.json", root=root, execution=execution) as run:
    for step in range(500):
        run.log_metrics({"loss": 1.0}, step=step)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_stage_logged_arrives_and_its_next_start_goes_on_in_the_same_run(
    sqlite_server, tmp_path, monkeypatch
):
    address = f"http://127.0.0.1:{free_port()}"
    environment = os.environ | {"MLFLOW_TRACKING_URI": address, "PYTHONPATH": str(REPO / "src")}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    (spool,) = waiting(tmp_path)
    with (spool.folder / "log.jsonl").open("a") as log:
        log.write('{"metrics": [["lo')  # the line that it was writing
    header = json.loads((spool.folder / "run.json").read_text())
    (spool.folder / "run.json").write_text(json.dumps({**header, "uri": sqlite_server.address}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_server.address)
    with start(tmp_path, "dead") as run:
        run.log_metrics({"loss": 0.5}, step=500)
    found = the_run(sqlite_server.address, "dead", "pretrain")
    assert run.run_id == found.info.run_id
    assert found.info.status == "FINISHED"
    assert steps(sqlite_server.address, found, "loss") == list(range(501))
    assert not waiting(tmp_path)


def test_a_full_artifact_store_holds_up_no_metrics(root, monkeypatch, capfd):
    full = {"now": True}
    upload = Server.upload

    def uploading(self, run_id, path, folder):
        if full["now"]:
            raise OSError(28, "No space left on device", "/store/figures")
        upload(self, run_id, path, folder)

    monkeypatch.setattr(Server, "upload", uploading)
    with start(root, "full") as run:
        run.log_figure(Figure(), "curves")
        run.log_metrics({"loss": 1.0}, step=7)
    warned = capfd.readouterr().err
    assert "warning: MLflow's artifact store at sqlite:" in warned
    assert "the disk is full (/store/figures)" in warned
    uri = f"sqlite:///{root}/mlflow.db"
    found = the_run(uri, "full", "pretrain")
    assert (found.info.status, found.data.metrics["loss"]) == ("FINISHED", 1.0)
    done = CliRunner().invoke(app, ["deliver", str(root)])
    assert done.exit_code == 2
    assert "still waits" in done.output
    assert "the disk is full" in done.output
    full["now"] = False
    assert "delivered" in deliver(root)
    assert MlflowClient(tracking_uri=uri).list_artifacts(found.info.run_id, "figures")
    assert "Nothing waits" in deliver(root)


def test_one_entry_that_is_refused_is_put_aside_and_the_others_arrive(root):
    with start(root, "odd") as run:
        run.log_metrics({"before": 1.0, "x" * 300: 2.0})
        run.set_tags({"": "a tag without a name"})
        run.log_metrics({"after": 3.0})
    found = the_run(f"sqlite:///{root}/mlflow.db", "odd", "pretrain")
    assert {"before", "after"} <= set(found.data.metrics)
    refused = [json.loads(line) for line in (root / ".metaspeech/refused.jsonl").read_text().splitlines()]
    assert [next(iter(one["entry"])) for one in refused] == ["metrics", "tags"]
    assert not waiting(root)


def test_a_full_disk_under_the_spool_loses_nothing_once_there_is_room(root, monkeypatch, capfd):
    write, full = os.write, {"now": False}

    def writing(handle, line):
        if full["now"]:
            raise OSError(28, "No space left on device")
        return write(handle, line[:5] if b"half" in line and line.startswith(b'{"metrics') else line)

    monkeypatch.setattr(os, "write", writing)
    with start(root, "disk") as run:
        for step in range(10):
            full["now"] = 3 <= step < 6
            run.log_metrics({"half" if step == 2 else "loss": 1.0}, step=step)
    found = the_run(f"sqlite:///{root}/mlflow.db", "disk", "pretrain")
    assert steps(f"sqlite:///{root}/mlflow.db", found, "loss") == [0, 1, *range(3, 10)]
    assert steps(f"sqlite:///{root}/mlflow.db", found, "half") == [2]
    assert capfd.readouterr().err.count("takes no more") == 1


@pytest.fixture(params=["proxy", "basic-auth"])
def guarded(request, tmp_path):
    """The address of a server that asks for user and password: by a proxy before it, or by MLflow's own app."""
    if request.param == "proxy":
        proxy = PasswordProxy(request.getfixturevalue("sqlite_server"), "admin", SECRET)
        yield proxy
        proxy.stop()
        return
    pytest.importorskip("flask_wtf", reason="MLflow's own basic-auth app needs Flask-WTF: pip install mlflow[auth]")
    config = tmp_path / "auth.ini"
    config.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{tmp_path}/auth.db\n"
        f"admin_username = admin\nadmin_password = {SECRET}\n"
    )
    environment = {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the test"}
    server = MlflowServer(tmp_path, f"sqlite:///{tmp_path}/server.db", ("--app-name", "basic-auth"), environment)
    server.start()
    yield server
    server.stop()


def test_a_server_with_users_is_used_with_the_password_of_the_environment(guarded, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded.address)
    with start(tmp_path, "users") as run:
        run.log_metrics({"loss": 1.0}, step=1)
    assert "it does not accept user and password (set MLFLOW_TRACKING_USERNAME" in capfd.readouterr().err
    with monkeypatch.context() as known:
        known.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        known.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
        assert SECRET not in deliver(tmp_path)
        assert steps(guarded.address, the_run(guarded.address, "users", "pretrain"), "loss") == [1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://admin:{SECRET}@127.0.0.1:{guarded.port}")
    with start(tmp_path, "in the address", "prepare"):
        pass
    assert SECRET not in capfd.readouterr().err
    assert not [path for path in (tmp_path / "runs").rglob("*.json") if SECRET in path.read_text()]
    assert not waiting(tmp_path)
    found = the_run(f"http://admin:{SECRET}@127.0.0.1:{guarded.port}", "in the address", "prepare")
    assert found.info.status == "FINISHED"


def test_a_process_that_was_forked_leaves_delivery_to_its_parent(root):
    """As Lightning's do; also while the parent's threads are at work."""
    with start(root, "forked") as run:
        children = []
        for number in range(3):
            run.log_metrics({"parent": number}, step=number)
            child = os.fork()
            if child == 0:
                run.log_metrics({"child": 1.0}, step=number)
                os._exit(0 if threading.active_count() == 1 else 1)
            children.append(child)
            time.sleep(0.3)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        run.log_metrics({"parent": 3.0}, step=3)
    uri = f"sqlite:///{root}/mlflow.db"
    found = the_run(uri, "forked", "pretrain")
    assert steps(uri, found, "parent") == [0, 1, 2, 3]
    assert steps(uri, found, "child") == [0, 1, 2]


def test_training_in_forked_processes_is_logged_whole(root):
    values, logged = tiny.params(), []
    with start(root, "processes") as run:

        def log(found: dict[str, float], step: int) -> None:
            run.log_metrics(found, step)
            logged.extend(step for name in found if name == "loss_after")

        learner, data = tiny.learner("tacotron", "fomaml", values), tiny.module(values)
        trainer = make_trainer(values, data.epochs, log, root / "partial-x", 2, log_every_n_steps=1)
        fit(trainer, learner, data, root / "partial-x")
    uri = f"sqlite:///{root}/mlflow.db"
    assert steps(uri, the_run(uri, "processes", "pretrain"), "loss_after") == sorted(logged)
    assert logged


def test_the_value_at_the_end_stands_at_the_end_of_its_curve(root):
    with start(root, "curve") as run:
        for step in (10, 20):
            run.log_metrics({"validation_after": 1.0}, step=step)
        run.log_metrics({"validation_after": 0.5, "speakers": 3})
    uri = f"sqlite:///{root}/mlflow.db"
    found = the_run(uri, "curve", "pretrain")
    assert steps(uri, found, "validation_after") == [10, 20, 20]
    assert (found.data.metrics["validation_after"], steps(uri, found, "speakers")) == (0.5, [0])


def test_load_and_memory_are_logged_where_asked(root):
    with start(root, "load", system_metrics=True):
        time.sleep(1.5)
    metrics = the_run(f"sqlite:///{root}/mlflow.db", "load", "pretrain").data.metrics
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100
    assert metrics["system/system_memory_usage_megabytes"] > 0
    record = Record.read(root / "runs/pretrain.json")
    assert not [name for name in record.metrics if name.startswith("system/")], "they say nothing of the result"


@given(st.lists(st.integers(0, 700), max_size=20))
def test_batches_keep_order_and_hold_no_more_than_a_request_takes(sizes):
    """0 stands for an entry of another kind."""
    entries = [({"metrics": [[f"{n}", 0.0, 0, i] for i in range(size)]} if size else {"tags": {"n": str(n)}}, n + 1)
               for n, size in enumerate(sizes)]  # fmt: skip
    made = list(batches(iter(entries)))
    assert [one for group, _ in made for one in group] == [entry for entry, _ in entries]
    ends = [end for _, end in made]
    assert ends == sorted(ends)
    assert not sizes or ends[-1] == len(sizes)
    for group, _ in made:
        assert len(group) == 1 or sum(len(one["metrics"]) for one in group) <= BATCH
        assert all("metrics" in one for one in group) or len(group) == 1


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:secret@host:5000/path", "http://host:5000/path"),
        ("postgresql://user:s3cr@t@host/db", "postgresql://host/db"),
        ("sqlite:////folder/mlflow.db", "sqlite:////folder/mlflow.db"),
    ],
)
def test_no_password_is_shown_or_stored(uri, shown, monkeypatch):
    assert public(uri) == shown
    assert shown in reason(RuntimeError(f"cannot use {uri}: odd"))
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    assert "hunter2" not in reason(RuntimeError("said hunter2"))


def test_two_processes_never_deliver_the_same_folder(root):
    with start(root, "held") as run:
        run.log_metrics({"loss": 1.0})
        (own,) = waiting(root)
        assert not own.hold(), "the process that logs has it"
        assert isinstance(own, Spool)


FULL = """
import resource, signal, sys
from pathlib import Path
from metaspeech.tracking import Execution, stage_run
root = Path(sys.argv[1])
execution = Execution("c0ffee", False, "full", "", "12345678", ())
def log(stage):
    with stage_run(stage, record=root / "r.json", root=root, execution=execution) as run:
        run.log_metrics({"loss": 1.0}, step=1)
log("prepare")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
log("episodes")
"""


def test_a_database_that_cannot_grow_is_said_in_a_line_and_nothing_is_lost(tmp_path):
    """With a limit on the size of files, which stands for a full disk."""
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment |= {"PYTHONPATH": str(REPO / "src")}
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "The stage goes on; what it logs is kept in .metaspeech/spool" in done.stderr
    assert "Traceback" not in done.stderr
    assert "delivered" in deliver(tmp_path)
    assert the_run(f"sqlite:///{tmp_path}/mlflow.db", "full", "episodes").data.metrics["loss"] == 1.0
