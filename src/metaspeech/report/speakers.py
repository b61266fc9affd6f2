"""Speaker by speaker, and seed by seed: what stands behind the means."""

from __future__ import annotations

import pandas as pd

from metaspeech.evaluation.style import label, number
from metaspeech.evaluation.summary import Summary
from metaspeech.report.tables import Cell, Row


def speaker_rows(summary: Summary, speakers: pd.DataFrame, model: str, metric: str) -> tuple[list[str], list[Row]]:
    """A row a speaker, a cell each reference and algorithm at the headline step, the best algorithm of a row marked.

    Args:
        speakers: a row a condition and speaker, see :func:`~metaspeech.evaluation.summary.speaker_means`.

    Returns:
        What the columns are (names of references, then of algorithms), and the rows.
    """
    system = summary.system(model)
    mine = speakers[(speakers["model"] == model) & (speakers["shots"] == summary.settings["shots"])]
    mine = mine[mine["step"] == system.headline_step]
    shown = pd.concat([speakers[speakers["model"] == ""], mine]).dropna(subset=[metric])
    wide = shown.pivot_table(index="speaker", columns="algorithm", values=metric)
    if mine.empty or metric not in set(summary.columns["name"]):
        return [], []
    algorithms = [name for name in summary.settings["algorithms"] if name in wide]
    columns = [name for name in ("real", "copy") if name in wide and metric != "loss"] + algorithms
    lower = summary.columns.set_index("name").loc[metric, "better"] == "lower"
    rows = []
    for speaker in sorted(set(mine["speaker"]) & set(wide.index)):
        own = wide.loc[speaker]
        known = own[algorithms].dropna()
        best = None if len(known) < 2 else known.idxmin() if lower else known.idxmax()
        cells = [_cell(own[name], "best" if name == best else "") for name in columns]
        rows.append(Row("", str(speaker), "", False, cells))
    return columns, rows


def speaker_metrics(summary: Summary, speakers: pd.DataFrame, model: str, metrics: list[str]) -> list[str]:
    """Those of ``metrics`` that there are numbers of for single speakers: the EER, for one, has none."""
    mine = speakers[speakers["model"] == model]
    return [name for name in metrics if name in mine and mine[name].notna().any()]


def seed_rows(summary: Summary, model: str, metrics: list[str]) -> list[Row]:
    """A row an algorithm at the headline step: mean over seeds, lowest and highest; none where there is one seed."""
    table, system = summary.seeds, summary.system(model)
    table = table[(table["model"] == model) & (table["shots"] == summary.settings["shots"])]
    table = table[table["step"] == system.headline_step]
    if table["seed"].nunique() < 2:
        return []
    rows = []
    for name in summary.settings["algorithms"]:
        own = table[table["algorithm"] == name]
        if own.empty:
            continue
        cells = []
        for metric in metrics:
            means = own[own["metric"] == metric]["mean"].astype(float).dropna()
            if means.empty:
                cells.append(Cell("–"))
                continue
            spread = f"{number(means.min())} to {number(means.max())}"
            deviation = f"s.d. {number(means.std())}" if len(means) > 1 else ""
            notes = tuple(one for one in (spread, deviation) if one)
            cells.append(Cell(number(means.mean()), notes, value=float(means.mean())))
        rows.append(Row(name, label(name), str(own["seed"].nunique()), True, cells))
    return rows


def _cell(value: float, css: str) -> Cell:
    known = pd.notna(value)
    return Cell(number(value) if known else "–", (), css, float(value) if known else None)
