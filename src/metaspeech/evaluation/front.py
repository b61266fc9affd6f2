"""What similarity costs: speaker similarity against intelligibility and quality, a path for each algorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaspeech.evaluation.plots import new_figure
from metaspeech.evaluation.style import MUTED, RULE, colours, in_sentence, label, markers
from metaspeech.evaluation.summary import Summary

ACROSS, COSTS = "similarity", ("phoneme_error", "mos", "mcd")  # upwards; to the right, a panel each
Interval = tuple[float, float, float]  # mean, low, high


def front(summary: Summary, model: str, skipped: Sequence[str] = (), shots: int | None = None) -> Figure | None:
    """Similarity upwards against what it may cost, better to the right: paths from step 0 (hollow) to the last step.

    Args:
        skipped: metrics that are not to be trusted.
        shots: support recordings; without, those that findings are about.

    Returns:
        None where similarity and one of the others were not both measured.
    """
    shots, system = shots or int(summary.settings["shots"]), summary.system(model)
    table = summary.conditions
    mine = table[(table["model"] == model) & (table["shots"] == shots)]
    present = set(mine["metric"]) - set(skipped)
    costs = [name for name in COSTS if name in present][:2]
    if ACROSS not in present or not costs:
        return None
    algorithms = [name for name in summary.settings["algorithms"] if name in set(mine["algorithm"])]
    colour, marker = colours(algorithms), markers(algorithms)
    better = dict(zip(summary.columns["name"], summary.columns["better"], strict=True))
    references = _points(summary.references(system))
    figure, panels = new_figure(4.9 * len(costs) + 0.4, 4.2, columns=len(costs))
    for axes, cost in zip(panels, costs, strict=True):
        for name in algorithms:
            points = _points(mine[mine["algorithm"] == name])
            steps = sorted(step for step, metric in points if metric == ACROSS and (step, cost) in points)
            x, y = ([points[step, metric] for step in steps] for metric in (cost, ACROSS))
            if not steps:
                continue
            _path(axes, x, y, colour[name], marker[name])
            if system.headline_step in steps:
                _cross(axes, x[steps.index(system.headline_step)], y[steps.index(system.headline_step)], colour[name])
        for name in ("real", "copy"):
            if (name, cost) in references and (name, ACROSS) in references and not (name == "real" and cost == "mcd"):
                at = references[name, cost][0], references[name, ACROSS][0]
                axes.plot(*at, marker="*", markersize=11, color=MUTED, markeredgewidth=0, linestyle="none")
                axes.annotate(in_sentence(label(name)), at, xytext=(-6, -11), textcoords="offset points",
                              ha="right", color=MUTED, fontsize=8)  # fmt: skip
        axes.set_xlabel(f"{summary.label(cost, system)} (better →)")
        axes.grid(axis="x", color=RULE, linewidth=0.7)
        axes.margins(0.08)
        if better[cost] == "lower":
            axes.invert_xaxis()
    panels[0].set_ylabel(f"{summary.label(ACROSS, system)} (better →)")
    return figure


def _points(rows: pd.DataFrame) -> Mapping[tuple[Any, Any], Interval]:
    """(step, or of references the name; metric) -> mean, low, high."""
    known = rows.assign(at=rows["step"].where(rows["model"] != "", rows["algorithm"]))
    fields = known[["mean", "low", "high"]].astype(float).itertuples(index=False, name=None)
    return dict(zip(zip(known["at"], known["metric"], strict=True), fields, strict=True))


def _path(axes: Axes, x: Sequence[Interval], y: Sequence[Interval], colour: str, marker: str) -> None:
    """Means at every step; the marker grows with the step, the first one is hollow."""
    means = [one[0] for one in x], [one[0] for one in y]
    axes.plot(*means, color=colour, linewidth=1.3, alpha=0.75)
    for place, (right, up) in enumerate(zip(*means, strict=True)):
        size = 4.0 + 4.0 * place / max(1, len(x) - 1)
        face = "none" if place == 0 else colour
        axes.plot([right], [up], marker=marker, markersize=size, color=colour, markerfacecolor=face, linestyle="none")


def _cross(axes: Axes, x: Interval, y: Interval, colour: str) -> None:
    """Both 95 % intervals."""
    axes.plot([x[1], x[2]], [y[0], y[0]], color=colour, linewidth=0.9, alpha=0.45)
    axes.plot([x[0], x[0]], [y[1], y[2]], color=colour, linewidth=0.9, alpha=0.45)
