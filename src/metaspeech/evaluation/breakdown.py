"""Where the damage comes from: what is measured between a recording and the end of a chain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from metaspeech.evaluation.style import label, number
from metaspeech.evaluation.summary import Summary
from metaspeech.evaluation.systems import COPY, REAL, System

METRICS = ("phoneme_error", "similarity", "mcd")


@dataclass(frozen=True)
class Place:
    """Where on the way something was measured."""

    label: str
    model: str  # name of a system; empty for a reference
    reference: str = ""  # REAL or COPY


@dataclass(frozen=True)
class Breakdown:
    """A system with a vocoder, at its headline step, over the queries that every system rendered.

    Attributes:
        places: the recording, then what is lost by each part alone, then the whole.
        table: rows of ``Summary.shared`` at that step, and the references.
    """

    system: System
    places: tuple[Place, ...]
    table: pd.DataFrame

    def measured(self, place: Place, metric: str) -> dict[str, tuple[float, float, float]]:
        """Algorithm (of a reference: its name) -> mean, and the bounds of its interval."""
        rows = self.table[(self.table["model"] == place.model) & (self.table["metric"] == metric)]
        rows = rows[rows["algorithm"] == place.reference] if place.reference else rows
        fields = rows[["mean", "low", "high"]].astype(float).itertuples(index=False, name=None)
        return dict(zip(rows["algorithm"], fields, strict=True))

    def sentence(self, metric: str, name: str, algorithm: str) -> str | None:
        """How much of a chain's distance to the recordings each of its parts accounts for: differences of means."""
        vocoder = self.system.vocoder
        on_the_way = [REAL, vocoder, self.system.name]
        found = [
            self.measured(place, metric).get(place.reference or algorithm)
            for place in self.places
            if (place.reference or place.model) in on_the_way
        ]
        if self.system.role != "chain" or None in found:
            return None
        real, copy, whole = (one[0] for one in found if one)
        return (
            f"{label(algorithm)}, {name}: {number(real)} in the recordings, {number(copy)} after {vocoder} alone, "
            f"{number(whole)} at the end. {vocoder} accounts for {number(copy - real, signed=True)}, "
            f"{self.system.acoustic} for {number(whole - copy, signed=True)}."
        )


def breakdowns(summary: Summary) -> list[Breakdown]:
    """One for each chain, or for each vocoder where there is no acoustic model."""
    systems = summary.systems
    last = [system for system in systems if system.role == "chain"]
    last = last or [system for system in systems if system.role == "vocoder"]
    return [_breakdown(summary, system) for system in last]


def _breakdown(summary: Summary, system: System) -> Breakdown:
    alone = replace(system, acoustic=None)
    places = [
        Place(label(REAL), "", REAL),
        Place("recorded mel + Griffin-Lim", "", COPY),
        Place(alone.route, alone.name),
    ]
    if system.role == "chain":
        acoustic = replace(system, vocoder=None)
        places += [Place(acoustic.route, acoustic.name), Place(system.route, system.name)]
    table, order = summary.shared, summary.settings["algorithms"]
    headline = (table["step"] == system.headline_step) & (table["shots"] == summary.settings["shots"])
    table = table[(table["model"] == "") | headline]
    table = table.assign(order=[order.index(one) if one in order else -1 for one in table["algorithm"]])
    return Breakdown(system, tuple(places), table.sort_values("order", kind="stable"))
