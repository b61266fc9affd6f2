"""What each algorithm made of how much compute, and whether it holds beyond the steps that it was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
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
    metrics: Mapping[tuple[str, str, str], Sequence[Mapping[str, Any]]],
    records: Sequence[Record],
    shots: int,
    seeds: Sequence[int],
    seed: int,
) -> Costs:
    """
    Args:
        curves: a row a model, algorithm, task and step: episode_id, speaker, shots, step, loss.
        metrics: (stage, model, algorithm) -> metrics.json of meta_train and adapt, one a seed.
        records: of all stages.
        seeds: of meta-training; what they cost is averaged.
        seed: of the bootstrap.
    """
    own = curves[(curves["model"] == model) & (curves["shots"] == shots)]
    steps = sorted(int(step) for step in own["step"].unique())
    by_name = {record.name: record for record in records}
    followed = {algorithm: _followed(metrics.get(("adapt", model, algorithm), ())) for algorithm in algorithms}
    far = {algorithm: one for algorithm, one in followed.items() if one}
    rows, diverged = [], []
    for algorithm in algorithms:
        losses = own[own["algorithm"] == algorithm].groupby(["step", "speaker"])["loss"].mean()
        cells = [_loss(losses.loc[step], seed) for step in steps]
        if far:
            cells.append(_far(far.get(algorithm)))
        if algorithm in far and far[algorithm].diverged:
            task = "task" if far[algorithm].tasks == 1 else "tasks"
            diverged.append(f"{label(algorithm)} on {far[algorithm].diverged} of {far[algorithm].tasks} {task}")
        trained = next(iter(metrics.get(("meta_train", model, algorithm), ())), {})
        outer, inner = (
            [by_name[name] for seed in seeds if (name := f"{stage}@{model}-{algorithm}-{seed}") in by_name]
            for stage in ("meta_train", "adapt")
        )
        cells += [_count(trained.get(name)) for name in ("gradient_evaluations", "outer_steps")]
        cells += [_seconds(outer), _memory(outer), _seconds(inner)]
        rows.append(Row(algorithm, label(algorithm), "", True, cells))
    one = next(iter(far.values()), None)
    return Costs(steps, rows, one.step if one else None, one.tasks if one else 0, diverged)


def _loss(of_speakers: pd.Series, seed: int) -> Cell:
    interval = cluster_bootstrap(of_speakers, seed=seed)
    return Cell(number(interval.mean), (f"{number(interval.low)} to {number(interval.high)}",), value=interval.mean)


@dataclass(frozen=True)
class _Followed:
    """A few tasks far beyond training, over all seeds."""

    step: int
    loss: float
    diverged: int
    tasks: int


def _followed(metrics: Sequence[Mapping[str, Any]]) -> _Followed | None:
    found = [one for one in metrics if one.get("horizon_step")]
    if not found:
        return None
    diverged, tasks = (sum(int(one[f"horizon_{name}"]) for one in found) for name in ("diverged", "tasks"))
    return _Followed(found[0]["horizon_step"], fmean(one["horizon_loss"] for one in found), diverged, tasks)


def _far(found: _Followed | None) -> Cell:
    """The loss far beyond training."""
    if not found:
        return Cell("–")
    bad = found.diverged
    return Cell(number(found.loss), (f"{bad} diverged",) if bad else (), "behind" if bad else "", found.loss)


def spent(stages: Sequence[tuple[str, float]]) -> list[tuple[str, str]]:
    """What the whole took, for the head of the page: wall time of all stages, and of the dearest kinds.

    Args:
        stages: name (``stage`` or ``stage@item``), seconds.
    """
    kinds: dict[str, float] = {}
    for name, seconds in stages:
        kind = name.split("@")[0]
        kinds[kind] = kinds.get(kind, 0.0) + seconds
    if not kinds:
        return []
    wanted = {"meta_train": "Meta-training", "adapt": "Adaptation", "evaluate": "Evaluation"}
    told = [("All stages", sum(kinds.values())), *((wanted[one], kinds[one]) for one in wanted if one in kinds)]
    return [(name, _duration(seconds)) for name, seconds in told]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(str(value), value=float(value))


def _seconds(records: Sequence[Record]) -> Cell:
    mean = fmean(record.seconds for record in records) if records else None
    return Cell("–") if mean is None else Cell(f"{mean:.0f} s", value=mean)


def _memory(records: Sequence[Record]) -> Cell:
    held = [record.memory_mib for record in records if record.memory_mib]
    return Cell(f"{max(held):,.0f} MiB", value=max(held)) if held else Cell("–")
