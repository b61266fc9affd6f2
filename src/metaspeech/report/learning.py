"""What meta-training, adaptation and task representation left of each model, and its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from metaspeech.config import Represent
from metaspeech.errors import UserError
from metaspeech.evaluation import task_plots
from metaspeech.evaluation.prediction import gains, predictions
from metaspeech.evaluation.style import in_sentence, label
from metaspeech.evaluation.summary import Summary
from metaspeech.evaluation.systems import headline_step
from metaspeech.report.costs import Costs, costs
from metaspeech.report.tables import Row
from metaspeech.report.tasks import Neighbours, neighbours, prediction_rows, prediction_sentence
from metaspeech.tasks.representation import TaskVectors, read_vectors
from metaspeech.tracking import Record


@dataclass(frozen=True)
class Learned:
    """What the page shows of one model."""

    model: str
    loss_label: str
    within: str
    costs: Costs
    representations: list[str]
    figures: Mapping[str, Figure]
    predictions: list[Row]
    sentence: str
    neighbours: list[Neighbours]


class Learning:
    """All models.

    Args:
        results: folder with the folders of meta_train and adapt.
        vectors: folder of the tasks' vectors.
        summary: of the evaluation.
        records: of all stages.
        represent: which representations there are, and which is used.
        tuned: adaptation steps that the rates were chosen at.
    """

    def __init__(
        self,
        results: Path,
        vectors: Path,
        summary: Summary,
        records: Sequence[Record],
        represent: Represent,
        tuned: int,
    ) -> None:
        settings = summary.settings
        self.algorithms: list[str] = settings["algorithms"]
        self.seeds: list[int] = settings["seeds"]
        self.shots, self.seed, self.used, self.records = settings["shots"], settings["seed"], represent.use, records
        self.labels = {system.name: system.loss_label for system in summary.systems if system.role != "chain"}
        self.metrics = {
            (stage, model, algorithm): [
                _read(results / stage / f"{model}-{algorithm}-{seed}/metrics.json") for seed in self.seeds
            ]
            for stage in ("meta_train", "adapt")
            for model in self.labels
            for algorithm in self.algorithms
        }
        self.curves = pd.concat(
            [
                pd.read_parquet(results / "adapt" / f"{model}-{algorithm}-{seed}/curves.parquet")
                for model in self.labels
                for algorithm in self.algorithms
                for seed in self.seeds
            ]
        )
        self.vectors: dict[str, list[TaskVectors]] = {
            model: [read_vectors(vectors / f"{model}.parquet", name) for name in represent.representations]
            for model in self.labels
        }
        steps = sorted(int(step) for step in self.curves["step"].unique())
        self.step = headline_step(tuple(steps), tuned)
        self.within = f"{self.step} step{'' if self.step == 1 else 's'}"
        self.predictions = predictions(self.vectors, self.curves, self.shots, self.step, self.seed)

    def of(self, model: str) -> Learned:
        """What there is to be shown of a model."""
        vectors = self.vectors[model]
        own = self.predictions[self.predictions["model"] == model]
        used = next(one for one in vectors if one.name == self.used)
        return Learned(
            model,
            self.labels[model],
            self.within,
            costs(model, self.algorithms, self.curves, self.metrics, self.records, self.shots, self.seeds, self.seed),
            [one.representation.label for one in vectors],
            self.figures(model),
            prediction_rows(own, vectors, self.algorithms),
            prediction_sentence(own, vectors),
            neighbours(used),
        )

    def figures(self, model: str) -> dict[str, Figure]:
        """A map of tasks by each representation, coloured by what the algorithm that gains most gains; matrices."""
        all_models = gains(self.curves, self.shots, self.step)
        gained = {algorithm: all_models[model, algorithm] for algorithm in self.algorithms}
        best = max(gained, key=lambda algorithm: float(gained[algorithm].mean()))
        colour = f"fall of the loss in {self.within}, {in_sentence(label(best))}"
        found = {"task_map": task_plots.task_map(self.vectors[model], gained[best], colour)}
        return found | {f"similarity_{one.name}": task_plots.similarity_matrix(one) for one in self.vectors[model]}


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Make it again: dvc repro --force") from None
