"""The pipeline as a user runs it, at toy sizes: from nothing to the report, again, changed, killed and resumed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from voices_made import write_recordings

from metaspeech.data.store import Store
from metaspeech.training.checkpoint import file_digest
from metaspeech.voices import load
from tools import smoke

META_TRAIN = "models/meta_train/tacotron-maml-1"


def command(project: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=project,
        env=smoke.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(arguments)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def repro(project: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return command(project, "dvc", "repro", *arguments, check=check)


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


def set_params(project: Path, *assignments: str) -> None:
    command(project, "pipelines.profile", "apply", "smoke", *(part for one in assignments for part in ("--set", one)))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project in which the whole pipeline has run."""
    target = tmp_path_factory.mktemp("pipeline") / "project"
    smoke.copy(target)
    command(target, "pipelines.profile", "apply", "smoke")
    done = command(target, "pipelines.repro", "--jobs", "2")
    assert {name.split("@")[0] for name in stages_run(done.stdout)} == {
        "corpus", "prepare", "episodes", "pretrain", "represent", "meta_train", "adapt", "evaluate", "report",
    }  # fmt: skip
    return target


def test_it_ends_in_a_report_with_audio(project):
    page = (project / "reports/index.html").read_text(encoding="utf-8")
    assert len(set(re.findall(r'data-clip="(\d+)"', page))) >= 4
    assert "tacotron" in page.lower()
    assert not re.search(r"""(?:src|href)=["']https?://""", page), "the page must not need a network"


def test_a_voice_is_made_of_what_was_meta_trained(project, tmp_path):
    recordings = write_recordings(tmp_path / "recordings", 3)
    store = ("--store", str(tmp_path / "voices"), "--no-check-texts")
    line = ("--recordings", str(recordings), "--name", "anna", "--consent", "A machine's voice.")
    done = command(project, "metaspeech.cli", "adapt", *line, "--steps", "1", *store)
    assert (
        f"tacotron: {META_TRAIN} (maml, {file_digest(project / META_TRAIN / 'model.safetensors')[:12]})" in done.stdout
    )
    voice = load("anna", tmp_path / "voices")
    prepared = Store(project / "data/prepared")
    assert voice._features.settings == prepared.settings
    np.testing.assert_array_equal(voice._features.mel_mean, prepared.mel_mean)
    assert len(voice.say("boy")[0]) > 0


def test_every_step_and_algorithm_was_measured(project):
    utterances = pd.read_parquet(project / "results/evaluate/utterances.parquet")
    measured = utterances[~utterances["algorithm"].isin(["real", "copy"])]
    assert set(measured["algorithm"]) == {"transfer", "maml"}
    assert set(measured["step"]) == {0, 1, 2}
    curves = pd.read_parquet(project / "results/adapt/tacotron-maml-1/curves.parquet")
    assert curves["loss"].notna().all()
    assert set(curves["step"]) == {0, 1, 2}


def test_a_second_run_does_nothing(project):
    done = repro(project)
    assert stages_run(done.stdout) == []
    assert "up to date" in done.stdout


def test_metrics_plots_and_params_are_dvcs(project):
    metrics = json.loads(command(project, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert any("tacotron-maml-1" in path for path in metrics)
    command(project, "dvc", "plots", "show", "--json")


def test_mlflow_has_one_parent_and_a_child_for_each_stage(project):
    client = MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("metaspeech")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(parents) == 1
    assert {"similarity/maml", "validation_loss/tacotron-maml-1", "validation_loss/wavenet-transfer-1"} <= set(
        parents[0].data.metrics
    )
    assert {run.data.tags["DVC_STAGE"].split("@")[0] for run in children} >= {
        "corpus", "prepare", "episodes", "pretrain", "represent", "meta_train", "adapt", "evaluate", "report",
    }  # fmt: skip


def test_an_inner_loop_value_reruns_meta_train_and_what_follows(project):
    set_params(project, "inner.rate=0.05", "algorithms=[maml]")
    ran = {name.split("@")[0] for name in stages_run(repro(project).stdout)}
    assert ran == {"meta_train", "adapt", "evaluate", "report"}


def test_killed_in_meta_train_it_ends_in_the_same_weights(project):
    """SIGKILL for the whole process group once the first checkpoint is there."""
    set_params(project, "meta_train.gradient_evaluations=120")
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "meta_train@tacotron-maml-1"],
        cwd=project,
        env=smoke.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list((project / META_TRAIN).glob("partial-*/last.ckpt")):
        assert process.poll() is None, "meta_train ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    partial = list((project / META_TRAIN).glob("partial-*/last.ckpt"))
    assert partial, "the checkpoint of the killed run is the one to resume from"
    done = repro(project, "meta_train@tacotron-maml-1")
    assert "Resuming from" in done.stdout
    resumed = file_digest(project / META_TRAIN / "model.safetensors")

    undisturbed = repro(project, "--force", "--single-item", "meta_train@tacotron-maml-1")
    assert "Resuming from" not in undisturbed.stdout
    assert file_digest(project / META_TRAIN / "model.safetensors") == resumed


def test_a_bad_value_ends_with_one_message_and_leaves_results(project):
    before = file_digest(project / META_TRAIN / "model.safetensors")
    params = project / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("meta_batch: 2", "meta_bach: 2"), encoding="utf-8")
    try:
        done = repro(project, check=False)
        checked = command(project, "pipelines.check", check=False)
    finally:
        params.write_text(text, encoding="utf-8")
    assert done.returncode != 0
    assert checked.returncode == 2
    assert "meta_bach" in checked.stderr
    assert "meta_batch" in checked.stderr
    assert "Traceback" not in done.stdout + done.stderr + checked.stderr
    assert file_digest(project / META_TRAIN / "model.safetensors") == before
