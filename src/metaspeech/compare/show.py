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

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")  # by which tables call the runs
COLOURS = {"better": "green", "worse": "red", "not tested": "yellow", "not significant": "dim"}
SHORT = {**NAMES, "mcd": "MCD (dB)", "similarity": "similarity"}


def show(console: Console, runs: Sequence[Executed], found: Sequence[Difference]) -> None:
    """Runs, parameters that differ, figures with tests, and what the tests do not say."""
    console.print(_runs(runs))
    console.print(_params(runs))
    first, *others = runs
    for letter, other in zip(LETTERS[1:], others, strict=False):
        mine = [one for one in found if one.other == other.name]
        console.print(_title(f"Figures: {letter} ({other.name}) against A ({first.name})"))
        if not mine:
            console.print("Nothing was measured in both: no model and algorithm in common at this step.\n")
            continue
        shown = [one for one in mine if one.refused or not one.identical]
        for system in dict.fromkeys(one.model for one in shown):
            console.print(_figures((LETTERS[0], letter), system, [one for one in shown if one.model == system]))
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
        same = sum(one.identical for one in tested)
        if same:
            parts.append(f"{same} of {len(tested)} figures are identical for every speaker.")
        quiet = sum(one.verdict == "not significant" for one in tested)
        if quiet + same == len(tested) and quiet:
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
    table = _table("Runs", "", "run", "id", "commit", "corpus", "seeds", "speakers")
    for letter, run in zip(LETTERS, runs, strict=False):
        commit = run.commit[:7] + ("+" if run.dirty else "") or "–"
        about = [
            run.name,
            run.run_id[:8],
            commit,
            run.params.get("corpus.source", "–"),
            _plain(run.params.get("seeds")),
        ]
        table.add_row(letter, *map(escape, about), str(run.speakers["speaker"].nunique()))
    return table


def _params(runs: Sequence[Executed]) -> RenderableType:
    changed = changed_params(runs)
    if not changed:
        return _title("Parameters: the same in all") if len({run.commit for run in runs}) == 1 else _title(
            "Parameters: the same in all; the code differs"
        )  # fmt: skip
    table = _table("Parameters that differ", "key", *LETTERS[: len(runs)])
    for key, values in changed.items():
        table.add_row(escape(key), *("–" if value is None else escape(value) for value in values))
    return table


def _figures(letters: tuple[str, str], system: str, found: Sequence[Difference]) -> RenderableType:
    table = _table(system, "", "figure", *letters, " − ".join(reversed(letters)), "95 % interval", "p", "")
    for index in range(2, 7):
        table.columns[index].justify = "right"
    for column in table.columns:
        column.no_wrap = True
    algorithm = ""
    for one in found:
        finite = math.isfinite(one.low)
        interval = f"{number(one.low, signed=True)} to {number(one.high, signed=True)}" if finite else "–"
        style = COLOURS.get(one.verdict, "")
        verdict = "–" if one.verdict == "not significant" else one.verdict
        table.add_row(
            label(one.algorithm) if one.algorithm != algorithm else "", SHORT.get(one.metric, one.metric),
            number(one.means[0]), number(one.means[1]), number(one.difference, signed=True), interval,
            p_value(one.p_holm).removeprefix("p = ").removeprefix("p "),
            f"[{style}]{verdict}[/]" if style else verdict,
        )  # fmt: skip
        algorithm = one.algorithm
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
    table = Table(
        title=title or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        table.add_column(escape(column), overflow="fold")
    return table
