"""A summary seen from one system at its headline step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from metaspeech.evaluation.comparisons import BASELINE
from metaspeech.evaluation.style import label
from metaspeech.evaluation.summary import Summary

LEVEL = 0.05
NAMES = {
    "similarity": "speaker similarity",
    "phoneme_error": "phoneme error",
    "mcd": "mel-cepstral distortion",
    "mos": "predicted opinion score",
    "eer": "equal error rate of verification",
}
MEASURED_BY = {"acoustic": ("similarity", "phoneme_error", "loss"), "vocoder": ("loss",)}
MEASURED_BY["chain"] = ("similarity", "phoneme_error", "mcd")  # by the first that was measured


def doubted(summary: Summary) -> list[str]:
    """Metrics whose judge failed its self-check: marked in tables, and quoted nowhere."""
    columns = summary.columns
    return [str(name) for name in columns.loc[~columns["trusted"].astype(bool), "name"]]


class View:
    """Means and comparisons of a system at the evaluated shots, of the metrics that are not doubted."""

    def __init__(self, summary: Summary, name: str) -> None:
        settings, self.system = summary.settings, summary.system(name)
        self.step, self.shots, self.speakers = self.system.headline_step, settings["shots"], settings["speakers"]
        self.better: dict[str, str] = dict(zip(summary.columns["name"], summary.columns["better"], strict=True))
        self._doubted = doubted(summary)
        self.means = self._means(summary, name)
        references = self._trusted(summary.references(self.system))
        self.references: dict[Any, float] = references.set_index(["metric", "algorithm"])["mean"].to_dict()
        self._copies = self._means(summary, self.system.vocoder) if self.system.role == "chain" else {}
        self.comparisons, self.speed = (self._own(table) for table in (summary.comparisons, summary.speed))
        counts = summary.counts
        self.counts = counts[(counts["model"] == name) & (counts["shots"] == self.shots)]
        adapted = set(self.counts["algorithm"])
        self.algorithms: list[str] = [one for one in settings["algorithms"] if one in adapted]

    @property
    def metric(self) -> str | None:
        """What the system is judged by; None where nothing of that was measured."""
        return next((name for name in MEASURED_BY[self.system.role] if self.has(name)), None)

    @property
    def copy(self) -> str:
        """What copy synthesis is called that shows the best this system could do."""
        return f"copy synthesis by {self.system.vocoder}" if self.system.vocoder else "copy synthesis"

    def ceiling(self, metric: str, algorithm: str) -> float | None:
        """What copy synthesis has: the recordings' mels through Griffin-Lim, or through the chain's own vocoder."""
        if self.system.role == "chain":
            return self._copies.get((metric, algorithm, self.step))
        return self.references.get((metric, "copy"))

    def has(self, metric: str) -> bool:
        return any(key[0] == metric and key[2] == self.step for key in self.means)

    def name(self, metric: str) -> str:
        """In a sentence."""
        return NAMES.get(metric, self.system.loss_label.lower())

    def steps(self, metric: str) -> Sequence[int]:
        return sorted({key[2] for key in self.means if key[0] == metric})

    def sign(self, metric: str) -> int:
        return 1 if self.better[metric] == "higher" else -1

    def mean(self, metric: str, algorithm: str, step: int | None = None) -> float | None:
        return self.means.get((metric, algorithm, self.step if step is None else step))

    def best(self, metric: str) -> str:
        """The algorithm with the best mean at the headline step."""
        measured = [name for name in self.algorithms if self.mean(metric, name) is not None]
        best: str = max(
            measured or self.algorithms, key=lambda one: self.sign(metric) * (self.mean(metric, one) or 0.0)
        )
        return best

    def against(self, other: str, metric: str) -> pd.DataFrame:
        """Comparisons at the headline step, those ahead and the best first, with columns gain, ahead and behind."""
        table = self.comparisons
        if table.empty or metric not in self.better:
            return table.iloc[:0].assign(gain=0.0, ahead=False, behind=False)
        rows = table[(table["against"] == other) & (table["metric"] == metric) & (table["step"] == self.step)]
        gain, certain = self.sign(metric) * rows["difference"], rows["p_holm"] < LEVEL
        rows = rows.assign(gain=gain, ahead=certain & (gain > 0), behind=certain & (gain < 0))
        ordered: pd.DataFrame = rows.sort_values(["ahead", "gain"], ascending=False)
        return ordered

    def _own(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows of the system at the evaluated shots."""
        mine = (table["model"] == self.system.name) & (table["shots"] == self.shots)
        return self._trusted(table[mine]) if len(table) else table

    def _trusted(self, table: pd.DataFrame) -> pd.DataFrame:
        return table[~table["metric"].isin(self._doubted)]

    def _means(self, summary: Summary, name: str | None) -> dict[Any, float]:
        table = self._trusted(summary.conditions)
        mine = table[(table["model"] == name) & (table["shots"] == self.shots)]
        means: dict[Any, float] = mine.set_index(["metric", "algorithm", "step"])["mean"].to_dict()
        return means


def after(step: int) -> str:
    return f"After {step} adaptation step{'' if step == 1 else 's'}"


def baseline() -> str:
    """Inside a sentence."""
    return label(BASELINE).lower()
