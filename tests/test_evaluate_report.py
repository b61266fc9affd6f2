"""The evaluate and report stages on a small project, the page as text."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import sqlite3
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import evaluated
import numpy as np
import pandas as pd
import pytest
import soundfile
from markup import Balanced

from metaspeech import registry
from metaspeech.errors import UserError
from metaspeech.evaluation import bench, takes
from metaspeech.evaluation.judges.mcd import MelCepstralDistortion
from metaspeech.evaluation.judges.similarity import SpeakerSimilarity
from metaspeech.evaluation.summary import Summary
from metaspeech.report.results import Results
from metaspeech.training.checkpoint import CARD
from pipelines.evaluate import evaluate
from pipelines.report import report

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = """</script><script>document.title = "hacked"</script><img src=x onerror="document.title='hacked'">'"&"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Where both stages have run. Texts and a speaker's name are hostile by the time of the report."""
    folder = tmp_path_factory.mktemp("project")
    with chdir(folder):
        settings = evaluated.params()
        evaluated.write_inputs(folder, settings)
        evaluate(evaluated.stage("evaluate", settings))
        shutil.copytree(folder / "results/evaluate", folder / "results/untouched")
        path = folder / "results/evaluate/utterances.parquet"
        pd.read_parquet(path).assign(text=HOSTILE, speaker=HOSTILE).to_parquet(path, index=False)
        stage = evaluated.stage("report", settings)
        report(stage)
        (folder / "logged.json").write_text(json.dumps(stage.track.logged))
    return folder


@pytest.fixture(scope="module")
def utterances(project):
    return pd.read_parquet(project / "results/untouched/utterances.parquet")


@pytest.fixture(scope="module")
def page(project):
    return (project / "reports/index.html").read_text(encoding="utf-8")


def test_every_query_is_there_once_under_every_condition(utterances):
    keys = ["model", "algorithm", "shots", "step", "episode_id", "utt_id"]
    assert not utterances.duplicated(keys).any()
    counts = utterances.groupby(["algorithm", "step"]).size().to_dict()
    queries = 2 * 2  # speakers x queries
    adapted = {(name, step): queries for name in ("transfer", "maml") for step in evaluated.STEPS}
    assert counts == {("real", 0): queries, ("copy", 0): queries, **adapted}
    assert utterances["finite"].all()


def test_judges_give_what_they_promise(utterances):
    promised = {column.name for column in bench.columns(list(registry.JUDGES))}
    assert promised < set(utterances.columns)
    real = utterances[utterances["algorithm"] == "real"]
    assert (real["mcd"] == 0).all()
    assert (real["voicing_error"] == 0).all()
    assert (utterances["margin"] - (utterances["similarity"] - utterances["impostor_similarity"])).abs().max() < 1e-6


def test_a_synthesis_that_does_not_stop_is_as_long_as_the_limit_and_counted(utterances, project):
    """The untrained model hardly ever stops."""
    adapted = utterances[utterances["model"] != ""]
    real = utterances[utterances["algorithm"] == "real"].set_index("utt_id")["seconds"]
    limit = adapted["utt_id"].map(real) * 1.5
    failed = adapted[~adapted["stopped"]]
    assert len(failed)
    assert (failed["seconds"] >= limit[failed.index] - 0.05).all()
    assert (adapted["seconds"] <= limit + 0.1).all()
    metrics = json.loads((project / "results/evaluate/metrics.json").read_text())
    of_maml = adapted[adapted["algorithm"] == "maml"]
    assert metrics["tacotron-maml"]["stop_failures"] == pytest.approx((~of_maml["stopped"]).mean())


def test_evaluate_leaves_what_plots_and_the_report_read(project):
    curves = pd.read_csv(project / "results/evaluate/curves.csv")
    assert set(curves["algorithm"]) == {"transfer", "maml"}
    for metric in ("loss", "similarity", "phoneme_error"):
        assert (curves[f"{metric}_low"] <= curves[metric] + 1e-9).all()
        assert (curves[metric] <= curves[f"{metric}_high"] + 1e-9).all()
    clips = sorted(path.stem for path in (project / "results/evaluate/audio").glob("*/*.flac"))
    assert len(clips) == 2 * (2 + 2 * len(evaluated.STEPS))
    with np.load(project / "results/evaluate/audio/panels.npz", allow_pickle=False) as panels:
        assert {name.rsplit("/", 1)[1] for name in panels} == {"mel", "alignment"}


def test_processes_do_not_change_the_numbers(project, utterances, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr(evaluated, "PARAMS", {**evaluated.PARAMS, "algorithms": ["maml"]})
    settings = evaluated.params(evaluate={**evaluated.PARAMS["evaluate"], "workers": 2, "judges": ["mcd"]})
    shutil.rmtree(".metaspeech")  # else nothing would be judged
    evaluate(evaluated.stage("parallel", settings))
    again = pd.read_parquet("results/parallel/utterances.parquet")
    expected = utterances[utterances["algorithm"] != "transfer"].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, expected[again.columns], rtol=1e-5)


def test_what_judges_said_before_is_not_asked_again_and_the_tables_are_the_same(project, utterances, monkeypatch):
    monkeypatch.chdir(project)
    changed = {**evaluated.PARAMS["evaluate"], "judges": ["mcd", "similarity", "attention"]}
    first = evaluated.stage("first", evaluated.params(evaluate=changed))
    evaluate(first)
    said = sqlite3.connect(".metaspeech/judges.sqlite").execute("SELECT COUNT(*) FROM scores").fetchone()
    monkeypatch.setattr(SpeakerSimilarity, "__call__", None)
    monkeypatch.setattr(MelCepstralDistortion, "__call__", None)
    evaluate(evaluated.stage("second", evaluated.params(evaluate=changed)))
    assert sqlite3.connect(".metaspeech/judges.sqlite").execute("SELECT COUNT(*) FROM scores").fetchone() == said
    for name in ("utterances.parquet", "summary.json"):
        assert Path("results/first", name).read_bytes() == Path("results/second", name).read_bytes()
    again = pd.read_parquet("results/second/utterances.parquet")
    pd.testing.assert_frame_equal(again, utterances[again.columns])


def test_dear_judges_are_asked_for_the_first_queries_only(utterances):
    first = utterances.groupby("episode_id")["utt_id"].transform("first")
    assert utterances["mos"].notna().equals(utterances["utt_id"] == first)


def test_the_summary_says_which_judges_failed_on_tones(project):
    """No speech here: a recogniser cannot hear any, while distances from a recording to itself are 0."""
    summary = Summary.read(project / "results/untouched/summary.json")
    passed = summary.checks.set_index(["judge", "check"])["passed"]
    assert passed["mcd", "recordings against themselves"]
    assert not passed["phonemes", "recordings"]
    trusted = summary.columns.set_index("name")["trusted"]
    assert trusted["loss"]
    assert trusted["mcd"]
    assert not trusted["phoneme_error"]
    table = summary.conditions
    assert set(table[table["metric"] == "eer"]["algorithm"]) == {"real", "copy", "transfer", "maml"}
    assert table[table["metric"] == "eer"]["mean"].between(0, 1).all()
    assert set(table[table["metric"] == "focus_rate"]["algorithm"]) == {"transfer", "maml"}


def test_diverged_parameters_are_counted_and_do_not_stop_the_stage(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    loud = takes.speak

    def diverged(*args, **kwargs):
        return [replace(one, mel=one.mel * np.float32(np.nan)) for one in loud(*args, **kwargs)]

    monkeypatch.setattr(takes, "speak", diverged)
    rows = evaluated.run_first(evaluated.params(), tmp_path)
    assert not rows["finite"].any()
    assert rows["similarity"].isna().all()


def test_enrolment_holds_no_synthesised_text(project):
    from metaspeech.data.store import Store

    episodes = _episodes(project)
    enrolment = bench.enrolment_of(Store(project / "data/prepared"), episodes)
    for episode in episodes:
        own = enrolment[episode.speaker]
        assert own
        assert not set(own) & set(episode.query)
        assert set(own[:2]).isdisjoint(episode.support), "others come first"


def test_a_checkpoint_of_another_configuration_is_refused(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    with pytest.raises(UserError, match=CARD):
        evaluate(evaluated.stage("other", evaluated.params(tacotron={"preset": "tiny", "reduction_factor": 2})))


def test_the_page_needs_nothing_else(page):
    parser = Balanced()
    parser.feed(page)
    assert len(parser.addresses) > 4
    assert all(address.startswith(("data:", "#")) for address in parser.addresses)
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)", page))
    assert "@import" not in page


def test_the_page_is_well_formed_and_has_its_parts(page):
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert len(set(re.findall(r'data-clip="(\d+)"', page))) == 2 * (2 + 2 * 3)
    # curves, the front, every speaker's curves, paired differences, spectrograms and alignments, the map of tasks and
    # three matrices of similarities
    assert parser.counts["svg"] == 4 + 1 + 4 + 4 + 2 + 4
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert "c0ffeec0ff, changed" in page


def test_texts_of_the_corpus_cannot_become_markup(page):
    assert "<script>document" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=" in page
    assert "A &lt;b&gt;title&lt;/b&gt; &amp; more" in page


def test_clips_on_the_page_are_the_recordings(page, project):
    clips = json.loads(re.search(r'id="sounds">(.*?)</script>', page, flags=re.DOTALL)[1])
    decoded, rate = soundfile.read(io.BytesIO(base64.b64decode(clips[0])))
    episode = Results(project / "results/untouched").summary.settings["audible"][0]
    original, _ = soundfile.read(project / f"results/evaluate/audio/{episode}/real.flac")
    assert rate == 16000
    assert abs(len(decoded) - len(original)) < 0.15 * rate
    assert np.std(decoded) == pytest.approx(np.std(original), rel=0.1)


def test_figures_follow_the_colours_of_the_page(page):
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert all("var(--ink)" in figure for figure in figures)
    assert any("var(--series-0)" in figure for figure in figures)
    assert not any("#1c1c22" in figure for figure in figures)


def test_the_report_says_no_more_than_two_speakers_can(page, project):
    assert "no other start is measurably ahead of transfer" in page
    assert "no difference can reach" in page
    summary = (project / "reports/summary.md").read_text(encoding="utf-8")
    assert summary.count("\n|") == 2 + 2 + 2 * 2  # header, references, two algorithms at steps 0 and 1
    assert "<b>" not in summary


def test_the_report_logs_page_figures_table_and_audio(project):
    logged = json.loads((project / "logged.json").read_text())
    assert {"reports", "speakers", "tacotron-loss", "tacotron-spectrograms"} <= set(logged)
    assert "results/evaluate/summary.json" in logged, "for an execution that had its evaluation from the cache"
    assert sum(name.startswith("results/evaluate/audio/") for name in logged) == 2


def test_missing_results_end_in_a_message(tmp_path):
    with pytest.raises(UserError, match="dvc repro evaluate"):
        Results(tmp_path)


def _episodes(project=Path()):
    from metaspeech.data.episodes import read_episodes

    return tuple(read_episodes(project / "data/episodes/test.parquet"))
