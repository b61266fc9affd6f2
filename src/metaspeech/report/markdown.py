"""The findings and the table as Markdown, for a terminal or a pull request."""

from __future__ import annotations

from metaspeech.evaluation.summary import Summary
from metaspeech.report.findings import findings
from metaspeech.report.tables import result_rows


def build_markdown(summary: Summary, title: str) -> str:
    """A section a model: headline, details, table."""
    lines = [f"# {_escaped(title)}", ""]
    for model in summary.settings["models"]:
        found = findings(summary, model)
        lines += [f"## {_escaped(model)}", "", _escaped(found.headline), ""]
        lines += [f"- {_escaped(detail)}" for detail in found.details]
        labels = [_escaped(name) for name in summary.columns["label"]]
        lines += ["", f"| start | step | {' | '.join(labels)} | did not stop |", "|---" * (len(labels) + 3) + "|"]
        for row in result_rows(summary, model):
            cells = [f"{cell.text} ({', '.join(cell.notes)})" if cell.notes else cell.text for cell in row.cells]
            lines.append(f"| {' | '.join(_escaped(one) for one in [row.name, row.step, *cells])} |")
        lines.append("")
    speakers, shots = summary.settings["speakers"], summary.settings["shots"]
    lines.append(f"Means over {speakers} unseen speakers with 95 % intervals; {shots} support recordings each.")
    return "\n".join(lines) + "\n"


def _escaped(text: object) -> str:
    """For Markdown with HTML allowed: no tags, no broken tables."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
