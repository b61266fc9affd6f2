"""Rows of the page's tables, already written as a reader sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from metaspeech.evaluation.breakdown import METRICS, Breakdown
from metaspeech.evaluation.comparisons import BASELINE, COMPARED
from metaspeech.evaluation.style import label, number, p_value
from metaspeech.evaluation.summary import Summary
from metaspeech.report.view import LEVEL

MAIN = ("loss", "similarity", "eer", "phoneme_error", "mos", "mcd")  # of the table that everyone reads


@dataclass(frozen=True)
class Cell:
    """A number, the small lines below it, the class it is shown in, and what it is sorted by where it is a number."""

    text: str
    notes: tuple[str, ...] = ()
    css: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Row:
    """A condition; ``first`` opens the rows of an algorithm."""

    algorithm: str
    name: str
    step: str
    first: bool
    cells: list[Cell] = field(default_factory=list)


def result_columns(summary: Summary, model: str) -> list[str]:
    """Metrics of a system: all but the loss where it has none."""
    present = _own_metrics(summary, model)
    return [name for name in summary.columns["name"] if name != "loss" or name in present]


def main_columns(summary: Summary, model: str) -> list[str]:
    """Those of a system's metrics that tell the story."""
    present = result_columns(summary, model)
    return [name for name in MAIN if name in present] or present


def main_steps(summary: Summary, model: str) -> list[int]:
    """Before adaptation, at the headline step, at the last one."""
    system = summary.system(model)
    return sorted({0, system.headline_step, system.steps[-1]})


def evaluated_shots(summary: Summary, model: str) -> list[int]:
    """Numbers of support recordings that a system was heard or compared at."""
    counts = summary.counts
    heard = counts[(counts["model"] == model) & (counts["utterances"] > 0)]
    return sorted({int(one) for one in heard["shots"]} | {int(summary.settings["shots"])})


def result_rows(
    summary: Summary,
    model: str,
    columns: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
    shots: int | None = None,
) -> list[Row]:
    """References, then every algorithm and step: each metric with its interval, then stop failures.

    Args:
        columns, steps: all without.
        shots: support recordings; without, those that findings are about.
    """
    table, system = summary.conditions, summary.system(model)
    shots = shots or int(summary.settings["shots"])
    mine = table[(table["model"] == model) & (table["shots"] == shots)]
    rows: list[Row] = []
    for algorithm, step in _conditions(summary, model, shots):
        reference = algorithm not in summary.settings["algorithms"]
        if not reference and steps is not None and step not in steps:
            continue
        here = summary.references(system) if reference else mine[mine["step"] == step]
        measured = here[here["algorithm"] == algorithm].set_index("metric")
        names = result_columns(summary, model) if columns is None else columns
        cells = [_measured(measured, name, summary.settings["speakers"]) for name in names]
        if system.acoustic:
            cells.append(Cell("–") if reference else _stops(summary, model, algorithm, step, shots))
        rows.append(_row(rows, algorithm, "" if reference else str(step), cells))
    return rows


def comparison_rows(summary: Summary, model: str, against: str = BASELINE, shots: int | None = None) -> list[Row]:
    """Every algorithm that is compared ``against`` something, step by step: the paired difference in each metric."""
    table = summary.comparisons
    if table.empty:
        return []
    shots = shots or int(summary.settings["shots"])
    table = table[(table["model"] == model) & (table["against"] == against)]
    table = table[table["shots"] == shots]
    better = dict(zip(summary.columns["name"], summary.columns["better"], strict=True))
    fields = ("difference", "low", "high", "p_holm")
    rows: list[Row] = []
    for algorithm, step in _conditions(summary, model, shots):
        here = table[(table["algorithm"] == algorithm) & (table["step"] == step)].set_index("metric")
        if here.empty:
            continue
        cells = []
        for metric in compared_metrics(summary, model):
            if metric not in here.index:
                cells.append(Cell("–"))
                continue
            difference, low, high, p = (float(here[name].loc[metric]) for name in fields)
            gained = (difference > 0) == (better[metric] == "higher")
            css = "" if not p < LEVEL else "ahead" if gained else "behind"
            notes = [f"{number(low, signed=True)} to {number(high, signed=True)}, {p_value(p)}"]
            if "effect" in here:
                notes.append(f"effect size {number(float(here['effect'].loc[metric]), signed=True)}")
            cells.append(Cell(number(difference, signed=True), tuple(notes), css, difference))
        rows.append(_row(rows, algorithm, str(step), cells))
    return rows


