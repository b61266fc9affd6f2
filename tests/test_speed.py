"""Steps to what transfer has at its last one: curves by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from metaspeech.evaluation.comparisons import CONDITION
from metaspeech.evaluation.judges.base import Column
from metaspeech.evaluation.speed import SPEED, steps_to_baseline
from metaspeech.evaluation.summary import LOSS

STEPS = (0, 1, 5, 10, 20, 50, 100)
COLUMNS = [LOSS, Column("similarity", "Similarity", "higher", ""), Column("eer", "EER", "lower", "")]
# of transfer 0.5 after 100 steps
TRANSFER = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
CURVES = {
    "transfer": TRANSFER,
    "maml": (1.2, 0.8, 0.5, 0.45, 0.4, 0.4, 0.4),  # there after 5
    "reptile": (1.0, 0.9, 0.8, 0.7, 0.6, 0.55, 0.51),  # never
    "fomaml": (0.4, 0.6, 0.7, 0.6, 0.5, 0.4, 0.3),  # before any step; then worse, then there again
    "anil": (1.0, 0.45, 0.9, 0.8, 0.7, 0.6, 0.55),  # there after 1, and never again
}


def speaker_rows(curves, metric="loss", offsets=(-0.3, 0.0, 0.3), noise=0.0, shots=5):
    """A row a speaker, algorithm and step: what a speaker is harder or easier by is the same everywhere."""
    rng = np.random.default_rng(0)
    rows = [
        ("tacotron", algorithm, shots, step, f"s{number}", value + offset + noise * rng.normal())
        for algorithm, curve in curves.items()
        for step, value in zip(STEPS, curve, strict=False)
        for number, offset in enumerate(offsets)
    ]
    return pd.DataFrame(rows, columns=[*CONDITION, "speaker", metric])


def speed_of(speakers, metric="loss"):
    means = speakers.groupby(CONDITION)[metric].mean().reset_index(name="mean").assign(metric=metric)
    return steps_to_baseline(means, speakers, COLUMNS, bootstrap=500, seed=1).set_index("algorithm")


def test_golden():
    """The published mark: 5 steps of MAML for 100 of fine-tuning."""
    found = speed_of(speaker_rows(CURVES))
    assert set(found["mark"].round(9)) == {0.5}
    assert set(found["mark_step"]) == {100}
    assert found["steps"].drop("reptile").to_dict() == {"transfer": 100, "maml": 5, "fomaml": 0, "anil": 1}
    assert math.isnan(found.loc["reptile", "steps"]), "never reached"
    assert found["times_fewer"].dropna().to_dict() == {"transfer": 1, "maml": 20, "anil": 100}
    assert list(found.reset_index()[SPEED].columns) == SPEED


def test_speakers_that_only_differ_in_level_leave_no_doubt():
    """Paired: the speakers' own levels, far wider apart than the curves, are in the mark and in the curve alike."""
    found = speed_of(speaker_rows(CURVES, offsets=tuple(np.linspace(-5, 5, 12))))
    certain = found.drop("reptile")
    assert (certain["low"] == certain["steps"]).all()
    assert (certain["high"] == certain["steps"]).all()
    assert found.loc["reptile", ["low", "high"]].isna().all()


def test_doubt_shows_as_a_range_and_may_end_beyond_what_was_measured():
    curves = {"transfer": TRANSFER, "maml": (1.0, 0.9, 0.52, 0.51, 0.49, 0.485, 0.48)}
    found = speed_of(speaker_rows(curves, noise=0.03, offsets=(0.0,) * 12)).loc["maml"]
    assert found["low"] <= found["steps"]
    assert found["low"] < 100
    worse = {"transfer": TRANSFER, "maml": (1.0, 0.9, 0.8, 0.7, 0.6, 0.52, 0.5)}
    unsure = speed_of(speaker_rows(worse, noise=0.1, offsets=(0.0,) * 12)).loc["maml"]
    assert unsure["low"] <= 100
    assert math.isnan(unsure["high"])


def test_more_is_better_where_the_metric_says_so():
    similarity = {name: tuple(1 - value for value in curve) for name, curve in CURVES.items()}
    found = speed_of(speaker_rows(similarity, "similarity"), "similarity")
    assert found["steps"].dropna().to_dict() == {"transfer": 100, "maml": 5, "fomaml": 0, "anil": 1}


def test_a_rate_over_all_speakers_has_steps_but_no_interval():
    speakers = speaker_rows(CURVES)
    means = speakers.groupby(CONDITION)["loss"].mean().reset_index(name="mean").assign(metric="eer")
    found = steps_to_baseline(means, speakers, COLUMNS, 100, 1).set_index("algorithm")
    assert found.loc["maml", "steps"] == 5
    assert found[["low", "high"]].isna().all(axis=None)


def test_the_mark_is_where_transfer_was_measured_last():
    """A vocoder is heard at few steps; and a speaker that diverged is left out of the means as in the table."""
    speakers = speaker_rows({"transfer": TRANSFER[:5], "maml": CURVES["maml"]})
    lost = (speakers["algorithm"] == "maml") & (speakers["step"] == 5) & (speakers["speaker"] == "s0")
    speakers.loc[lost, "loss"] = np.inf
    means = speakers[np.isfinite(speakers["loss"])].groupby(CONDITION)["loss"].mean().reset_index(name="mean")
    found = steps_to_baseline(means.assign(metric="loss"), speakers, COLUMNS, 300, 1).set_index("algorithm")
    assert found.loc["maml", ["mark", "mark_step"]].tolist() == [pytest.approx(0.7), 20]
    assert found.loc["maml", "steps"] == 5
    assert found.loc["maml", "low"] == 5


def test_without_transfer_there_is_no_mark_and_one_speaker_gives_no_interval():
    assert speed_of(speaker_rows({"maml": CURVES["maml"]})).empty
    alone = speed_of(speaker_rows(CURVES, offsets=(0.0,)))
    assert alone.loc["maml", "steps"] == 5
    assert math.isnan(alone.loc["maml", "low"])


def test_each_number_of_shots_has_its_own_mark():
    few = {name: tuple(value + 0.1 for value in curve) for name, curve in CURVES.items()}
    both = pd.concat([speaker_rows(CURVES), speaker_rows(few, shots=1)])
    means = both.groupby(CONDITION)["loss"].mean().reset_index(name="mean").assign(metric="loss")
    found = steps_to_baseline(means, both, COLUMNS, 100, 1)
    assert found.groupby("shots")["mark"].first().round(9).to_dict() == {1: 0.6, 5: 0.5}
    assert (found[found["algorithm"] == "maml"]["steps"] == 5).all()
