"""The evaluate and report stages with a vocoder: copy synthesis, chains, and what the page makes of them."""

from __future__ import annotations

import json
import re
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import evaluated
import numpy as np
import pandas as pd
import pytest
import torch
from markup import Balanced

from metaspeech.data.store import Store
from metaspeech.errors import UserError
from metaspeech.evaluation import rendering, takes
from metaspeech.evaluation.summary import Summary
from metaspeech.report.findings import findings
from metaspeech.report.listening import listening
from metaspeech.report.page import start_sentence
from metaspeech.report.results import Results
from metaspeech.training import deltas
from metaspeech.training.checkpoint import CARD
from pipelines.evaluate import evaluate
from pipelines.report import report

CHAIN = "tacotron+wavenet"
ALONE = {"queries": 1, "judges": ["mcd", "similarity"]}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Where both stages have run with an acoustic model and a vocoder."""
    folder = tmp_path_factory.mktemp("project")
    with chdir(folder):
        settings = evaluated.params(models=["wavenet", "tacotron"])
        evaluated.write_inputs(folder, settings)
        evaluate(evaluated.stage("evaluate", settings))
        start = {"name": "one", "sha256": "ab" * 32, "steps": 60000, "corpus": "some", "speakers": 42, "hours": 2.5}
        (folder / "results/pretrain/wavenet/start.json").write_text(json.dumps(start), encoding="utf-8")
        report(evaluated.stage("report", settings))
        (folder / "results/pretrain/wavenet/start.json").write_text("null\n", encoding="utf-8")  # for evaluate again
    return folder


@pytest.fixture(scope="module")
def utterances(project):
    return pd.read_parquet(project / "results/evaluate/utterances.parquet")


@pytest.fixture(scope="module")
def page(project):
    return (project / "reports/index.html").read_text(encoding="utf-8")


def test_vocoders_and_chains_are_rendered_at_their_steps_and_of_their_queries(utterances):
    assert not utterances.duplicated(["model", "algorithm", "shots", "step", "episode_id", "utt_id"]).any()
    counts = utterances.groupby(["model", "algorithm", "step"]).size().to_dict()
    speakers, algorithms = 2, ("transfer", "maml")
    slow = {(model, name, step): speakers for model in (CHAIN, "wavenet") for name in algorithms for step in (0, 2)}
    fast = {("tacotron", name, step): 2 * speakers for name in algorithms for step in evaluated.STEPS}
    assert counts == {("", "real", 0): 2 * speakers, ("", "copy", 0): 2 * speakers, **fast, **slow}
    assert utterances["finite"].all()


def test_a_vocoder_makes_the_length_it_was_given(utterances):
    """Copy synthesis is as long as the recording, a chain as long as the acoustic model made it."""
    seconds = utterances.set_index(["model", "algorithm", "step", "utt_id"])["seconds"]
    for key, own in seconds.items():
        model, algorithm, step, utt_id = key
        if model == "wavenet":
            assert own == seconds["", "real", 0, utt_id]
        elif model == CHAIN:
            assert own == seconds["tacotron", algorithm, step, utt_id]


def test_a_vocoder_alone_gives_the_same(project, utterances, monkeypatch):
    """Without an acoustic model, and without the chains beside it in the batch."""
    monkeypatch.chdir(project)
    settings = evaluated.params(
        models=["wavenet"], algorithms=["maml"], evaluate=evaluated.PARAMS["evaluate"] | {"judges": ["mcd"]}
    )
    evaluate(evaluated.stage("alone", settings))
    again = pd.read_parquet("results/alone/utterances.parquet")
    expected = utterances[utterances["model"].isin(["", "wavenet"]) & (utterances["algorithm"] != "transfer")]
    pd.testing.assert_frame_equal(again, expected.reset_index(drop=True)[again.columns], rtol=1e-4)
    summary = Summary.read(Path("results/alone/summary.json"))
    assert [system.name for system in summary.systems] == ["wavenet"]
    assert "bits per sample" in findings(summary, "wavenet").headline


def test_a_chain_has_no_loss_and_says_nothing_of_it(project):
    summary = Summary.read(project / "results/evaluate/summary.json")
    measured = summary.conditions.groupby("model")["metric"].agg(set)
    assert "loss" not in measured[CHAIN]
    assert "loss" in measured["wavenet"]
    assert "loss" in measured["tacotron"]
    assert measured["wavenet"] - {"loss"} <= measured[CHAIN]
    curves = pd.read_csv(project / "results/evaluate/curves.csv")
    assert set(curves["model"]) == {CHAIN, "tacotron", "wavenet"}
    of_vocoder = curves[curves["model"] == "wavenet"].set_index(["algorithm", "step"])
    assert of_vocoder["loss"].notna().all()
    assert of_vocoder.loc["maml"]["mcd"].isna().to_dict() == {0: False, 1: True, 2: False}


def test_a_vocoder_is_compared_with_griffin_lim_on_the_same_queries(project, utterances):
    table = Summary.read(project / "results/evaluate/summary.json").comparisons
    table = table[(table["against"] == "griffin-lim") & (table["metric"] == "mcd")]
    assert set(table["model"]) == {CHAIN, "wavenet"}
    shared = set(utterances[utterances["model"] == "wavenet"]["utt_id"])
    rows = (
        utterances[utterances["utt_id"].isin(shared)]
        .set_index(["model", "algorithm", "step", "utt_id"])["mcd"]
        .sort_index()
    )
    for row in table.to_dict(orient="records"):
        other = ("tacotron", row["algorithm"], row["step"]) if row["model"] == CHAIN else ("", "copy", 0)
        expected = (rows[row["model"], row["algorithm"], row["step"]] - rows[other]).mean()
        assert row["difference"] == pytest.approx(expected)


def test_metrics_have_names_that_mlflow_takes(project):
    metrics = json.loads((project / "results/evaluate/metrics.json").read_text())
    assert {"tacotron-wavenet-maml", "wavenet-maml", "tacotron-maml"} < set(metrics)
    assert "loss_2" in metrics["wavenet-maml"]
    assert "stop_failures" in metrics["tacotron-wavenet-maml"]
    assert "stop_failures" not in metrics["wavenet-maml"], "a vocoder ends when its mel does"
    assert not any("+" in name for name in metrics)


def test_vocoded_sound_is_that_of_the_model(project):
    """Not Griffin-Lim's, and not the same for a chain as for a recording."""
    audio = project / "results/evaluate/audio"
    episode = Summary.read(project / "results/evaluate/summary.json").settings["audible"][0]
    kept = {path.stem: path.read_bytes() for path in (audio / episode).glob("*.flac")}
    assert len(kept) == 2 + 2 * (3 + 2 + 2)
    assert len({kept[name] for name in ("copy", "wavenet-maml-2-2", "tacotron-maml-2-2", f"{CHAIN}-maml-2-2")}) == 4


