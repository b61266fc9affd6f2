"""Whether a representation predicts what adaptation gains: correlations against known answers, tables, the map."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from metaspeech.evaluation.prediction import NEAREST, NORM, gains, predictions, predictors, rank_correlation
from metaspeech.evaluation.task_plots import classical_scaling, similarity_matrix, task_map
from metaspeech.report.costs import costs
from metaspeech.report.tasks import neighbours, prediction_rows, prediction_sentence
from metaspeech.tasks.inner_gradient import InnerGradient
from metaspeech.tasks.representation import TaskVectors
from metaspeech.tracking import Record

PAIRS = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=5, max_size=20)


@given(PAIRS)
def test_rho_is_spearmans(pairs):
    x, y = np.array(pairs, dtype=float).T
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(rank_correlation(x, y).rho)
        return
    found = rank_correlation(x, y)
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.low <= found.rho + 1e-9
    assert found.rho - 1e-9 <= found.high


def test_the_interval_is_that_of_bonett_and_wright():
    x = np.arange(12.0)
    y = np.array([2, 0, 1, 4, 3, 7, 5, 6, 11, 8, 10, 9], dtype=float)
    found = rank_correlation(x, y)
    # sum of squared rank differences 4+1+1+1+1+4+1+1+9+1+0+4 = 28: rho = 1 - 6 * 28 / (12 * 143)
    assert found.rho == pytest.approx(1 - 168 / 1716)
    half = 1.959964 * math.sqrt((1 + found.rho**2 / 2) / 9)
    assert (found.low, found.high) == pytest.approx((math.tanh(math.atanh(found.rho) - half),
                                                     math.tanh(math.atanh(found.rho) + half)), rel=1e-5)  # fmt: skip
    assert found.p < 0.001
    assert found.speakers == 12


def test_the_interval_covers_and_the_test_has_its_size():
    """400 experiments with 12 speakers each, of a known rank correlation and of none."""
    draws, true = np.random.default_rng(0), 6 / math.pi * math.asin(0.6 / 2)  # of normal pairs with correlation 0.6
    covered, rejected = [], []
    for _ in range(400):
        x, noise = draws.normal(size=(2, 12))
        found = rank_correlation(x, 0.6 * x + 0.8 * noise)
        covered.append(found.low <= true <= found.high)
    for _ in range(200):
        rejected.append(rank_correlation(*draws.normal(size=(2, 12))).p < 0.05)
    assert 0.92 <= np.mean(covered) <= 0.985
    assert np.mean(rejected) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_a_perfect_ranking_of_few_speakers_is_not_certain():
    found = rank_correlation([1, 2, 3, 4], [1, 2, 3, 4])
    assert (found.rho, found.high) == (pytest.approx(1), pytest.approx(1))
    assert found.low < 0


def test_too_few_speakers_have_no_correlation():
    found = rank_correlation([1, 2, 3, np.nan, 5], [1, 2, np.inf, 4, 5])
    assert (found.speakers, math.isnan(found.rho), math.isnan(found.p)) == (3, True, True)


# Tables -------------------------------------------------------------------------------------------------------------

SPEAKERS = [f"u{number}" for number in range(8)]


def curves():
    """Two tasks a speaker; what MAML gains grows with the speaker's number, what transfer gains does not."""
    rows = [
        (algorithm, f"{speaker}-{task}", speaker, 5, step, 3.0 - (step > 0) * gain + 0.1 * task)
        for number, speaker in enumerate(SPEAKERS)
        for algorithm, gain in (("maml", 0.1 * number), ("transfer", 0.01 * (number * 5 % 8)))
        for task in range(2)
        for step in (0, 5)
    ]
    table = pd.DataFrame(rows, columns=["algorithm", "episode_id", "speaker", "shots", "step", "loss"])
    return table.assign(model="tacotron")


def vectors():
    """Unseen speakers lie in an order on a circle from the one training speaker; the lengths of vectors say nothing."""
    rows = [("train", "t0", "t0", [1.0, 0.0]), ("train", "t1", "t1", [0.0, -1.0])]
    for number, speaker in enumerate(SPEAKERS):
        angle, length = 0.15 * number, 1.0 + 0.1 * (number * 3 % 8)
        vector = [length * math.cos(angle), length * math.sin(angle)]
        rows += [("test", f"{speaker}-{task}", speaker, vector) for task in range(2)]
    table = pd.DataFrame(rows, columns=["split", "id", "speaker", "vector"])
    as_arrays = table["vector"].map(lambda vector: np.array(vector, dtype=np.float32))
    return TaskVectors("inner_gradient", InnerGradient(), table.assign(vector=as_arrays))


