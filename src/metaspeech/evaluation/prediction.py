"""Whether what is known of a task before adaptation predicts what adaptation gains on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from metaspeech.evaluation.statistics import holm
from metaspeech.tasks.representation import TaskVectors

COLUMNS = ["model", "algorithm", "representation", "predictor", "rho", "low", "high", "p", "p_holm", "speakers"]
NEAREST, NORM = "nearest", "norm"  # similarity to the nearest training speaker; length of the vector
PERMUTATIONS = 9999


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation with its 95 % interval, and the two-sided p of "unrelated"."""

    rho: float
    low: float
    high: float
    p: float
    speakers: int


def rank_correlation(x: ArrayLike, y: ArrayLike, *, seed: int = 0) -> Correlation:
    """Over speakers: one pair of numbers each; speakers without either are left out.

    The interval is Fisher's with the variance of Bonett and Wright ("Sample size requirements for estimating Pearson,
    Kendall and Spearman correlations", Psychometrika 65(1), 2000): (1 + rho^2 / 2) / (n - 3). A perfect ranking, whose
    interval would have no width, has that of the nearest imperfect one. p is by permutation. NaN where fewer than four
    speakers remain, or all have the same number.
    """
    pairs = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    ranks = stats.rankdata(pairs, axis=0)
    count = len(pairs)
    if count < 4 or not (ranks.std(axis=0) > 0).all():
        return Correlation(math.nan, math.nan, math.nan, math.nan, count)
    rho = float(np.corrcoef(ranks.T)[0, 1])
    imperfect = 1 - 12 / (count * (count**2 - 1))  # of ranks of which two neighbours are exchanged
    z = math.atanh(min(max(rho, -imperfect), imperfect))
    half = float(stats.norm.ppf(0.975)) * math.sqrt((1 + rho**2 / 2) / (count - 3))
    centred = ranks - ranks.mean(axis=0)
    permuted = np.random.default_rng(seed).permuted(np.tile(centred[:, 1], (PERMUTATIONS, 1)), axis=1)
    as_far = np.abs(permuted @ centred[:, 0]) >= abs(centred[:, 0] @ centred[:, 1]) - 1e-9
    p = float((1 + as_far.sum()) / (1 + PERMUTATIONS))
    return Correlation(rho, min(rho, math.tanh(z - half)), max(rho, math.tanh(z + half)), p, count)


def gains(curves: pd.DataFrame, shots: int, step: int) -> pd.DataFrame:
    """How far the loss falls from step 0 to ``step``, on the mean of each speaker's tasks.

    Args:
        curves: a row a task and step: model, algorithm, episode_id, speaker, shots, step, loss.

    Returns:
        (model, algorithm) in columns, speakers in rows; NaN where a loss is not finite.
    """
    rows = curves[curves["shots"] == shots]
    losses = rows.assign(loss=rows["loss"].where(np.isfinite(rows["loss"])))
    by_step = {
        at: losses[losses["step"] == at].pivot_table(
            index="speaker", columns=["model", "algorithm"], values="loss", aggfunc="mean", dropna=False
        )
        for at in (0, step)
    }
    return by_step[0] - by_step[step]


def predictors(vectors: TaskVectors) -> dict[str, pd.Series]:
    """What the vectors of the test tasks say of each test speaker, on the mean of the speaker's tasks."""
    tasks = vectors.ids("test")
    speakers = vectors.table.set_index("id").loc[tasks, "speaker"]
    nearest = vectors.similarity(tasks, vectors.ids("train")).max(axis=1)
    norm = np.array([float(np.linalg.norm(vectors.of(task))) for task in tasks])
    found = {NEAREST: pd.Series(nearest, index=speakers.to_numpy())}
    if norm.std() > 1e-4 * norm.mean():  # a speaker embedding has length 1
        found[NORM] = pd.Series(norm, index=speakers.to_numpy())
    return {name: values.groupby(level=0).mean() for name, values in found.items()}


def predictions(
    vectors: Mapping[str, list[TaskVectors]], curves: pd.DataFrame, shots: int, step: int, seed: int = 0
) -> pd.DataFrame:
    """A row a model, algorithm, representation and predictor, with the correlation of the predictor and the gain.

    ``p_holm`` is adjusted over everything that was tried with a model.

    Args:
        vectors: model -> its tasks by each representation.
        curves, shots, step: see :func:`gains`.
    """
    gained, rows = gains(curves, shots, step), []
    for key in gained.columns:
        model, algorithm = str(key[0]), str(key[1])
        for one in vectors.get(model, []):
            for name, values in predictors(one).items():
                of_speakers = values.reindex(gained.index)
                found = rank_correlation(of_speakers, gained[model, algorithm], seed=seed)
                named = {"model": model, "algorithm": algorithm, "representation": one.name, "predictor": name}
                rows.append({**named, **asdict(found)})
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "p_holm"])
    return table.assign(p_holm=table.groupby("model")["p"].transform(lambda p: holm(list(p))))[COLUMNS]
