"""From utterances to what is claimed: means per speaker, intervals, paired comparisons."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from metaspeech.errors import UserError
from metaspeech.evaluation.comparisons import BASELINE, COMPARED, COMPARISON, CONDITION, compare
from metaspeech.evaluation.judges.base import Column
from metaspeech.evaluation.speed import SPEED, steps_to_baseline
from metaspeech.evaluation.statistics import cluster_bootstrap
from metaspeech.evaluation.systems import System
from metaspeech.evaluation.verification import EER, VERIFIED, condition_rates
from metaspeech.files import replacing

LOSS = Column("loss", "Loss", "lower", "Of the model itself, on the query recordings.")
MEANS = [*CONDITION, "metric", "mean", "low", "high", "speakers"]
SEEDS = [*CONDITION, "metric", "seed", "mean"]
CHECKS = ["judge", "check", "value", "low", "high", "expected", "passed"]
LEAKAGE = ["check", "passed", "detail"]
EMPTY = {  # columns of tables that may have no rows
    "conditions": MEANS,
    "shared": MEANS,
    "comparisons": COMPARISON,
    "speed": SPEED,
    "seeds": SEEDS,
    "checks": CHECKS,
    "leakage": LEAKAGE,
}
PLOTTED = (*COMPARED, EER.name)
FLAGS = ["utterances", "stop_failures", "not_finite"]


@dataclass(frozen=True)
class Summary:
    """What evaluate found, in long tables.

    Attributes:
        settings: algorithms, shots (those that findings are about), all_shots (that were synthesised), queries,
            vocoder_queries, seed, seeds, audible, speakers, baseline, test; systems by their fields. See the property.
        columns: a row a metric: name, label, better, explanation, and whether it is ``trusted``: whether its judge
            passed all of its checks.
        conditions: a row a condition (model, algorithm, shots, step) and metric: mean, low, high, speakers. "model" is
            the name of a system. References have none and the algorithm "real" or "copy".
        shared: the same over those queries alone that every system rendered, so that systems can be compared; empty
            without a vocoder.
        counts: a row a condition: utterances, stop_failures, not_finite.
        comparisons: a row a condition, metric and what it is compared ``against``: difference, low, high, p, p_holm
            (adjusted over the algorithms), effect, speakers. See :func:`~metaspeech.evaluation.comparisons.compare`.
        speed: a row an algorithm and metric: how many steps it needs for what the baseline has at its last one. See
            :func:`~metaspeech.evaluation.speed.steps_to_baseline`.
        seeds: a row a condition, compared metric and seed of training: the mean over speakers.
        checks: a row a judge and what it was tried on: value, low, high, expected, passed. See
            :func:`~metaspeech.evaluation.selfcheck.verdicts`.
        leakage: a row a check of :mod:`~metaspeech.evaluation.leakage`: passed, detail.
    """

    settings: Mapping[str, Any]
    columns: pd.DataFrame
    conditions: pd.DataFrame
    shared: pd.DataFrame
    counts: pd.DataFrame
    comparisons: pd.DataFrame
    speed: pd.DataFrame
    seeds: pd.DataFrame
    checks: pd.DataFrame
    leakage: pd.DataFrame

    @property
    def systems(self) -> list[System]:
        """What was evaluated, in the order in which it is told."""
        return [System(**{**one, "steps": tuple(one["steps"])}) for one in self.settings["systems"]]

    def system(self, name: str) -> System:
        return next(system for system in self.systems if system.name == name)

    def references(self, system: System) -> pd.DataFrame:
        """Rows of ``conditions``: real recordings and copy synthesis, over the queries that the system rendered."""
        table = self.shared if system.vocoder else self.conditions
        return table[table["model"] == ""]

    def label(self, metric: str, system: System) -> str:
        """What a metric is called; the loss of each model has a name of its own."""
        if metric == LOSS.name and system.loss_label:
            return system.loss_label
        return str(self.columns.set_index("name").loc[metric, "label"])

    def tables(self) -> dict[str, pd.DataFrame]:
        """Those that have rows, by their names."""
        return {name: table for name, table in vars(self).items() if isinstance(table, pd.DataFrame) and len(table)}

    def write(self, path: Path) -> None:
        tables = {name: _records(table) for name, table in vars(self).items() if isinstance(table, pd.DataFrame)}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"settings": self.settings, **tables}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Summary:
        """Raises UserError when the file is absent or something else."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            settings = content.pop("settings")
            return cls(settings, **{name: _table(rows, EMPTY.get(name)) for name, rows in content.items()})
        except FileNotFoundError:
            raise UserError(f"{path}: no such file. Make it: dvc repro evaluate") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not a summary ({error}). Make it again: dvc repro --force evaluate") from None


