"""The frame of a stage: what it gives, what it leaves, and how it ends on bad input."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from metaspeech import config
from metaspeech.errors import UserError
from metaspeech.tracking import Record
from pipelines import _stage
from pipelines._stage import Stage, run_stage

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with params.yaml and dvc.yaml, and no tracking: there is no such kind of server."""
    (tmp_path / "params.yaml").write_text("seed: 7\ninner:\n  rate: 0.1\n")
    (tmp_path / "dvc.yaml").write_text((REPO / "dvc.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    for name in ("DVC_EXP_NAME", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_stage_gets_params_item_and_folder_and_leaves_metrics_and_a_record(project):
    def body(stage: Stage) -> None:
        assert stage.params.inner.rate == 0.1
        assert stage.item == ("tacotron", "maml", "3")
        assert stage.params.seed == 3, "the item's own"
        assert stage.folder.is_dir()
        stage.metrics({"loss": 1.23456789, "tasks": 12, "lost": float("nan"), "by_step": {"0": 2 / 3, "1": None}})

    run_stage("adapt", body, ["tacotron", "maml", "3"])
    metrics = json.loads((project / "results/adapt/tacotron-maml-3/metrics.json").read_text())
    assert metrics == {"loss": 1.23457, "tasks": 12, "lost": None, "by_step": {"0": 0.666667, "1": None}}
    record = Record.read(project / "results/runs/adapt/tacotron-maml-3.json")
    assert (record.name, record.status) == ("adapt@tacotron-maml-3", "FINISHED")
    assert record.params["seed"] == 3
    assert record.metrics | {"loss": 1.23457, "by_step/0": 0.666667} == record.metrics
    assert {key.partition(".")[0] for key in record.params} == {
        "seed", "episodes", "tacotron", "represent", "inner", "meta_train", "adapt"
    }  # fmt: skip
    assert record.params["inner.rate"] == 0.1
    assert not list(project.rglob("*.tmp"))


def test_a_stage_of_one_model_gets_what_that_model_does_differently(project):
    own = {"tacotron": {"inner": {"rate": 0.05}, "meta_train": {"rate": 0.01}}, "wavenet": {"inner": {"rate": 0.3}}}
    (project / "params.yaml").write_text(yaml.safe_dump({"inner": {"rate": 0.1}, "per_model": own}))

    def body(stage: Stage) -> None:
        assert (stage.params.inner.rate, stage.params.meta_train.rate) == (0.05, 0.01)
        assert stage.params.inner.steps == config.Inner().steps

    run_stage("adapt", body, ["tacotron", "maml", "1"])
    recorded = Record.read(project / "results/runs/adapt/tacotron-maml-1.json").params
    assert recorded["inner.rate"] == 0.1
    assert recorded["per_model.tacotron.inner.rate"] == 0.05
    assert not {"per_model.tacotron.meta_train.rate", "per_model.wavenet.inner.rate"} & set(recorded)
    assert not [key for key in recorded if recorded[key] == {}]

    def common(stage: Stage) -> None:
        assert stage.params.inner.rate == 0.1

    run_stage("evaluate", common, [])


def test_the_records_to_mirror_are_those_that_the_params_ask_for(project):
    params = config.from_mapping({"models": ["tacotron"], "algorithms": ["maml", "reptile"], "seeds": [1, 2]})
    paths = {path.as_posix() for path in _stage._record_paths(params)}
    assert "results/runs/corpus.json" in paths
    assert "results/runs/pretrain/tacotron.json" in paths
    assert {path for path in paths if "meta_train" in path} == {
        f"results/runs/meta_train/tacotron-{algorithm}-{seed}.json"
        for algorithm in ("maml", "reptile")
        for seed in (1, 2)
    }


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("metadata.csv: no column 'speaker'. Add it"), "metadata.csv: no column 'speaker'. Add it"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "data/prepared/mel-00000.npy"), "data/prepared is full"),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), "or files may not be as large"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "is full"),
    ],
)
def test_what_the_user_can_put_right_is_one_message_and_status_2(project, capsys, error, expected):
    def body(stage: Stage) -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_stage("prepare", body, [])
    assert end.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error in prepare: ")
    assert expected in message
    assert Record.read(project / "results/runs/prepare.json").status == "FAILED"


def test_a_full_disk_behind_another_error_is_found(project):
    def body(stage: Stage) -> None:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError as error:
            raise ValueError("could not write") from error

    with pytest.raises(SystemExit):
        run_stage("prepare", body, [])


def test_an_error_of_the_program_keeps_its_traceback(project):
    def body(stage: Stage) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        run_stage("prepare", body, [])


def test_earlier_metrics_stay_when_a_stage_fails(project):
    run_stage("prepare", lambda stage: stage.metrics({"utterances": 3}), [])

    def body(stage: Stage) -> None:
        raise UserError("no")

    with pytest.raises(SystemExit):
        run_stage("prepare", body, [])
    assert json.loads((project / "results/prepare/metrics.json").read_text()) == {"utterances": 3}


def test_bad_params_end_in_one_line_and_status_2_before_anything_is_made(project):
    (project / "params.yaml").write_text(yaml.safe_dump({"inner": {"steps": 0}}))
    environment = os.environ | {"PYTHONPATH": f"{REPO / 'src'}{os.pathsep}{REPO}"}
    for module in ("prepare", "check"):
        done = subprocess.run(
            [sys.executable, "-m", f"pipelines.{module}"],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 2
        assert "inner.steps: 0 is out of range, expected between 1 and 100" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (project / "results").exists()


@pytest.mark.parametrize(
    ("corpus", "expected"),
    [
        ({"path": "nowhere.csv"}, "corpus.path: nowhere.csv: no such file"),
        ({"source": "folder", "path": "nowhere"}, "corpus.path: nowhere: no such folder"),
        ({"source": "folder", "path": "empty"}, "corpus.path: empty: an empty folder"),
        ({"source": "vctk", "path": "nowhere"}, "metaspeech.corpora.download vctk nowhere"),
    ],
)
def test_a_missing_corpus_is_found_before_the_pipeline_starts(project, corpus, expected):
    from pipelines.check import check

    (project / "empty").mkdir()
    with pytest.raises(UserError, match=expected.replace(".", r"\.")):
        check(config.from_mapping({"corpus": corpus}))


def test_the_check_loads_neither_torch_nor_mlflow():
    code = "import sys, pipelines.check; print(sorted({'torch', 'mlflow', 'pandas'} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": f"{REPO / 'src'}{os.pathsep}{REPO}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_a_stage_that_still_runs_is_not_started_a_second_time(project, capsys):
    def body(stage: Stage) -> None:
        with pytest.raises(SystemExit) as end:
            run_stage("adapt", body, ["tacotron", "maml"])
        assert end.value.code == 2
        run_stage("adapt", lambda other: None, ["tacotron", "reptile"])  # another item may

    run_stage("adapt", body, ["tacotron", "maml"])
    assert f"process {os.getpid()} is still at this stage" in capsys.readouterr().err
    run_stage("adapt", lambda stage: None, ["tacotron", "maml"])


def test_curves_that_are_damaged_are_named(tmp_path):
    from pipelines.evaluate import _curves

    path = tmp_path / "curves.parquet"
    for content in (b"", b"\x00\xff garbage"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"curves\.parquet: cannot be read.* dvc repro adapt"):
            _curves(path)