def test_gains_are_means_over_a_speakers_tasks():
    found = gains(curves(), 5, 5)
    assert found["tacotron", "maml"].to_dict() == pytest.approx({name: 0.1 * k for k, name in enumerate(SPEAKERS)})
    broken = curves()
    broken.loc[(broken["speaker"] == "u3") & (broken["step"] == 5), "loss"] = math.inf
    assert gains(broken, 5, 5)["tacotron", "maml"].isna().to_dict()["u3"]


def test_what_is_known_of_a_task_before_adaptation():
    found = predictors(vectors())
    assert set(found) == {NEAREST, NORM}
    assert found[NEAREST].to_dict() == pytest.approx({name: math.cos(0.15 * k) for k, name in enumerate(SPEAKERS)})
    same_length = vectors().table.assign(
        vector=vectors().table["vector"].map(lambda vector: vector / np.linalg.norm(vector))
    )
    assert set(predictors(TaskVectors("x", InnerGradient(), same_length))) == {NEAREST}


def test_a_prediction_that_holds_is_found_and_told():
    table = predictions({"tacotron": [vectors()]}, curves(), 5, 5)
    assert len(table) == 4
    found = table.set_index(["algorithm", "predictor"])
    assert found.loc[("maml", NEAREST), "rho"] == pytest.approx(-1)
    assert found.loc[("maml", NEAREST), "p_holm"] < 0.01
    assert (found["p_holm"] >= found["p"]).all()
    sentence = prediction_sentence(table, [vectors()])
    assert sentence.startswith("Inner gradient, similarity to the nearest training speaker: rank correlation −1.00 (")
    assert sentence.endswith("with what MAML gains.")
    none = prediction_sentence(table[table["algorithm"] == "transfer"], [vectors()])
    assert none.startswith("None of the 2 rank correlations below is certain")
    assert "8 speakers" in none
    rows = prediction_rows(table, [vectors()], ["transfer", "maml"])
    assert [(row.name, row.first, len(row.cells)) for row in rows] == [
        ("Inner gradient", True, 2), ("Inner gradient", False, 2)
    ]  # fmt: skip
    assert [cell.css for cell in rows[0].cells] == ["", "ahead"]


def test_neighbours_of_each_task_are_named():
    first = neighbours(vectors())[0]
    assert (first.speaker, [name for name, _ in first.nearest]) == ("u0", ["t0", "t1"])


def test_costs_say_what_was_paid_and_what_diverged():
    metrics = {
        ("meta_train", "tacotron", "maml"): [{"gradient_evaluations": 320, "outer_steps": 40}] * 2,
        ("adapt", "tacotron", "maml"): [
            {"horizon_step": 60, "horizon_loss": math.nan, "horizon_diverged": 1, "horizon_tasks": 2},
            {"horizon_step": 60, "horizon_loss": 2.0, "horizon_diverged": 0, "horizon_tasks": 2},
        ],
    }
    records = [
        Record("meta_train", f"tacotron-maml-{seed}", "e", "FINISHED", "2026-01-01T00:00:00", seconds, None, memory)
        for seed, seconds, memory in ((1, 93.4, 512.3), (2, 95.4, 500.0), (3, 1000.0, 9000.0))
    ]
    found = costs("tacotron", ["transfer", "maml"], curves(), metrics, records, 5, [1, 2], 1)
    assert (found.steps, found.horizon, found.horizon_tasks) == ([0, 5], 60, 4)
    assert found.diverged == ["MAML on 1 of 4 tasks"]
    assert [cell.text for cell in found.rows[1].cells] == ["3.05", "2.70", "–", "320", "40", "94 s", "512 MiB", "–"]
    assert found.rows[1].cells[2].notes == ("1 diverged",)
    assert len({len(row.cells) for row in found.rows}) == 1


# Figures ------------------------------------------------------------------------------------------------------------


def test_places_on_the_map_have_the_distances_that_they_should():
    points = np.random.default_rng(1).uniform(0, 0.5, (7, 2))
    distances = squareform(pdist(points))
    found = squareform(pdist(classical_scaling(1 - distances)))
    np.testing.assert_allclose(found, distances, atol=1e-6)


def test_figures_of_tasks_show_every_task():
    gain = gains(curves(), 5, 5)["tacotron", "maml"]
    figure = task_map([vectors(), vectors()], gain, "fall of the loss")
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [sum(len(drawn.get_offsets()) for drawn in axes.collections) for axes in panels] == [18, 18]
    matrix = similarity_matrix(vectors()).axes[0]
    assert len(matrix.get_yticklabels()) == 16
    assert matrix.images[0].get_array().shape == (16, 2)
