"""The result page of a study: one HTML file with everything in it, and the same as Markdown."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from metaspeech.evaluation.style import number
from metaspeech.report.markdown import escaped
from metaspeech.report.media import inline_svg
from metaspeech.report.page import VARIABLES
from metaspeech.sweeps import plots
from metaspeech.sweeps.results import ENOUGH, STATES, Results, Row

SHOWN = 5  # of a front, with commands
FEW = 20  # complete trials below which importance is said to be rough


def build_page(results: Results) -> str:
    """The page as HTML. Everything that comes from files is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("metaspeech.sweeps", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html").render(
        results=results,
        headline=headline(results),
        facts=facts(results),
        best=[(row, values(results, row), results.rerun(row)) for row in results.best[:SHOWN]],
        best_text=best_text(results),
        several=len(results.space.objectives) > 1,
        warnings=warnings(results),
        first=results.space.objectives[0].name,
        figures=_drawn(plots.figures(results)),
        slices=_drawn(plots.slices(results)),
        objectives=[one.name for one in results.space.objectives],
        keys=list(results.space.search),
        rows=[(row, cells(results, row)) for row in results.rows],
        css=Markup(resources.files("metaspeech.report").joinpath("page.css").read_text(encoding="utf-8")),
    )


def build_markdown(results: Results) -> str:
    """Headline, best trials with commands, warnings and the table, for a terminal or a pull request."""
    lines = [f"# Sweep {results.study}", "", escaped(headline(results)), ""]
    lines += [f"- {escaped(name)}: {escaped(value)}" for name, value in facts(results)] + [""]
    for row in results.best[:SHOWN]:
        lines += [f"Trial {row.number}: {escaped(values(results, row))}", ""]
        lines += [f"    dvc exp apply {row.experiment}; dvc repro", f"    {results.rerun(row)}", ""]
    lines += [f"- {escaped(one)}" for one in warnings(results)] + [""]
    for name, shares in results.importance.items():
        ranked = sorted(shares.items(), key=lambda item: -item[1])
        lines += [f"Importance for {escaped(name)}: {', '.join(f'{key} {share:.2f}' for key, share in ranked)}", ""]
    head = ["trial", "state", *(one.name for one in results.space.objectives), *results.space.search, "seconds", "note"]
    lines += [f"| {' | '.join(map(escaped, head))} |", "|---" * len(head) + "|"]
    for row in results.rows:
        line = [row.number, row.state, *cells(results, row), row.note]
        lines.append(f"| {' | '.join(map(escaped, line))} |")
    return "\n".join(lines) + "\n"


def headline(results: Results) -> str:
    objectives, best = results.space.objectives, results.best
    if not best:
        return "No trial has finished with a result yet."
    if len(objectives) > 1:
        names = " and ".join(one.name for one in objectives)
        return f"{len(best)} of {len(results.complete)} trials are on the front of {names}."
    words = "highest" if objectives[0].sign > 0 else "lowest"
    return (
        f"Trial {best[0].number} has the {words} {objectives[0].name} of {len(results.complete)}: "
        f"{number(best[0].values[0])}."
    )


def best_text(results: Results) -> str:
    if len(results.space.objectives) > 1:
        more = f" The first {SHOWN} by {results.space.objectives[0].name}:" if len(results.best) > SHOWN else ""
        return f"No other trial is better in one objective without being worse in another.{more}"
    return ""


def values(results: Results, row: Row) -> str:
    """Objectives, then params, in a line."""
    named = [f"{one.name} {number(value)}" for one, value in zip(results.space.objectives, row.values, strict=True)]
    return f"{', '.join(named)} with {', '.join(f'{key} {shown(value)}' for key, value in row.params.items())}"


def facts(results: Results) -> list[tuple[str, str]]:
    done = [row.seconds for row in results.rows if row.seconds]
    counted = [f"{results.count(state)} {state}" for state in STATES.values() if results.count(state)]
    found = [
        ("Trials", ", ".join(counted) or "none"),
        ("Runs up to", results.space.target),
        ("Begun at", results.code),
        ("Space", results.space.source),
    ]
    if done:
        found.append(("Seconds a trial", f"{number(sum(done) / len(done))} (mean)"))
    found += [(f"Fixed: {key}", shown(value)) for key, value in results.space.fixed.items()]
    return found


def warnings(results: Results) -> list[str]:
    """What a careful reader would ask."""
    found = []
    if len(results.complete) > 1:
        found.append(
            "The best of many trials looks better than it is: some of its lead is luck. Run it again with other seeds "
            "(seeds, data_seed) before it is believed."
        )
    if any(not one.metric.startswith("validation") for one in results.space.objectives):
        found.append(
            "An objective was measured on the test speakers. Values chosen by it are no longer unseen: report them on "
            "other speakers (another data_seed), or choose by validation_loss."
        )
    if results.count("stopped early"):
        found.append(
            "Trials that were stopped early have no value, so importance and slices do not show them; trials are "
            "compared by their query loss on validation speakers after each quarter of meta-training."
        )
    if results.importance and len(results.complete) < FEW:
        found.append(f"Importance from {len(results.complete)} trials is a rough guide.")
    if not results.importance and results.complete:
        found.append(f"Importance is shown from {ENOUGH} complete trials on.")
    return found


def cells(results: Results, row: Row) -> list[str]:
    """Objectives, params, seconds."""
    figures = [number(value) for value in row.values] or ["–"] * len(results.space.objectives)
    params = [shown(row.params.get(key, "–")) for key in results.space.search]
    return [*figures, *params, "–" if row.seconds is None else f"{row.seconds:.0f}"]


def shown(value: Any) -> str:
    """For people: three digits; lists, which Optuna has as their JSON, without brackets."""
    if isinstance(value, str) and value.startswith("["):
        value = json.loads(value)
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _drawn(figures: dict[str, Any]) -> list[tuple[str, Markup]]:
    return [(title, Markup(inline_svg(figure, title, VARIABLES))) for title, figure in figures.items()]
