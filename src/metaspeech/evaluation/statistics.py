"""Intervals and paired tests with the speaker as the unit.

Utterances of one speaker are not independent, so every function here takes one number a speaker (the mean over that
speaker's utterances): to resample speakers is then the cluster bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

EXACT_UP_TO = 16  # speakers: 2**16 sign patterns are enumerated, more are sampled


@dataclass(frozen=True)
class Interval:
    """A mean over speakers and its confidence interval; bounds are NaN where fewer than two speakers were measured."""

    mean: float
    low: float
    high: float
    speakers: int


def cluster_bootstrap(values: ArrayLike, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95) -> Interval:
    """Bootstrap interval of the mean over speakers. Speakers without a value (NaN) are left out.

    The percentile interval of a dozen clusters is too narrow. Its quantiles are therefore moved outwards by what the t
    distribution and the 1/n variance cost (the expanded percentile interval: T. Hesterberg, "What Teachers Should Know
    About the Bootstrap", The American Statistician 69(4), 2015, section 4.1).

    A 95 % interval holds the true mean of normal speakers in 95 % of simulated experiments with 12 speakers and in 94 %
    of those with 6; of skewed ones (exponential) in 91 % and 89 %, about as often as the t interval does.
    """
    data = _finite(values)
    count = len(data)
    if count < 2:
        return Interval(float(data[0]) if count else float("nan"), float("nan"), float("nan"), count)
    draws = np.random.default_rng(seed).integers(0, count, size=(resamples, count))
    tail = expanded_tail(count, confidence)
    low, high = np.quantile(data[draws].mean(axis=1), [tail, 1 - tail])
    return Interval(float(data.mean()), float(low), float(high), count)


def expanded_tail(count: int, confidence: float = 0.95) -> float:
    """The share of resamples of ``count`` speakers, two or more, that an expanded interval leaves out at either end."""
    t = stats.t.ppf((1 - confidence) / 2, count - 1)
    return float(stats.norm.cdf(np.sqrt(count / (count - 1)) * t))


def sign_flip_test(differences: ArrayLike, *, samples: int = 20_000, seed: int = 0) -> float:
    """Two-sided p of "the paired differences are symmetric about 0", by flipping their signs.

    Exact (every sign pattern) for up to 16 speakers, else by ``samples`` random patterns, the observed one counted in.
    Speakers without a value (NaN) are left out; NaN where none remains.
    """
    data = _finite(differences)
    count = len(data)
    if count == 0:
        return float("nan")
    signs = _all_patterns(count) if count <= EXACT_UP_TO else _some_patterns(count, samples, seed)
    sums = np.abs(signs @ data)
    tolerance = 1e-12 * max(1.0, float(np.abs(data).sum()))  # ties must not be decided by rounding
    return float(np.mean(sums >= abs(data.sum()) - tolerance))


def wilcoxon_test(differences: ArrayLike, *, samples: int = 20_000, seed: int = 0) -> float:
    """Two-sided p of the signed-rank test (F. Wilcoxon, "Individual Comparisons by Ranking Methods", Biometrics
    Bulletin 1(6), 1945): :func:`sign_flip_test` of the ranks of the differences' sizes, with the differences' signs.

    So it is exact up to 16 speakers, with ties too. Differences of 0 are left out; 1 where all are 0.
    """
    data = _finite(differences)
    moved = data[data != 0]
    if len(data) and not len(moved):
        return 1.0
    return sign_flip_test(np.sign(moved) * stats.rankdata(np.abs(moved)), samples=samples, seed=seed)


TESTS: dict[str, Callable[..., float]] = {"sign_flip": sign_flip_test, "wilcoxon": wilcoxon_test}


def effect_size(differences: ArrayLike) -> float:
    """Hedges' g_z: the mean paired difference in units of the differences' standard deviation, less the bias that a
    small sample gives it (L. V. Hedges, "Distribution Theory for Glass's Estimator of Effect Size", Journal of
    Educational Statistics 6(2), 1981, equation 6e, with n - 1 degrees of freedom; d_z as in D. Lakens, Frontiers in
    Psychology 4:863, 2013, equation 7).

    NaN for fewer than three speakers, and where all differences are the same.
    """
    data = _finite(differences)
    freedom = len(data) - 1
    deviation = float(data.std(ddof=1)) if freedom > 1 else 0.0
    if deviation <= 1e-12 * float(np.abs(data).max(initial=0.0)):
        return float("nan")
    unbiased = np.exp(special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2)
    return float(unbiased * data.mean() / deviation)


def smallest_p(speakers: int) -> float:
    """The least p that either test can give: with few speakers no difference is significant."""
    return min(1.0, 2.0 ** (1 - speakers))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p values, in the order given. NaN is passed over."""
    adjusted = [float("nan")] * len(p_values)
    order = sorted((p, i) for i, p in enumerate(p_values) if p == p)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[index] = largest
    return adjusted


@lru_cache(maxsize=4)
def _all_patterns(count: int) -> NDArray[np.float64]:
    """(2**count, count): every pattern of signs."""
    return np.array(list(product((1.0, -1.0), repeat=count)))


@lru_cache(maxsize=4)
def _some_patterns(count: int, samples: int, seed: int) -> NDArray[np.float64]:
    """(samples + 1, count): the observed signs, then random ones."""
    drawn = np.random.default_rng(seed).choice((1.0, -1.0), size=(samples, count))
    return np.vstack([np.ones(count), drawn])


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    return data[np.isfinite(data)]
