"""Does each judge hear what it should, on the very speakers and texts of this evaluation?

The recordings are put before it, then the same with a wrong text, noise in their place, and other speakers' names. What
a judge says of syntheses is worth nothing where it fails here: a recogniser trained on adults may be deaf to these
voices, an encoder may not tell these speakers apart.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from metaspeech.evaluation.judges.base import Candidate, Query
from metaspeech.evaluation.judges.phonemes import WORD
from metaspeech.evaluation.judges.sentences import CHOICES
from metaspeech.evaluation.statistics import Interval, cluster_bootstrap
from metaspeech.evaluation.summary import CHECKS
from metaspeech.evaluation.systems import COPY, REAL
from metaspeech.evaluation.verification import equal_error_rate, similarities, verification

SPEAKERS = 12  # at most: each with one recording
WRONG_TEXT, NOISE = "wrong text", "noise"
OF_CONTENT = ("phonemes", "sentences")  # judges that compare with the text
_SHUFFLES = 200
_NOWHERE = Interval(float("nan"), float("nan"), float("nan"), 0)


def probe(judges: Mapping[str, Any], query: Query, texts: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Rows of speaker, ``probe`` and scores: the recording with a wrong text, and noise with the right one.

    Args:
        judges: name -> judge, of :class:`~metaspeech.evaluation.judges.base.Judge`.
        texts: of the evaluation; the one that has the fewest words in common with the query's is the wrong one.
        seed: of the noise, which is white, as long and as loud as the recording.
    """
    base: dict[str, Any] = {"speaker": query.speaker}
    noise = {**base, "probe": NOISE}
    for judge in judges.values():
        noise.update(judge(query, [Candidate(white_noise(query, seed))])[0])
    rows = [noise]
    wrong = wrong_text(query.text, texts)
    if wrong is not None:
        misled = Query(query.utt_id, query.speaker, wrong, query.audio)
        row = {**base, "probe": WRONG_TEXT}
        for name in OF_CONTENT:
            row.update(judges[name](misled, [Candidate(query.audio)])[0] if name in judges else {})
        rows.append(row)
    return rows


def white_noise(query: Query, seed: int) -> np.ndarray:
    noise = np.random.default_rng(zlib.crc32(f"{seed} {query.utt_id}".encode())).normal(size=len(query.audio))
    level = np.sqrt(np.mean(query.audio**2) / np.mean(noise**2))
    return np.asarray(np.clip(level * noise, -1, 1), dtype=np.float32)


def wrong_text(text: str, texts: Sequence[str]) -> str | None:
    """None where there is no other text."""
    own = WORD.findall(text.lower())
    others = {other: WORD.findall(other.lower()) for other in sorted(set(texts))}
    others = {other: words for other, words in others.items() if words and words != own}
    return min(others, key=lambda other: len(set(own) & set(others[other])), default=None)


@dataclass(frozen=True)
class Trial:
    """What there is to check judges by: utterances with their scores."""

    real: pd.DataFrame
    copy: pd.DataFrame
    probes: pd.DataFrame
    resamples: int
    seed: int

    def mean(self, table: pd.DataFrame, metric: str) -> Interval:
        if metric not in table or table.empty:
            return _NOWHERE
        means = table.groupby("speaker")[metric].mean().astype(float)
        return cluster_bootstrap(means, resamples=self.resamples, seed=self.seed)

    def of(self, probe: str, metric: str) -> Interval:
        return self.mean(self.probes[self.probes["probe"] == probe], metric)


Row = tuple[str, Interval, str, bool]  # check, value, expected, passed


def verdicts(
    judges: Sequence[str], references: pd.DataFrame, probes: Sequence[Mapping[str, Any]], *, resamples: int, seed: int
) -> pd.DataFrame:
    """A row a judge and check: value, low, high, what was ``expected``, whether it ``passed``.

    Bounds are a bootstrap interval over speakers where there is one. A check without a measurement is not passed.

    Args:
        judges: names of those that were asked.
        references: the rows of the utterance table of real recordings and their copies.
        probes: rows of :func:`probe`.
        resamples, seed: of speakers.
    """
    real, copy = (references[references["algorithm"] == kind] for kind in (REAL, COPY))
    table = pd.DataFrame(probes, columns=None if probes else ["speaker", "probe"])
    trial = Trial(real, copy, table, resamples, seed)
    rows: list[dict[str, Any]] = []
    for name in judges:
        for check, value, expected, passed in _CHECKS[name](trial) if name in _CHECKS else []:
            found = {"judge": name, "check": check, "value": value.mean, "low": value.low, "high": value.high}
            rows.append({**found, "expected": expected, "passed": bool(passed)})
    return pd.DataFrame(rows, columns=CHECKS)


