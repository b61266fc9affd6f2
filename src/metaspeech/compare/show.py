"""A comparison for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from metaspeech.compare.differences import LEVEL, Difference, changed_params
from metaspeech.compare.runs import Executed
from metaspeech.evaluation.style import label, number, p_value
from metaspeech.report.view import NAMES

COLOURS = {"better": "green", "worse": "red", "not tested": "yellow", "no measurable difference": "dim"}


def show(console: Console, runs: Sequence[Executed], found: Sequence[Difference]) -> None:
    """Runs, parameters that differ, figures with tests, and what the tests do not say."""
    console.print(_runs(runs))
    console.print(_params(runs))
    first, *others = runs
    for other in others:
        mine = [one for one in found if one.other == other.name]
        console.print(_title(f"Figures: {other.name} against {first.name}"))
        if not mine:
            console.print("Nothing was measured in both: no model and algorithm in common at this step.\n")
            continue
        console.print(_figures(first, other, mine))
        console.print(escape(conclusion(first, other, mine)) + "\n")
    console.print(escape(notes(runs, found)), style="dim")


def conclusion(first: Executed, other: Executed, found: Sequence[Difference]) -> str:
    """The answer in a sentence or two."""
    refused = sorted({reason for one in found if one.refused for reason in one.refused.split("; ")})
    tested = [one for one in found if not one.refused]
    parts = []
    if tested:
        for verdict in ("better", "worse"):
            chosen = [one for one in tested if one.verdict == verdict]
            if chosen:
                named = ", ".join(f"{_metric(one)} of {label(one.algorithm)} ({one.model})" for one in chosen)
                parts.append(f"{other.name} is {verdict} than {first.name} in {named}.")
        quiet = sum(not one.significant for one in tested)
        if quiet == len(tested):
            parts.append(f"None of {quiet} differences is significant: chance alone could give them.")
        elif quiet:
            parts.append(f"{quiet} other differences are not significant.")
    if refused:
        count = len(found) - len(tested)
        parts.append(f"{count} of {len(found)} differences were not tested: {'; '.join(refused)}.")
    return " ".join(parts)


def notes(runs: Sequence[Executed], found: Sequence[Difference]) -> str:
    """How to read the table."""
    step = sorted({one.step for one in found})
    lines = [
        f"After {', '.join(map(str, step))} adaptation steps. Differences are paired over the same speakers, with 95 % "
        "bootstrap intervals; p of the exact sign-flip test, adjusted (Holm) over the algorithms and runs of a system "
        f"and metric; significant below {LEVEL}."
    ] if step else []  # fmt: skip
    if all(_seeds(run) == 1 for run in runs) and any(not one.refused for one in found):
        lines.append(
            "Each run was trained with one seed: a small p says that these two trainings differ over speakers, not "
            "that their settings do. For that: seeds: [1, 2, 3] in params.yaml."
        )
    if any(run.dirty for run in runs):
        names = ", ".join(run.name for run in runs if run.dirty)
        lines.append(f"{names}: made from code that differs from the commit named.")
    return "\n".join(lines)


def _runs(runs: Sequence[Executed]) -> RenderableType:
    table = _table("Runs", "run", "id", "commit", "corpus", "models", "algorithms", "seeds", "speakers")
    for run in runs:
        corpus = run.params.get("corpus.source", "–")
        about = [corpus, *(_plain(run.params.get(key)) for key in ("models", "algorithms", "seeds"))]
        commit = run.commit[:7] + ("+" if run.dirty else "") or "–"
        table.add_row(*map(escape, [run.name, run.run_id[:8], commit, *about, str(run.speakers["speaker"].nunique())]))
    return table


def _params(runs: Sequence[Executed]) -> RenderableType:
    changed = changed_params(runs)
    if not changed:
        return _title("Parameters: the same in all") if len({run.commit for run in runs}) == 1 else _title(
            "Parameters: the same in all; the code differs"
        )  # fmt: skip
    table = _table("Parameters that differ", "key", *(run.name for run in runs))
    for key, values in changed.items():
        table.add_row(escape(key), *("–" if value is None else escape(value) for value in values))
    return table


def _figures(first: Executed, other: Executed, found: Sequence[Difference]) -> RenderableType:
    table = _table("", "system", "algorithm", "figure", first.name, other.name, "difference", "95 % interval", "p", "")
    for index in (3, 4, 5, 6, 7):
        table.columns[index].justify = "right"
    before = ""
    for one in found:
        system = one.model if one.model != before else ""
        if system and before:
            table.add_section()
        before = one.model
        finite = math.isfinite(one.low)
        interval = f"{number(one.low, signed=True)} to {number(one.high, signed=True)}" if finite else "–"
        style = COLOURS[one.verdict]
        table.add_row(
            escape(system), label(one.algorithm), _metric(one), number(one.means[0]), number(one.means[1]),
            number(one.difference, signed=True), interval, p_value(one.p_holm).removeprefix("p = ").removeprefix("p "),
            f"[{style}]{one.verdict}[/]",
        )  # fmt: skip
    return table


def _metric(one: Difference) -> str:
    return NAMES.get(one.metric, one.metric)


def _seeds(run: Executed) -> int:
    return len(_plain(run.params.get("seeds")).split(","))


def _plain(value: str | None) -> str:
    return "–" if value is None else value.strip("[]").replace("'", "")


def _title(text: str) -> str:
    return f"[bold]{escape(text)}[/]"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(escape(column), overflow="fold")
    return table
