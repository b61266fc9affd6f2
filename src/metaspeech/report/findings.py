"""Sentences about a summary. What the data do not show is not said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from metaspeech.evaluation.statistics import smallest_p
from metaspeech.evaluation.style import label, number, p_value
from metaspeech.evaluation.summary import BASELINE, START, Summary

LEVEL = 0.05
UNINTELLIGIBLE = 0.9  # phoneme error; a wrong text has 0.95 to 1.08
NAMES = {"loss": "query loss", "similarity": "speaker similarity", "phoneme_error": "phoneme error"}
AHEAD = {
    "similarity": "is closer to unseen speakers than",
    "phoneme_error": "is more intelligible than",
    "loss": "predicts unseen speakers better than",
}


@dataclass(frozen=True)
class Findings:
    """The claim, and the numbers and limits that belong to it."""

    headline: str
    details: list[str]


def findings(summary: Summary, model: str) -> Findings:
    """What the evaluation of ``model`` shows at the headline step, by tests adjusted over the algorithms."""
    view = _View(summary, model)
    if not view.algorithms:
        return Findings("Nothing was adapted, so there is nothing to report.", [])
    metric = next((name for name in ("similarity", "phoneme_error", "loss") if view.has(name)), "loss")
    best = view.best(metric)
    compared = view.against(BASELINE, metric)
    adaptation = _adaptation_sentence(view, best, metric)
    headline = _headline(view, metric, compared) if len(compared) else adaptation
    details = [
        _evidence_sentence(view, metric, compared) if len(compared) else None,
        _loss_sentence(view) if metric != "loss" else None,
        _catching_up(view, metric, compared),
        adaptation if len(compared) else None,
        _intelligibility(view, best),
        _failures(view),
        _power(view),
    ]
    return Findings(headline, [one for one in details if one])


class _View:
    """A summary seen from one model at the headline step and the evaluated shots."""

    def __init__(self, summary: Summary, model: str) -> None:
        settings = summary.settings
        self.step, self.shots, self.speakers = settings["headline_step"], settings["shots"], settings["speakers"]
        self.steps = sorted(settings["steps"])
        self.better = dict(zip(summary.columns["name"], summary.columns["better"], strict=True))
        conditions = summary.conditions
        mine = (conditions["model"] == model) & (conditions["shots"] == self.shots)
        self.means: dict[Any, float] = conditions[mine].set_index(["metric", "algorithm", "step"])["mean"].to_dict()
        self.references: dict[Any, float] = (
            conditions[conditions["model"] == ""].set_index(["metric", "algorithm"])["mean"].to_dict()
        )
        self.algorithms: list[str] = [
            name for name in settings["algorithms"] if any(key[1] == name for key in self.means)
        ]
        table = summary.comparisons
        self.comparisons: pd.DataFrame = (
            table[(table["model"] == model) & (table["shots"] == self.shots)] if len(table) else table
        )
        counts = summary.counts
        self.counts = counts[(counts["model"] == model) & (counts["shots"] == self.shots)]

    def has(self, metric: str) -> bool:
        return any(key[0] == metric and key[2] == self.step for key in self.means)

    def sign(self, metric: str) -> int:
        return 1 if self.better[metric] == "higher" else -1

    def mean(self, metric: str, algorithm: str, step: int | None = None) -> float | None:
        return self.means.get((metric, algorithm, self.step if step is None else step))

    def best(self, metric: str) -> str:
        measured = [name for name in self.algorithms if self.mean(metric, name) is not None]
        return max(measured or self.algorithms, key=lambda name: self.sign(metric) * (self.mean(metric, name) or 0.0))

    def against(self, other: str, metric: str) -> pd.DataFrame:
        """Comparisons at the headline step, those ahead and the best first, with columns gain, ahead and behind."""
        table = self.comparisons
        if table.empty:
            return table
        rows = table[(table["against"] == other) & (table["metric"] == metric) & (table["step"] == self.step)]
        gain, certain = self.sign(metric) * rows["difference"], rows["p_holm"] < LEVEL
        rows = rows.assign(gain=gain, ahead=certain & (gain > 0), behind=certain & (gain < 0))
        ordered: pd.DataFrame = rows.sort_values(["ahead", "gain"], ascending=False)
        return ordered


def _headline(view: _View, metric: str, compared: pd.DataFrame) -> str:
    """The claim without its numbers."""
    best, after = compared.iloc[0], _after(view.step)
    baseline, name = label(BASELINE).lower(), label(best["algorithm"])
    if best["ahead"]:
        errors = view.against(BASELINE, "phoneme_error")
        dearer = (
            metric != "phoneme_error" and len(errors) and errors.set_index("algorithm")["behind"][best["algorithm"]]
        )
        price = ", but less intelligible" if dearer else ""
        return f"{after}, a voice from {name} {AHEAD[metric]} one from {baseline}{price}."
    if compared["behind"].all():
        return f"{after}, {baseline} is ahead of every other start in {NAMES[metric]}."
    return f"{after}, no other start is measurably ahead of {baseline} in {NAMES[metric]}."


def _evidence_sentence(view: _View, metric: str, compared: pd.DataFrame) -> str:
    """The numbers of the headline, and where the other algorithms stand."""
    best, baseline = compared.iloc[0], label(BASELINE).lower()
    name = best["algorithm"]
    ours, theirs = number(view.mean(metric, name)), number(view.mean(metric, BASELINE))
    rank = f" (the best of {len(compared)})" if len(compared) > 1 else ""
    text = (
        f"{NAMES[metric].capitalize()}: {label(name)}{rank} {ours}, {baseline} {theirs}; difference {_evidence(best)}"
    )
    text += "." if best["ahead"] or best["behind"] else ", which chance alone could give."
    others = compared.iloc[1:]
    text += _others(others[others["ahead"]], f"also ahead of {baseline}")
    return text + _others(others[others["behind"]], f"behind {baseline}")


def _others(rows: pd.DataFrame, what: str) -> str:
    names = [label(name) for name in rows["algorithm"]]
    return f" {' and '.join(names)} {'is' if len(names) == 1 else 'are'} {what}." if names else ""


def _loss_sentence(view: _View) -> str | None:
    compared = view.against(BASELINE, "loss")
    if not len(compared):
        return None
    told = [
        f"{label(row['algorithm'])} {'lower' if row['ahead'] else 'higher'} by {number(abs(row['difference']))} "
        f"({p_value(row['p_holm'])})"
        for _, row in compared[compared["ahead"] | compared["behind"]].iterrows()
    ]
    start = f"Query loss {_after(view.step).lower()}, against {label(BASELINE).lower()}"
    return f"{start}: {'; '.join(told)}." if told else f"{start}: no measurable difference."


def _catching_up(view: _View, metric: str, compared: pd.DataFrame) -> str | None:
    """How many steps the baseline needs for what the best has at the headline step."""
    if not len(compared) or not compared.iloc[0]["ahead"]:
        return None
    name = str(compared.iloc[0]["algorithm"])
    target = view.mean(metric, name)
    curve = {step: view.mean(metric, BASELINE, step) for step in view.steps if step > view.step}
    reached = [
        step
        for step, value in curve.items()
        if value is not None and target is not None and view.sign(metric) * (value - target) >= 0
    ]
    baseline = label(BASELINE)
    if reached:
        return f"{baseline} needs {reached[0]} steps for the {NAMES[metric]} that {label(name)} has after {view.step}."
    return (
        f"{baseline} does not come to the {NAMES[metric]} that {label(name)} has after {view.step} steps within the "
        f"{view.steps[-1]} that were measured."
    )


def _adaptation_sentence(view: _View, name: str, metric: str) -> str:
    """What the support recordings do for one start, against its own step 0."""
    rows = view.against(START, metric)
    rows = rows[rows["algorithm"] == name] if len(rows) else rows
    start, after = f"Adapting {label(name)} on {view.shots} recordings", f"in {view.step} steps"
    if not len(rows):
        return f"{start} {after} could not be compared with the voice before adaptation."
    row = rows.iloc[0]
    if not (row["ahead"] or row["behind"]):
        return f"{start} {after} changes {NAMES[metric]} by {_evidence(row)}, which chance alone could give."
    word = "improves" if row["ahead"] else "worsens"
    text = f"{start} {after} {word} {NAMES[metric]}: {_evidence(row)}."
    ceiling, before = view.references.get((metric, "copy")), view.mean(metric, name, 0)
    if row["ahead"] and ceiling is not None and before is not None and view.sign(metric) * (ceiling - before) > 0:
        share = row["difference"] / (ceiling - before)
        text += f" That is {share:.0%} of the way from the voice before adaptation to copy synthesis."
    return text


def _intelligibility(view: _View, name: str) -> str | None:
    metric = "phoneme_error"
    ours, ceiling = view.mean(metric, name), view.references.get((metric, "copy"))
    if ours is None or ceiling is None:
        return None
    text = (
        f"Phoneme error of {label(name)} {_after(view.step).lower()}: {number(ours)}, where copy synthesis has "
        f"{number(ceiling)} and the real recordings have {number(view.references.get((metric, 'real')))}."
    )
    rows = view.against(START, metric)
    worse = [label(row["algorithm"]) for _, row in rows.iterrows() if row["behind"]] if len(rows) else []
    if ours >= UNINTELLIGIBLE:
        text += " That is about what a wrong text has: the synthesis is not intelligible."
    return f"{text} Adaptation raised the phoneme error of {' and '.join(worse)}." if worse else text


def _failures(view: _View) -> str:
    total = view.counts[["utterances", "stop_failures", "not_finite"]].sum()
    spoken = int(total["utterances"])
    text = f"{int(total['stop_failures'])} of {spoken} syntheses did not stop by themselves."
    if total["not_finite"]:
        text += f" {int(total['not_finite'])} had no finite values and could not be judged: their speakers lack them."
    return text


def _power(view: _View) -> str | None:
    least = smallest_p(view.speakers) * max(1, len(view.algorithms) - 1)
    if least < LEVEL:
        return None
    return (
        f"With {view.speakers} test speakers and {len(view.algorithms)} algorithms no difference can reach "
        f"p below {LEVEL:g} in these tests. More test speakers are needed for a claim."
    )


def _after(step: int) -> str:
    return f"After {step} adaptation step{'' if step == 1 else 's'}"


def _evidence(row: Any) -> str:
    """Difference, interval, number of speakers, adjusted p."""
    low, high = number(row["low"], signed=True), number(row["high"], signed=True)
    return (
        f"{number(row['difference'], signed=True)} (95 % interval {low} to {high}, {int(row['speakers'])} speakers, "
        f"adjusted {p_value(row['p_holm'])})"
    )
