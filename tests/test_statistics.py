"""Intervals and tests against known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metaspeech.evaluation.statistics import (
    cluster_bootstrap,
    effect_size,
    holm,
    sign_flip_test,
    smallest_p,
    wilcoxon_test,
)

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


def recordings(rng: np.random.Generator, speakers: int, kind: str) -> np.ndarray:
    """(speakers, 4 utterances) with the mean 0: what speakers differ by, and noise of utterances."""
    between = rng.normal(0, 1, speakers) if kind == "normal" else rng.exponential(1, speakers) - 1
    return np.asarray(between[:, None] + 0.5 * rng.normal(0, 1, (speakers, 4)))


def coverage(speakers: int, kind: str, *, by_speaker: bool = True, trials: int = 1000) -> float:
    """Share of simulated experiments whose 95 % interval holds the true mean. One standard error is below 0.01."""
    rng, covered = np.random.default_rng(speakers), 0
    for trial in range(trials):
        scores = recordings(rng, speakers, kind)
        interval = cluster_bootstrap(scores.mean(axis=1) if by_speaker else scores.ravel(), resamples=500, seed=trial)
        covered += interval.low <= 0 <= interval.high
    return covered / trials


@pytest.mark.parametrize(
    ("speakers", "kind", "least", "most"),
    [
        (12, "normal", 0.92, 0.97),
        (6, "normal", 0.905, 0.96),
        (12, "skewed", 0.88, 0.95),  # the t interval has 0.92 and, with six, 0.90
        (6, "skewed", 0.86, 0.92),
    ],
)
def test_bootstrap_covers_the_true_mean_as_often_as_is_said(speakers, kind, least, most):
    assert least <= coverage(speakers, kind) <= most


def test_utterances_taken_for_independent_cover_far_too_seldom():
    """Four utterances a speaker pretend to be four speakers: why the speaker is the unit."""
    assert coverage(12, "normal", by_speaker=False, trials=500) < 0.75


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


@pytest.mark.parametrize("kind", ["normal", "heavy tails"])
@pytest.mark.parametrize("test", [sign_flip_test, wilcoxon_test])
def test_the_tests_find_nothing_in_five_percent_where_there_is_nothing(test, kind):
    """12 speakers. The exact tests reject as often as p can be at most 0.05: 204 or 174 of the 4,096 patterns."""
    rng, trials = np.random.default_rng(7), 4000
    draws = rng.normal(0, 1, (trials, 12)) if kind == "normal" else rng.standard_t(2, (trials, 12))
    size = 204 / 4096 if test is sign_flip_test else 174 / 4096
    rejected = np.mean([test(differences) <= 0.05 for differences in draws])
    assert rejected == pytest.approx(size, abs=3 * math.sqrt(size * (1 - size) / trials))


def test_wilcoxon_agrees_with_scipy():
    rng = np.random.default_rng(4)
    for count in (5, 9, 12):
        differences = rng.normal(0.3, 1, count)
        expected = stats.wilcoxon(differences, method="exact").pvalue
        assert wilcoxon_test(differences) == pytest.approx(expected)
        with_zero = [*differences, 0.0]
        assert wilcoxon_test(with_zero) == pytest.approx(expected), "a difference of 0 is left out"
    many = rng.normal(0.3, 1, 25)
    assert wilcoxon_test(many) == pytest.approx(stats.wilcoxon(many, method="exact").pvalue, abs=0.015)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 2.0, 3.0], 0.25),  # all ranks of one sign: 2 of 8
        ([10.0, 1.0, -2.0], 0.75),  # ranks 3, 1, -2: |sum| >= 2 in 6 of 8
        ([1.0, 1.0, -1.0], 1.0),  # tied: ranks 2, 2, -2
        ([0.0, 0.0], 1.0),
    ],
)
def test_wilcoxon_by_hand(differences, p):
    assert wilcoxon_test(differences) == p


def test_wilcoxon_sees_order_and_not_size():
    assert wilcoxon_test([1.0, 2.0, 3.0, -4.0]) == wilcoxon_test([1.0, 2.0, 3.0, -4000.0])
    assert math.isnan(wilcoxon_test([math.nan]))


def test_effect_size_by_hand():
    """Differences 1, 2, 3, 4: mean 2.5, deviation 1.29099, d_z 1.93649; for 3 degrees of freedom the correction is
    gamma(1.5) / (sqrt(1.5) gamma(1)) = 0.72360."""
    assert effect_size([1.0, 2.0, 3.0, 4.0]) == pytest.approx(1.93649 * 0.72360, rel=1e-4)
    assert effect_size([-1.0, -2.0, -3.0, -4.0]) == pytest.approx(-1.93649 * 0.72360, rel=1e-4)
    assert effect_size([1.0, 2.0, 3.0, 4.0, math.nan]) == effect_size([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("differences", [[], [1.0], [1.0, 2.0], [0.1, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0]])
def test_an_effect_without_spread_or_speakers_has_no_size(differences):
    assert math.isnan(effect_size(differences))


def test_effect_size_has_no_bias_in_small_samples():
    """Six speakers, a true effect of 0.8: d_z alone would be 0.95 on average."""
    draws = np.random.default_rng(11).normal(0.8, 1, (4000, 6))
    assert np.mean([effect_size(one) for one in draws]) == pytest.approx(0.8, abs=0.03)
    assert np.mean(draws.mean(axis=1) / draws.std(axis=1, ddof=1)) > 0.9


@given(st.lists(NUMBERS, min_size=3, max_size=12), st.floats(0.1, 50))
def test_an_effect_does_not_depend_on_the_unit(values, unit):
    own, scaled = effect_size(values), effect_size([unit * value for value in values])
    assert math.isnan(own) == math.isnan(scaled)
    assert math.isnan(own) or scaled == pytest.approx(own, rel=1e-6)


def test_holm_by_hand() -> None:
    """Four tests: 0.005 x 4, 0.01 x 3, then 0.03 x 2 and 0.04 x 1, which may not be less than the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    adjusted = holm([0.5, math.nan, 0.9])
    assert (adjusted[0], adjusted[2]) == (1.0, 1.0)
    assert math.isnan(adjusted[1])
    assert holm([]) == []


@pytest.mark.parametrize("speakers", [1, 2, 5, 9])
def test_smallest_p_is_that_of_differences_of_one_sign(speakers: int) -> None:
    assert smallest_p(speakers) == sign_flip_test(np.arange(1.0, speakers + 1))
    assert smallest_p(speakers) == wilcoxon_test(np.arange(1.0, speakers + 1))
