"""From utterances to what is claimed: means per speaker, intervals, paired comparisons."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from metaspeech.errors import UserError
from metaspeech.evaluation.judges.base import Column
from metaspeech.evaluation.statistics import cluster_bootstrap, holm, sign_flip_test
from metaspeech.files import replacing

LOSS = Column("loss", "Query loss", "lower", "Teacher-forced training loss on the query recordings.")
BASELINE = "transfer"  # the algorithm that the others are compared with
COMPARED = ("loss", "similarity", "phoneme_error")
START = "step 0"
FLAGS = ["utterances", "stop_failures", "not_finite"]
CONDITION = ["model", "algorithm", "shots", "step"]
COMPARISON = [*CONDITION, "against", "metric", "difference", "low", "high", "p", "speakers"]


@dataclass(frozen=True)
class Summary:
    """What evaluate found, in long tables.

    Attributes:
        settings: models, algorithms, steps, headline_step, shots, queries, seed, audible, speakers, baseline.
        columns: a row a metric: name, label, better, explanation.
        conditions: a row a condition (model, algorithm, shots, step) and metric: mean, low, high, speakers. References
            have no model and the algorithm "real" or "copy".
        counts: a row a condition: utterances, stop_failures, not_finite.
        comparisons: a row a condition, metric and what it is compared ``against`` (the baseline at the same step, or
            "step 0" of the same algorithm): difference, low, high, p, p_holm (adjusted over the algorithms), speakers.
    """

    settings: Mapping[str, Any]
    columns: pd.DataFrame
    conditions: pd.DataFrame
    counts: pd.DataFrame
    comparisons: pd.DataFrame

    def write(self, path: Path) -> None:
        tables = {name: _records(table) for name, table in vars(self).items() if name != "settings"}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"settings": self.settings, **tables}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Summary:
        """Raises UserError when the file is absent or something else."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            settings = content.pop("settings")
            return cls(settings, **{name: pd.DataFrame(rows) for name, rows in content.items()})
        except FileNotFoundError:
            raise UserError(f"{path}: no such file. Make it: dvc repro evaluate") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not a summary ({error}). Make it again: dvc repro --force evaluate") from None


