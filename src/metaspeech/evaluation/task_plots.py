"""Figures of tasks: a map, and a matrix of similarities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from metaspeech.evaluation.plots import new_figure, shortened
from metaspeech.evaluation.style import INK, MUTED
from metaspeech.tasks.representation import TaskVectors

COLOURS = "viridis"


def classical_scaling(similarity: np.ndarray) -> np.ndarray:
    """(n, n) similarities to (n, 2) places whose distances come near to 1 - similarity (Torgerson 1952)."""
    count = len(similarity)
    squared = np.maximum(0.0, 1.0 - (similarity + similarity.T) / 2) ** 2
    centring = np.eye(count) - 1.0 / count
    values, directions = np.linalg.eigh(-0.5 * centring @ squared @ centring)
    largest = np.argsort(values)[::-1][:2]
    places = directions[:, largest] * np.sqrt(np.maximum(values[largest], 0.0))
    signs = np.where(places[np.abs(places).argmax(axis=0), range(places.shape[1])] < 0, -1.0, 1.0)
    return np.asarray(places * signs)


def task_map(vectors: Sequence[TaskVectors], gain: pd.Series, gained: str) -> Figure:
    """All tasks by each representation: training speakers grey, validation hollow, unseen ones coloured by ``gain``.

    Args:
        gain: by speaker.
        gained: what the colour says.
    """
    figure, panels = new_figure(3.1 * len(vectors) + 0.6, 3.4, columns=len(vectors))
    for axes, one in zip(panels, vectors, strict=True):
        splits = {split: one.ids(split) for split in ("train", "val", "test")}
        tasks = [task for ids in splits.values() for task in ids]
        places = dict(zip(tasks, classical_scaling(one.similarity(tasks, tasks)), strict=True))
        for split, style in (("train", {"color": MUTED, "alpha": 0.45, "linewidths": 0}),
                             ("val", {"facecolors": "none", "edgecolors": MUTED})):  # fmt: skip
            shown = np.array([places[task] for task in splits[split]]).reshape(-1, 2)
            axes.scatter(shown[:, 0], shown[:, 1], s=20, **style)
        unseen = np.array([places[task] for task in splits["test"]])
        speakers = one.table.set_index("id").loc[splits["test"], "speaker"]
        drawn = axes.scatter(unseen[:, 0], unseen[:, 1], s=46, c=gain.reindex(speakers).to_numpy(), cmap=COLOURS,
                             edgecolors="white", linewidths=0.6, plotnonfinite=True)  # fmt: skip
        axes.set_title(one.representation.label, fontsize=9, loc="left", color=INK)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.margins(0.08)
        axes.set_box_aspect(1)
    bar = figure.colorbar(drawn, ax=list(panels), shrink=0.85, aspect=24, pad=0.02)
    _dress(bar, gained)
    return figure


def similarity_matrix(vectors: TaskVectors) -> Figure:
    """Unseen speakers against training speakers, both in an order that puts like beside like."""
    rows, columns = (_ordered(vectors, vectors.ids(split)) for split in ("test", "train"))
    similarity = vectors.similarity(rows, columns)
    names = vectors.table.set_index("id")["speaker"]
    figure, (axes,) = new_figure(1.8 + 0.14 * len(columns), 0.9 + 0.2 * len(rows), columns=1)
    image = axes.imshow(similarity, aspect="auto", cmap=COLOURS, interpolation="nearest")
    axes.set_yticks(range(len(rows)), [shortened(names[row], 24) for row in rows], fontsize=7, parse_math=False)
    axes.set_xticks([])
    axes.set_xlabel(f"{len(columns)} training speakers")
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=18)
    _dress(bar, "similarity")
    return figure


def _dress(bar: Colorbar, text: str) -> None:
    bar.set_label(text, fontsize=8, color=INK)
    bar.ax.tick_params(colors=MUTED, labelcolor=INK, labelsize=7)
    for spine in bar.ax.spines.values():
        spine.set_visible(False)


def _ordered(vectors: TaskVectors, tasks: Sequence[str]) -> list[str]:
    """By average linkage, with the leaves of the tree turned so that neighbours are alike."""
    if len(tasks) < 3:
        return list(tasks)
    distance = np.maximum(0.0, 1.0 - vectors.similarity(tasks, tasks))
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform((distance + distance.T) / 2, checks=False), "average", optimal_ordering=True)
    return [tasks[leaf] for leaf in leaves_list(tree)]
