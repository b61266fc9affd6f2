"""Figures of a study. Each function returns a matplotlib figure and leaves no global state behind."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from metaspeech.evaluation.plots import new_figure
from metaspeech.evaluation.style import INK, PALETTE, RULE
from metaspeech.sweeps.results import Results, Row, numeric
from metaspeech.sweeps.space import Objective, Range

WIDTH, HEIGHT = 4.6, 3.3  # inches
BEST = PALETTE[1]
TRIAL = PALETTE[0]


def figures(results: Results) -> dict[str, Figure]:
    """Title -> figure: those for which there are enough trials."""
    drawn: dict[str, Figure] = {}
    if not results.complete:
        return drawn
    objectives = results.space.objectives
    if len(objectives) > 1:
        drawn[f"{objectives[1].name} against {objectives[0].name}"] = front(results)
    for place, objective in enumerate(objectives):
        drawn[f"{objective.name} over trials"] = history(results, place)
    if results.importance:
        drawn["Importance"] = importance_bars(results)
    return drawn


def slices(results: Results) -> dict[str, Figure]:
    """Key -> the first objective over its values."""
    return {key: slice_plot(results, key) for key in results.space.search} if results.complete else {}


def history(results: Results, place: int) -> Figure:
    """An objective over trials, with the best so far."""
    objective, rows = results.space.objectives[place], results.complete
    figure, axes = _figure()
    numbers, values = [row.number for row in rows], np.array([row.values[place] for row in rows])
    best = objective.sign * np.maximum.accumulate(objective.sign * values)
    axes.step(numbers, best, where="post", color=BEST, linewidth=1.8, label="best so far")
    axes.scatter(numbers, values, s=24, color=TRIAL, linewidths=0, zorder=3, label="trial")
    axes.set_xlabel("trial")
    axes.set_ylabel(_label(objective))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    return figure


def front(results: Results) -> Figure:
    """Two objectives against each other; trials that no other beats in both are joined and numbered."""
    first, second = results.space.objectives[:2]
    figure, axes = _figure()
    rest, best = [row for row in results.complete if not row.best], results.best
    axes.scatter(*_pairs(rest), s=24, color=TRIAL, alpha=0.6, linewidths=0, label="trial")
    axes.plot(*_pairs(best), color=BEST, marker="D", markersize=5.5, linewidth=1.4, label="front")
    for row in best:
        axes.annotate(str(row.number), (row.values[0], row.values[1]), xytext=(5, 4), textcoords="offset points",
                      fontsize=8, color=INK)  # fmt: skip
    axes.set_xlabel(_label(first))
    axes.set_ylabel(_label(second))
    axes.legend(frameon=False, fontsize=8)
    axes.margins(0.1)
    return figure


def importance_bars(results: Results) -> Figure:
    """The share of each key in the variance of each objective."""
    keys = list(results.space.search)
    height = 0.8 / len(results.importance)
    figure, axes = _figure(height=0.9 + 0.42 * len(keys))
    for place, (name, shares) in enumerate(results.importance.items()):
        positions = np.arange(len(keys)) + (place - (len(results.importance) - 1) / 2) * height
        axes.barh(positions, [shares.get(key, 0.0) for key in keys], height * 0.9, color=PALETTE[place], label=name)
    axes.set_yticks(range(len(keys)), keys)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the variance")
    axes.grid(axis="x", color=RULE, linewidth=0.7)
    axes.grid(axis="y", visible=False)
    if len(results.importance) > 1:
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=2)
    return figure


def slice_plot(results: Results, key: str) -> Figure:
    """The first objective over the values of a key."""
    objective, domain = results.space.objectives[0], results.space.search[key]
    figure, axes = _figure()
    labels = [] if isinstance(domain, Range) else domain.labels()
    for rows, colour, size in (
        ([row for row in results.complete if not row.best], TRIAL, 24),
        (results.best, BEST, 34),
    ):
        places = [row.params[key] if numeric(results.space, key) else labels.index(row.params[key]) for row in rows]
        axes.scatter(places, [row.values[0] for row in rows], s=size, color=colour, linewidths=0, alpha=0.8)
    if isinstance(domain, Range):
        if domain.log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
        if domain.whole and not domain.log:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.set_xticks(
            range(len(labels)), [str(one).strip('[]"')[:18] for one in labels], rotation=20 if len(labels) > 3 else 0
        )
        axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_xlabel(key)
    axes.set_ylabel(_label(objective))
    return figure


def _pairs(rows: list[Row]) -> tuple[list[float], list[float]]:
    return [row.values[0] for row in rows], [row.values[1] for row in rows]


def _label(objective: Objective) -> str:
    return f"{objective.name} ({'higher' if objective.sign > 0 else 'lower'} is better)"


def _figure(height: float = HEIGHT) -> tuple[Figure, Axes]:
    figure, (axes,) = new_figure(WIDTH, height, columns=1)
    return figure, axes
