"""How many steps each algorithm needs for what the baseline has at its last one: the finding, and the table."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from metaspeech.evaluation.comparisons import BASELINE
from metaspeech.evaluation.style import label, number
from metaspeech.evaluation.summary import Summary
from metaspeech.report.tables import Cell, Row
from metaspeech.report.view import View, baseline


def speed_sentence(view: View, metric: str) -> str | None:
    """Of the algorithm that is there first; None where there is no mark to compare with."""
    table = view.speed
    rows = table[table["metric"] == metric].to_dict("records") if len(table) else []
    others = [row for row in rows if row["algorithm"] != BASELINE and row["algorithm"] in view.algorithms]
    if not others or not others[0]["mark_step"]:
        return None
    mark_step, mark = int(others[0]["mark_step"]), float(others[0]["mark"])
    what = f"the {view.name(metric)} that {baseline()} has after {_steps(mark_step)} ({number(mark)})"
    reached = [row for row in others if math.isfinite(row["steps"])]
    if not reached:
        return f"No other start comes to {what} within the steps that were measured."
    first = min(reached, key=lambda row: (row["steps"], -view.sign(metric) * (_mean(view, metric, row) or 0.0)))
    if first["steps"] >= mark_step:
        return f"No other start has {what} sooner."
    text = f"{label(str(first['algorithm']))} needs {_steps(first['steps'])} for {what}"
    if first["times_fewer"] > 1:
        text += f": {_times(first['times_fewer'])} times fewer"
    text += f" ({_interval(first, mark_step)})." if view.speakers > 1 else "."
    if not first["high"] < mark_step:  # NaN: beyond the last step
        text += f" So few speakers do not exclude that it needs as many as {baseline()}."
    own = [row["steps"] for row in rows if row["algorithm"] == BASELINE and row["steps"] < mark_step]
    if own:
        text += f" {label(BASELINE)} itself was there after {_steps(own[0])} already."
    return text


def speed_rows(summary: Summary, model: str, metrics: list[str], shots: int | None = None) -> list[Row]:
    """A row an algorithm, a cell a metric: the first step at which it has what the baseline has at its last one."""
    table = summary.speed
    table = table[(table["model"] == model) & (table["shots"] == (shots or summary.settings["shots"]))]
    found = {(row["algorithm"], row["metric"]): row for row in table.to_dict("records")}
    algorithms = [name for name in summary.settings["algorithms"] if name in set(table["algorithm"])]
    return [
        Row(
            name,
            label(name),
            "",
            True,
            [_cell(found.get((name, metric)), found.get((BASELINE, metric))) for metric in metrics],
        )
        for name in algorithms
    ]


def _cell(row: Mapping[Hashable, Any] | None, of_baseline: Mapping[Hashable, Any] | None) -> Cell:
    if row is None or of_baseline is None:
        return Cell("–")
    mark_step = int(row["mark_step"])
    if not math.isfinite(row["steps"]):
        return Cell("not reached", (_interval(row, mark_step),))
    fewer = row["times_fewer"]
    text = f"{row['steps']:.0f}" + (f" ({_times(fewer)}× fewer)" if fewer > 1 else "")
    css = "ahead" if row["high"] < of_baseline["steps"] else ""
    return Cell(text, (_interval(row, mark_step),), css, float(row["steps"]))


def _interval(row: Mapping[Hashable, Any], mark_step: int) -> str:
    """Of the steps; a bound that is not known lies beyond the last measured step."""
    low, high = row["low"], row["high"]
    bounds = [f"{bound:.0f}" if math.isfinite(bound) else f"more than {mark_step}" for bound in (low, high)]
    return f"95 % interval {' to '.join(bounds)}" if bounds[0] != bounds[1] else f"95 % interval: {bounds[0]}"


def _mean(view: View, metric: str, row: Mapping[Hashable, Any]) -> float | None:
    return view.mean(metric, str(row["algorithm"]), int(row["steps"]))


def _times(factor: float) -> str:
    return f"{factor:.0f}" if factor >= 10 else f"{factor:.2g}"


def _steps(count: float) -> str:
    return f"{count:.0f} step{'' if count == 1 else 's'}"
