"""The study: its list of runs, what it says of targets, its page."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import sweeping
import yaml
from test_summary import COLUMNS
from typer.testing import CliRunner

from metaspeech import config
from metaspeech.errors import UserError
from metaspeech.evaluation.judges.base import Column
from metaspeech.evaluation.summary import summarise
from metaspeech.evaluation.systems import System
from metaspeech.study import page, targets, workplace
from metaspeech.study.runs import chosen, read_runs
from metaspeech.study.targets import Found
from metaspeech.sweeps.snapshot import git
from pipelines.study import PROFILES, STUDY, TEMPLATE, app, run_all

STEPS = (0, 5, 100)
SYSTEM = System("tacotron", None, STEPS, 5, "Query loss", "Of training.")
REAL = {"similarity": 0.9, "impostor_similarity": 0.6, "phoneme_error": 0.3, "mos": 4.0}


def found(curves, speakers=8, stopped=True, doubted=()):
    """``curves``: algorithm -> measure -> values at STEPS. A speaker is as far above the mean as another below."""
    rows, losses = [], []

    def utterance(speaker, algorithm, shots, step, model, values):
        owner = {"model": model, "algorithm": algorithm, "shots": shots, "step": step, "seed": 1}
        owner |= {"episode_id": f"s{speaker}-0", "speaker": f"s{speaker}"}
        rows.append({**owner, "utt_id": "u", "text": "a text", "stopped": stopped, "finite": True, **values})
        return owner

    for speaker in range(speakers):
        apart = 0.001 * (speaker - (speakers - 1) / 2)
        utterance(speaker, "real", 0, 0, "", REAL)
        for algorithm, measures in curves.items():
            for place, step in enumerate(STEPS):
                values = {name: values[place] + apart for name, values in measures.items() if name != "loss"}
                values |= {"impostor_similarity": 0.6}
                owner = utterance(speaker, algorithm, 5, step, "tacotron", values)
                losses.append({**owner, "loss": measures["loss"][place]})
    columns = [
        *COLUMNS,
        Column("mos", "Opinion", "higher", "Predicted."),
        Column("impostor_similarity", "O", "lower", ""),
    ]
    settings = {"algorithms": list(curves), "shots": 5}
    tables = pd.DataFrame(rows), pd.DataFrame(losses)
    return Found(*summarise(*tables, columns, [SYSTEM], settings, bootstrap=200, seed=0, doubted=doubted))


TRANSFER = {
    "loss": (1.0, 0.8, 0.5),
    "similarity": (0.6, 0.65, 0.75),
    "phoneme_error": (0.4, 0.4, 0.5),
    "mos": (3.0, 3.0, 2.5),
}


def start(**changed):
    return {"transfer": TRANSFER, "maml": TRANSFER | changed}


def test_steps_are_met_by_a_start_that_has_it_all_after_five():
    ahead = found(start(loss=(1.0, 0.5, 0.4), similarity=(0.6, 0.75, 0.8)))
    answer = targets.steps(ahead, SYSTEM, "maml")
    assert answer.met
    assert "query loss 0.500 after 5 steps, transfer's 0.500 after 100; −0.300 (−0.300 to −0.300)" in answer.figure
    assert "similarity 0.750 after 5 steps, transfer's 0.750 after 100" in answer.figure


@pytest.mark.parametrize("short", [{"loss": (1.0, 0.51, 0.4)}, {"similarity": (0.6, 0.74, 0.8)}])
def test_steps_are_missed_where_one_of_the_two_falls_short(short):
    reached = {"loss": (1.0, 0.5, 0.4), "similarity": (0.6, 0.75, 0.8)}
    assert not targets.steps(found(start(**reached | short)), SYSTEM, "maml").met


def test_a_lead_that_is_not_certain_does_not_count():
    """As good as transfer at its last step, where transfer is as good after five already."""
    flat = {"transfer": TRANSFER | {"loss": (1.0, 0.5, 0.5), "similarity": (0.6, 0.75, 0.75)}}
    assert not targets.steps(found(flat | {"maml": flat["transfer"]}), SYSTEM, "maml").met


@pytest.mark.parametrize(("own", "met", "share"), [(0.81, True, 70), (0.80, False, 67), (0.57, False, -10)])
def test_similarity_is_the_share_of_the_way_from_others_to_the_speaker(own, met, share):
    answer = targets.similarity(found(start(similarity=(0.6, own + 1e-9, 0.8))), SYSTEM, "maml")
    assert answer.met == met
    assert answer.figure.startswith(f"{share} % of the way")
    assert "between 0.600, other speakers' recordings, and 0.900, the speaker's own" in answer.figure


@pytest.mark.parametrize(("error", "stopped", "met"), [(0.44, True, True), (0.46, True, False), (0.44, False, False)])
def test_intelligibility_is_held_against_the_recordings(error, stopped, met):
    answer = targets.intelligibility(
        found(start(phoneme_error=(0.4, error, 0.5)), stopped=stopped), SYSTEM, "maml", allowed=0.15
    )
    assert answer.met == met
    assert f"{'0' if stopped else '8'} of 8 syntheses did not stop" in answer.figure
    assert "above the recordings' 0.300" in answer.figure


def test_hidden_cost_compares_where_transfer_is_as_like_the_speaker():
    """Transfer has the similarity of 0.75 after 100 steps: it is held against the opinion of there, 2.5."""
    answer = targets.hidden_cost(found(start(similarity=(0.6, 0.7, 0.8), mos=(3, 2.6, 2))), SYSTEM, "maml")
    assert answer.met
    assert "+0.100 (+0.100 to +0.100) against transfer's" in answer.figure
    assert "after 100 steps, as like the speaker (0.750 and 0.700)" in answer.figure
    worse = targets.hidden_cost(found(start(similarity=(0.6, 0.7, 0.8), mos=(3, 2.4, 2))), SYSTEM, "maml")
    assert not worse.met


def test_a_judge_that_fails_its_own_checks_is_not_quoted():
    doubted = found(start(similarity=(0.6, 0.9, 0.8), mos=(3, 1, 1)), doubted=["mos"])
    answer = targets.hidden_cost(doubted, SYSTEM, "maml")
    assert answer.met, "by phoneme error alone"
    assert "predicted opinion: its judge fails its own checks here" in answer.figure
    assert "which comes no closer to the speaker than" in answer.figure


@pytest.mark.parametrize(
    ("ask", "doubted"),
    [
        (targets.steps, ["similarity"]),
        (targets.similarity, ["similarity"]),
        (targets.hidden_cost, ["similarity"]),
        (targets.hidden_cost, ["mos", "phoneme_error"]),
        (lambda *of: targets.intelligibility(*of, allowed=1.0), ["phoneme_error"]),
    ],
)
def test_nothing_is_met_by_the_word_of_a_judge_that_fails_its_checks(ask, doubted):
    best = start(loss=(1.0, 0.1, 0.1), similarity=(0.6, 0.95, 0.95), phoneme_error=(0.4, 0.1, 0.1), mos=(3, 5, 5))
    assert ask(found(best), SYSTEM, "maml").met
    answer = ask(found(best, doubted=doubted), SYSTEM, "maml")
    assert not answer.met
    assert "its judge fails its own checks here" in answer.figure


def test_what_was_not_measured_is_said():
    with pytest.raises(UserError, match="nothing of tacotron, anil, 5 shots, step 5"):
        targets.steps(found(start()), SYSTEM, "anil")


# The list of runs --------------------------------------------------------------------------------------------------


def test_the_study_of_the_project_can_be_run(tmp_path):
    known = read_runs(STUDY)
    assert known
    for run in known:
        params = run.params(PROFILES, {run.corpus: tmp_path})
        assert "transfer" in params.algorithms, f"{run.name}: all are compared with transfer"
        assert params.corpus.path == str(tmp_path) if run.corpus else params.corpus.source == "espeak"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "expected runs by name"),
        ("a: 1", "expected title and profile"),
        ("A/b: {title: x, profile: smoke}", "a folder is called so"),
        ("a: {title: x, profile: smoke, sett: []}", "expected title and profile"),
        ("a: {title: x, profile: smoke, set: inner.rate=1}", "expected a list of section.key=value"),
        ("a: {title: x", "cannot be read as YAML"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, content, said):
    path = tmp_path / "study.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=said) as refused:
        read_runs(path)
    assert str(path) in str(refused.value)


def test_a_value_that_params_may_not_have_names_the_run(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("mine: {title: x, profile: smoke, set: [inner.steps=-1]}")
    with pytest.raises(UserError, match=r"run 'mine' of the study: .*inner\.steps"):
        read_runs(path)[0].params(PROFILES, {})


def test_a_run_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r"no run 'other'\. It has: default"):
        chosen(read_runs(STUDY), ["other"])


@pytest.mark.parametrize("given", ["mine", "mine=", "=/tmp", "mine=/nowhere"])
def test_recordings_that_are_not_there_are_named(given):
    done = CliRunner().invoke(app, ["--corpus", given])
    assert done.exit_code == 2
    assert f"error: --corpus {given}: expected NAME=FOLDER" in done.output


def test_a_run_without_its_recordings_is_left_out(capsys):
    run_all([run for run in read_runs(STUDY) if run.corpus], {}, jobs=1)
    assert "left out: speechocean needs recordings: --corpus speechocean762=FOLDER" in capsys.readouterr().out


# The page ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path):
    """A finished run called default."""
    made = found(start(loss=(1.0, 0.5, 0.4), similarity=(0.6, 0.75, 0.8)))
    folder = tmp_path / "results" / "default"
    folder.mkdir(parents=True)
    made.summary.write(folder / "summary.json")
    made.speakers.to_parquet(folder / "speakers.parquet")
    (folder / workplace.DONE).write_text(json.dumps({"code": "commit c0ffee", "seconds": 75.0}))
    return tmp_path / "results"


def test_the_page_of_the_project_says_what_was_found_and_what_was_not_run(results, tmp_path):
    page.write(TEMPLATE, read_runs(STUDY), results, tmp_path / "reports" / "study.md")
    text = (tmp_path / "reports" / "study.md").read_text()
    assert "commit c0ffee" in text
    assert "0.600 / 0.750 / 0.800" in text
    assert "Not run yet: `make study RUNS=speechocean CORPORA=speechocean762=/full/path`" in text
    image = "study/default-tacotron-similarity.png"
    assert f"({image})" in text
    assert (tmp_path / "reports" / image).read_bytes().startswith(b"\x89PNG")
    assert "- **MAML, steps: met.** query loss 0.500 after 5 steps, transfer's 0.500 after 100" in text
    assert "- **Transfer, similarity: missed.**" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "default |" in line]
    assert rows[0] == ["default", "Transfer", "", "missed", "", "met"]  # asked for neither steps nor hidden cost
    assert rows[1] == ["default", "MAML", "met", "missed", "met", "met"]
    assert f"`{results}/default/index.html`" in text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ study.table('other', 'tacotron') }}", "the study has no run 'other'"),
        ("{{ study.table('speechocean', 'tacotron') }}", "run 'speechocean' of the study is not finished: make study"),
        ("{{ study.table('default', 'vocoder') }}", "has no system 'vocoder'. It has: tacotron"),
        ("one\n{{ study.tables('default') }}", "has no attribute 'tables'"),
        ("one\n{% if %}", "line 2"),
    ],
)
def test_a_template_that_asks_for_what_there_is_not(results, tmp_path, template, said):
    path = tmp_path / "mine.md"
    path.write_text(template)
    with pytest.raises(UserError, match=said):
        page.write(path, read_runs(STUDY), results, tmp_path / "page.md")
    assert not (tmp_path / "page.md").exists()


def test_a_repetition_that_makes_nothing_keeps_the_time_of_the_first(tmp_path):
    clone, out = tmp_path / "clone", tmp_path / "out"
    for name in workplace.KEPT:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("first")
    assert workplace.keep(clone, out, "one", 600).seconds == 600
    assert workplace.keep(clone, out, "two", 5).seconds == 600
    (clone / workplace.KEPT[0]).write_text("second")
    assert workplace.keep(clone, out, "two", 500) == workplace.finished(out) == workplace.Done("two", 500)
    assert (out / "summary.json").read_text() == "second"


# A run's place -----------------------------------------------------------------------------------------------------


def test_a_run_takes_from_another_what_is_the_same_and_follows_the_project(tmp_path):
    """Also what DVC's cache of runs has not: outs that persist."""
    project = sweeping.make_project(tmp_path / "project")
    pipeline = yaml.safe_load((project / "dvc.yaml").read_text())
    pipeline["stages"]["corpus"]["outs"] = [{"data/corpus.txt": {"persist": True}}]
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    sweeping.commit(project, "persist")
    params = config.load(project / "params.yaml")
    faster = replace(params, inner=replace(params.inner, rate=0.4))

    first = workplace.prepare(project, "first", params)
    assert ran(first) == {"corpus", "adapt@tacotron-maml-1"}
    second = workplace.prepare(project, "second", faster, like="first")
    assert config.load(second / "params.yaml").inner.rate == 0.4
    assert ran(second) == {"adapt@tacotron-maml-1"}

    (project / "stage.py").write_text((project / "stage.py").read_text() + "# changed\n")
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "# the user's own\n")
    second = workplace.prepare(project, "second", faster)
    assert (second / "stage.py").read_text().endswith("# changed\n")
    assert config.load(second / "params.yaml").inner.rate == 0.4
    assert ran(second) == {"adapt@tacotron-maml-1"}
    assert ran(workplace.prepare(project, "second", faster)) == set()


def test_a_run_says_which_code_it_ran_though_the_project_goes_on(tmp_path, monkeypatch):
    """It said what the project was when the run ended."""
    project = sweeping.make_project(tmp_path / "project")
    before = git(project, "rev-parse", "HEAD").strip()

    def pipeline(command, cwd, env, check):
        for name in workplace.KEPT:
            (cwd / name).parent.mkdir(parents=True, exist_ok=True)
            (cwd / name).write_text("made")
        (project / "stage.py").write_text("# changed\n")
        sweeping.commit(project, "changed meanwhile")
        return subprocess.CompletedProcess(command, 0)

    params = config.load(project / "params.yaml")
    monkeypatch.setattr(workplace, "subprocess", SimpleNamespace(run=pipeline))
    done = workplace.run(project, "first", params, 1, "", tmp_path / "out")
    assert before[:10] in done.code
    assert git(project, "rev-parse", "HEAD").strip() != before


def ran(clone):
    """The stages that ``dvc repro`` ran."""
    return set(re.findall("Running stage '(.*)'", sweeping.run(clone, "dvc", "repro")))
