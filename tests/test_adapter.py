"""Adaptation of stored tasks: jobs in processes, what they keep, and how far they are followed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from metaspeech import config
from metaspeech.config import Episodes, Prepare
from metaspeech.data.episodes import split_corpus, stored_episodes, write_pool
from metaspeech.data.prepare import prepare_corpus
from metaspeech.data.store import Store
from metaspeech.meta.maml import Maml
from metaspeech.models.base import loss_function, parameters_of
from metaspeech.parallel import Workers
from metaspeech.tasks.files import TaskFiles
from metaspeech.training import deltas
from metaspeech.training.adaptation import adaptation_curve, horizon_steps, horizon_summary
from metaspeech.training.adapter import Job, Setting, run
from metaspeech.training.checkpoint import build_model, file_digest, load_model, save_learned, save_model
from tests.speech import write_corpus

SETTINGS = Episodes(val_speakers=1, test_speakers=2, shots=2, queries=1)


@pytest.fixture(scope="module")
def adaptation(tmp_path_factory):
    """A setting, and the test episodes."""
    folder = tmp_path_factory.mktemp("adapter")
    write_corpus(folder / "corpus", speakers=5, utterances=4)
    prepare_corpus(folder / "corpus", folder / "prepared", Prepare(workers=1, statistics=""), progress=False)
    params = config.from_mapping({"tacotron": {"preset": "tiny"}, "episodes": {"shots": 2}, "adapt": {"shots": [2]},
                                  "evaluate": {"shots": [2]}})  # fmt: skip
    store = Store(folder / "prepared")
    torch.manual_seed(0)
    save_model(folder / "m", build_model("tacotron", params, store.features()), "tacotron", params, store.features())
    save_learned(folder / "m", {})
    splits = split_corpus(store.manifest, SETTINGS, seed=1)
    write_pool(folder / "train.parquet", splits.pools["train"])
    files = TaskFiles(folder / "prepared", folder / "train.parquet", folder / "vectors.parquet")
    return Setting(params, "maml", folder / "m", files), stored_episodes(splits, "test", SETTINGS, 1)


def job(adaptation, number=0, **changes):
    setting, episodes = adaptation
    return replace(Job(setting, episodes[number], 2, 0.1, (0, 1, 3)), **changes)


def test_a_job_is_the_adaptation_curve_of_its_episode(adaptation):
    setting, episodes = adaptation
    files, params = setting.tasks, setting.params
    model = load_model(setting.trained, params, files.episodes(params, ()).store.features())
    for shots in (1, 2):
        episode = files.episodes(params, ()).stored(episodes[1], shots)
        curve = adaptation_curve(
            loss_function(model), Maml.from_params(params), parameters_of(model), episode, [0, 1, 3], 0.1
        )
        expected = [(step, losses["loss"]) for step, losses, _ in curve]
        rows = run(job(adaptation, 1, shots=shots))
        assert [(row["step"], row["loss"]) for row in rows] == expected
        assert {(row["episode_id"], row["speaker"], row["shots"]) for row in rows} == {
            (episodes[1].episode_id, episodes[1].speaker, shots)
        }


def test_a_job_keeps_what_it_is_told_to_and_leaves_the_model_alone(adaptation, tmp_path):
    setting, episodes = adaptation
    before = file_digest(setting.trained / "model.safetensors")
    run(job(adaptation, kept=frozenset({0, 3}), folder=tmp_path))
    rows = run(job(adaptation))  # with the same model in memory
    path = tmp_path / f"{episodes[0].episode_id}-2.safetensors"
    base = parameters_of(load_model(setting.trained, setting.params, Store(setting.tasks.store).features()))
    assert all(torch.equal(deltas.read(path, base, 0)[name], base[name]) for name in base)
    moved = deltas.read(path, base, 3)
    assert any(not torch.equal(moved[name], base[name]) for name in base)
    assert file_digest(setting.trained / "model.safetensors") == before
    assert rows == run(job(adaptation, kept=frozenset({3}), folder=tmp_path / "again"))


def test_processes_change_neither_order_nor_figures(adaptation):
    jobs = [job(adaptation, number, shots=shots) for number in (0, 1) for shots in (1, 2)]
    alone = [row for rows in map(run, jobs) for row in rows]
    with Workers(2) as workers:
        several = [[row for rows in workers.map(run, part) for row in rows] for part in (jobs[:2], jobs[2:])]
    for one, other in zip(alone, [*several[0], *several[1]], strict=True):
        assert (one["episode_id"], one["shots"], one["step"]) == (other["episode_id"], other["shots"], other["step"])
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_the_horizon_is_reached_by_doubling():
    assert horizon_steps((0, 1, 5, 10, 20), 60) == (30, 60)
    assert horizon_steps((0, 20), 100) == (25, 50, 100)
    assert horizon_steps((0, 100), 60) == ()


def curves(*losses):
    rows = [
        (f"t-{task}", step, loss) for task, own in enumerate(losses) for step, loss in zip((0, 5, 60), own, strict=True)
    ]
    return pd.DataFrame(rows, columns=["episode_id", "step", "loss"])


def test_divergence_is_counted():
    found = horizon_summary(curves((3.0, 2.0, 2.5), (3.0, 2.0, np.inf), (3.0, 2.0, np.nan), (3.0, 2.0, 3.1)))
    assert (found["horizon_step"], found["horizon_tasks"], found["horizon_diverged"]) == (60, 4, 3)
    fine = horizon_summary(curves((3.0, 2.0, 2.5), (3.0, 2.0, 1.5)))
    assert (fine["horizon_diverged"], fine["horizon_loss"]) == (0, 2.0)
    assert horizon_summary(curves()) == {}


def test_a_rate_that_is_too_high_is_seen_to_diverge(adaptation):
    rows = run(job(adaptation, rate=1e20, steps=(0, 1, 20)))
    assert horizon_summary(pd.DataFrame(rows))["horizon_diverged"] == 1
