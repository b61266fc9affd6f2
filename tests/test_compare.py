"""``metaspeech compare``: what differs between executions, and when a difference may be called significant."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from metaspeech.cli import app
from metaspeech.compare.differences import changed_params, differences, objections
from metaspeech.compare.plot import differences_plot
from metaspeech.compare.runs import Executed
from metaspeech.compare.show import conclusion, notes
from metaspeech.tracking import Execution, stage_run

DATA = {"data/prepared": "aa.dir", "data/episodes": "bb.dir"}
PARAMS = {"inner.rate": "0.2", "adapt.tune_steps": "5", "episodes.shots": "5", "seeds": "[1]", "evaluate.queries": "2"}


def table(gain: float = 0.0, speakers: int = 12, seed: int = 0, algorithms: tuple[str, ...] = ("transfer", "maml")):
    """MAML's similarity after 5 steps is ``gain`` higher, for each speaker by about as much."""
    draw = np.random.default_rng(0)
    noise = np.random.default_rng(seed + 1)
    rows = []
    for algorithm in algorithms:
        for step in (0, 5, 20):
            for speaker in range(speakers):
                added = gain if (algorithm, step) == ("maml", 5) else 0.0
                similarity = 0.6 + 0.05 * draw.normal() + added + 0.005 * noise.normal()
                key = {"model": "tacotron", "algorithm": algorithm, "shots": 5, "step": step, "speaker": f"p{speaker}"}
                rows.append({**key, "similarity": similarity, "loss": 1.0 + 0.1 * noise.normal()})
    real = {"model": "", "algorithm": "real", "shots": 0, "step": 0, "speaker": "p0", "similarity": 0.9}
    return pd.DataFrame([*rows, real])


def executed(name: str, speakers: pd.DataFrame, **changes) -> Executed:
    made = Executed(name, f"id-{name}", "c0ffee", False, dict(PARAMS), dict(DATA), "tasks", speakers)
    return replace(made, **changes)


def the(found, algorithm, metric):
    (one,) = [one for one in found if (one.algorithm, one.metric) == (algorithm, metric)]
    return one


def test_a_gain_of_every_speaker_is_significant_and_the_rest_is_not():
    found = differences(executed("a", table()), [executed("b", table(0.05, seed=1))])
    gained = the(found, "maml", "similarity")
    assert gained.verdict == "better"
    assert gained.step == 5, "that findings are about"
    assert 0.04 < gained.low < gained.difference < gained.high < 0.06
    assert gained.p == pytest.approx(2 / 2**12), "all of 12 signs alike, exactly"
    assert gained.p_holm == pytest.approx(2 * gained.p), "Holm over two algorithms"
    assert the(found, "transfer", "similarity").verdict == "not significant"
    lower = differences(executed("b", table(0.05, seed=1)), [executed("a", table())])
    assert the(lower, "maml", "similarity").verdict == "worse"
    assert the(lower, "maml", "similarity").difference == pytest.approx(-gained.difference)


def test_the_order_of_speakers_does_not_matter_and_pairs_are_by_name():
    shuffled = table(0.05, seed=1).sample(frac=1.0, random_state=3)
    plain = differences(executed("a", table()), [executed("b", table(0.05, seed=1))])
    assert differences(executed("a", table()), [executed("b", shuffled)]) == plain


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"speakers": table(0.5, speakers=11)}, "other speakers: 11 in both, 1 only in a, 0 only in b"),
        ({"tasks": "others"}, "other test tasks"),
        ({"tasks": "", "data": {**DATA, "data/episodes": "cc.dir"}}, "other test tasks, or other tasks beside them"),
        ({"tasks": "", "data": {"data/prepared": "aa.dir"}}, "it is not known whether data/episodes was the same"),
        ({"data": {**DATA, "data/prepared": "cc.dir"}}, "other recordings, or other features of them"),
        ({"params": {**PARAMS, "evaluate.queries": "5"}}, "evaluate.queries is 2 and 5"),
    ],
)
def test_what_is_not_of_the_same_thing_is_never_significant(changes, said):
    first, other = executed("a", table()), replace(executed("b", table(0.5)), **changes)
    found = differences(first, [other])
    assert said in "; ".join(objections(first, other))
    assert {one.verdict for one in found} == {"not tested"}
    assert not [one for one in found if one.significant]
    assert said in conclusion(first, other, found)


def test_the_loss_of_another_model_is_not_tested_but_its_speech_is():
    first = executed("a", table(), params={**PARAMS, "tacotron.preset": "small"})
    other = executed("b", table(0.05, seed=1), params={**PARAMS, "tacotron.preset": "paper"})
    found = differences(first, [other])
    assert the(found, "maml", "loss").verdict == "not tested"
    assert "tacotron.preset is small and paper" in the(found, "maml", "loss").refused
    assert the(found, "maml", "similarity").verdict == "better"


