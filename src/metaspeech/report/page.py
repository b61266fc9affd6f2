"""Builds the page: one HTML file with everything in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from metaspeech.evaluation.breakdown import breakdowns
from metaspeech.evaluation.comparisons import START
from metaspeech.evaluation.style import BASELINE_COLOUR, INK, MUTED, PALETTE, RULE, colours, in_sentence, label
from metaspeech.evaluation.summary import Summary
from metaspeech.evaluation.systems import System
from metaspeech.report.findings import best_algorithm, findings
from metaspeech.report.learning import Learned
from metaspeech.report.listening import listening_panels
from metaspeech.report.media import inline_svg
from metaspeech.report.results import Results
from metaspeech.report.tables import (
    breakdown_metrics,
    breakdown_rows,
    compared_metrics,
    comparison_rows,
    result_columns,
    result_rows,
)

VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", BASELINE_COLOUR: "baseline"}
VARIABLES |= {colour: f"series-{index}" for index, colour in enumerate(PALETTE)}


@dataclass(frozen=True)
class Provenance:
    """Where the results come from, as the page tells it."""

    corpus: Mapping[str, Any]  # corpus.json
    commit: str
    dirty: bool
    command: str  # that makes it again
    starts: Mapping[str, Mapping[str, Any] | None]  # model -> start.json of its pretraining, where that is known
    stages: list[tuple[str, float]]  # name, seconds
    params: list[tuple[str, Any]]  # key, value


def build_page(
    results: Results,
    figures: Mapping[str, Mapping[str, Figure]],
    learned: Sequence[Learned],
    provenance: Provenance,
    title: str,
) -> str:
    """The page as HTML. Everything that comes from a corpus or params is escaped.

    Args:
        figures: system -> name -> figure, as :meth:`Results.figures` gives them.
        learned: what training and adaptation left of each model.
    """
    summary = results.summary
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("metaspeech.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    algorithms = summary.settings["algorithms"]
    palette = {name: f"var(--{VARIABLES[colour]})" for name, colour in colours(algorithms).items()}
    return environment.get_template("template.html").render(
        title=title,
        settings=summary.settings,
        columns=summary.columns.set_index("name").to_dict(orient="index"),
        systems=[_system(summary, system, figures[system.name]) for system in summary.systems],
        several=len(summary.systems) > 1,
        breakdowns=_breakdowns(results),
        learned=[
            (one, {name: _svg(figure, _title(one, name)) for name, figure in one.figures.items()}) for one in learned
        ],
        algorithms=[(name, label(name), palette[name]) for name in algorithms],
        palette=palette,
        panels=listening_panels(results),
        starts=[start_sentence(model, start) for model, start in provenance.starts.items()],
        shown_steps=results.shown_steps(),
        provenance=provenance,
        css=Markup(_own("page.css")),
        script=Markup(_own("player.js")),
    )


def start_sentence(model: str, start: Mapping[str, Any] | None) -> str:
    """What pretraining of a model began with, by its start.json."""
    if not start:
        return f"{model} was trained from random weights."
    return (
        f"{model} was trained from {start['name']}: {start['steps']:,} steps on {start['hours']:.3g} h of "
        f"{start['corpus']}, {start['speakers']} speakers; sha256 {start['sha256'][:12]}."
    )


def _system(summary: Summary, system: System, figures: Mapping[str, Figure]) -> dict[str, Any]:
    """What the page shows of a system."""
    return {
        "name": system.name,
        "title": system.title,
        "role": system.role,
        "headline_step": system.headline_step,
        "vocoder": system.vocoder,
        "loss_label": system.loss_label,
        "loss_explanation": system.loss_explanation,
        "findings": findings(summary, system.name),
        "figures": {name: _svg(figure, f"{system.name}: {name.replace('_', ' ')}") for name, figure in figures.items()},
        "compared": [(name, summary.label(name, system)) for name in compared_metrics(summary, system.name)],
        "measured": [(name, summary.label(name, system)) for name in result_columns(summary, system.name)],
        "results": result_rows(summary, system.name),
        "against_baseline": comparison_rows(summary, system.name),
        "against_start": comparison_rows(summary, system.name, START),
    }


def _breakdowns(results: Results) -> list[dict[str, Any]]:
    """Where the damage comes from: figure, sentences and table, the latter of the algorithm that the headline names."""
    summary, shown = results.summary, []
    drawn = results.breakdown_figures()
    labels = summary.columns.set_index("name")["label"]
    for one in breakdowns(summary):
        best = best_algorithm(summary, one.system.name)
        if one.system.name not in drawn or best is None:
            continue
        names = [(name, in_sentence(str(labels[name]))) for name in breakdown_metrics(summary) if name != "mcd"]
        shown.append(
            {
                "title": one.system.title,
                "step": one.system.headline_step,
                "algorithm": label(best),
                "figure": _svg(drawn[one.system.name], f"{one.system.name}: where the damage comes from"),
                "sentences": [text for text in (one.sentence(metric, name, best) for metric, name in names) if text],
                "columns": breakdown_metrics(summary),
                "rows": breakdown_rows(summary, one, best),
            }
        )
    return shown


def _title(learned: Learned, figure: str) -> str:
    return f"{learned.model}: {figure.replace('_', ' ')}"


def _svg(figure: Figure, title: str) -> Markup:
    return Markup(inline_svg(figure, title, VARIABLES))


def _own(name: str) -> str:
    return resources.files("metaspeech.report").joinpath(name).read_text(encoding="utf-8")
