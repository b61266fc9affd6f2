"""What the page says of tasks: which are alike, and whether that tells what adaptation gains."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from metaspeech.evaluation.prediction import NEAREST, NORM
from metaspeech.evaluation.style import in_sentence, label, number, p_value
from metaspeech.report.tables import Cell, Row
from metaspeech.report.view import LEVEL
from metaspeech.tasks.representation import TaskVectors

PREDICTORS = {NEAREST: "similarity to the nearest training speaker", NORM: "length of the vector"}
NEIGHBOURS = 3


@dataclass(frozen=True)
class Neighbours:
    """The training speakers most similar to an unseen one, with their similarity."""

    speaker: str
    nearest: list[tuple[str, str]]


def prediction_rows(table: pd.DataFrame, vectors: Sequence[TaskVectors], algorithms: Sequence[str]) -> list[Row]:
    """A row a representation and predictor, a cell an algorithm: rank correlation with the gain, and its interval.

    Args:
        table: of one model, see :func:`metaspeech.evaluation.prediction.predictions`.
    """
    rows: list[Row] = []
    for one in vectors:
        own = table[table["representation"] == one.name]
        for place, predictor in enumerate(PREDICTORS):
            here = {row["algorithm"]: row for row in own[own["predictor"] == predictor].to_dict("records")}
            if here:
                cells = [_correlation(here[name]) for name in algorithms if name in here]
                rows.append(Row(one.name, one.representation.label, PREDICTORS[predictor], place == 0, cells))
    return rows


def prediction_sentence(table: pd.DataFrame, vectors: Sequence[TaskVectors]) -> str:
    """What can be said with certainty: the strongest of the correlations that hold, or that none does."""
    labels = {one.name: one.representation.label for one in vectors}
    certain = table[table["p_holm"] < LEVEL]
    if certain.empty:
        return (
            f"None of the {len(table)} rank correlations below is certain (p adjusted for their number): with "
            f"{int(table['speakers'].max()) if len(table) else 0} speakers only strong ones could be."
        )
    best = max(certain.to_dict("records"), key=lambda row: abs(float(row["rho"])))
    rho, low, high = (number(float(best[name]), signed=True) for name in ("rho", "low", "high"))
    return (
        f"{labels[best['representation']]}, {PREDICTORS[best['predictor']]}: rank correlation {rho} ({low} to {high}, "
        f"{p_value(float(best['p_holm']))}) with what {in_sentence(label(str(best['algorithm'])))} gains."
    )


def neighbours(vectors: TaskVectors) -> list[Neighbours]:
    """For each test task."""
    speakers, training = vectors.table.set_index("id")["speaker"], vectors.ids("train")
    return [
        Neighbours(speakers[task], [(speakers[name], number(alike)) for name, alike in
                                    vectors.nearest(task, training)[:NEIGHBOURS]])
        for task in vectors.ids("test")
    ]  # fmt: skip


def _correlation(row: Mapping[Hashable, Any]) -> Cell:
    if row["rho"] != row["rho"]:
        return Cell("–")
    interval = f"{number(row['low'], signed=True)} to {number(row['high'], signed=True)}"
    css = "" if not row["p_holm"] < LEVEL else "ahead"
    return Cell(number(row["rho"], signed=True), (interval, p_value(row["p_holm"])), css)
