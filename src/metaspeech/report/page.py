"""Builds the page: one HTML file with everything in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from metaspeech.evaluation.breakdown import breakdowns
from metaspeech.evaluation.style import BASELINE_COLOUR, INK, MUTED, PALETTE, RULE, colours, in_sentence, label
from metaspeech.report.costs import spent
from metaspeech.report.findings import best_algorithm
from metaspeech.report.learning import Learned
from metaspeech.report.listening import listening
from metaspeech.report.media import inline_svg
from metaspeech.report.results import Results
from metaspeech.report.system import system_part
from metaspeech.report.tables import breakdown_metrics, breakdown_rows
from metaspeech.report.trust import doubt_sentence, judge_checks, leakage_checks
from metaspeech.report.view import doubted

SCRIPTS = ("choose.js", "sort.js", "player.js", "blind.js")
TESTS = {"sign_flip": "exact sign-flip test over speakers", "wilcoxon": "Wilcoxon’s signed-rank test over speakers"}
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
    heard, leakage = listening(results), leakage_checks(summary)
    return environment.get_template("template.html").render(
        title=title,
        settings=summary.settings,
        facts={
            "columns": summary.columns.set_index("name").to_dict(orient="index"),
            "palette": palette,
            "doubted": doubted(summary),
        },
        systems=[system_part(results, system, figures[system.name], _svg) for system in summary.systems],
        several=len(summary.systems) > 1,
        breakdowns=_breakdowns(results),
        learned=[
            (one, {name: _svg(figure, _title(one, name)) for name, figure in one.figures.items()}) for one in learned
        ],
        algorithms=[(name, label(name), palette[name]) for name in algorithms],
        listening=heard,
        sounds=Markup(json.dumps(heard.sounds)),  # base64 alone
        test=TESTS[summary.settings.get("test", "sign_flip")],
        checks=judge_checks(summary),
        doubt=doubt_sentence(summary),
        leakage=leakage,
        unsure_leakage=[f"{one.name} ({one.found})" for one in leakage if not one.passed],
        costs=spent(provenance.stages),
        starts=[start_sentence(model, start) for model, start in provenance.starts.items()],
        provenance=provenance,
        css=Markup(_own("page.css")),
        script=Markup("\n".join(_own(name) for name in SCRIPTS)),
    )


def start_sentence(model: str, start: Mapping[str, Any] | None) -> str:
    """What pretraining of a model began with, by its start.json."""
    if not start:
        return f"{model} was trained from random weights."
    return (
        f"{model} was trained from {start['name']}: {start['steps']:,} steps on {start['hours']:.3g} h of "
        f"{start['corpus']}, {start['speakers']} speakers; sha256 {start['sha256'][:12]}."
    )


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
