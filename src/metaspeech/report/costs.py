"""What each algorithm made of how much compute, and whether it holds beyond the steps that it was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from metaspeech.evaluation.statistics import cluster_bootstrap
from metaspeech.evaluation.style import label, number
from metaspeech.report.tables import Cell, Row
from metaspeech.tracking import Record

HEADINGS = ("Gradient evaluations", "Outer steps", "Training", "Memory", "Adaptation")


@dataclass(frozen=True)
class Costs:
    """A model's algorithms, compared.

    Attributes:
        headings: of the columns after the steps.
        steps: of adaptation at which the loss is shown.
        horizon: the step far beyond training up to which a few tasks were followed; None where none was.
        diverged: algorithms whose adaptation diverged there, as sentences.
    """

    steps: list[int]
    rows: list[Row]
    horizon: int | None
    horizon_tasks: int
    diverged: list[str]
    headings: Sequence[str] = field(default=HEADINGS)


def costs(
    model: str,
    algorithms: Sequence[str],
    curves: pd.DataFrame,
    metrics: Mapping[tuple[str, str, str], Mapping[str, Any]],
    records: Sequence[Record],
    shots: int,
    seed: int,
) -> Costs:
    """
    Args:
        curves: a row a model, algorithm, task and step: episode_id, speaker, shots, step, loss.
        metrics: (stage, model, algorithm) -> metrics.json of meta_train and adapt.
        records: of all stages.
    """
    own = curves[(curves["model"] == model) & (curves["shots"] == shots)]
    steps = sorted(int(step) for step in own["step"].unique())
    by_name = {record.name: record for record in records}
    followed = [metrics.get(("adapt", model, algorithm), {}) for algorithm in algorithms]
    far = {algorithm: one for algorithm, one in zip(algorithms, followed, strict=True) if one.get("horizon_step")}
    rows, diverged = [], []
    for algorithm in algorithms:
        losses = own[own["algorithm"] == algorithm].groupby(["step", "speaker"])["loss"].mean()
        cells = [_loss(losses.loc[step], seed) for step in steps]
        if far:
            cells.append(_far(far.get(algorithm)))
        if far.get(algorithm, {}).get("horizon_diverged"):
            one = far[algorithm]
            diverged.append(f"{label(algorithm)} on {one['horizon_diverged']} of {one['horizon_tasks']} tasks")
        trained = metrics.get(("meta_train", model, algorithm), {})
        outer, inner = (by_name.get(f"{stage}@{model}-{algorithm}") for stage in ("meta_train", "adapt"))
        cells += [Cell(str(trained.get(name, "–"))) for name in ("gradient_evaluations", "outer_steps")]
        cells += [Cell(_seconds(outer)), Cell(_memory(outer)), Cell(_seconds(inner))]
        rows.append(Row(algorithm, label(algorithm), "", True, cells))
    one = next(iter(far.values()), {"horizon_step": None, "horizon_tasks": 0})
    return Costs(steps, rows, one["horizon_step"], one["horizon_tasks"], diverged)


def _loss(of_speakers: pd.Series, seed: int) -> Cell:
    interval = cluster_bootstrap(of_speakers, seed=seed)
    return Cell(number(interval.mean), (f"{number(interval.low)} to {number(interval.high)}",))


def _far(found: Mapping[str, Any] | None) -> Cell:
    """The loss far beyond training."""
    if not found:
        return Cell("–")
    bad = int(found["horizon_diverged"])
    return Cell(number(found["horizon_loss"]), (f"{bad} diverged",) if bad else (), "behind" if bad else "")


def _seconds(record: Record | None) -> str:
    return f"{record.seconds:.0f} s" if record else "–"


def _memory(record: Record | None) -> str:
    return f"{record.memory_mib:,.0f} MiB" if record and record.memory_mib else "–"
