"""The findings and the main table as Markdown, for a terminal or a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from metaspeech.evaluation.summary import Summary
from metaspeech.evaluation.systems import System
from metaspeech.report.findings import findings
from metaspeech.report.tables import Cell, main_columns, result_rows
from metaspeech.report.trust import judge_checks, leakage_checks
from metaspeech.report.view import doubted

ARROWS = {"higher": "↑", "lower": "↓"}


def build_markdown(summary: Summary, title: str) -> str:
    """A section a system: headline, details, the table before adaptation and at the headline step; failed checks."""
    lines = [f"# {escaped(title)}", ""]
    for system in summary.systems:
        found = findings(summary, system.name)
        lines += [f"## {escaped(system.title)}", "", f"**{escaped(found.headline)}**", ""]
        told = [found.speed, *found.details] if found.speed else found.details
        lines += [*(f"- {escaped(one)}" for one in told), "", *main_table(summary, system), ""]
    for sign, checks in (("✗", judge_checks(summary)), ("?", leakage_checks(summary))):
        doubtful = [one for one in checks if not one.passed]
        for one in doubtful:
            lines.append(f"- {sign} {escaped(', '.join(filter(None, (one.name, one.what))))}: {escaped(one.found)}")
    lines += [""] if lines[-1] else []
    speakers, shots = summary.settings["speakers"], summary.settings["shots"]
    lines.append(
        f"Means over {speakers} unseen speakers with 95 % intervals; {shots} support recordings each. ✗: not to be "
        "quoted; ?: not certain. All steps, curves and sound: index.html."
    )
    return "\n".join(lines) + "\n"


def main_table(
    summary: Summary, system: System, steps: Sequence[int] | None = None, shots: int | None = None
) -> list[str]:
    """Lines of a table, as wide in every row, so that it reads without being rendered.

    Args:
        steps: without, before adaptation and the headline step.
        shots: support recordings; without, those that findings are about.
    """
    metrics, better = main_columns(summary, system.name), summary.columns.set_index("name")["better"]
    marked = doubted(summary)
    heads = [f"{summary.label(name, system)} {'✗' if name in marked else ARROWS[better[name]]}" for name in metrics]
    heads += ["did not stop ↓"] if system.acoustic else []
    steps = [0, system.headline_step] if steps is None else steps
    rows = [["start", "step", *map(escaped, heads)]]
    for row in result_rows(summary, system.name, metrics, steps, shots):
        rows.append([escaped(one) for one in (row.name, row.step, *(_written(cell) for cell in row.cells))])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = ["-" * width for width in widths]
    return [_line(row, widths) for row in (rows[0], rule, *rows[1:])]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |"


def _written(cell: Cell) -> str:
    return f"{cell.text} ({', '.join(cell.notes)})" if cell.notes else cell.text


def escaped(text: object) -> str:
    """For Markdown with HTML allowed: no tags, no broken tables."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
