"""What the page shows of one system."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from metaspeech.evaluation.comparisons import AS_IS, BASELINE, START
from metaspeech.evaluation.style import label
from metaspeech.evaluation.summary import Summary
from metaspeech.evaluation.systems import System
from metaspeech.report.findings import findings
from metaspeech.report.results import Results
from metaspeech.report.speakers import seed_rows, speaker_metrics, speaker_rows
from metaspeech.report.speed import speed_rows
from metaspeech.report.tables import (
    compared_metrics,
    comparison_rows,
    evaluated_shots,
    main_columns,
    main_steps,
    result_columns,
    result_rows,
)

Draw = Callable[[Figure, str], Markup]  # a figure and its title, as SVG
SHORT = {"chain": "Text to sound", "acoustic": "Acoustic model", "vocoder": "Vocoder"}


def system_part(results: Results, system: System, figures: Mapping[str, Figure], draw: Draw) -> dict[str, Any]:
    """Sentences, tables and figures of a system, under the names that system.html knows them by."""
    summary, name = results.summary, system.name
    compared, main = compared_metrics(summary, name), main_columns(summary, name)

    def named(metrics: list[str]) -> list[tuple[str, str]]:
        return [(metric, summary.label(metric, system)) for metric in metrics]

    svgs = {key: draw(figure, f"{name}: {key.replace('_', ' ')}") for key, figure in figures.items()}
    by_shots = {shots: _at(summary, name, compared, svgs, shots) for shots in evaluated_shots(summary, name)}
    return {
        "name": name,
        "title": system.title,
        "short": f"{SHORT[system.role]}: {name}",
        "option": (name, system.route),
        "role": system.role,
        "headline_step": system.headline_step,
        "vocoder": system.vocoder,
        "loss_label": system.loss_label,
        "loss_explanation": system.loss_explanation,
        "findings": findings(summary, name),
        "figures": svgs,
        "front": svgs.get("front"),
        "compared": named(compared),
        "measured": named(result_columns(summary, name)),
        "main": named(main),
        "results": result_rows(summary, name, main, main_steps(summary, name)),
        "by_shots": by_shots,
        "shots_options": [(str(shots), str(shots)) for shots in by_shots],
        "has_comparisons": any(one["against_baseline"] for one in by_shots.values()),
        "speed": speed_rows(summary, name, compared),
        "seeds": seed_rows(summary, name, compared),
        "speakers": [
            one for metric in speaker_metrics(summary, results.speakers, name, compared)
            if (one := _speakers(results, system, metric, svgs))["rows"]
        ],
    }  # fmt: skip


def _at(summary: Summary, name: str, compared: list[str], svgs: Mapping[str, Markup], shots: int) -> dict[str, Any]:
    """What differs with the number of support recordings."""
    suffix = "" if shots == summary.settings["shots"] else f"_{shots}"
    return {
        "figures": {metric: svgs[f"{metric}{suffix}"] for metric in compared if f"{metric}{suffix}" in svgs},
        "results": result_rows(summary, name, shots=shots),
        "against_baseline": comparison_rows(summary, name, BASELINE, shots),
        "against_as_is": comparison_rows(summary, name, AS_IS, shots),
        "against_start": comparison_rows(summary, name, START, shots),
    }


def _speakers(results: Results, system: System, metric: str, svgs: Mapping[str, Markup]) -> dict[str, Any]:
    columns, rows = speaker_rows(results.summary, results.speakers, system.name, metric)
    return {
        "option": (metric, results.summary.label(metric, system)),
        "columns": [(one, label(one)) for one in columns],
        "rows": rows,
        "figure": svgs.get(f"{metric}_speakers"),
    }
