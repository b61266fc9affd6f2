"""What a sweep found, on the MLflow runs of its trials."""

from __future__ import annotations

import pytest
from mlflow.tracking import MlflowClient

from metaspeech.tracking import stage_run
from metaspeech.tracking.trials import Trial, Trials

LOSS = {"tacotron/validation_loss": 0.5}


@pytest.fixture
def client(root, monkeypatch) -> MlflowClient:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")


def run_stage(root, monkeypatch, number: int) -> None:
    """As the process of a trial does."""
    with monkeypatch.context() as patched:
        for key, value in {
            "METASPEECH_SWEEP": "mine",
            "METASPEECH_TRIAL": number,
            "DVC_EXP_NAME": f"sweep-mine-{number}",
        }.items():
            patched.setenv(key, str(value))
        with stage_run("adapt", record=root / f"{number}.json", root=root, params={"inner.rate": number}) as run:
            run.log_metrics({"loss_5": 1.0})


def log(root, *trials: Trial) -> None:
    logged = Trials("mine", root, "metaspeech")
    logged.start()
    logged.tell(trials)
    logged.close()


def parents(client: MlflowClient) -> dict[str, object]:
    experiment = client.get_experiment_by_name("metaspeech").experiment_id
    return {run.info.run_name: run for run in client.search_runs([experiment], "tags.role = 'pipeline'")}


def test_objectives_are_metrics_of_the_trials_runs_and_told_again_stand_there_once(root, client, monkeypatch):
    for number in (0, 1):
        run_stage(root, monkeypatch, number)
    complete = Trial(0, "sweep-mine-0", "complete", ended=1_000, figures=LOSS)
    stopped = Trial(1, "sweep-mine-1", "stopped early", ended=2_000)
    log(root, complete, stopped)
    log(root, complete, stopped)
    runs = parents(client)
    assert set(runs) == {"sweep-mine-0", "sweep-mine-1"}
    assert runs["sweep-mine-0"].data.metrics == LOSS
    assert runs["sweep-mine-1"].data.metrics == {}
    assert [runs[f"sweep-mine-{one}"].data.tags["trial_state"] for one in (0, 1)] == ["complete", "stopped early"]
    history = client.get_metric_history(runs["sweep-mine-0"].info.run_id, next(iter(LOSS)))
    assert [one.timestamp for one in history] == [1_000]


def test_a_trial_that_dvc_had_in_its_cache_has_a_run_too(root, client):
    for _ in range(2):
        log(root, Trial(3, "sweep-mine-3", "complete", 1_000, LOSS, {"inner.rate": 0.2}))
    run = parents(client)["sweep-mine-3"]
    assert (run.data.metrics, run.data.params, run.info.status) == (LOSS, {"inner.rate": "0.2"}, "FINISHED")
    assert {"sweep": "mine", "trial": "3", "dvc.cached": "true"}.items() <= run.data.tags.items()


def test_a_server_that_is_down_is_named_and_the_command_that_sends_it_later(root, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    log(root, Trial(0, "sweep-mine-0", "complete", 1_000, LOSS))
    said = capsys.readouterr().err
    assert "what 1 trial found is not yet at MLflow at http://127.0.0.1:9: it is not there" in said
    assert "--report" in said
    assert "secret" not in said


def test_a_project_without_runs_gets_no_database(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log(tmp_path, Trial(0, "sweep-mine-0", "complete", 1_000, LOSS))
    assert list(tmp_path.iterdir()) == []
