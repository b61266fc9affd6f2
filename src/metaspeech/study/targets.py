"""What a study asks of a system, answered from a run's tables: met or missed, with the figure.

All of it is about the headline step and shots of the run (5 and 5 by default), with the speaker as the unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from metaspeech.errors import UserError
from metaspeech.evaluation.comparisons import BASELINE
from metaspeech.evaluation.statistics import Interval, cluster_bootstrap, expanded_tail
from metaspeech.evaluation.style import number
from metaspeech.evaluation.summary import Summary
from metaspeech.evaluation.systems import REAL, System

RESAMPLES, SEED = 2000, 0


@dataclass(frozen=True)
class Found:
    """The tables of one run.

    Attributes:
        summary: of the evaluation.
        speakers: see :func:`metaspeech.evaluation.summary.speaker_means`.
    """

    summary: Summary
    speakers: pd.DataFrame

    def of(self, system: System, algorithm: str, step: int) -> pd.DataFrame:
        """A row a speaker, at the headline shots. Raises UserError when nothing was measured there."""
        table, shots = self.speakers, self.summary.settings["shots"]
        here = (table["model"] == system.name) & (table["algorithm"] == algorithm)
        rows: pd.DataFrame = table[here & (table["shots"] == shots) & (table["step"] == step)]
        if rows.empty:
            raise UserError(f"the run has nothing of {system.name}, {algorithm}, {shots} shots, step {step}")
        return rows.set_index("speaker")

    def trusted(self, metric: str) -> bool:
        """Whether it was measured, by a judge that passed its own checks."""
        return metric in self.speakers and bool(self.summary.columns.set_index("name")["trusted"].get(metric, False))

    def real(self) -> pd.DataFrame:
        """A row a speaker: the recordings."""
        rows: pd.DataFrame = self.speakers[(self.speakers["model"] == "") & (self.speakers["algorithm"] == REAL)]
        return rows.set_index("speaker")


@dataclass(frozen=True)
class Answer:
    """Whether a target was met, and the sentence that says by how much."""

    met: bool
    figure: str


def doubtful(name: str) -> str:
    return f"{name}: its judge fails its own checks here"


def steps(found: Found, system: System, algorithm: str) -> Answer:
    """At the headline step as good as the baseline at its last one, and certainly better than the baseline there.

    By query loss and speaker similarity, both of them.
    """
    told, met = list[str](), True
    for metric, name, sign in (("loss", "query loss", -1), ("similarity", "similarity", 1)):
        if not found.trusted(metric):
            told, met = [*told, doubtful(name)], False
            continue
        own = found.of(system, algorithm, system.headline_step)[metric]
        mark = found.of(system, BASELINE, system.steps[-1])[metric].mean()
        ahead = _interval(own - found.of(system, BASELINE, system.headline_step)[metric])
        certain = ahead.low > 0 if sign > 0 else ahead.high < 0
        met &= bool(sign * (own.mean() - mark) >= 0) and certain
        told.append(
            f"{name} {number(own.mean())} after {_steps(system.headline_step)}, {BASELINE}'s {number(mark)} after "
            f"{system.steps[-1]}; {_signed(ahead)} against {BASELINE} after as many"
        )
    return Answer(met, "; ".join(told))


def similarity(found: Found, system: System, algorithm: str, share: float = 0.7) -> Answer:
    """So far on the way from the similarity of other speakers' recordings to that of the speaker's own."""
    if not found.trusted("similarity"):
        return Answer(False, doubtful("similarity"))
    own, real = found.of(system, algorithm, system.headline_step)["similarity"], found.real()
    paired = pd.DataFrame({"own": own, "real": real["similarity"], "other": real["impostor_similarity"]}).dropna()
    way = _share(paired.to_numpy(float))
    draws = np.random.default_rng(SEED).integers(0, len(paired), size=(RESAMPLES, len(paired)))
    shares = [_share(paired.to_numpy(float)[draw]) for draw in draws]
    tail = expanded_tail(len(paired))
    low, high = np.quantile(shares, [tail, 1 - tail])
    means = paired.mean()
    return Answer(
        way >= share,
        f"{100 * way:.0f} % of the way ({100 * low:.0f} to {100 * high:.0f}): {number(means['own'])} between "
        f"{number(means['other'])}, other speakers' recordings, and {number(means['real'])}, the speaker's own",
    )


def intelligibility(found: Found, system: System, algorithm: str, allowed: float, stops: float = 0.02) -> Answer:
    """Phoneme error at most so far above that of the recordings, and fewer syntheses than ``stops`` without an end."""
    if not found.trusted("phoneme_error"):
        return Answer(False, doubtful("phoneme error"))
    own = found.of(system, algorithm, system.headline_step)
    above = _interval(own["phoneme_error"] - found.real()["phoneme_error"])
    failures = own["stop_failures"].sum() / max(1, own["utterances"].sum())
    return Answer(
        above.mean <= allowed and failures < stops,
        f"{_signed(above)} above the recordings' {number(found.real()['phoneme_error'].mean())}; "
        f"{own['stop_failures'].sum():.0f} of {own['utterances'].sum():.0f} syntheses did not stop",
    )


def hidden_cost(found: Found, system: System, algorithm: str) -> Answer:
    """Predicted opinion and phoneme error not certainly worse than the baseline's where it is as like the speaker.

    That is the baseline's first step with at least the similarity of the algorithm at the headline step, or its step of
    the highest similarity.
    """
    if not found.trusted("similarity"):
        return Answer(False, doubtful("similarity"))
    own = found.of(system, algorithm, system.headline_step)
    means = {step: found.of(system, BASELINE, step)["similarity"].mean() for step in system.steps}
    reached = [step for step, mean in means.items() if mean >= own["similarity"].mean()]
    step = reached[0] if reached else max(means, key=lambda one: means[one])
    other = found.of(system, BASELINE, step)
    heard = [metric for metric in ("mos", "phoneme_error") if found.trusted(metric)]
    told, met = [], bool(heard)
    for metric, name, sign in (("mos", "predicted opinion", 1), ("phoneme_error", "phoneme error", -1)):
        if metric not in heard:
            told.append(doubtful(name))
            continue
        difference = _interval(own[metric] - other[metric])
        met &= difference.high >= 0 if sign > 0 else difference.low <= 0
        told.append(f"{name} {number(own[metric].mean())}, {_signed(difference)} against {BASELINE}'s")
    like = "as like the speaker" if reached else "which comes no closer to the speaker than"
    place = f"after {_steps(step)}, {like} ({number(means[step])} and {number(own['similarity'].mean())})"
    return Answer(met, f"{'; '.join(told)} {place}")


def _steps(number: int) -> str:
    return f"{number} step{'s' * (number != 1)}"


def _interval(differences: Any) -> Interval:
    return cluster_bootstrap(differences, resamples=RESAMPLES, seed=SEED)


def _signed(interval: Interval) -> str:
    return f"{number(interval.mean, True)} ({number(interval.low, True)} to {number(interval.high, True)})"


def _share(rows: np.ndarray) -> float:
    """(speakers, 3): own, real and other speakers' similarity."""
    own, real, other = rows.mean(axis=0)
    return float((own - other) / (real - other))
