"""The evaluation for several numbers of shots and seeds, on a small project."""

from __future__ import annotations

import json
import re
from contextlib import chdir
from pathlib import Path

import evaluated
import numpy as np
import pandas as pd
import pytest

from metaspeech.data.episodes import read_episodes
from metaspeech.data.store import Store
from metaspeech.errors import UserError
from metaspeech.evaluation import rendering, takes
from metaspeech.evaluation.breakdown import breakdowns
from metaspeech.evaluation.summary import Summary, compact_metrics, seed_spread
from metaspeech.evaluation.systems import headline_shots
from metaspeech.report.tables import result_rows
from metaspeech.training.checkpoint import load_model
from pipelines.evaluate import evaluate
from pipelines.report import report

CHAIN = "tacotron+wavenet"
CONDITION = ["model", "algorithm", "shots", "step"]


def settings(**changes):
    values = {
        "models": ["wavenet", "tacotron"],
        "seeds": [1, 2],
        "adapt": evaluated.PARAMS["adapt"] | {"shots": [1, 2]},
        "evaluate": evaluated.PARAMS["evaluate"] | {"shots": [2, 1], "judges": ["mcd"], "test": "wilcoxon"},
    }
    return evaluated.params(**values | changes)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    spoken = []
    with chdir(folder), pytest.MonkeyPatch.context() as patched:
        speak = takes.speak
        patched.setattr(takes, "speak", lambda *args, **kwargs: spoken.append(kwargs) or speak(*args, **kwargs))
        params = settings()
        evaluated.write_inputs(folder, params)
        evaluate(evaluated.stage("evaluate", params))
    maps = [kwargs["band_map"] is not None for kwargs in spoken]
    (folder / "spoken.json").write_text(json.dumps(maps))
    return folder


@pytest.fixture(scope="module")
def utterances(project):
    return pd.read_parquet(project / "results/evaluate/utterances.parquet")


@pytest.fixture(scope="module")
def summary(project):
    return Summary.read(project / "results/evaluate/summary.json")


def test_every_condition_has_a_row_a_query_speaker_and_seed(utterances):
    assert not utterances.duplicated([*CONDITION, "seed", "episode_id", "utt_id"]).any()
    counts = utterances.groupby(CONDITION).size().to_dict()
    each, slow = 2 * 2 * 2, 2 * 2  # speakers x seeds, x queries
    algorithms, shots = ("transfer", "maml"), (1, 2)
    fast = {("tacotron", name, n, step): each for name in algorithms for n in shots for step in evaluated.STEPS}
    heard = {
        (model, name, n, step): slow
        for model in (CHAIN, "wavenet")
        for name in algorithms
        for n in shots
        for step in (0, 2)
    }
    assert counts == {("", "real", 0, 0): 4, ("", "copy", 0, 0): 4, **fast, **heard}


def test_a_voice_before_adaptation_is_rendered_once_for_all_numbers_of_shots(project, utterances):
    keys = ["model", "algorithm", "step", "seed", "utt_id"]
    wide = utterances[utterances["model"] != ""].pivot(index=keys, columns="shots", values=["mcd", "seconds"])
    before = wide.index.get_level_values("step") == 0
    for name in ("mcd", "seconds"):
        assert (wide[name][1] == wide[name][2])[before].all()
    assert (wide["mcd"][1] != wide["mcd"][2])[~before].all()
    renderings = 1 + 2 * 2  # step 0 once, steps 1 and 2 for both
    maps = json.loads((project / "spoken.json").read_text())
    assert len(maps) == 2 * 2 * 2 * renderings  # algorithms, seeds, episodes
    assert maps == [False, True, True, True, True] * 8, "bands are matched from the first step on"


def test_matched_bands_have_the_mean_of_the_support_recordings(project):
    store = Store(project / "data/prepared")
    (episode, *_) = read_episodes(project / "data/episodes/test.parquet")
    model = load_model(project / "models/meta_train/tacotron-maml-1", settings(), store.features())
    options = {"max_seconds_ratio": 1.5, "seed": 1}
    seeds = [rendering.utterance_seed(1, utt_id) for utt_id in episode.support]
    band_map = rendering.matching_bands(model, store, store.batch(episode.support), max_seconds_ratio=1.5, seeds=seeds)
    plain, mapped = (
        np.concatenate([one.mel for one in rendering.speak(model, store, episode.support, band_map=which, **options)])
        for which in (None, band_map)
    )
    recorded = np.concatenate([store.mel(utt_id) for utt_id in episode.support]).mean(axis=0)
    assert np.abs(plain.mean(axis=0) - recorded).max() > 0.5
    np.testing.assert_allclose(mapped.mean(axis=0), recorded, atol=0.05)


