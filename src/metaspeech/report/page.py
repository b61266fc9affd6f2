"""Builds the page: one HTML file with everything in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from metaspeech.errors import UserError
from metaspeech.evaluation import plots
from metaspeech.evaluation.style import BASELINE_COLOUR, INK, MUTED, PALETTE, RULE, colours, label
from metaspeech.evaluation.summary import Summary
from metaspeech.report.findings import findings
from metaspeech.report.media import inline_svg, mp3_uri
from metaspeech.report.tables import compared_metrics, comparison_rows, result_rows

VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", BASELINE_COLOUR: "baseline"}
VARIABLES |= {colour: f"series-{index}" for index, colour in enumerate(PALETTE)}


@dataclass(frozen=True)
class Provenance:
    """Where the results come from, as the page tells it."""

    corpus: Mapping[str, Any]  # corpus.json
    commit: str
    dirty: bool
    command: str  # that makes it again
    stages: list[tuple[str, float]]  # name, seconds
    params: list[tuple[str, Any]]  # key, value


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
        """The figures of a model by name: curves, paired differences, spectrograms, alignments."""
        metrics = compared_metrics(self.summary)
        found = {name: plots.adaptation_curve(self.summary, model, name) for name in metrics}
        for name in metrics:
            paired = plots.paired_differences(self.summary, self.speakers, model, name)
            if paired is not None:
                found[f"{name}_paired"] = paired
        return found | self._panels(model)

    def shown_steps(self) -> list[int]:
        """Before adaptation, at the headline step, at the last."""
        settings = self.summary.settings
        return sorted({0, settings["headline_step"], max(settings["steps"])})

    def clips(self, model: str) -> list[dict[str, Any]]:
        """A row a speaker with audio: the query's text, and an address (or None) for each condition."""
        conditions = ["real", "copy"] + [
            f"{model}-{algorithm}-{step}"
            for algorithm in self.summary.settings["algorithms"]
            for step in self.shown_steps()
        ]
        rows = []
        for episode_id in self.summary.settings["audible"]:
            first = self._first_query(episode_id)
            paths = [self.audio / episode_id / f"{condition}.flac" for condition in conditions]
            clips = [mp3_uri(path) if path.is_file() else None for path in paths]
            rows.append({"speaker": str(first["speaker"]), "text": str(first["text"]), "clips": clips})
        return rows

    def _first_query(self, episode_id: str) -> pd.Series[Any]:
        rows = self.utterances[self.utterances["episode_id"] == episode_id]
        return rows[rows["algorithm"] == "real"].iloc[0]

    def _panels(self, model: str) -> dict[str, Figure]:
        """Spectrograms and alignments of the first audible episode."""
        audible = self.summary.settings["audible"]
        if not audible:
            return {}
        episode_id, algorithms, steps = audible[0], self.summary.settings["algorithms"], self.shown_steps()
        after = [f"step {step}" for step in steps]
        mels: dict[tuple[int, int], np.ndarray] = {}
        alignments: dict[tuple[int, int], np.ndarray] = {}
        real = self.panels[f"{episode_id}/real/mel"]
        for row, algorithm in enumerate(algorithms):
            mels[row, 0] = real
            for column, step in enumerate(steps):
                condition = f"{episode_id}/{model}-{algorithm}-{step}"
                if f"{condition}/mel" in self.panels:
                    mels[row, column + 1] = self.panels[f"{condition}/mel"]
                if f"{condition}/alignment" in self.panels:
                    alignments[row, column] = self.panels[f"{condition}/alignment"]
        names = [label(name) for name in algorithms]
        seconds = float(self._first_query(episode_id)["seconds"]) / len(real)
        grids = {
            "spectrograms": plots.panel_grid(
                mels, names, ["real recording", *after], seconds=seconds, ylabel="mel band"
            )
        }
        if alignments:
            grids["alignments"] = plots.panel_grid(alignments, names, after, seconds=0, ylabel="character")
        return grids


def build_page(
    results: Results, figures: Mapping[str, Mapping[str, Figure]], provenance: Provenance, title: str
) -> str:
    """The page as HTML. Everything that comes from a corpus or params is escaped.

    Args:
        figures: model -> name -> figure, as :meth:`Results.figures` gives them.
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
    models = [
        {
            "name": model,
            "findings": findings(summary, model),
            "figures": {
                name: Markup(inline_svg(figure, f"{model}: {name.replace('_', ' ')}", VARIABLES))
                for name, figure in figures[model].items()
            },
            "results": result_rows(summary, model),
            "comparisons": comparison_rows(summary, model),
            "clips": results.clips(model),
        }
        for model in summary.settings["models"]
    ]
    return environment.get_template("template.html").render(
        title=title,
        settings=summary.settings,
        columns=summary.columns.to_dict(orient="records"),
        compared=compared_metrics(summary),
        models=models,
        algorithms=[(name, label(name), palette[name]) for name in algorithms],
        palette=palette,
        shown_steps=results.shown_steps(),
        provenance=provenance,
        css=Markup(_own("page.css")),
        script=Markup(_own("player.js")),
    )


def _own(name: str) -> str:
    return resources.files("metaspeech.report").joinpath(name).read_text(encoding="utf-8")
