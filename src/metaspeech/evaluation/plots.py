"""Figures of the evaluation. Each function returns a matplotlib figure and leaves no global state behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaspeech.evaluation.breakdown import Breakdown
from metaspeech.evaluation.comparisons import BASELINE
from metaspeech.evaluation.style import INK, MUTED, RULE, colours, in_sentence, label, markers, number
from metaspeech.evaluation.summary import Summary

WIDTH, HEIGHT = 4.6, 3.3  # inches
PANELS = 8  # of speakers, side by side


def adaptation_curve(summary: Summary, model: str, metric: str, shots: int | None = None) -> Figure:
    """A metric over adaptation steps, a line an algorithm with its 95 % band; the references as level lines.

    Args:
        shots: support recordings; without, those that findings are about.
    """
    table, system, shots = summary.conditions, summary.system(model), shots or summary.settings["shots"]
    rows = table[(table["metric"] == metric) & (table["model"] == model) & (table["shots"] == shots)]
    algorithms = [name for name in summary.settings["algorithms"] if name in set(rows["algorithm"])]
    colour, marker = colours(algorithms), markers(algorithms)
    figure, axes = _figure(WIDTH, HEIGHT)
    known = summary.references(system)
    references = known[known["metric"] == metric].set_index("algorithm")["mean"].sort_values()
    if metric == "mcd":  # of a recording to itself: 0, which would only flatten the curves
        references = references.drop("real", errors="ignore")
    for place, (name, level) in enumerate(references.items()):
        above = place == len(references) - 1  # the lower line is named below it, so that near ones do not collide
        axes.axhline(level, color=MUTED, linewidth=1, linestyle="-" if name == "real" else (0, (4, 3)))
        axes.annotate(
            in_sentence(label(str(name))),
            (1, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3 if above else -3),
            textcoords="offset points",
            ha="right",
            va="bottom" if above else "top",
            color=MUTED,
            fontsize=8,
        )
    for name in algorithms:
        line = rows[rows["algorithm"] == name].sort_values("step")
        banded = line.dropna(subset=["low", "high"])
        axes.fill_between(banded["step"], banded["low"], banded["high"], color=colour[name], alpha=0.14, linewidth=0)
        axes.plot(
            line["step"],
            line["mean"],
            color=colour[name],
            marker=marker[name],
            markersize=4.5,
            linewidth=1.8,
            label=label(name),
        )
    step_axis(axes, sorted(set(rows["step"])))
    axes.set_xlabel("adaptation steps (square-root scale)")
    axes.set_ylabel(summary.label(metric, system))
    axes.margins(x=0.04, y=0.1)
    return figure


def speaker_curves(summary: Summary, speakers: pd.DataFrame, model: str, metric: str) -> Figure | None:
    """A small panel a speaker, all with the same axes: a metric over adaptation steps, a line an algorithm.

    All panels are drawn in one pair of axes, an algorithm's lines as one: fifty pairs would make a page slow.

    Args:
        speakers: a row a condition and speaker, see :func:`~metaspeech.evaluation.summary.speaker_means`.

    Returns:
        None where the metric was not measured.
    """
    shots = summary.settings["shots"]
    rows = speakers[(speakers["model"] == model) & (speakers["shots"] == shots)]
    rows = rows[np.isfinite(rows[metric].astype(float))]
    if rows.empty:
        return None
    names, algorithms = sorted(rows["speaker"].unique()), summary.settings["algorithms"]
    colour, columns = colours(algorithms), min(PANELS, len(names))
    lines = -(-len(names) // columns)
    places = {name: (place % columns, lines - 1 - place // columns) for place, name in enumerate(names)}
    ends, values = (0, int(rows["step"].max())), (float(rows[metric].min()), float(rows[metric].max()))

    def across(step: pd.Series | float) -> Any:
        return 0.06 + 0.86 * np.sqrt(step / max(1, ends[1]))

    def up(value: pd.Series | float) -> Any:
        return 0.1 + 0.66 * (value - values[0]) / ((values[1] - values[0]) or 1.0)

    figure, axes = _figure(1.2 + 1.25 * columns, 0.6 + 1.05 * lines)
    for algorithm in algorithms:
        own = rows[rows["algorithm"] == algorithm].sort_values("step")
        x, y = [], []
        for name, line in own.groupby("speaker"):
            right, above = places[str(name)]
            x += [*(right + across(line["step"])), np.nan]
            y += [*(above + up(line[metric])), np.nan]
        axes.plot(x, y, color=colour[algorithm], linewidth=1.3)
    corners = [(right + across(step), above + up(value)) for right, above in places.values()
               for step, value in [(0, values[1]), (0, values[0]), (ends[1], values[0]), (np.nan, np.nan)]]  # fmt: skip
    axes.plot(*zip(*corners, strict=True), color=MUTED, linewidth=0.7)
    for name, (right, above) in places.items():
        axes.text(right + 0.06, above + 0.82, shortened(name), fontsize=7.5, color=INK, parse_math=False)
    axes.set_xlim(0, columns)
    axes.set_ylim(0, lines)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xticks(*_ticks([(right + across(step), step) for right in range(columns) for step in ends]))
    axes.set_yticks(*_ticks([(above + up(value), number(value)) for above in range(lines) for value in values]))
    axes.tick_params(length=0, labelsize=6.5)
    axes.set_xlabel("adaptation steps (square-root scale)")
    axes.set_ylabel(summary.label(metric, summary.system(model)))
    return figure


def _ticks(marks: Sequence[tuple[float, object]]) -> tuple[list[float], list[str]]:
    """Places and labels."""
    return [place for place, _ in marks], [str(text) for _, text in marks]


def paired_differences(summary: Summary, speakers: pd.DataFrame, model: str, metric: str) -> Figure | None:
    """Each speaker's difference to the baseline at the headline step, with the mean and its interval.

    Returns:
        None where there is nothing to compare.
    """
    settings, table = summary.settings, summary.comparisons
    system, shots = summary.system(model), settings["shots"]
    step = system.headline_step
    if table.empty:
        return None
    chosen = table[(table["model"] == model) & (table["against"] == BASELINE) & (table["metric"] == metric)]
    chosen = chosen[(chosen["step"] == step) & (chosen["shots"] == shots)]
    if chosen.empty:
        return None
    here = speakers[(speakers["model"] == model) & (speakers["step"] == step) & (speakers["shots"] == shots)]
    wide = here.pivot_table(index="speaker", columns="algorithm", values=metric)
    chosen = chosen.set_index("algorithm")
    algorithms = [name for name in settings["algorithms"] if name in chosen.index]
    colour = colours(algorithms)
    figure, axes = _figure(WIDTH, 0.8 + 0.55 * len(algorithms))
    axes.axvline(0, color=MUTED, linewidth=1)
    for place, name in enumerate(algorithms):
        differences = np.sort((wide[name] - wide[BASELINE]).dropna().to_numpy())
        offsets = np.where(np.arange(len(differences)) % 2, 0.09, -0.09)  # neighbours stay apart
        axes.scatter(differences, place + offsets, s=22, color=colour[name], alpha=0.6, linewidths=0)
        mean, low, high = chosen.loc[name, ["difference", "low", "high"]].astype(float)
        axes.plot([low, high], [place, place], color=INK, linewidth=1.6)
        axes.plot([mean], [place], color=INK, marker="|", markersize=11, markeredgewidth=1.6)
    axes.set_yticks(range(len(algorithms)), [label(name) for name in algorithms])
    axes.set_ylim(len(algorithms) - 0.5, -0.5)
    axes.set_xlabel(f"{in_sentence(summary.label(metric, system))}, difference to {label(BASELINE).lower()}")
    axes.grid(axis="x", color=RULE, linewidth=0.7)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)
    return figure


def breakdown_plot(breakdown: Breakdown, labels: Mapping[str, str], algorithms: Sequence[str]) -> Figure:
    """From the recording to the whole chain, a line a place: each measure with its 95 % interval.

    Args:
        breakdown: the places and what was measured at them.
        labels: metric -> label, a panel each.
        algorithms: of the legend that the figure stands under; what depends on one has its colour.
    """
    colour, marker = colours(algorithms), markers(algorithms)
    figure = Figure(figsize=(10.8, 0.7 + 0.6 * len(breakdown.places)), layout="constrained")
    figure.patch.set_alpha(0)
    grid = figure.subplots(1, len(labels), squeeze=False, sharey=True)[0]
    for axes, (metric, name) in zip(grid, labels.items(), strict=True):
        bare(axes)
        for line, place in enumerate(breakdown.places):
            found = breakdown.measured(place, metric)
            for index, (algorithm, (mean, low, high)) in enumerate(found.items()):
                y = line + 0.18 * (index - (len(found) - 1) / 2)
                ink = colour.get(algorithm, INK)
                axes.plot([low, high], [y, y], color=ink, linewidth=1.4, alpha=0.6)
                axes.plot([mean], [y], color=ink, marker=marker.get(algorithm, "|"), markersize=5)
        axes.set_xlabel(name)
        axes.grid(axis="x", color=RULE, linewidth=0.7)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)
    grid[0].set_yticks(range(len(breakdown.places)), [place.label for place in breakdown.places])
    grid[0].set_ylim(len(breakdown.places) - 0.5, -0.5)
    return figure


def panel_grid(
    arrays: Mapping[tuple[int, int], np.ndarray],
    rows: Sequence[str],
    titles: Sequence[str],
    *,
    seconds: float,
    ylabel: str,
) -> Figure:
    """Images in a grid, time to the right: spectrograms (frames, bands) or alignments (decoder steps, symbols).

    Args:
        arrays: by (row, column); a missing one leaves its place empty.
        rows, titles: names of rows and columns.
        seconds: an image's step along its first axis, 0 to leave the axis without a scale.
        ylabel: of each row's first image.
    """
    figure = Figure(figsize=(2.0 * len(titles) + 1.0, 1.25 * len(rows) + 0.5), layout="constrained")
    figure.patch.set_alpha(0)
    grid = figure.subplots(len(rows), len(titles), squeeze=False, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    low = min((float(array.min()) for array in arrays.values()), default=0.0)
    high = max((float(array.max()) for array in arrays.values()), default=1.0)
    longest = max((len(array) for array in arrays.values()), default=1)
    for row, name in enumerate(rows):
        for column, title in enumerate(titles):
            axes = grid[row, column]
            _plain(axes)
            if row == 0:
                axes.set_title(title, fontsize=9, color=INK)
            if column == 0:
                axes.set_ylabel(f"{name}\n{ylabel}", fontsize=8, color=INK)
            array = arrays.get((row, column))
            if array is None:
                axes.set_axis_off()
                continue
            extent = (0, len(array) * (seconds or 1), 0, array.shape[1])
            axes.imshow(
                array.T.astype(np.float32),
                origin="lower",
                aspect="auto",
                extent=extent,
                vmin=low,
                vmax=high,
                cmap="magma",
                interpolation="nearest",
            )
            axes.set_xlim(0, longest * (seconds or 1))
            if seconds and row == len(rows) - 1:
                axes.tick_params(bottom=True, labelbottom=True, colors=MUTED, labelsize=7)
                axes.set_xlabel("seconds", fontsize=7, color=MUTED)
    return figure


def step_axis(axes: Axes, steps: Sequence[int]) -> None:
    """Adaptation steps by their square root: the first ones, at which most happens, get room; 0 has a place."""
    axes.set_xscale("function", functions=(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2))
    axes.set_xticks(sorted({int(step) for step in steps}))
    axes.minorticks_off()


def shortened(name: str, most: int = 16) -> str:
    """A name of any length as the title of a small panel."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def new_figure(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches, and its panels from left to right, in the style of all."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    panels: list[Axes] = list(figure.subplots(1, columns, squeeze=False)[0])
    for axes in panels:
        bare(axes)
    return figure, panels


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure, (axes,) = new_figure(width, height, columns=1)
    return figure, axes


def bare(axes: Axes) -> None:
    """Two thin axes, a thin grid: the style of all."""
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=8.5)
    axes.xaxis.label.set(color=INK, fontsize=9)
    axes.yaxis.label.set(color=INK, fontsize=9)


def _plain(axes: Axes) -> None:
    axes.patch.set_alpha(0)
    axes.tick_params(left=False, labelleft=False, bottom=False, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
