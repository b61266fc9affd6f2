"""Intervals and tests against known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metaspeech.evaluation.statistics import cluster_bootstrap, holm, sign_flip_test, smallest_p

NUMBERS = st.floats(-100, 100, allow_nan=False)


def test_bootstrap_of_equal_values_has_no_width() -> None:
    interval = cluster_bootstrap([3.0] * 7)
    assert (interval.mean, interval.low, interval.high, interval.speakers) == (3.0, 3.0, 3.0, 7)


@given(st.lists(NUMBERS, min_size=2, max_size=20))
def test_bootstrap_is_ordered_repeatable_and_within_the_data(values: list[float]) -> None:
    interval = cluster_bootstrap(values, resamples=200, seed=4)
    assert interval == cluster_bootstrap(values, resamples=200, seed=4)
    slack = 1e-9
    assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack
    assert interval.mean == pytest.approx(float(np.mean(values)))


def test_bootstrap_leaves_missing_speakers_out_and_says_how_many_it_used() -> None:
    assert cluster_bootstrap([1.0, math.nan, 2.0]) == cluster_bootstrap([1.0, 2.0])
    single = cluster_bootstrap([5.0])
    assert (single.mean, single.speakers) == (5.0, 1)
    assert math.isnan(single.low)
    assert math.isnan(cluster_bootstrap([]).mean)


def test_bootstrap_covers_the_true_mean_as_often_as_it_says() -> None:
    """600 simulated experiments with 12 speakers: 95 % must be met within three standard errors of the simulation."""
    rng = np.random.default_rng(0)
    covered = []
    for trial in range(600):
        interval = cluster_bootstrap(rng.normal(1.0, 2.0, 12), resamples=500, seed=trial)
        covered.append(interval.low <= 1.0 <= interval.high)
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / 600) <= np.mean(covered) <= 0.985


def test_bootstrap_width_agrees_with_the_t_interval_for_normal_data() -> None:
    values = np.random.default_rng(3).normal(0, 1, 40)
    interval = cluster_bootstrap(values, resamples=5000)
    low, high = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.03)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0], 1.0),  # + and - are equally far
        ([1.0, 2.0], 0.5),  # of 3, -1, 1, -3 two are as far out as 3
        ([1.0, 2.0, 3.0], 0.25),  # 2 of 8
        ([1.0, 2.0, -3.0], 1.0),  # the sum is 0
        ([1.0, 1.0, 1.0, -1.0], 10 / 16),  # |sum| >= 2: 1 + 4 patterns either side
        ([0.1, 0.2, 0.3], 0.25),  # 0.1 + 0.2 - 0.3 is not exactly 0
        ([0.0, 0.0], 1.0),
    ],
)
def test_sign_flip_small_cases_by_hand(differences: list[float], p: float) -> None:
    assert sign_flip_test(differences) == p


def test_sign_flip_agrees_with_scipy_and_the_sampled_version_with_the_exact() -> None:
    differences = np.random.default_rng(1).normal(0.5, 1, 10)
    exact = sign_flip_test(differences)
    scipy_p = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue
    assert exact == pytest.approx(scipy_p)
    many = np.random.default_rng(2).normal(0.3, 1, 20)
    sampled = sign_flip_test(many)
    assert sampled == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.03)
    assert sampled == sign_flip_test(many)


def test_sign_flip_of_nothing_is_not_a_number() -> None:
    assert math.isnan(sign_flip_test([math.nan]))


def test_sign_flip_keeps_its_level_when_there_is_no_effect() -> None:
    rng = np.random.default_rng(5)
    false_alarms = np.mean([sign_flip_test(rng.normal(0, 1, 8)) <= 0.05 for _ in range(400)])
    assert false_alarms <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    adjusted = holm([0.5, math.nan, 0.9])
    assert (adjusted[0], adjusted[2]) == (1.0, 1.0)
    assert math.isnan(adjusted[1])
    assert holm([]) == []


@pytest.mark.parametrize("speakers", [1, 2, 5, 9])
def test_smallest_p_is_that_of_differences_of_one_sign(speakers: int) -> None:
    assert smallest_p(speakers) == sign_flip_test(np.arange(1.0, speakers + 1))
