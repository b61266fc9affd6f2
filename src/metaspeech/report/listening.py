"""Sound on the page: for each speaker every system, algorithm and step."""

from __future__ import annotations

from dataclasses import dataclass

from metaspeech.evaluation.systems import COPY, REAL, condition
from metaspeech.report.media import mp3_uri
from metaspeech.report.results import Results

MOST_BYTES = 11_000_000  # of sound, so that a page of long sentences still opens


@dataclass(frozen=True)
class Line:
    """One system: a clip (an address) or None for each algorithm and shown step."""

    name: str
    clips: list[list[str | None]]


@dataclass(frozen=True)
class Panel:
    """A speaker's first query."""

    speaker: str
    text: str
    real: str | None
    copy: str | None
    lines: list[Line]


def listening_panels(results: Results, most: int = MOST_BYTES) -> list[Panel]:
    """A panel a speaker with audio, in order, as long as they take at most ``most`` bytes; the first in any case."""
    panels: list[Panel] = []
    total = 0
    for episode_id in results.summary.settings["audible"]:
        panel = _panel(results, episode_id)
        clips = [panel.real, panel.copy, *(one for line in panel.lines for group in line.clips for one in group)]
        total += sum(len(clip) for clip in clips if clip)
        if panels and total > most:
            break
        panels.append(panel)
    return panels


def _panel(results: Results, episode_id: str) -> Panel:
    summary, query = results.summary, results.first_query(episode_id)
    shots = summary.settings["shots"]

    def clip(model: str, algorithm: str, step: int) -> str | None:
        path = results.audio / episode_id / f"{condition(model, algorithm, shots, step)}.flac"
        return mp3_uri(path) if path.is_file() else None

    lines = [
        Line(
            name=system.route,
            clips=[
                [clip(system.name, algorithm, step) for step in results.shown_steps()]
                for algorithm in summary.settings["algorithms"]
            ],
        )
        for system in sorted(summary.systems, key=lambda one: ("vocoder", "acoustic", "chain").index(one.role))
    ]
    return Panel(str(query["speaker"]), str(query["text"]), clip("", REAL, 0), clip("", COPY, 0), lines)