def compared_metrics(summary: Summary, model: str) -> list[str]:
    """Those of the compared metrics that a system has."""
    present = _own_metrics(summary, model)
    return [name for name in COMPARED if name in present]


def breakdown_metrics(summary: Summary) -> list[str]:
    """Those of the metrics of a breakdown that were measured."""
    present = set(summary.shared["metric"])
    return [name for name in METRICS if name in present]


def breakdown_rows(summary: Summary, breakdown: Breakdown, algorithm: str) -> list[tuple[str, list[Cell]]]:
    """The places on the way to the end of a chain that ``algorithm`` adapted, and the metrics at each."""
    rows = []
    for place in breakdown.places:
        cells = []
        for metric in breakdown_metrics(summary):
            found = breakdown.measured(place, metric).get(place.reference or algorithm)
            cells.append(_interval(*found) if found else Cell("–"))
        rows.append((place.label, cells))
    return rows


def _own_metrics(summary: Summary, model: str) -> set[str]:
    return set(summary.conditions[summary.conditions["model"] == model]["metric"])


def _conditions(summary: Summary, model: str, shots: int) -> list[tuple[str, int]]:
    """The references, and whatever was measured on a system, be it the loss alone."""
    table, order = summary.conditions, summary.settings["algorithms"]
    known = set(summary.references(summary.system(model))["algorithm"])
    references = [(name, 0) for name in ("real", "copy") if name in known]
    counts = summary.counts
    heard = counts[(counts["model"] == model) & (counts["utterances"] > 0)]
    mine = pd.concat([table[table["model"] == model], heard])
    mine = mine[mine["shots"] == shots]
    present = {(str(name), int(step)) for name, step in zip(mine["algorithm"], mine["step"], strict=True)}
    return references + sorted(
        (one for one in present if one[0] in order), key=lambda one: (order.index(one[0]), one[1])
    )


def _row(rows: list[Row], algorithm: str, step: str, cells: list[Cell]) -> Row:
    first = not rows or rows[-1].algorithm != algorithm
    return Row(algorithm, label(algorithm), step, first, cells)


def _measured(table: pd.DataFrame, metric: str, speakers: int) -> Cell:
    if metric not in table.index:
        return Cell("–")
    mean, low, high, count = (float(table[name].loc[metric]) for name in ("mean", "low", "high", "speakers"))
    cell = _interval(mean, low, high)
    fewer = (f"{count:.0f} of {speakers} speakers",) if count < speakers else ()
    return replace(cell, notes=cell.notes + fewer)


def _interval(mean: float, low: float, high: float) -> Cell:
    known = math.isfinite(low) and low < high
    return Cell(number(mean), (f"{number(low)} to {number(high)}",) if known else (), value=mean)


def _stops(summary: Summary, model: str, algorithm: str, step: int, shots: int) -> Cell:
    counts = summary.counts
    here = counts[(counts["model"] == model) & (counts["algorithm"] == algorithm) & (counts["step"] == step)]
    row = here[here["shots"] == shots].iloc[0]
    failures, total = int(row["stop_failures"]), int(row["utterances"])
    lost = int(row["not_finite"])
    notes, css = (f"{lost} not finite",) if lost else (), "behind" if failures else ""
    return Cell(f"{failures} of {total}", notes, css, failures / max(1, total))
