"""Paired comparisons: with the baselines, with the start of adaptation, and with Griffin-Lim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from metaspeech.evaluation.statistics import TESTS, cluster_bootstrap, effect_size, holm
from metaspeech.evaluation.systems import System

BASELINE = "transfer"  # the algorithm that the others are compared with
AS_IS = "pretrained"  # and the common start without further training, which that baseline may be worse than
START = "step 0"
GRIFFIN_LIM = "griffin-lim"
COMPARED = ("loss", "similarity", "phoneme_error", "mcd")  # what is compared, plotted and in metrics.json
CONDITION = ["model", "algorithm", "shots", "step"]
COMPARISON = [*CONDITION, "against", "metric", "difference", "low", "high", "p", "effect", "speakers", "p_holm"]

Key = tuple[Any, ...]
Conditions = Mapping[Key, "pd.DataFrame"]  # condition -> its speakers


def compare(
    speakers: pd.DataFrame, shared: pd.DataFrame, systems: Sequence[System], bootstrap: int, seed: int, test: str
) -> pd.DataFrame:
    """A row a condition, metric and what it is compared ``against``.

    - the baseline, and the common start as it is: at the same step.
    - "step 0": of the same algorithm, which is what adaptation itself does.
    - "griffin-lim", for systems with a vocoder: the same mels through Griffin-Lim.

    Args:
        speakers: the table of :func:`metaspeech.evaluation.summary.speaker_means`.
        shared: the same over the queries alone that went through Griffin-Lim and through vocoders.
        systems: what was evaluated.
        bootstrap, seed: resamples of speakers, and their seed.
        test: in :data:`~metaspeech.evaluation.statistics.TESTS`.
    """
    rows: list[dict[str, Any]] = []
    at, on_shared = _conditions(speakers), _conditions(shared)
    sources = {system.name: system.acoustic for system in systems if system.vocoder}
    for key in at:
        model, algorithm, shots, step = key
        if not model:
            continue
        pairs = [(one, at, (model, one, shots, step)) for one in (BASELINE, AS_IS)]
        pairs.append((START, at, (model, algorithm, shots, 0)))
        if model in sources:
            source = (sources[model], algorithm, shots, step) if sources[model] else ("", "copy", 0, 0)
            pairs.append((GRIFFIN_LIM, on_shared, source))
        for against, among, other in pairs:
            if key != other and key in among and other in among:
                named = {**dict(zip(CONDITION, key, strict=True)), "against": against}
                rows += [{**named, **one} for one in _paired(among[key], among[other], bootstrap, seed, test)]
    table = pd.DataFrame(rows, columns=COMPARISON)
    table = table[table["speakers"] > 0]
    family = table.groupby(["model", "shots", "step", "against", "metric"])["p"]
    return table.assign(p_holm=family.transform(lambda p: holm(list(p))))


def _conditions(speakers: pd.DataFrame) -> Conditions:
    return {tuple(key): rows.set_index("speaker") for key, rows in speakers.groupby(CONDITION)}


def _paired(own: pd.DataFrame, other: pd.DataFrame, bootstrap: int, seed: int, test: str) -> list[dict[str, Any]]:
    """Speaker by speaker; a speaker that either side could not be measured on is left out, and the count says so."""
    rows = []
    for metric in COMPARED:
        if metric not in own or metric not in other:
            continue
        differences = own[metric] - other[metric]  # aligned by the index, the speaker
        interval = cluster_bootstrap(differences, resamples=bootstrap, seed=seed)
        rows.append(
            {
                "metric": metric,
                "difference": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "p": TESTS[test](differences, seed=seed),
                "effect": effect_size(differences),
                "speakers": interval.speakers,
            }
        )
    return rows
