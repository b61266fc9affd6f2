"""What the evaluate stage left, and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from metaspeech.errors import UserError
from metaspeech.evaluation import plots
from metaspeech.evaluation.breakdown import breakdowns
from metaspeech.evaluation.front import front
from metaspeech.evaluation.style import label
from metaspeech.evaluation.summary import Summary
from metaspeech.evaluation.systems import condition
from metaspeech.report.speakers import speaker_metrics
from metaspeech.report.tables import breakdown_metrics, compared_metrics, evaluated_shots
from metaspeech.report.view import doubted


class Results:
    """What the evaluate stage left in its folder."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError when something is absent."""
        self.audio = folder / "audio"
        self.summary = Summary.read(folder / "summary.json")
        try:
            self.speakers = pd.read_parquet(folder / "speakers.parquet")
            self.utterances = pd.read_parquet(folder / "utterances.parquet")
            with np.load(self.audio / "panels.npz", allow_pickle=False) as panels:
                self.panels = dict(panels)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: incomplete ({error}). Make it again: dvc repro --force evaluate") from None

    def figures(self, model: str) -> dict[str, Figure]:
        """The figures of a system by name: curves (of other numbers of shots with that number), the front, paired
        differences, every speaker's curves, spectrograms, alignments."""
        metrics, own = compared_metrics(self.summary, model), self.summary.settings["shots"]
        found = {
            name if shots == own else f"{name}_{shots}": plots.adaptation_curve(self.summary, model, name, shots)
            for shots in evaluated_shots(self.summary, model)
            for name in metrics
        }
        drawn = {"front": front(self.summary, model, doubted(self.summary))}
        for name in speaker_metrics(self.summary, self.speakers, model, metrics):
            drawn[f"{name}_speakers"] = plots.speaker_curves(self.summary, self.speakers, model, name)
        found |= {name: figure for name, figure in drawn.items() if figure is not None}
        for name in metrics:
            paired = plots.paired_differences(self.summary, self.speakers, model, name)
            if paired is not None:
                found[f"{name}_paired"] = paired
        return found | self._panels(model)

    def breakdown_figures(self) -> dict[str, Figure]:
        """Where the damage comes from, by the name of the system at whose end it is seen."""
        labels = self.summary.columns.set_index("name")["label"]
        chosen = {name: str(labels[name]) for name in breakdown_metrics(self.summary)}
        found = breakdowns(self.summary) if chosen else []
        algorithms = self.summary.settings["algorithms"]
        return {one.system.name: plots.breakdown_plot(one, chosen, algorithms) for one in found}

    def shown_steps(self) -> list[int]:
        """Those that can be listened to: before adaptation, at the headline steps, at the last ones."""
        systems = self.summary.systems
        return sorted({0} | {step for one in systems for step in (one.headline_step, one.steps[-1])})

    def _panels(self, model: str) -> dict[str, Figure]:
        """Spectrograms and alignments of the first audible episode."""
        audible, system = self.summary.settings["audible"], self.summary.system(model)
        if not audible:
            return {}
        episode_id, algorithms = audible[0], self.summary.settings["algorithms"]
        steps, shots = [step for step in self.shown_steps() if step in system.steps], self.summary.settings["shots"]
        after = [f"step {step}" for step in steps]
        mels: dict[tuple[int, int], np.ndarray] = {}
        alignments: dict[tuple[int, int], np.ndarray] = {}
        real = self.panels[f"{episode_id}/real/mel"]
        for row, algorithm in enumerate(algorithms):
            mels[row, 0] = real
            for column, step in enumerate(steps):
                place = f"{episode_id}/{condition(model, algorithm, shots, step)}"
                if f"{place}/mel" in self.panels:
                    mels[row, column + 1] = self.panels[f"{place}/mel"]
                if f"{place}/alignment" in self.panels and system.role == "acoustic":  # a chain has the same
                    alignments[row, column] = self.panels[f"{place}/alignment"]
        names = [label(name) for name in algorithms]
        seconds = float(self.first_query(episode_id)["seconds"]) / len(real)
        grids = {
            "spectrograms": plots.panel_grid(
                mels, names, ["real recording", *after], seconds=seconds, ylabel="mel band"
            )
        }
        if alignments:
            grids["alignments"] = plots.panel_grid(alignments, names, after, seconds=0, ylabel="symbol")
        return grids

    def first_query(self, episode_id: str) -> pd.Series[Any]:
        """The utterance of an episode that is kept as audio."""
        rows = self.utterances[self.utterances["episode_id"] == episode_id]
        return rows[rows["algorithm"] == "real"].iloc[0]
