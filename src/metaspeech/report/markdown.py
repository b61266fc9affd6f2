"""The findings and the table as Markdown, for a terminal or a pull request."""

from __future__ import annotations

from metaspeech.evaluation.summary import Summary
from metaspeech.report.findings import findings
from metaspeech.report.tables import result_columns, result_rows


def build_markdown(summary: Summary, title: str) -> str:
    """A section a system: headline, details, table."""
    lines = [f"# {_escaped(title)}", ""]
    for system in summary.systems:
        found = findings(summary, system.name)
        lines += [f"## {_escaped(system.title)}", "", _escaped(found.headline), ""]
        lines += [f"- {_escaped(detail)}" for detail in found.details]
        labels = [_escaped(summary.label(name, system)) for name in result_columns(summary, system.name)]
        labels += ["did not stop"] if system.acoustic else []
        lines += ["", f"| start | step | {' | '.join(labels)} |", "|---" * (len(labels) + 2) + "|"]
        for row in result_rows(summary, system.name):
            cells = [f"{cell.text} ({', '.join(cell.notes)})" if cell.notes else cell.text for cell in row.cells]
            lines.append(f"| {' | '.join(_escaped(one) for one in [row.name, row.step, *cells])} |")
        lines.append("")
    speakers, shots = summary.settings["speakers"], summary.settings["shots"]
    lines.append(f"Means over {speakers} unseen speakers with 95 % intervals; {shots} support recordings each.")
    return "\n".join(lines) + "\n"


def _escaped(text: object) -> str:
    """For Markdown with HTML allowed: no tags, no broken tables."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