def test_a_diverged_vocoder_is_counted_and_does_not_stop_the_stage(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    read = deltas.read

    def infinite(path, base, step):
        params = read(path, base, step)
        return (
            {name: value * torch.inf for name, value in params.items()} if step and "wavenet" in str(path) else params
        )

    monkeypatch.setattr(deltas, "read", infinite)
    rows = evaluated.run_first(_both(evaluate=ALONE), tmp_path)
    lost = rows[~rows["finite"]]
    assert set(zip(lost["model"], lost["step"], strict=True)) == {("wavenet", 2), (CHAIN, 2)}
    assert lost["similarity"].isna().all()
    assert rows[rows["finite"]]["similarity"].notna().all()


def test_a_diverged_acoustic_model_leaves_copy_synthesis_alone(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    fine = takes.speak

    def diverged(*args, **kwargs):
        return [replace(one, mel=one.mel * np.float32(np.nan)) for one in fine(*args, **kwargs)]

    monkeypatch.setattr(takes, "speak", diverged)
    rows = evaluated.run_first(_both(evaluate=ALONE), tmp_path)
    assert set(rows[rows["finite"]]["model"]) == {"wavenet"}


def test_sound_that_is_not_finite_is_none():
    class Loud(torch.nn.Module):
        def vocode(self, mels, *, seeds):
            return [torch.full((4,), value) for value in (0.5, torch.nan)]

    store = SimpleNamespace(normalise=lambda mel: mel)
    mels = [np.ones((2, 3), np.float32), np.full((2, 3), np.nan, np.float32), np.ones((2, 3), np.float32)]
    made = rendering.vocode(Loud(), store, mels, seeds=[1, 2, 3])
    assert made[0].tolist() == [0.5] * 4
    assert made[1] is None
    assert made[2] is None


def test_a_vocoder_of_other_features_is_refused(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    fitting = Store.features
    monkeypatch.setattr(Store, "features", lambda self: replace(fitting(self), hop=128))
    with pytest.raises(
        UserError, match=f"wavenet-maml-1/{CARD}: made with features.hop = 256, but now features.hop = 128"
    ):
        evaluated.run_first(evaluated.params(models=["wavenet"]), tmp_path)


def test_steps_that_adaptation_has_not_are_refused():
    with pytest.raises(UserError, match=r"evaluate.vocoder_steps: \[5\] are not in adapt.steps \[0, 1, 2\]"):
        evaluated.params(evaluate=evaluated.PARAMS["evaluate"] | {"vocoder_steps": [0, 5]})


def test_the_page_has_a_part_for_each_system(page):
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert all(address.startswith(("data:", "#")) for address in parser.addresses)
    curves = paired = 3 + 4 + 4  # of the chain, the acoustic model, the vocoder
    panels = 3 + 1  # spectrograms of each, alignments of the acoustic model
    tasks = 2 * (1 + 3)  # a map for each model, a matrix for each representation
    fronts, speakers = 3, 3 + 4 + 4
    assert parser.counts["svg"] == 1 + curves + paired + fronts + speakers + panels + tasks
    assert parser.counts["audio"] == 1
    assert len(set(re.findall(r'data-clip="(\d+)"', page))) == 2 * (2 + 2 * (3 + 2 + 2))
    for text in (
        "From text to sound: tacotron, then wavenet",
        "Acoustic model: tacotron, then Griffin-Lim",
        "Vocoder: wavenet, on the mels of recordings",
        "Where the damage comes from",
        "Query loss",
        "Bits per sample",
        "wavenet was trained from one: 60,000 steps on 2.5 h of some, 42 speakers; sha256 abababababab.",
    ):
        assert text in page
    assert "tacotron was trained from random weights." in page


def test_sound_is_left_out_before_the_page_becomes_too_large(project):
    results = Results(project / "results/evaluate")
    assert len(listening(results).panels) == 2
    found = listening(results, most=1)
    (only,) = found.panels
    assert found.left_out == 1
    assert {name: len(clips) for name, clips in only.systems.items()} == {CHAIN: 2, "tacotron": 2, "wavenet": 2}
    assert found.steps == {CHAIN: [0, 2], "tacotron": [0, 1, 2], "wavenet": [0, 2]}
    clips = [only.real, only.copy, *(clip for groups in only.systems.values() for group in groups for clip in group)]
    assert sorted(clip.place for clip in clips) == list(range(len(found.sounds)))
    assert found.metric == "similarity"
    assert only.real.value > 0


def test_a_start_from_nothing_is_said_too():
    assert start_sentence("m", None) == "m was trained from random weights."


def _both(**changes):
    changes = {name: evaluated.PARAMS[name] | values for name, values in changes.items()}
    return evaluated.params(models=["wavenet", "tacotron"], **changes)
