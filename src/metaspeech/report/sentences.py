"""Sentences about one system. What the data do not show is not said."""

from __future__ import annotations

from typing import Any

import pandas as pd

from metaspeech.evaluation.comparisons import AS_IS, BASELINE, COMPARED, GRIFFIN_LIM, START
from metaspeech.evaluation.statistics import smallest_p
from metaspeech.evaluation.style import label, number, p_value
from metaspeech.report.view import LEVEL, View, after, baseline

UNINTELLIGIBLE = 0.9  # phoneme error; a wrong text has 0.95 to 1.08
PRICES = ("phoneme_error", "mos", "mcd")  # what similarity may be bought with
AHEAD = {
    "similarity": "is closer to unseen speakers than",
    "phoneme_error": "is more intelligible than",
    "mcd": "is closer to the recordings than",
    "loss": "predicts unseen speakers better than",
}


def headline(view: View, metric: str, compared: pd.DataFrame) -> str:
    """The claim without its numbers."""
    best, start = compared.iloc[0], after(view.step)
    name, noun = label(best["algorithm"]), _noun(view)
    if best["ahead"]:
        errors = view.against(BASELINE, "phoneme_error")
        errors = errors[errors["algorithm"] == best["algorithm"]]
        dearer = metric != "phoneme_error" and bool(errors["behind"].any())
        price = ", but less intelligible" if dearer else ""
        return f"{start}, a {noun} from {name} {AHEAD[metric]} one from {baseline()}{price}."
    if compared["behind"].all():
        return f"{start}, {baseline()} is ahead of every other start in {view.name(metric)}."
    return f"{start}, no other start is measurably ahead of {baseline()} in {view.name(metric)}."


def evidence_sentence(view: View, metric: str, compared: pd.DataFrame) -> str:
    """The numbers of the headline, and where the other algorithms stand."""
    best = compared.iloc[0]
    name = best["algorithm"]
    ours, theirs = number(view.mean(metric, name)), number(view.mean(metric, BASELINE))
    rank = f" (the best of {len(compared)})" if len(compared) > 1 else ""
    measured = view.name(metric).capitalize()
    text = f"{measured}: {label(name)}{rank} {ours}, {baseline()} {theirs}; difference {_evidence(best)}"
    text += "." if best["ahead"] or best["behind"] else ", which chance alone could give."
    others = compared.iloc[1:]
    text += _others(others[others["ahead"]], f"also ahead of {baseline()}")
    return text + _others(others[others["behind"]], f"behind {baseline()}")


def _others(rows: pd.DataFrame, what: str) -> str:
    names = [label(name) for name in rows["algorithm"]]
    return f" {' and '.join(names)} {'is' if len(names) == 1 else 'are'} {what}." if names else ""


def price(view: View, name: str, metric: str) -> str | None:
    """What else differs from the baseline: few-shot voices are often bought with intelligibility or quality."""
    told = []
    for other in PRICES:
        rows = view.against(BASELINE, other)
        for _, row in rows[rows["algorithm"] == name].iterrows() if other != metric and len(rows) else ():
            verdict = "better" if row["ahead"] else "worse" if row["behind"] else "no measurable difference"
            ours, theirs = number(view.mean(other, name)), number(view.mean(other, BASELINE))
            told.append(f"{view.name(other)} {ours} and {theirs} ({verdict}, {p_value(row['p_holm'])})")
    return f"What else differs, {label(name)} against {baseline()}: {'; '.join(told)}." if told else None


def loss_sentence(view: View) -> str | None:
    compared = view.against(BASELINE, "loss")
    if not len(compared):
        return None
    told = [
        f"{label(row['algorithm'])} {'lower' if row['ahead'] else 'higher'} by {number(abs(row['difference']))} "
        f"({p_value(row['p_holm'])})"
        for _, row in compared[compared["ahead"] | compared["behind"]].iterrows()
    ]
    start = f"{view.name('loss').capitalize()} {after(view.step).lower()}, against {baseline()}"
    return f"{start}: {'; '.join(told)}." if told else f"{start}: no measurable difference."


def beyond_the_start(view: View) -> str | None:
    """What meta-training adds to the common start, where that was adapted as it is too."""
    told, level = [], []
    for metric in COMPARED:
        rows = view.against(AS_IS, metric)
        if rows.empty or set(rows["algorithm"]) == {BASELINE}:
            continue
        rows = rows[(rows["ahead"] | rows["behind"]) & (rows["algorithm"] != BASELINE)]
        told += [
            f"{view.name(metric)} of {label(row['algorithm'])} {'better' if row['ahead'] else 'worse'} by "
            f"{number(abs(row['difference']))} ({p_value(row['p_holm'])})"
            for _, row in rows.iterrows()
        ]
        level += [view.name(metric)] if rows.empty else []
    if not told and not level:
        return None
    told += [f"no measurable difference in {', '.join(level)}"] if level else []
    return f"{after(view.step)}, against the common start as it is: {'; '.join(told)}."


