"""Rows of the page's tables, already written as a reader sees them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd

from metaspeech.evaluation.style import label, number, p_value
from metaspeech.evaluation.summary import BASELINE, COMPARED, Summary
from metaspeech.report.findings import LEVEL


@dataclass(frozen=True)
class Cell:
    """A number, the small lines below it, and the class it is shown in."""

    text: str
    notes: tuple[str, ...] = ()
    css: str = ""


@dataclass(frozen=True)
class Row:
    """A condition; ``first`` opens the rows of an algorithm."""

    algorithm: str
    name: str
    step: str
    first: bool
    cells: list[Cell] = field(default_factory=list)


def result_rows(summary: Summary, model: str) -> list[Row]:
    """References, then every algorithm and step: each metric with its interval, then stop failures."""
    table = summary.conditions
    rows: list[Row] = []
    for algorithm, step in _conditions(summary, model):
        here = table[(table["algorithm"] == algorithm) & (table["step"] == step)]
        reference = algorithm not in summary.settings["algorithms"]
        here = here[here["model"] == ""] if reference else here[here["model"] == model]
        here = here if reference else here[here["shots"] == summary.settings["shots"]]
        measured = here.set_index("metric")
        cells = [_measured(measured, name, summary.settings["speakers"]) for name in summary.columns["name"]]
        cells.append(Cell("–") if reference else _stops(summary, model, algorithm, step))
        rows.append(_row(rows, algorithm, "" if reference else str(step), cells))
    return rows


def comparison_rows(summary: Summary, model: str) -> list[Row]:
    """Every algorithm but the baseline, step by step: the paired difference in each compared metric."""
    table = summary.comparisons
    if table.empty:
        return []
    table = table[(table["model"] == model) & (table["against"] == BASELINE)]
    table = table[table["shots"] == summary.settings["shots"]]
    better = dict(zip(summary.columns["name"], summary.columns["better"], strict=True))
    fields = ("difference", "low", "high", "p_holm")
    rows: list[Row] = []
    for algorithm, step in _conditions(summary, model):
        here = table[(table["algorithm"] == algorithm) & (table["step"] == step)].set_index("metric")
        if here.empty:
            continue
        cells = []
        for metric in compared_metrics(summary):
            if metric not in here.index:
                cells.append(Cell("–"))
                continue
            difference, low, high, p = (float(here[name].loc[metric]) for name in fields)
            gained = (difference > 0) == (better[metric] == "higher")
            css = "" if not p < LEVEL else "ahead" if gained else "behind"
            interval = f"{number(low, signed=True)} to {number(high, signed=True)}"
            cells.append(Cell(number(difference, signed=True), (f"{interval}, {p_value(p)}",), css))
        rows.append(_row(rows, algorithm, str(step), cells))
    return rows


def compared_metrics(summary: Summary) -> list[str]:
    """Those of the compared metrics that were measured."""
    known = set(summary.columns["name"])
    return [name for name in COMPARED if name in known]


def _conditions(summary: Summary, model: str) -> list[tuple[str, int]]:
    counts = summary.counts
    synthesised = counts[counts["utterances"] > 0]
    references = [(name, 0) for name in ("real", "copy") if name in set(synthesised["algorithm"])]
    mine = synthesised[(synthesised["model"] == model) & (synthesised["shots"] == summary.settings["shots"])]
    present = {(str(name), int(step)) for name, step in zip(mine["algorithm"], mine["step"], strict=True)}
    steps = sorted(summary.settings["steps"])
    adapted = [(name, step) for name in summary.settings["algorithms"] for step in steps if (name, step) in present]
    return references + adapted


def _row(rows: list[Row], algorithm: str, step: str, cells: list[Cell]) -> Row:
    first = not rows or rows[-1].algorithm != algorithm
    return Row(algorithm, label(algorithm), step, first, cells)


def _measured(table: pd.DataFrame, metric: str, speakers: int) -> Cell:
    if metric not in table.index:
        return Cell("–")
    mean, low, high, count = (float(table[name].loc[metric]) for name in ("mean", "low", "high", "speakers"))
    notes = [f"{number(low)} to {number(high)}"] if math.isfinite(low) and low < high else []
    if count < speakers:
        notes.append(f"{count:.0f} of {speakers} speakers")
    return Cell(number(mean), tuple(notes))


def _stops(summary: Summary, model: str, algorithm: str, step: int) -> Cell:
    counts = summary.counts
    here = counts[(counts["model"] == model) & (counts["algorithm"] == algorithm) & (counts["step"] == step)]
    row = here[here["shots"] == summary.settings["shots"]].iloc[0]
    failures, total = int(row["stop_failures"]), int(row["utterances"])
    lost = int(row["not_finite"])
    return Cell(f"{failures} of {total}", (f"{lost} not finite",) if lost else (), "behind" if failures else "")
