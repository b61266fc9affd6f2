"""What the evaluation of a system shows, in words."""

from __future__ import annotations

from dataclasses import dataclass

from metaspeech.evaluation.comparisons import BASELINE
from metaspeech.evaluation.summary import Summary
from metaspeech.report import sentences as say
from metaspeech.report.speed import speed_sentence
from metaspeech.report.trust import doubt_sentence
from metaspeech.report.view import MEASURED_BY, NAMES, View


@dataclass(frozen=True)
class Findings:
    """The claim, how much faster than the baseline, and the numbers and limits that belong to it."""

    headline: str
    details: list[str]
    speed: str | None = None


def findings(summary: Summary, name: str) -> Findings:
    """What the evaluation of a system shows at its headline step, by tests adjusted over the algorithms."""
    view = View(summary, name)
    if not view.algorithms:
        return Findings("Nothing was adapted, so there is nothing to report.", [])
    metric = view.metric
    if metric is None:
        wanted = ", ".join(NAMES[one] for one in MEASURED_BY[view.system.role] if one in NAMES)
        return Findings(f"Nothing to compare was measured: evaluate.judges gives none of {wanted}.", [])
    best = view.best(metric)
    compared = view.against(BASELINE, metric)
    adaptation = say.adaptation_sentence(view, best, metric)
    headline = say.headline(view, metric, compared) if len(compared) else adaptation
    details = [
        say.evidence_sentence(view, metric, compared) if len(compared) else None,
        say.price(view, best, metric),
        say.loss_sentence(view) if metric != "loss" and view.has("loss") else None,
        say.beyond_the_start(view),
        say.catching_up(view, metric, compared),
        adaptation if len(compared) else None,
        say.every_start(view, metric) if view.system.role == "vocoder" else None,
        say.instead_of_griffin_lim(view, best) if view.system.vocoder else None,
        say.intelligibility(view, best) if view.system.acoustic else None,
        say.failures(view),
        doubt_sentence(summary),
        say.power(view),
    ]
    return Findings(headline, [one for one in details if one], speed_sentence(view, metric))


def best_algorithm(summary: Summary, name: str) -> str | None:
    """The one that the findings of a system are about; None where nothing was measured."""
    view = View(summary, name)
    return view.best(view.metric) if view.algorithms and view.metric else None