def test_all_shots_can_be_heard(project, summary):
    assert (summary.settings["shots"], summary.settings["all_shots"]) == (2, [1, 2])
    (first, *_) = summary.settings["audible"]
    clips = {path.stem for path in (project / "results/evaluate/audio" / first).glob("*.flac")}
    assert {f"tacotron-maml-{shots}-{step}" for shots in (1, 2) for step in evaluated.STEPS} <= clips
    assert {f"{CHAIN}-maml-{shots}-{step}" for shots in (1, 2) for step in (0, 2)} <= clips
    assert "tacotron-maml-1-2" in clips


def test_tables_have_all_shots_and_headlines_one(project, summary):
    for table in (summary.conditions, summary.comparisons, summary.speed, summary.seeds):
        assert set(table[table["model"] == CHAIN]["shots"]) == {1, 2}
    curves = pd.read_csv(project / "results/evaluate/curves.csv")
    assert curves.groupby(["model", "shots"]).size().to_dict() == {
        (CHAIN, 1): 4, (CHAIN, 2): 4, ("tacotron", 1): 6, ("tacotron", 2): 6, ("wavenet", 1): 6, ("wavenet", 2): 6,
    }  # fmt: skip
    speed = summary.speed.set_index(["model", "algorithm", "shots", "metric"])
    metrics = compact_metrics(summary)["tacotron-maml"]
    steps = speed.loc[("tacotron", "maml", 2, "mcd"), "steps"]
    assert metrics["steps_to_transfer_mcd"] == (None if pd.isna(steps) else steps)


def test_a_speaker_is_one_observation_however_many_seeds(utterances, summary):
    at = ["tacotron", "maml", 2, 1]
    own = utterances[(utterances[CONDITION] == at).all(axis=1)]
    by_speaker = own.groupby(["speaker", "seed"])["mcd"].mean().groupby("speaker").mean()
    row = _row(summary.conditions, at, "mcd")
    assert row["speakers"] == 2
    assert row["mean"] == pytest.approx(by_speaker.mean())
    assert _row(summary.conditions, at, "loss")["mean"] == pytest.approx(2.0 - 0.1 + 0.01 + 0.02)
    difference = summary.comparisons[summary.comparisons["against"] == "transfer"]
    assert _row(difference, at, "loss")["difference"] == pytest.approx(0.01)
    assert summary.settings["test"] == "wilcoxon"


def test_the_spread_between_seeds_is_told(summary):
    at = ["tacotron", "maml", 2, 1]
    own = summary.seeds[(summary.seeds[CONDITION] == at).all(axis=1) & (summary.seeds["metric"] == "loss")]
    assert own.set_index("seed")["mean"].to_dict() == pytest.approx({1: 1.91, 2: 1.95})
    spread = _row(seed_spread(summary), at, "loss")
    assert (spread["seeds"], spread["deviation"]) == (2, pytest.approx(0.04 / 2**0.5))


def test_the_report_is_about_the_headline_shots(project, summary, monkeypatch):
    monkeypatch.chdir(project)
    report(evaluated.stage("report", settings()))
    page = Path("reports/index.html").read_text(encoding="utf-8")
    text = Path("reports/summary.md").read_text(encoding="utf-8")
    assert "2 support recordings each" in text
    rows = result_rows(summary, "tacotron")
    assert [(row.algorithm, row.step) for row in rows if row.step] == [
        (name, str(step)) for name in ("transfer", "maml") for step in evaluated.STEPS
    ]
    assert len(set(re.findall(r'data-clip="(\d+)"', page))) == 2 * (2 + 2 * (3 + 2 + 2))
    (breakdown,) = breakdowns(summary)
    assert set(breakdown.table[breakdown.table["model"] != ""]["shots"]) == {2}


def test_what_was_looked_at_for_leaks_is_kept(summary):
    assert summary.leakage["passed"].sum() >= 10
    assert summary.leakage["check"].str.contains("tacotron-maml-2").any()
    assert summary.settings["seeds"] == [1, 2]


def test_a_leak_stops_the_stage_before_anything_is_rendered(project, monkeypatch):
    monkeypatch.chdir(project)
    card = Path("models/meta_train/wavenet-maml-2/model.json")
    honest = card.read_text()
    unseen = pd.read_parquet("data/episodes/test.parquet")["speaker"].iloc[0]
    card.write_text(json.dumps(json.loads(honest) | {"speakers": [unseen]}))
    try:
        with pytest.raises(UserError, match=f"{card}: the model was trained on held-out speaker '{unseen}'"):
            evaluate(evaluated.stage("leaky", settings()))
    finally:
        card.write_text(honest)
    assert not list(Path("results/leaky").iterdir())


@pytest.mark.parametrize(("shots", "trained", "expected"), [([1, 5, 10], 5, 5), ([1, 10], 5, 10), ([2], 5, 2)])
def test_headline_shots(shots, trained, expected):
    assert headline_shots(shots, trained) == expected


def _row(table, condition, metric):
    (row,) = table[(table[CONDITION] == condition).all(axis=1) & (table["metric"] == metric)].to_dict(orient="records")
    return row
