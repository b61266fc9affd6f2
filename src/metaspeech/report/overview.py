"""An execution at a glance, for lists of runs: few figures with short names, and a page of Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass

from metaspeech.evaluation.style import label
from metaspeech.evaluation.summary import Summary
from metaspeech.report.findings import best_algorithm
from metaspeech.report.view import View

MOST_FIGURES = 20  # that a comparison of runs can be read with
MOST_CHARACTERS = 7500  # MLflow takes 8,000 in a tag
REST = "\nThe rest is in the artifacts of the stage report.\n"
WANTED = (  # role of a system, metric: in this order, as many as fit
    ("acoustic", "similarity"),
    ("acoustic", "phoneme_error"),
    ("vocoder", "loss"),
    ("acoustic", "loss"),
    ("chain", "similarity"),
    ("chain", "phoneme_error"),
)


@dataclass(frozen=True)
class Overview:
    """``figures``: ``<metric>/<algorithm>`` at the headline step, after the system where it is not the first of its
    kind, and the best algorithm's ``<metric>/best``. ``best``: the algorithm that findings are about."""

    figures: dict[str, float]
    best: str
    page: str


def overview(summary: Summary, markdown: str) -> Overview:
    """Of what evaluate found, and of :func:`~metaspeech.report.markdown.build_markdown` of that."""
    first = summary.systems[0].name if summary.systems else ""
    best = best_algorithm(summary, first) if first else None
    return Overview(_figures(summary), label(best) if best else "", _page(markdown))


def _figures(summary: Summary) -> dict[str, float]:
    """Whole groups of all algorithms, at least one: half a group compares nothing."""
    chosen: dict[str, float] = {}
    first = next((system.name for system in summary.systems if system.role == "acoustic"), None)
    for role, metric in WANTED:
        for system in summary.systems:
            if system.role == role:
                view = View(summary, system.name)
                name = metric if system.name == first else f"{metric} {system.name.replace('+', '-')}"
                measured = {f"{name}/{one}": view.mean(metric, one) for one in view.algorithms}
                group = {key: value for key, value in measured.items() if value is not None}
                if not chosen and group:
                    chosen[f"{name}/best"] = group[f"{name}/{view.best(metric)}"]  # first: what plots begin with
                if len(chosen) <= 1 or len(chosen) + len(group) <= MOST_FIGURES:
                    chosen |= group
    return chosen


def _page(markdown: str) -> str:
    """As many of its sections as fit, without what makes tables line up in a terminal."""
    page, *sections = re.split(
        r"^(?=## )", re.sub(r"-{3,}", "---", re.sub(r" {2,}", " ", markdown)), flags=re.MULTILINE
    )
    for section in sections:
        if len(page) + len(section) > MOST_CHARACTERS:
            return page + REST
        page += section
    return page
