"""Equal error rates against cases counted by hand."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaspeech.evaluation.verification import condition_rates, equal_error_rate, verification

scores = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("targets", "impostors", "rate"),
    [
        ([3, 4], [1, 2], 0.0),  # perfect
        ([1, 2], [3, 4], 1.0),  # the wrong way round
        ([1, 2, 3], [1, 2, 3], 0.5),
        ([1, 1], [1], 0.5),  # nothing to go by
        ([2, 4, 5, 6], [0, 1, 3, 1], 0.25),  # at 3: one of four refused (2), one of four accepted (3)
        ([2, 3], [0, 1, 2.5], 1 / 3),  # at 2.5 the first, half, is refused; refusing none accepts a third at 2
        ([1, 5, 6], [0, 2, 3, 4], 1 / 3),  # at 3 a third is refused and a half accepted, at 4 a third and a quarter
    ],
)
def test_equal_error_rate_by_hand(targets, impostors, rate):
    assert equal_error_rate(targets, impostors) == pytest.approx(rate)


def test_without_trials_there_is_no_rate():
    assert np.isnan(equal_error_rate([], [1.0]))
    assert np.isnan(equal_error_rate([1.0], []))


@given(scores, scores)
def test_only_the_order_counts_and_exchange_reflects(targets, impostors):
    rate = equal_error_rate(targets, impostors)
    assert 0 <= rate <= 1
    stretched = [np.exp(np.array(one) / 20) + 3 for one in (targets, impostors)]
    assert equal_error_rate(*stretched) == pytest.approx(rate)
    assert equal_error_rate(impostors, targets) == pytest.approx(1 - rate)
    turned = equal_error_rate([-one for one in impostors], [-one for one in targets])
    assert turned == pytest.approx(rate)


@given(scores, scores, st.integers(2, 4))
def test_repeating_all_trials_changes_nothing(targets, impostors, times):
    assert equal_error_rate(targets * times, impostors) == pytest.approx(equal_error_rate(targets, impostors))


def test_two_normal_distributions():
    """One standard deviation either side of the middle: Phi(-1) = 0.1587."""
    rng = np.random.default_rng(0)
    rate = equal_error_rate(rng.normal(1, 1, 20_000), rng.normal(-1, 1, 20_000))
    assert rate == pytest.approx(0.1587, abs=0.006)


def trials(speakers=12, each=2, apart=2.0, seed=0, own=0.0):
    """Scores of every utterance against every speaker; ``own``: how much speakers differ in being recognised."""
    rng = np.random.default_rng(seed)
    names = [f"s{number:03}" for number in range(speakers) for _ in range(each)]
    table = rng.normal(size=(len(names), speakers))
    ease = own * rng.normal(size=speakers)
    for row in range(len(names)):
        table[row, row // each] += apart + ease[row // each]
    return names, table


def test_interval_holds_the_rate_and_is_the_same_again_and_quick():
    names, table = trials()
    before = time.process_time()
    found = verification(names, table, resamples=2000, seed=0)
    assert time.process_time() - before < 1  # 0.04 s; a loop over resamples takes seconds
    assert found == verification(names, table, resamples=2000, seed=0)
    assert found.low < found.mean < found.high
    assert found.speakers == 12
    targets = [table[row, row // 2] for row in range(24)]
    impostors = [table[row, column] for row in range(24) for column in range(12) if column != row // 2]
    assert found.mean == pytest.approx(equal_error_rate(targets, impostors))


def test_interval_covers_the_rate_of_all_speakers():
    """Twelve speakers of many, who differ in how well they are recognised: about 95 in 100 intervals hold the truth."""
    truth = verification(*trials(400, 2, 2.0, 1, own=0.7), resamples=2, seed=0).mean
    found = [verification(*trials(12, 2, 2.0, 100 + seed, own=0.7), resamples=400, seed=0) for seed in range(200)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.87 <= covered <= 0.995


def test_one_speaker_has_no_rate_and_unheard_utterances_are_left_out():
    assert np.isnan(verification(["a"], np.ones((1, 1)), resamples=100, seed=0).mean)
    names, table = trials(4, 2)
    broken = np.vstack([table, np.full((1, 4), np.nan)])
    expected = verification(names, table, resamples=100, seed=0)
    assert verification([*names, "s000"], broken, resamples=100, seed=0) == expected


def test_rates_of_conditions_come_from_the_utterance_table():
    """Two conditions, three speakers: recognised always, and taken for the next speaker always."""
    rows = []
    for step, (own, first, second) in {0: (0.1, 0.9, 0.2), 5: (0.9, 0.1, 0.2)}.items():
        for speaker in "abc":
            condition = {"model": "tacotron", "algorithm": "maml", "shots": 5, "step": step}
            rows.append({**condition, "speaker": speaker, "similarity": own, "impostor_scores": [first, second]})
    rows.append({**rows[-1], "similarity": np.nan, "impostor_scores": None})  # cannot be heard
    table = condition_rates(pd.DataFrame(rows), resamples=100, seed=0).set_index("step")
    assert table["mean"].to_dict() == {0: 1.0, 5: 0.0}
    assert (table["speakers"] == 3).all()
    assert (table["metric"] == "eer").all()