def speaker_means(utterances: pd.DataFrame, curves: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A row a condition and speaker: mean loss and metrics (of what could be measured), and counts.

    Args:
        utterances: the utterance table: condition, speaker, stopped, finite, metrics.
        curves: the adaptation curves: condition, speaker, loss. May have shots and steps that were not synthesised.
        metrics: columns of ``utterances`` to average.
    """
    keys = [*CONDITION, "speaker"]
    flagged = utterances.assign(stop_failures=~utterances["stopped"], not_finite=~utterances["finite"], utterances=1)
    counts = flagged.groupby(keys)[FLAGS].sum()
    means = utterances.groupby(keys)[list(metrics)].mean()
    losses = curves.groupby(keys)[["loss"]].mean()
    table = counts.join(means).join(losses, how="outer").reset_index()
    filled = table[FLAGS].fillna(0).astype(int)
    return table.assign(**{name: filled[name] for name in FLAGS})


def summarise(
    speakers: pd.DataFrame, judged: Sequence[Column], settings: Mapping[str, Any], *, bootstrap: int, seed: int
) -> Summary:
    """Aggregates the table of :func:`speaker_means`, with the speaker as the unit.

    Args:
        speakers: that table.
        judged: the metrics besides the loss.
        settings: kept as they are; ``speakers`` and ``baseline`` are added.
        bootstrap, seed: resamples of speakers, and their seed.
    """
    columns = [LOSS, *judged]
    conditions, counts = [], []
    for key, group in speakers.groupby(CONDITION, sort=True):
        named: dict[str, Any] = dict(zip(CONDITION, key, strict=True))
        counts.append({**named, **{flag: int(group[flag].sum()) for flag in FLAGS}})
        for column in columns:
            interval = cluster_bootstrap(group[column.name], resamples=bootstrap, seed=seed)
            if interval.speakers:
                conditions.append({**named, "metric": column.name, **asdict(interval)})
    known = {**settings, "speakers": int(speakers["speaker"].nunique()), "baseline": BASELINE}
    return Summary(
        known,
        pd.DataFrame([asdict(column) for column in columns]),
        pd.DataFrame(conditions),
        pd.DataFrame(counts),
        _comparisons(speakers, bootstrap, seed),
    )


def headline_step(steps: Sequence[int], tuned: int) -> int:
    """The step that findings are about: the one at which rates were tuned, else the first after adaptation began."""
    later = sorted(step for step in set(steps) if step > 0)
    return tuned if tuned in later else (later[0] if later else 0)


def curve_table(summary: Summary) -> pd.DataFrame:
    """A row a condition of an algorithm: each compared metric with ``_low`` and ``_high``, for plots."""
    rows = summary.conditions[(summary.conditions["model"] != "") & summary.conditions["metric"].isin(COMPARED)]
    wide = rows.pivot(index=CONDITION, columns="metric", values=["mean", "low", "high"])
    table = pd.DataFrame(index=wide.index)
    for metric in COMPARED:
        for statistic, suffix in (("mean", ""), ("low", "_low"), ("high", "_high")):
            if (statistic, metric) in wide:
                table[f"{metric}{suffix}"] = wide[statistic, metric]
    return table.reset_index()


def compact_metrics(summary: Summary) -> dict[str, dict[str, float]]:
    """For ``dvc metrics``: each algorithm at the headline and the last step, and the references."""
    headline, last = summary.settings["headline_step"], max(summary.settings["steps"])
    metrics: dict[str, dict[str, float]] = {}
    wanted = summary.conditions[summary.conditions["metric"].isin(COMPARED)]
    for row in _records(wanted):
        if not row["model"]:
            metrics.setdefault(row["algorithm"], {})[row["metric"]] = row["mean"]
        elif row["shots"] == summary.settings["shots"] and row["step"] in (headline, last):
            metrics.setdefault(f"{row['model']}-{row['algorithm']}", {})[f"{row['metric']}_{row['step']}"] = row["mean"]
    counts = summary.counts[summary.counts["model"] != ""]
    for (model, algorithm), group in counts.groupby(["model", "algorithm"]):
        metrics.setdefault(f"{model}-{algorithm}", {})["stop_failures"] = float(
            group["stop_failures"].sum() / max(1, group["utterances"].sum())
        )
    return metrics


def _comparisons(speakers: pd.DataFrame, bootstrap: int, seed: int) -> pd.DataFrame:
    """Each algorithm with the baseline at the same step, and with its own step 0 (what adaptation itself does)."""
    adapted = speakers[speakers["model"] != ""]
    at = {tuple(key): rows.set_index("speaker") for key, rows in adapted.groupby(CONDITION)}
    rows: list[dict[str, Any]] = []
    for (model, algorithm, shots, step), own in at.items():
        others = {BASELINE: (model, BASELINE, shots, step), START: (model, algorithm, shots, 0)}
        for against, key in others.items():
            if key not in at or at[key] is own:
                continue
            named = {"model": model, "algorithm": algorithm, "shots": shots, "step": step, "against": against}
            for metric in COMPARED:
                if metric in own:
                    rows.append({**named, "metric": metric, **_paired(own[metric], at[key][metric], bootstrap, seed)})
    table = pd.DataFrame(rows, columns=COMPARISON)
    table = table[table["speakers"] > 0]
    family = table.groupby(["model", "shots", "step", "against", "metric"])["p"]
    return table.assign(p_holm=family.transform(lambda p: holm(list(p))))


def _paired(own: pd.Series[float], other: pd.Series[float], bootstrap: int, seed: int) -> dict[str, float]:
    """Speaker by speaker; a speaker that either side could not be measured on is left out, and the count says so."""
    differences = own - other  # aligned by the index, the speaker
    interval = cluster_bootstrap(differences, resamples=bootstrap, seed=seed)
    return {
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "p": sign_flip_test(differences, seed=seed),
        "speakers": interval.speakers,
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON: None for what was not measured."""
    return [
        {
            str(key): None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        for row in table.to_dict(orient="records")
    ]