def run_means(utterances: pd.DataFrame, curves: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A row a condition, speaker and seed of training: mean loss and metrics (of what could be measured), and counts.

    Args:
        utterances: the utterance table: condition, speaker, seed, stopped, finite, metrics.
        curves: the adaptation curves: condition, speaker, seed, loss. May have shots and steps that were not
            synthesised.
        metrics: columns of ``utterances`` to average.
    """
    keys = [*CONDITION, "speaker", "seed"]
    flagged = utterances.assign(stop_failures=~utterances["stopped"], not_finite=~utterances["finite"], utterances=1)
    counts = flagged.groupby(keys)[FLAGS].sum()
    means = utterances.groupby(keys)[list(metrics)].mean()
    losses = curves.groupby(keys)[["loss"]].mean()
    table = counts.join(means).join(losses, how="outer").reset_index()
    filled = table[FLAGS].fillna(0).astype(int)
    return table.assign(**{name: filled[name] for name in FLAGS})


def speaker_means(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a condition and speaker: means over the seeds of :func:`run_means`, and sums of the counts.

    Each seed weighs the same, whatever could be measured of it. A speaker is one observation, however many seeds.
    """
    grouped = runs.groupby([*CONDITION, "speaker"])
    means = [name for name in runs.columns if name not in (*CONDITION, "speaker", "seed", *FLAGS)]
    return grouped[FLAGS].sum().join(grouped[means].mean()).reset_index()


def seed_means(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a condition of an algorithm, compared metric and seed: the mean over speakers, where one was measured."""
    compared = [name for name in COMPARED if name in runs]
    means = runs[runs["model"] != ""].groupby([*CONDITION, "seed"])[compared].mean()
    long = means.reset_index().melt([*CONDITION, "seed"], compared, "metric", "mean")
    return long.dropna(subset=["mean"]).sort_values(SEEDS[:-1], ignore_index=True)[SEEDS]


def seed_spread(summary: Summary) -> pd.DataFrame:
    """A row a condition of an algorithm and compared metric: how many ``seeds``, and the standard deviation between
    their means (``deviation``, n - 1 in the denominator; NaN for a single one)."""
    grouped = summary.seeds.groupby([*CONDITION, "metric"])["mean"]
    return grouped.agg(seeds="count", deviation="std").reset_index()


def shared_queries(utterances: pd.DataFrame) -> pd.DataFrame:
    """The rows of those queries that every system rendered: with others, texts would be compared and not systems."""
    rendered_by = utterances.groupby(["episode_id", "utt_id"])["model"].transform("nunique")
    return utterances[rendered_by == utterances["model"].nunique()]


def summarise(
    utterances: pd.DataFrame,
    curves: pd.DataFrame,
    judged: Sequence[Column],
    systems: Sequence[System],
    settings: Mapping[str, Any],
    *,
    bootstrap: int,
    seed: int,
    test: str = "sign_flip",
    doubted: Collection[str] = (),
    checks: pd.DataFrame | None = None,
    leakage: pd.DataFrame | None = None,
) -> tuple[Summary, pd.DataFrame]:
    """Aggregates with the speaker as the unit. Returns the table of :func:`speaker_means` as well.

    Args:
        utterances, curves: see :func:`run_means`.
        judged: the metrics besides the loss.
        systems: what was evaluated.
        settings: kept as they are; ``systems``, ``speakers``, ``baseline`` and ``test`` are added.
        bootstrap, seed: resamples of speakers, and their seed.
        test: of paired differences, in :data:`~metaspeech.evaluation.statistics.TESTS`.
        doubted: metrics of judges that failed a check.
        checks, leakage: kept as they are.
    """
    columns = [LOSS, *judged]
    names = [column.name for column in judged]
    runs = run_means(utterances, curves, names)
    speakers = speaker_means(runs)
    shared = speaker_means(run_means(shared_queries(utterances), curves.iloc[:0], names))
    if not any(system.vocoder for system in systems):
        shared = shared.iloc[:0]
    counts = speakers.groupby(CONDITION, sort=True)[FLAGS].sum().reset_index()
    conditions = _means(speakers, columns, bootstrap, seed)
    conditions_shared = _means(shared, judged, bootstrap, seed)
    if set(utterances) >= VERIFIED:
        columns.append(EER)
        conditions = _joined(conditions, condition_rates(utterances, resamples=bootstrap, seed=seed))
        if len(shared):
            rates = condition_rates(shared_queries(utterances), resamples=bootstrap, seed=seed)
            conditions_shared = _joined(conditions_shared, rates)
    summary = Summary(
        {
            **settings,
            "systems": [{**asdict(system), "steps": list(system.steps)} for system in systems],
            "speakers": int(speakers["speaker"].nunique()),
            "baseline": BASELINE,
            "test": test,
        },
        pd.DataFrame([{**asdict(one), "trusted": one.name not in doubted} for one in columns]),
        conditions,
        conditions_shared,
        counts,
        compare(speakers, shared, systems, bootstrap, seed, test),
        steps_to_baseline(conditions, speakers, columns, bootstrap, seed),
        seed_means(runs),
        pd.DataFrame(columns=CHECKS) if checks is None else checks,
        pd.DataFrame(columns=LEAKAGE) if leakage is None else leakage,
    )
    return summary, speakers


def _means(speakers: pd.DataFrame, columns: Sequence[Column], bootstrap: int, seed: int) -> pd.DataFrame:
    """A row a condition and metric. What was measured on no speaker has none."""
    rows = []
    for key, group in speakers.groupby(CONDITION, sort=True):
        for column in columns:
            interval = cluster_bootstrap(group[column.name], resamples=bootstrap, seed=seed)
            if interval.speakers:
                named = dict(zip(CONDITION, key, strict=True))
                rows.append({**named, "metric": column.name, **asdict(interval)})
    return pd.DataFrame(rows, columns=MEANS)


def _joined(means: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    if rates.empty:
        return means
    return pd.concat([means, rates], ignore_index=True).sort_values(CONDITION, kind="stable", ignore_index=True)


def curve_table(summary: Summary) -> pd.DataFrame:
    """A row a condition of an algorithm: each plotted metric with ``_low`` and ``_high``.

    A column stays empty where nothing was measured: DVC wants every one that dvc.yaml names.
    """
    rows = summary.conditions[(summary.conditions["model"] != "") & summary.conditions["metric"].isin(PLOTTED)]
    wide = rows.pivot(index=CONDITION, columns="metric", values=["mean", "low", "high"])
    table = pd.DataFrame(index=wide.index)
    for metric in PLOTTED:
        for statistic, suffix in (("mean", ""), ("low", "_low"), ("high", "_high")):
            known = (statistic, metric) in wide
            table[f"{metric}{suffix}"] = wide[statistic, metric] if known else float("nan")
    return table.reset_index()


def compact_metrics(summary: Summary) -> dict[str, dict[str, float | None]]:
    """For ``dvc metrics``: each algorithm at the headline and the last step of a system, and the references."""
    metrics: dict[str, dict[str, float | None]] = {}
    shots, systems = summary.settings["shots"], {system.name: system for system in summary.systems}

    def of(model: str, algorithm: str) -> dict[str, float | None]:
        name = f"{model}-{algorithm}".replace("+", "-") if model else algorithm  # MLflow takes no + in a name
        return metrics.setdefault(name, {})

    for row in _records(summary.conditions[summary.conditions["metric"].isin(PLOTTED)]):
        model, step = row["model"], row["step"]
        if not model:
            of("", row["algorithm"])[row["metric"]] = row["mean"]
        elif row["shots"] == shots and step in (systems[model].headline_step, systems[model].steps[-1]):
            of(model, row["algorithm"])[f"{row['metric']}_{step}"] = row["mean"]
    for row in _records(summary.speed[summary.speed["shots"] == shots]):
        of(row["model"], row["algorithm"])[f"steps_to_{BASELINE}_{row['metric']}"] = row["steps"]
    totals = summary.counts.groupby(["model", "algorithm"])[FLAGS].sum().reset_index()
    for row in _records(totals):
        if row["model"] and systems[row["model"]].acoustic:
            of(row["model"], row["algorithm"])["stop_failures"] = row["stop_failures"] / max(1, row["utterances"])
    return metrics


def _table(rows: list[dict[str, Any]], columns: list[str] | None) -> pd.DataFrame:
    """A table from its JSON. A column without any number reads as None: it is NaN."""
    table = pd.DataFrame(rows, columns=None if rows else columns)
    return table.assign(**{str(name): float("nan") for name in table if rows and table[name].isna().all()})


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON: None for what was not measured."""
    return [
        {
            str(key): None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        for row in table.to_dict(orient="records")
    ]
