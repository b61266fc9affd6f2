"""Sweeps around a project whose trials take a second: through the command, git, DVC and Optuna's journal."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import optuna
import pytest
import sweeping
import yaml
from markup import Balanced
from sweeping import ERROR, LOSS, hold, run, space, start, wait_for

from metaspeech import config
from metaspeech.errors import UserError
from metaspeech.sweeps import engine, study
from metaspeech.sweeps import space as spaces
from metaspeech.sweeps.progress import Progress
from metaspeech.sweeps.results import ended, results
from metaspeech.sweeps.snapshot import Code
from metaspeech.sweeps.trials import Outcome, rungs

Trials = optuna.trial.TrialState


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return sweeping.make_project(tmp_path_factory.mktemp("sweep") / "project")


def sweep(project: Path, *arguments: str, status: int = 0) -> str:
    return run(project, "metaspeech.cli", "sweep", *arguments, status=status)


def opened(project: Path, name: str) -> optuna.Study:
    return study.load(name, project / ".metaspeech/sweeps" / name, "")


def unseen(project: Path, name: str, horizon: int) -> Path:
    """A space whose trials have to run: DVC restores what another study of the project has run with the same values."""
    return space(project, name, fixed={"adapt.horizon": horizon})


def loss(params: dict) -> float:
    return (params["inner.rate"] - 0.1) ** 2 + 0.1 * (params["inner.steps"] - 3) ** 2


def test_a_trial_is_an_experiment_that_can_be_applied_and_a_study_goes_on(project):
    file = space(project, "two")
    output = sweep(project, str(file), "--trials", "3", "--jobs", "2")
    assert output.count(": complete, ") == 3
    trials = opened(project, "two").trials
    assert [trial.state for trial in trials] == [Trials.COMPLETE] * 3
    for trial in trials:
        assert trial.value == pytest.approx(loss(trial.params), rel=1e-4)
    assert set(run(project, "dvc", "exp", "list", "--name-only").split()) >= {
        "sweep-two-0",
        "sweep-two-1",
        "sweep-two-2",
    }
    logs = [(project / f".metaspeech/sweeps/two/logs/{number}.log").read_text() for number in range(3)]
    assert all("Stage 'corpus' didn't change, skipping" in log for log in logs), "made once, for all"
    assert run(project, "git", "status", "--porcelain") == "", "the working tree is as it was"

    run(project, "dvc", "exp", "apply", "sweep-two-1")
    params = config.flat(config.load(project / "params.yaml"))
    assert params["inner.rate"] == pytest.approx(trials[1].params["inner.rate"], rel=1e-5)
    assert params["inner.steps"] == trials[1].params["inner.steps"]
    assert (project / "results/at.txt").read_text() == "two 1", "the results too, from the project's own cache"
    run(project, "git", "checkout", "--quiet", "params.yaml")
    (project / "dvc.lock").unlink()

    stage = (project / "stage.py").read_text()
    (project / "stage.py").write_text("raise SystemExit('edited after the study began')")
    try:
        output = sweep(project, str(file), "--trials", "4")
    finally:
        (project / "stage.py").write_text(stage)
    assert "note: the study goes on with commit" in output
    assert output.count(": complete, ") == 1
    page = (project / "results/sweeps/two/index.html").read_text()
    parser = Balanced()
    parser.feed(page)
    assert not parser.open
    assert "dvc exp apply sweep-two-" in page
    assert "dvc exp run -n two-" in page
    assert "| 3 | complete |" in (project / "results/sweeps/two/summary.md").read_text()


def test_edits_while_a_sweep_runs_do_not_reach_its_trials(project):
    file, held = unseen(project, "edited", 21), hold(project, "edited")
    stage = (project / "stage.py").read_text()
    process = start(project, str(file), "--trials", "3")
    try:
        wait_for(lambda: (project / ".metaspeech/sweeps/edited/progress/0.jsonl").exists())
        (project / "stage.py").write_text("raise SystemExit('edited after the study began')")
        held.unlink()
        assert process.wait(timeout=120) == 0, process.stdout.read()
    finally:
        process.kill()
        (project / "stage.py").write_text(stage)
    assert [trial.state for trial in opened(project, "edited").trials] == [Trials.COMPLETE] * 3


def test_killed_it_runs_what_was_lost_again_and_loses_nothing(project):
    file, held = unseen(project, "killed", 22), hold(project, "killed")
    process = start(project, str(file), "--trials", "3", "--jobs", "2")
    progress = project / ".metaspeech/sweeps/killed/progress"
    wait_for(lambda: len(list(progress.glob("*.jsonl"))) == 2)
    assert "is at it. Wait until it has ended" in sweep(project, str(file), status=2), "two at once"
    process.send_signal(signal.SIGKILL)
    process.wait()
    interrupted = [trial.params for trial in opened(project, "killed").trials]
    assert len(interrupted) == 2
    held.unlink()

    output = sweep(project, str(file), "--trials", "2", "--jobs", "2")
    assert "0 of 2 trials are there, 2 will be run again" in output
    trials = opened(project, "killed").trials
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.params for trial in trials[2:]] == interrupted
    assert not list((project / ".metaspeech/sweeps/killed/project/.dvc/tmp/exps/standalone").glob("tmp*"))


def test_ctrl_c_ends_the_trials_and_the_next_call_goes_on(project):
    file = unseen(project, "stopped", 23)
    hold(project, "stopped")
    process = start(project, str(file), "--trials", "1")
    wait_for(lambda: (project / ".metaspeech/sweeps/stopped/progress/0.jsonl").exists())
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 2
    assert "error: interrupted. Give the same command to go on" in process.stdout.read()
    states = [trial.state.name for trial in opened(project, "stopped").trials]
    assert states == ["FAIL", "WAITING"]
    text = sweep(project, str(file), "--report")
    assert "results/sweeps/stopped/index.html" in text
    assert "No trial has finished with a result yet." in (project / "results/sweeps/stopped/summary.md").read_text()


def test_what_makes_every_trial_fail_stops_the_sweep_and_is_said(project):
    file = space(project, "full", fixed={"inner.clip": 9})
    output = sweep(project, str(file), "--trials", "9", status=2)
    assert "error: the first 3 trials have failed, the last one so: error in adapt: the disk is full" in output
    assert len(opened(project, "full").trials) == 3
    lost = space(project, "lost", fixed={"inner.clip": 8})
    assert "tacotron/validation_loss is not finite" in sweep(project, str(lost), "--trials", "1")
    wrong = space(project, "wrong", objectives=[LOSS | {"metric": "loss_7"}])
    assert "has no such figure. It has: validation_loss, error" in sweep(project, str(wrong), status=2)


def test_a_study_of_something_else_is_refused_with_what_differs(project):
    file = space(project, "one")
    sweep(project, str(file), "--trials", "1")
    space(project, "one", search={"inner.rate": {"low": 0.01, "high": 0.5}})
    output = sweep(project, str(file), status=2)
    assert (
        "study one was begun otherwise: search.inner.rate: 0.01 to 1 -> 0.01 to 0.5; search.inner.steps: whole 1 to 5"
    )
    assert "search.inner.rate: 0.01 to 1 -> 0.01 to 0.5" in output
    space(project, "one", objectives=[LOSS, ERROR])
    assert "objective 2: absent -> minimize tacotron/error" in sweep(project, str(file), status=2)
    space(project, "one", fixed={"inner.low_rank": 8})
    assert "inner.low_rank" in sweep(project, str(file), status=2)
    assert len(opened(project, "one").trials) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--study", "../up"], "expected at most 40 small letters, digits and '-'"),
        (["--sampler", "best"], "--sampler: 'best' is not one of tpe, nsga2, random"),
        (["--engine", "cloud"], "--engine: 'cloud' is not one of local, ray"),
        (["--address", "10.0.0.1:6379"], "of a cluster, so give --engine ray too"),
        (["--storage", "nothing://x:secret@y"], "cannot be used"),
        (["--report", "--study", "never"], "study never: there is none yet"),
    ],
)
def test_bad_options_are_one_message(project, arguments, expected):
    output = sweep(project, str(space(project)), *arguments, status=2)
    assert expected in output
    assert "Traceback" not in output
    assert "secret" not in output


def test_a_dry_run_says_what_would_run_and_leaves_nothing(project):
    output = sweep(project, str(space(project, "dry")), "--dry-run", "--trials", "8", "--jobs", "2")
    assert "study dry: 8 trials, 2 at a time" in output
    assert "inner.steps: whole 1 to 5" in output
    assert "made once: corpus; by each trial: adapt" in output
    assert "no forecast of the time: data/prepared, data/episodes: no tasks to measure yet" in output
    assert not (project / ".metaspeech/sweeps/dry").exists()


# ---- the engine by itself: Optuna's journal, and a function in the place of DVC


def in_process(folder: Path, raw: dict, run, trials: int, jobs: int = 1, name: str = "mine"):  # type: ignore[no-untyped-def]
    folder.mkdir(exist_ok=True)
    base = {"models": ["tacotron"], "algorithms": ["maml"]}
    searched = spaces.parse(raw, base, "mine.yaml")
    begun = study.open_study(name, folder, "", searched, base, Code("c" * 40, ""), "tpe", 1)
    study.mend(begun)
    told: list[str] = []
    engine.LocalEngine().run(begun, searched, run, engine.Wanted(trials, jobs), told.append)
    return begun, searched, told


def raw_space(**changes: object) -> dict:
    search = {"inner.rate": {"low": 0.01, "high": 1.0, "log": True}, "inner.steps": {"low": 1, "high": 5}}
    return {"target": "adapt", "objectives": [LOSS], "search": search} | changes


def test_it_finds_better_values_than_it_began_with(tmp_path):
    begun, _, _ = in_process(tmp_path, raw_space(), lambda n, values, *_: Outcome("complete", [loss(values)]), 40)
    values = [trial.value for trial in begun.trials]
    assert min(values[20:]) < min(values[:8])
    assert begun.best_params["inner.steps"] == 3


def test_as_many_trials_run_at_the_same_time_as_asked_for(tmp_path):
    together = threading.Barrier(3, timeout=20)

    def meet(number, values, report, stop):
        together.wait()
        return Outcome("complete", [loss(values)])

    begun, _, _ = in_process(tmp_path, raw_space(), meet, 6, jobs=3)
    assert len(begun.trials) == 6


def test_the_same_values_are_not_run_twice(tmp_path):
    ran = []

    def count(number, values, report, stop):
        ran.append(values["inner.steps"])
        return Outcome("complete", [float(values["inner.steps"])])

    two = raw_space(search={"inner.steps": {"values": [1, 2]}})
    begun, searched, told = in_process(tmp_path, two, count, 6)
    assert sorted(ran) == [1, 2]
    assert len(begun.trials) == 6
    again = [row for row in results(begun, searched, "mine").rows if row.note.startswith("as trial")]
    assert len(again) == 4
    assert {row.experiment for row in again} <= {"sweep-mine-0", "sweep-mine-1", "sweep-mine-2"}
    assert sum("not run again" in line for line in told) == 4


def test_hopeless_trials_are_stopped_early(tmp_path):
    def train(number, values, report, stop):
        for rung in range(1, 4):
            if report(loss(values) + 10 * (number >= 6), rung):
                return Outcome("pruned", reason="others did better by then")
        return Outcome("complete", [loss(values)])

    begun, searched, _ = in_process(tmp_path, raw_space(prune=True), train, 9)
    assert [trial.state for trial in begun.trials[6:]] == [Trials.PRUNED] * 3
    assert [trial.state for trial in begun.trials[:5]] == [Trials.COMPLETE] * 5
    assert results(begun, searched, "mine").count("stopped early") >= 3
    known = ended(begun, searched, "mine")
    assert [set(one.figures) for one in known[:5]] == [{"tacotron/validation_loss"}] * 5
    assert [(one.state, dict(one.figures)) for one in known[6:]] == [("stopped early", {})] * 3


def test_of_two_objectives_the_front_is_what_nothing_beats(tmp_path):
    def both(number, values, *_):
        return Outcome("complete", [loss(values), 1 - values["inner.rate"]])

    begun, searched, _ = in_process(tmp_path, raw_space(objectives=[LOSS, ERROR]), both, 15)
    found = results(begun, searched, "mine")
    for row in found.rows:
        beaten = any(
            all(a <= b for a, b in zip(other.values, row.values, strict=True)) and other.values != row.values
            for other in found.rows
        )
        assert row.best == (not beaten)
    assert set(found.importance) == {"tacotron/validation_loss", "tacotron/error"}
    assert found.importance["tacotron/error"]["inner.rate"] > 0.8, "error depends on the rate alone"


def test_a_trial_that_is_always_killed_is_given_up(tmp_path):
    """As many times as a killed sweep would find it running."""
    base = {"models": ["tacotron"], "algorithms": ["maml"]}
    searched = spaces.parse(raw_space(), base, "mine.yaml")
    for again in [1] * study.RETRIES + [0]:
        begun = study.open_study("mine", tmp_path, "", searched, base, Code("c" * 40, ""), "tpe", 1)
        trial = begun.ask()
        study.suggest(trial, searched.search)
        assert study.mend(begun) == again
    assert len({json.dumps(trial.params) for trial in begun.trials}) == 1


def test_another_machine_s_running_trial_is_left_to_it(tmp_path):
    base = {"models": ["tacotron"], "algorithms": ["maml"]}
    searched = spaces.parse(raw_space(), base, "mine.yaml")
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    begun = study.open_study("mine", tmp_path, storage, searched, base, Code("c" * 40, ""), "tpe", 1)
    trial = begun.ask()
    trial.set_user_attr(study.OWNER, "elsewhere")
    assert study.mend(begun) == 0
    assert begun.trials[0].state == Trials.RUNNING


def test_a_bug_in_a_trial_stops_the_sweep_and_leaves_the_trial_to_be_run_again(tmp_path):
    def wrong(*_):
        raise UserError("no such figure")

    with pytest.raises(UserError, match="no such figure"):
        in_process(tmp_path, raw_space(), wrong, 3)
    states = [trial.state for trial in study.load("mine", tmp_path, "").trials]
    assert states == [Trials.FAIL, Trials.WAITING]


def test_progress_is_compared_by_quarters_of_the_training():
    objective = spaces.Objective("validation_loss", "tacotron", "minimize")

    def at(done: float, loss: float, model: str = "tacotron") -> Progress:
        return Progress((model, "maml", "1"), done, {"validation_after": loss})

    found = [at(0.1, 9.0), at(0.3, 3.0), at(0.4, 2.5), at(0.8, 2.0), at(0.6, 7.0, "wavenet"), at(1.0, 1.0)]
    assert rungs(found, objective) == {1: 3.0, 3: 2.0}


def test_text_of_files_is_escaped_on_the_page(tmp_path):
    from metaspeech.sweeps.page import build_markdown, build_page

    def fail(number, values, *_):
        return Outcome("failed", reason="<script>alert(1)</script> | x") if number == 2 else Outcome("complete", [1.0])

    named = raw_space(search={"corpus.path": {"values": ["<b>a</b>", "b"]}, "inner.rate": {"low": 0.1, "high": 1}})
    begun, searched, _ = in_process(tmp_path, named, fail, 3)
    found = results(begun, searched, "mine")
    page, summary = build_page(found), build_markdown(found)
    prose = "\n".join(line for line in summary.splitlines() if not line.startswith("    "))  # not the commands
    for text in (page, prose):
        assert "<script>alert" not in text
        assert "<b>a" not in text
    assert "&lt;script&gt;alert" in page


def test_the_files_of_a_study_are_no_pickles(project):
    lines = (project / ".metaspeech/sweeps/two/study.journal").read_text().splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert yaml.safe_load((project / ".gitignore").read_text().splitlines()[0]) == "/data"
