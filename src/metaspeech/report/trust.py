"""Whether the figures can be believed: what the judges were tried on, and what must not have been seen before."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from metaspeech.evaluation.style import number
from metaspeech.evaluation.summary import Summary
from metaspeech.report.view import doubted


@dataclass(frozen=True)
class Check:
    """A line of a list of checks."""

    name: str
    what: str
    found: str
    expected: str
    passed: bool


def judge_checks(summary: Summary) -> list[Check]:
    """What each judge was tried on: recordings, other speakers, wrong texts, noise."""
    return [
        Check(str(row["judge"]), str(row["check"]), _value(row), str(row["expected"]), bool(row["passed"]))
        for _, row in summary.checks.iterrows()
    ]


def leakage_checks(summary: Summary) -> list[Check]:
    """What must not have been part of training. A leak stops the evaluation; what did not pass here is not certain."""
    return [
        Check(str(row["check"]), "", str(row["detail"]), "", bool(row["passed"]))
        for _, row in summary.leakage.iterrows()
    ]


def doubt_sentence(summary: Summary) -> str | None:
    """Names the measures that are marked, so that nobody quotes them; None where there are none."""
    labels = summary.columns.set_index("name")["label"]
    marked = [str(labels[name]) for name in doubted(summary)]
    if not marked:
        return None
    verb, whose = ("is", "its judge") if len(marked) == 1 else ("are", "their judges")
    return (
        f"{_listed(marked)} {verb} struck through and quoted nowhere: {whose} failed the check on real speech, other "
        "speakers, wrong texts or noise."
    )


def _value(row: pd.Series) -> str:
    value, low, high = (float(row[name]) if row[name] is not None else math.nan for name in ("value", "low", "high"))
    bounds = f" ({number(low)} to {number(high)})" if math.isfinite(low) and math.isfinite(high) else ""
    return number(value) + bounds


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
