"""``dvc plots show`` draws the curves that evaluate wrote: a column of panels a model, a row a number of shots."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from test_systems import ALGORITHMS, COLUMNS, SYSTEMS, tables

from metaspeech.evaluation.summary import PLOTTED, curve_table, summarise

REPO = Path(__file__).resolve().parents[1]
PLOTS = yaml.safe_load((REPO / "dvc.yaml").read_text())["plots"]


@pytest.fixture(scope="module")
def curves() -> pd.DataFrame:
    """With 1, 5 and 10 shots; no EER was measured."""
    utterances, losses = tables(speakers=4)
    references = utterances[utterances["model"] == ""]
    adapted = [utterances[utterances["model"] != ""].assign(shots=shots) for shots in (1, 5, 10)]
    settings = {"algorithms": ALGORITHMS, "shots": 5, "all_shots": [1, 5, 10]}
    summary, _ = summarise(
        pd.concat([references, *adapted]),
        pd.concat([losses.assign(shots=shots) for shots in (1, 5, 10)]),
        COLUMNS, SYSTEMS, settings, bootstrap=100, seed=0,
    )  # fmt: skip
    return curve_table(summary)


@pytest.fixture(scope="module")
def shown(curves, tmp_path_factory) -> dict:
    """What DVC makes of it, by the titles of the plots."""
    folder = tmp_path_factory.mktemp("project")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "-q"], cwd=folder, check=True, capture_output=True)
    shutil.copytree(REPO / ".dvc/plots", folder / ".dvc/plots")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"plots": PLOTS}))
    (folder / "results/evaluate").mkdir(parents=True)
    curves.to_csv(folder / "results/evaluate/curves.csv", index=False)
    done = subprocess.run([*dvc, "plots", "show", "--json"], cwd=folder, check=True, capture_output=True, text=True)
    assert "error" not in done.stderr.lower()
    found = json.loads(done.stdout)
    assert not found.get("errors")
    return found["data"]


def spec(shown: dict, title: str) -> dict:
    (plot,) = shown[title]
    content = plot["content"]
    return json.loads(content) if isinstance(content, str) else content


def test_every_plotted_metric_has_a_plot_and_a_column(shown, curves):
    columns = {column for plot in PLOTS for settings in plot.values() for column in settings["y"].values()}
    assert columns == set(PLOTTED) <= set(curves.columns)
    assert set(shown) == {title for plot in PLOTS for title in plot}


def test_the_values_are_those_of_the_evaluation(shown, curves):
    drawn = pd.DataFrame(spec(shown, "speaker similarity")["data"]["values"])
    keys = ["model", "algorithm", "shots", "step"]
    drawn = drawn.astype({"shots": int, "step": int}).set_index(keys)["similarity"].sort_index()
    expected = curves.set_index(keys)["similarity"].sort_index()
    pd.testing.assert_series_equal(pd.to_numeric(drawn), expected)


def test_models_and_shots_have_panels_of_their_own_and_nothing_is_left_to_fill_in(shown):
    for title in shown:
        content = spec(shown, title)
        assert content["facet"]["column"]["field"] == "model"
        assert content["facet"]["row"]["field"] == "shots"
        assert content["spec"]["encoding"]["x"]["field"] == "step"
        assert {"calculate": "toNumber(datum.shots)", "as": "shots"} in content["transform"], "10 comes after 5"
        assert "<DVC_METRIC" not in json.dumps(content)
