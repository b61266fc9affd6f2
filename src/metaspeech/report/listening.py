"""Sound on the page: for each speaker every system, algorithm and step, with what was measured on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from metaspeech.evaluation.systems import COPY, REAL, condition
from metaspeech.report.media import mp3
from metaspeech.report.results import Results
from metaspeech.report.view import doubted

MOST_BYTES = 11_000_000  # of sound, so that a page of long sentences still opens
SHOWN = ("similarity", "phoneme_error", "mcd")  # below each clip: the first that was measured


@dataclass(frozen=True)
class Clip:
    """A sound.

    Attributes:
        place: in the list of all sounds.
        value: what was measured on it, NaN where nothing was.
    """

    place: int
    value: float


@dataclass(frozen=True)
class Panel:
    """A speaker's first query: the recording, its copy, and of each system a clip for each algorithm and shown step."""

    speaker: str
    text: str
    real: Clip | None
    copy: Clip | None
    systems: dict[str, list[list[Clip | None]]]


@dataclass
class Listening:
    """All that can be heard.

    Attributes:
        metric: what the clips' values are; None where nothing was measured.
        steps: of each system, those that can be heard.
        sounds: MP3 in base64, which the clips refer to.
        left_out: speakers whose sound would have made the page too large.
    """

    metric: str | None
    steps: dict[str, list[int]]
    panels: list[Panel] = field(default_factory=list)
    sounds: list[str] = field(default_factory=list)
    left_out: int = 0


def listening(results: Results, most: int = MOST_BYTES) -> Listening:
    """A panel a speaker with audio: as many as ``most`` bytes hold, spread evenly; the first in any case."""
    summary = results.summary
    shown = results.shown_steps()
    found = Listening(
        next((name for name in SHOWN if name in results.utterances and name not in doubted(summary)), None),
        {one.name: [step for step in shown if step in one.steps] for one in summary.systems},
    )
    audible = summary.settings["audible"]
    if not audible:
        return found
    found.panels.append(_panel(results, audible[0], found))
    room = max(1, most // max(1, sum(map(len, found.sounds))))  # as if all were as long as the first
    picks = np.linspace(0, len(audible) - 1, min(len(audible), room)).round().astype(int)
    for place in picks[1:]:
        before = len(found.sounds)
        panel = _panel(results, audible[place], found)
        if sum(map(len, found.sounds)) > most:
            del found.sounds[before:]
            break
        found.panels.append(panel)
    found.left_out = len(audible) - len(found.panels)
    return found


def _panel(results: Results, episode_id: str, found: Listening) -> Panel:
    settings, query = results.summary.settings, results.first_query(episode_id)
    rows = results.utterances
    rows = rows[(rows["episode_id"] == episode_id) & (rows["utt_id"] == query["utt_id"])]
    rows = rows[rows["shots"].isin([0, settings["shots"]]) & _first_seed(rows)]
    keys = ["model", "algorithm", "step"]
    values = rows.set_index(keys)[found.metric].to_dict() if found.metric else {}

    def clip(model: str, algorithm: str, step: int) -> Clip | None:
        path = results.audio / episode_id / f"{condition(model, algorithm, settings['shots'], step)}.flac"
        if not path.is_file():
            return None
        found.sounds.append(mp3(path))
        return Clip(len(found.sounds) - 1, float(values.get((model, algorithm, step), math.nan)))

    real, copy = clip("", REAL, 0), clip("", COPY, 0)
    systems = {
        name: [[clip(name, algorithm, step) for step in steps] for algorithm in settings["algorithms"]]
        for name, steps in found.steps.items()
    }
    return Panel(str(query["speaker"]), str(query["text"]), real, copy, systems)


def _first_seed(rows: pd.DataFrame) -> pd.Series:
    """Of training: the one whose sound is kept."""
    return rows["seed"] == rows["seed"].iloc[0] if "seed" in rows else pd.Series(True, rows.index)