def catching_up(view: View, metric: str, compared: pd.DataFrame) -> str | None:
    """How many steps the baseline needs for what the best has at the headline step."""
    if not len(compared) or not compared.iloc[0]["ahead"]:
        return None
    name = str(compared.iloc[0]["algorithm"])
    target = view.mean(metric, name)
    curve = {step: view.mean(metric, BASELINE, step) for step in view.steps(metric) if step > view.step}
    reached = [
        step
        for step, value in curve.items()
        if value is not None and target is not None and view.sign(metric) * (value - target) >= 0
    ]
    what = f"the {view.name(metric)} that {label(name)} has after {view.step}"
    if reached:
        return f"{label(BASELINE)} needs {reached[0]} steps for {what}."
    last = view.steps(metric)[-1]
    return f"{label(BASELINE)} does not come to {what} steps within the {last} that were measured."


def adaptation_sentence(view: View, name: str, metric: str) -> str:
    """What the support recordings do for one start, against its own step 0."""
    rows = view.against(START, metric)
    rows = rows[rows["algorithm"] == name] if len(rows) else rows
    start = f"Adapting {label(name)} on {view.shots} recordings in {view.step} step{'' if view.step == 1 else 's'}"
    if not len(rows):
        return f"{start} could not be compared with the {_noun(view)} before adaptation."
    row = rows.iloc[0]
    if not (row["ahead"] or row["behind"]):
        return f"{start} changes {view.name(metric)} by {_evidence(row)}, which chance alone could give."
    word = "improves" if row["ahead"] else "worsens"
    text = f"{start} {word} {view.name(metric)}: {_evidence(row)}."
    ceiling, before = view.ceiling(metric, name), view.mean(metric, name, 0)
    if row["ahead"] and ceiling is not None and before is not None and view.sign(metric) * (ceiling - before) > 0:
        share = row["difference"] / (ceiling - before)
        text += f" That is {share:.0%} of the way from the {_noun(view)} before adaptation to {view.copy}."
    return text


def every_start(view: View, metric: str) -> str | None:
    """Each start before and after adaptation."""
    told = []
    rows = view.against(START, metric)
    for name in view.algorithms:
        before, now = view.mean(metric, name, 0), view.mean(metric, name)
        if before is not None and now is not None and view.step:
            p = rows[rows["algorithm"] == name]["p_holm"]
            tested = f" ({p_value(float(p.iloc[0]))})" if len(p) else ""
            told.append(f"{label(name)} {number(before)} and {number(now)}{tested}")
    start = f"{view.name(metric).capitalize()} on unseen speakers before adaptation and {after(view.step).lower()}"
    return f"{start}: {'; '.join(told)}." if told else None


def intelligibility(view: View, name: str) -> str | None:
    metric = "phoneme_error"
    ours, ceiling = view.mean(metric, name), view.ceiling(metric, name)
    if ours is None or ceiling is None:
        return None
    text = (
        f"Phoneme error of {label(name)} {after(view.step).lower()}: {number(ours)}, where {view.copy} has "
        f"{number(ceiling)} and the real recordings have {number(view.references.get((metric, 'real')))}."
    )
    rows = view.against(START, metric)
    worse = [label(row["algorithm"]) for _, row in rows.iterrows() if row["behind"]] if len(rows) else []
    if ours >= UNINTELLIGIBLE:
        text += " That is about what a wrong text has: the synthesis is not intelligible."
    return f"{text} Adaptation raised the phoneme error of {' and '.join(worse)}." if worse else text


def instead_of_griffin_lim(view: View, name: str) -> str | None:
    """What the vocoder of a system changes, the same mels given to both."""
    told = []
    for metric in ("mcd", "phoneme_error", "similarity"):
        rows = view.against(GRIFFIN_LIM, metric)
        for _, row in rows[rows["algorithm"] == name].iterrows() if len(rows) else ():
            verdict = "better" if row["ahead"] else "worse" if row["behind"] else "no measurable difference"
            gap = number(row["difference"], signed=True)
            ours = number(view.mean(metric, name))
            told.append(f"{view.name(metric)} {ours}, difference {gap} ({verdict}, {p_value(row['p_holm'])})")
    what = "the recordings' mels" if view.system.role == "vocoder" else f"mels of {view.system.acoustic}"
    start = f"{view.system.vocoder} from {label(name)} in the place of Griffin-Lim, on {what}"
    return f"{start}: {'; '.join(told)}." if told else None


def failures(view: View) -> str | None:
    total = view.counts[["utterances", "stop_failures", "not_finite"]].sum()
    spoken, lost = int(total["utterances"]), int(total["not_finite"])
    unheard = f"{lost} had no finite values and could not be judged: their speakers lack them."
    if not view.system.acoustic:
        return f"Of {spoken} syntheses {unheard}" if lost else None
    text = f"{int(total['stop_failures'])} of {spoken} syntheses did not stop by themselves."
    return f"{text} {unheard}" if lost else text


def power(view: View) -> str | None:
    least = smallest_p(view.speakers) * max(1, len(view.algorithms) - 1)
    if least < LEVEL:
        return None
    return (
        f"With {view.speakers} test speakers and {len(view.algorithms)} algorithms no difference can reach "
        f"p below {LEVEL:g} in these tests. More test speakers are needed for a claim."
    )


def _noun(view: View) -> str:
    return "vocoder" if view.system.role == "vocoder" else "voice"


def _evidence(row: Any) -> str:
    """Difference, interval, number of speakers, adjusted p."""
    low, high = number(row["low"], signed=True), number(row["high"], signed=True)
    return (
        f"{number(row['difference'], signed=True)} (95 % interval {low} to {high}, {int(row['speakers'])} speakers, "
        f"adjusted {p_value(row['p_holm'])})"
    )
