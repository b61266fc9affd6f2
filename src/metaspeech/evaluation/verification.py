"""Speaker verification: would a machine that knows the speaker let the synthesis pass, and refuse the others?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from metaspeech.evaluation.comparisons import CONDITION
from metaspeech.evaluation.judges.base import Column
from metaspeech.evaluation.statistics import Interval, expanded_tail

EER = Column(
    "eer",
    "Speaker verification EER",
    "lower",
    "Equal error rate over all utterances: each is compared with the centroid of its own speaker and with those of the "
    "other test speakers (cosine, as speaker similarity). 0.5 is chance. Interval by resampling speakers.",
)
VERIFIED = {"similarity", "impostor_scores"}  # what it is made of, in the utterance table
Array = NDArray[np.float64]
_CHUNK = 4_000_000  # weights held at once


def equal_error_rate(targets: ArrayLike, impostors: ArrayLike) -> float:
    """Where as large a share of ``targets`` is refused as of ``impostors`` is accepted, over all thresholds.

    A score is accepted where it is the threshold or above. Between two thresholds the errors are interpolated along
    a straight line, equal scores count as one step: it depends on the order of scores alone. NaN without either kind.
    """
    targets, impostors = np.asarray(targets, dtype=np.float64), np.asarray(impostors, dtype=np.float64)
    scores = np.concatenate([targets, impostors])
    kinds = np.repeat([1.0, 0.0], [len(targets), len(impostors)])
    return float(_rates(scores, kinds[None], 1 - kinds[None])[0])


def verification(speakers: Sequence[str], scores: Array, *, resamples: int, seed: int) -> Interval:
    """The equal error rate of all trials, and the interval of it by resampling speakers.

    Speakers are both who speaks and who is claimed to speak, so a resample that has a speaker a times and another b
    times has their trials a * b times (the vertex bootstrap of T. A. B. Snijders and S. P. Borgatti, "Non-parametric
    Standard Errors and Tests for Network Statistics", Connections 22(2), 1999); its quantiles are moved outwards as in
    :func:`~metaspeech.evaluation.statistics.cluster_bootstrap`. An interval of perfect verification is [0, 0]: with
    few speakers that proves little.

    Args:
        speakers: who speaks, of each utterance.
        scores: (utterances, distinct speakers) the similarity to each speaker, these in the order of their names. Rows
            with NaN are left out.
        resamples, seed: of speakers.
    """
    names = sorted(set(speakers))
    kept = np.isfinite(scores).all(axis=1)
    spoken = np.array([names.index(speaker) for speaker in speakers])[kept]
    rows, count = scores[kept], len(np.unique(spoken))
    claimed = np.tile(np.arange(len(names)), len(rows))
    speaker = np.repeat(spoken, len(names))
    target = (speaker == claimed).astype(np.float64)
    trials = rows.ravel()
    rate = float(_rates(trials, target[None], 1 - target[None])[0])
    if count < 2:
        return Interval(rate, float("nan"), float("nan"), count)
    draws = np.random.default_rng(seed).integers(0, len(names), size=(resamples, len(names)))
    times = np.stack([np.bincount(draw, minlength=len(names)) for draw in draws]).astype(np.float64)
    found = []
    for chunk in np.array_split(times, max(1, -(-resamples * len(trials) // _CHUNK))):
        found.append(_rates(trials, chunk[:, speaker] * target, chunk[:, speaker] * chunk[:, claimed] * (1 - target)))
    tail = expanded_tail(count)
    low, high = np.nanquantile(np.concatenate(found), [tail, 1 - tail])
    return Interval(rate, float(low), float(high), count)


def condition_rates(utterances: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """A row a condition with the equal error rate of its utterances: metric "eer", mean, low, high, speakers.

    Args:
        utterances: condition, speaker, ``similarity`` and ``impostor_scores``, those of each other test speaker in the
            order of their names. Utterances that could not be heard have none and are left out.
    """
    rows = []
    heard = utterances[utterances["similarity"].notna() & (utterances["impostor_scores"].str.len() > 0)]
    names = sorted(set(utterances["speaker"]))
    for key, group in heard.groupby(CONDITION, sort=True):
        scores = similarities(group, names)
        interval = verification(list(group["speaker"]), scores, resamples=resamples, seed=seed)
        rows.append({**dict(zip(CONDITION, key, strict=True)), "metric": EER.name, **asdict(interval)})
    return pd.DataFrame(rows, columns=[*CONDITION, "metric", "mean", "low", "high", "speakers"])


def similarities(utterances: pd.DataFrame, names: Sequence[str]) -> Array:
    """(utterances, speakers) from the columns ``similarity`` and ``impostor_scores``."""
    others = np.stack([np.asarray(one, dtype=np.float64) for one in utterances["impostor_scores"]])
    own = [names.index(speaker) for speaker in utterances["speaker"]]
    return np.stack(
        [np.insert(row, place, score) for row, place, score in zip(others, own, utterances["similarity"], strict=True)]
    )


def _rates(scores: Array, targets: Array, impostors: Array) -> Array:
    """(trials,) and how often each counts as a target and as an impostor, (resamples, trials) -> (resamples,)."""
    order = np.argsort(scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order], prepend=-np.inf)), len(scores))  # equal scores are one step
    with np.errstate(invalid="ignore", divide="ignore"):
        refused, below = (_cumulated(weights[:, order])[:, ends] for weights in (targets, impostors))
        refused, accepted = refused / refused[:, -1:], 1 - below / below[:, -1:]
        gap = refused - accepted  # from -1 to 1, never falling
        row, after = np.arange(len(gap)), np.argmax(gap >= 0, axis=1)
        share = gap[row, after - 1] / (gap[row, after - 1] - gap[row, after])
        return np.asarray(refused[row, after - 1] + share * (refused[row, after] - refused[row, after - 1]))


def _cumulated(weights: Array) -> Array:
    """(rows, trials) -> (rows, trials + 1), from 0 on."""
    return np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights, axis=1)], axis=1)