def failed(checks: pd.DataFrame) -> set[str]:
    """Judges with a check that they did not pass."""
    return set(checks.loc[~checks["passed"].astype(bool), "judge"])


def _distances(*metrics: str) -> Callable[[Trial], list[Row]]:
    """Of judges that compare with the recording. By the first metric noise is told from copy synthesis."""

    def check(trial: Trial) -> list[Row]:
        most = float(trial.real[list(metrics)].abs().max().max())
        copy, noise = trial.mean(trial.copy, metrics[0]), trial.of(NOISE, metrics[0])
        return [
            ("recordings against themselves", Interval(most, np.nan, np.nan, 0), "0", most == 0),
            ("noise", noise, f"beyond {copy.mean:.2f}, that of copy synthesis", noise.mean > copy.mean),
        ]

    return check


def _similarity(trial: Trial) -> list[Row]:
    real, noise = trial.mean(trial.real, "similarity"), trial.of(NOISE, "similarity")
    recordings, shuffled = _verified(trial)
    return [
        ("EER of recordings", recordings, "at most 0.2", recordings.mean <= 0.2),
        ("EER with shuffled speakers", shuffled, "about 0.5", 0.4 <= shuffled.mean <= 0.6),
        ("noise", noise, f"below {real.low:.2f}, the recordings' lower bound", noise.mean < real.low),
    ]


def _verified(trial: Trial) -> tuple[Interval, Interval]:
    """The equal error rate of the recordings, and its mean and range where speakers' names are shuffled."""
    heard = trial.real[trial.real["similarity"].notna()]
    names = sorted(set(trial.real["speaker"]))
    if heard.empty or len(names) < 2:
        return _NOWHERE, _NOWHERE
    scores = similarities(heard, names)
    speakers = np.array([names.index(speaker) for speaker in heard["speaker"]])
    rng = np.random.default_rng(trial.seed)
    rates = []
    for _ in range(_SHUFFLES):
        target = rng.permutation(len(names))[speakers][:, None] == np.arange(len(names))
        rates.append(equal_error_rate(scores[target], scores[~target]))
    low, high = np.quantile(rates, [0.025, 0.975])
    own = verification(list(heard["speaker"]), scores, resamples=trial.resamples, seed=trial.seed)
    return own, Interval(float(np.mean(rates)), float(low), float(high), len(names))


def _phonemes(trial: Trial) -> list[Row]:
    metric = "phoneme_error"
    real, wrong, noise = trial.mean(trial.real, metric), trial.of(WRONG_TEXT, metric), trial.of(NOISE, metric)
    least = max(0.8, real.mean + 0.2)
    return [
        ("recordings", real, "at most 0.6", real.mean <= 0.6),
        ("wrong text", wrong, f"at least {least:.2f}", wrong.mean >= least),
        ("noise", noise, "at least 0.8", noise.mean >= 0.8),
    ]


def _sentences(trial: Trial) -> list[Row]:
    metric = "sentence_accuracy"
    real, wrong, noise = trial.mean(trial.real, metric), trial.of(WRONG_TEXT, metric), trial.of(NOISE, metric)
    most = 1 / max(1, min(CHOICES, trial.real["text"].nunique())) + 0.1
    expected = f"at most {most:.2f}, chance and 0.1"
    return [
        ("recordings", real, "at least 0.7", real.mean >= 0.7),
        ("wrong text", wrong, expected, wrong.mean <= most),
        ("noise", noise, expected, noise.mean <= most),
    ]


def _mos(trial: Trial) -> list[Row]:
    real, noise = trial.mean(trial.real, "mos"), trial.of(NOISE, "mos")
    most = real.mean - 0.5
    return [("noise", noise, f"at most {most:.2f}, 0.5 less than the recordings", noise.mean <= most)]


# Attention needs none: it is counted, not heard
_CHECKS: dict[str, Callable[[Trial], list[Row]]] = {
    "mcd": _distances("mcd"),
    "f0": _distances("voicing_error", "f0_error"),
    "prosody": _distances("energy_error", "duration_error"),
    "similarity": _similarity,
    "phonemes": _phonemes,
    "sentences": _sentences,
    "mos": _mos,
}
