"""Two executions side by side: parameters, and figures paired over the same speakers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import pandas as pd

from metaspeech.compare.runs import Executed
from metaspeech.evaluation.comparisons import COMPARED
from metaspeech.evaluation.statistics import cluster_bootstrap, holm, sign_flip_test, smallest_p
from metaspeech.evaluation.systems import headline_shots, headline_step

LEVEL = 0.05
HIGHER = {"similarity"}  # is better; of the other compared metrics lower is
MEASURING = ("evaluate.queries", "evaluate.griffin_lim_iterations", "evaluate.max_seconds_ratio")
VOCODING = ("evaluate.vocoder_queries",)  # besides, of systems with a vocoder
SMALL = 6  # speakers; with fewer no difference can be significant at the level


@dataclass(frozen=True)
class Difference:
    """``other`` less ``first`` at a condition, over the speakers of both.

    p is that of the sign-flip test, p_holm adjusted over the algorithms and runs that a system and metric have here.
    Both are NaN where ``refused`` says why there is no test.
    """

    other: str
    model: str
    algorithm: str
    shots: int
    step: int
    metric: str
    means: tuple[float, float]
    difference: float
    low: float
    high: float
    speakers: int
    p: float
    p_holm: float
    refused: str = ""

    @property
    def significant(self) -> bool:
        return self.p_holm < LEVEL

    @property
    def better(self) -> bool:
        """Whether ``other`` is, significant or not."""
        return (self.difference > 0) == (self.metric in HIGHER)

    @property
    def identical(self) -> bool:
        """Of every speaker: what was changed has no part in this."""
        return self.difference == self.low == self.high == 0

    @property
    def verdict(self) -> str:
        if self.refused:
            return "not tested"
        if self.identical:
            return "identical"
        if not self.significant:
            return "not significant"
        return "better" if self.better else "worse"


def changed_params(runs: Sequence[Executed]) -> dict[str, list[str | None]]:
    """Key -> its value in each run, of those that differ; None where a run does not have it."""
    keys = sorted({key for run in runs for key in run.params})
    values = {key: [run.params.get(key) for run in runs] for key in keys}
    return {key: one for key, one in values.items() if len(set(one)) > 1}


def differences(first: Executed, others: Sequence[Executed], step: int | None = None) -> list[Difference]:
    """Each other run against the first, at the step that findings are about, or at ``step``."""
    found = [one for other in others for one in _pair(first, other, step)]
    families: dict[tuple[str, str], list[int]] = {}
    for index, one in enumerate(found):
        families.setdefault((one.model, one.metric), []).append(index)
    for members in families.values():
        for index, p in zip(members, holm([found[one].p for one in members]), strict=True):
            found[index] = replace(found[index], p_holm=p)
    return found


def objections(first: Executed, other: Executed) -> list[str]:
    """Why the figures of two runs, of whichever metric, are not of the same thing; empty when they are."""
    reasons = []
    ours, theirs = set(first.speakers["speaker"]), set(other.speakers["speaker"])
    if ours != theirs:
        reasons.append(
            f"other speakers: {len(ours & theirs)} in both, {len(ours - theirs)} only in {first.name}, "
            f"{len(theirs - ours)} only in {other.name}"
        )
    if first.tasks and other.tasks:
        if first.tasks != other.tasks:
            reasons.append("other test tasks (recordings to adapt on, or texts to say)")
    else:
        reasons += _unlike_data(first, other, "data/episodes", "other test tasks, or other tasks beside them")
    reasons += _unlike_data(first, other, "data/prepared", "other recordings, or other features of them")
    reasons += [_unlike(first, other, key) for key in MEASURING if _differs(first, other, key)]
    return reasons


def _pair(first: Executed, other: Executed, step: int | None) -> Iterable[Difference]:
    general = objections(first, other)
    at, there = _conditions(first), _conditions(other)
    common = [key for key in at if key in there and key[0]]
    for model in dict.fromkeys(key[0] for key in common):
        mine = [key for key in common if key[0] == model]
        shots = headline_shots([key[2] for key in mine], _number(first, "episodes.shots"))
        heard = [key for key in mine if key[2] == shots]
        chosen = headline_step([key[3] for key in heard], _number(first, "adapt.tune_steps")) if step is None else step
        for key in heard:
            if key[3] == chosen:
                for metric in COMPARED:
                    if metric in at[key] and metric in there[key]:
                        reasons = general + _special(first, other, model, metric)
                        one = _difference(other.name, key, metric, at[key][metric], there[key][metric], reasons)
                        if one.speakers:
                            yield one


def _difference(
    name: str, key: tuple[str, str, int, int], metric: str, ours: pd.Series[float], theirs: pd.Series[float],
    reasons: Sequence[str],
) -> Difference:  # fmt: skip
    both = pd.DataFrame({"ours": ours, "theirs": theirs}).dropna().sort_index()  # aligned by the speaker
    change = both["theirs"] - both["ours"]
    interval = cluster_bootstrap(change)
    count = len(both)
    if not reasons and smallest_p(count) > LEVEL:
        reasons = [f"{count} speakers: with fewer than {SMALL} no difference is significant"]
    p = float("nan") if reasons else sign_flip_test(change)
    means = (float(both["ours"].mean()), float(both["theirs"].mean()))
    return Difference(
        name, *key, metric, means, interval.mean, interval.low, interval.high, count, p, p, "; ".join(reasons)
    )


def _special(first: Executed, other: Executed, model: str, metric: str) -> list[str]:
    """Objections to one metric of one system."""
    reasons = []
    if metric == "loss":
        keys = sorted({key for run in (first, other) for key in run.params if key.startswith(f"{model}.")})
        reasons += [
            f"the loss of another model: {_unlike(first, other, key)}" for key in keys if _differs(first, other, key)
        ]
    if "+" in model:
        reasons += [_unlike(first, other, key) for key in VOCODING if _differs(first, other, key)]
    return reasons


def _conditions(run: Executed) -> dict[tuple[str, str, int, int], pd.DataFrame]:
    found = {}
    for key, rows in run.speakers.groupby(["model", "algorithm", "shots", "step"], sort=False):
        model, algorithm, shots, step = cast(tuple[str, str, int, int], key)
        found[model, algorithm, int(shots), int(step)] = rows.set_index("speaker").select_dtypes("number")
    return found


def _unlike_data(first: Executed, other: Executed, path: str, said: str) -> list[str]:
    ours, theirs = first.data.get(path), other.data.get(path)
    if ours and theirs:
        return [] if ours == theirs else [said]
    return [f"it is not known whether {path} was the same: its digest was not logged"]


def _differs(first: Executed, other: Executed, key: str) -> bool:
    return key in first.params and key in other.params and first.params[key] != other.params[key]


def _unlike(first: Executed, other: Executed, key: str) -> str:
    return f"{key} is {first.params.get(key)} and {other.params.get(key)}"


def _number(run: Executed, key: str) -> int:
    """0 where it is unknown."""
    try:
        return int(json.loads(run.params.get(key, "0")))
    except (ValueError, TypeError):
        return 0
