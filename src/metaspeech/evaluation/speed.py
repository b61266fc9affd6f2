"""How many adaptation steps an algorithm needs for what the baseline has at its last one.

Published as "MAML has after 5 steps what fine-tuning has after 100". The mark is the baseline's mean at the last step
that was measured; an algorithm reaches it at its first measured step with a mean at least as good. Curves need not be
monotone: a later step may be worse again, and a step between two measured ones is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from metaspeech.evaluation.comparisons import BASELINE, COMPARED
from metaspeech.evaluation.judges.base import Column
from metaspeech.evaluation.statistics import expanded_tail
from metaspeech.evaluation.verification import EER

TIE = 1e-9  # of the mark: equal means must not be told apart by rounding
SPEED = ["model", "algorithm", "shots", "metric", "mark", "mark_step", "steps", "low", "high", "times_fewer"]
CURVE = ["model", "shots", "metric"]

Numbers = NDArray[np.float64]


def steps_to_baseline(
    conditions: pd.DataFrame, speakers: pd.DataFrame, columns: Sequence[Column], bootstrap: int, seed: int
) -> pd.DataFrame:
    """A row a system, algorithm, number of shots and metric (the compared ones, and the EER), of the baseline too.

    - mark, mark_step: the baseline's mean at the last step at which it was measured.
    - steps: the first at which the algorithm's mean is at least as good; NaN: at none that was measured.
    - low, high: 95 % interval of steps, by resampling speakers jointly for the algorithm and the mark. A bound that is
      NaN lies beyond the last measured step, or there is no interval: fewer than two speakers, or a metric without
      means over speakers.
    - times_fewer: mark_step / steps; NaN where the mark was not reached, or was before any step.

    Args:
        conditions: see :class:`~metaspeech.evaluation.summary.Summary`.
        speakers: the table of :func:`metaspeech.evaluation.summary.speaker_means`.
        columns: metrics, which say what is better.
        bootstrap, seed: resamples of speakers, and their seed.
    """
    better = {column.name: column.better for column in columns}
    rows: list[dict[str, Any]] = []
    table = conditions[(conditions["model"] != "") & conditions["metric"].isin([*COMPARED, EER.name])]
    for key, group in table.groupby(CURVE, sort=True):
        model, shots, metric = key
        means = group.pivot(index="step", columns="algorithm", values="mean").sort_index()
        if BASELINE not in means or metric not in better:
            continue
        sign = 1.0 if better[str(metric)] == "higher" else -1.0
        baseline = means[BASELINE].dropna()
        mark_step, mark = int(baseline.index[-1]), float(baseline.iloc[-1])
        own = speakers[(speakers["model"] == model) & (speakers["shots"] == shots)]
        for algorithm, curve in means.items():
            measured = curve.dropna()
            gain = sign * (measured.to_numpy(float) - mark)
            steps = _first(measured.index.to_numpy(float), gain[None] >= -TIE * abs(mark))[0]
            low, high = _interval(own, str(metric), str(algorithm), mark_step, sign, bootstrap, seed)
            rows.append(
                {
                    **dict(zip(CURVE, key, strict=True)),
                    "algorithm": algorithm,
                    "mark": mark,
                    "mark_step": mark_step,
                    "steps": _known(steps),
                    "low": low,
                    "high": high,
                    "times_fewer": mark_step / steps if 0 < steps < np.inf else float("nan"),
                }
            )
    return pd.DataFrame(rows, columns=SPEED)


def _interval(
    speakers: pd.DataFrame, metric: str, algorithm: str, mark_step: int, sign: float, bootstrap: int, seed: int
) -> tuple[float, float]:
    """Of the steps, over resamples of the speakers: the same ones for both curves."""
    if metric not in speakers:
        return float("nan"), float("nan")
    finite = speakers.replace({metric: [np.inf, -np.inf]}, np.nan)
    wide = finite.pivot(index="speaker", columns=["algorithm", "step"], values=metric).dropna(axis="columns", how="all")
    curve, count = wide[[algorithm]].sort_index(axis="columns"), len(wide)
    if count < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(0, count, size=(bootstrap, count))
    weights = np.apply_along_axis(np.bincount, 1, draws, minlength=count).astype(float)
    mark = _weighted(weights, wide.loc[:, [(BASELINE, mark_step)]])
    gain = sign * (_weighted(weights, curve) - mark)
    steps = _first(curve.columns.get_level_values("step").to_numpy(float), gain >= -TIE * np.abs(mark))  # of NaN: no
    tail = expanded_tail(count)
    low, high = np.quantile(steps, [tail, 1 - tail], method="inverted_cdf")
    return _known(low), _known(high)


def _weighted(weights: Numbers, values: pd.DataFrame) -> Numbers:
    """(resamples, speakers), a row a speaker -> (resamples, columns): means over the speakers that were measured."""
    data = values.to_numpy(float)
    known = np.isfinite(data)
    with np.errstate(invalid="ignore"):
        means: Numbers = (weights @ np.where(known, data, 0.0)) / (weights @ known)
    return means


def _first(steps: Numbers, reached: NDArray[np.bool_]) -> Numbers:
    """(steps,) ascending, (rows, steps) -> (rows,): the first step that was reached, infinite where none was."""
    found: Numbers = np.where(reached.any(axis=1), steps[reached.argmax(axis=1)], np.inf)
    return found


def _known(steps: float) -> float:
    return float(steps) if np.isfinite(steps) else float("nan")