def test_with_few_speakers_nothing_is_significant_and_it_is_said_why():
    found = differences(executed("a", table(speakers=4)), [executed("b", table(0.5, speakers=4))])
    assert "4 speakers: with fewer than 6 no difference is significant" in found[0].refused
    six = differences(executed("a", table(speakers=6)), [executed("b", table(0.5, speakers=6, seed=1))])
    assert the(six, "maml", "similarity").p == pytest.approx(2 / 2**6)


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_no_difference_is_called_one_more_often_than_the_level_allows(seed):
    """Adjusted p values are never below the plain ones."""
    found = differences(executed("a", table()), [executed("b", table(seed=seed))])
    assert all(one.p_holm >= one.p for one in found)


def test_a_run_against_itself_differs_in_nothing():
    found = differences(executed("a", table()), [executed("b", table())])
    assert {(one.difference, one.verdict) for one in found} == {(0.0, "identical")}
    assert changed_params([executed("a", table()), executed("b", table())]) == {}


def test_parameters_that_differ_or_are_absent():
    first, other = (
        executed("a", table()),
        executed("b", table(), params={**PARAMS, "inner.rate": "0.4", "new.key": "1"}),
    )
    assert changed_params([first, other]) == {"inner.rate": ["0.2", "0.4"], "new.key": [None, "1"]}


def test_one_seed_each_is_said_to_be_of_these_trainings_only():
    one, other = executed("a", table()), executed("b", table(0.05))
    assert "trained with one seed" in notes([one, other], differences(one, [other]))
    several = {**PARAMS, "seeds": "[1, 2, 3]"}
    one, other = replace(one, params=several), replace(other, params=several)
    assert "trained with one seed" not in notes([one, other], differences(one, [other]))


def test_the_figure_has_a_panel_a_metric(tmp_path):
    found = differences(executed("a", table()), [executed("b", table(0.05, seed=1)), executed("c", table(seed=2))])
    figure = differences_plot("a", found)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.split("  ")[0] for title in titles] == ["loss", "speaker similarity"]
    figure.savefig(tmp_path / "plot.png")


# The command, on a real store ---------------------------------------------------------------------------------------


def execute(root, name: str, key: str, speakers: pd.DataFrame | None, rate: float = 0.2) -> None:
    execution = Execution("c0ffee" * 7, False, "", "", key, ())
    common = {"root": root, "execution": execution, "name": name, "inputs": DATA}
    params = {key: value for key, value in PARAMS.items() if key != "seeds"} | {"inner.rate": rate}
    headline = {**PARAMS, "inner.rate": rate}
    with stage_run("adapt", "tacotron-maml-1", record=root / "a.json", params={"seed": 1}, headline=headline, **common):
        pass
    if speakers is not None:
        with stage_run("evaluate", record=root / "e.json", params=params, **common) as run:
            run.set_tags({"tasks": "same"})
            run.log_table(speakers, "speakers")


@pytest.fixture
def store(root, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    execute(root, "default", "1", table())
    execute(root, "faster", "2", table(0.05, seed=1), rate=0.4)
    execute(root, "unfinished", "3", None)
    execute(root, "twice", "4", table())
    execute(root, "twice", "5", table())
    monkeypatch.chdir(root)
    return root


def ask(*arguments: str):
    return CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": "200"})


def test_the_command_answers_which_parameters_and_figures_differ(store):
    done = ask("default", "faster", "--plot", "compared.svg")
    assert done.exit_code == 0, done.output
    assert re.search(r"inner\.rate\s+0\.2\s+0\.4", done.output)
    assert "faster is better than default in speaker similarity of MAML (tacotron)." in done.output
    assert "trained with one seed" in done.output
    assert (store / "compared.svg").read_text().startswith("<?xml")

    def error(*arguments: str) -> str:
        done = ask(*arguments)
        assert done.exit_code == 2, done.output
        assert "Traceback" not in done.output
        return done.output

    assert "no run is called 'defualt'. Did you mean default?" in error("defualt", "faster")
    assert "2 runs are called 'twice'" in error("default", "twice")
    assert "unfinished: it has not been evaluated" in error("default", "unfinished")
    assert "compare takes two runs or more" in error("default")
    assert "the same run was named twice" in error("default", "default")
    assert "not a format of figures" in error("default", "faster", "--plot", "figure.gif")
    assert "no such file, so there are no runs" in error("default", "faster", "--uri", "sqlite:////nowhere/mlflow.db")
    listed = re.findall(r"^  ([0-9a-f]{32})  ", ask("default", "twice").output, re.MULTILINE)
    assert "4 of 4 figures are identical" in ask("default", listed[0][:8]).output, "by the beginning of an id"
