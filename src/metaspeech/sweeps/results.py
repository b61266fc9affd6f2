"""What has come of a study: its trials as a table, the best of them, and which keys mattered."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaspeech.sweeps.space import Choice, Objective, Space, assignment
from metaspeech.sweeps.study import REASON, RETRY_OF, SAME_AS, SECONDS
from metaspeech.tracking.trials import Trial

if TYPE_CHECKING:
    import optuna

ENOUGH = 10  # complete trials from which on importance is worth a look
STATES = {
    "COMPLETE": "complete",
    "PRUNED": "stopped early",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "queued",
}


@dataclass(frozen=True)
class Row:
    """A trial."""

    number: int
    state: str
    params: Mapping[str, Any]  # as Optuna has them: lists as their JSON
    values: list[float]  # of the objectives; empty unless complete
    seconds: float | None
    note: str
    best: bool  # the best, or one of the front
    experiment: str  # of DVC; empty where there is none


@dataclass(frozen=True)
class Results:
    """A study to look at."""

    study: str
    space: Space
    rows: list[Row]
    importance: dict[str, dict[str, float]]  # objective -> key -> share; empty with too few trials
    code: str

    @property
    def complete(self) -> list[Row]:
        return [row for row in self.rows if row.values]

    @property
    def best(self) -> list[Row]:
        """The front by its first objective, the best first."""
        first = self.space.objectives[0].sign
        return sorted((row for row in self.rows if row.best), key=lambda row: -first * row.values[0])

    def count(self, state: str) -> int:
        return sum(row.state == state for row in self.rows)

    def rerun(self, row: Row) -> str:
        """The command that runs a trial's values, up to the report, in the project as it is now."""
        values = {**self.space.fixed, **self.space.values(row.params)}
        settings = " ".join(f"-S {shlex.quote(assignment(key, value))}" for key, value in values.items())
        return f"dvc exp run -n {self.study}-{row.number}-again {settings}"


def results(study: optuna.Study, space: Space, name: str) -> Results:
    """Of a study in any state."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = {trial.number for trial in study.best_trials} if complete else set()
    rows = []
    for trial in trials:
        own = trial.user_attrs
        origin = own.get(SAME_AS, trial.number)
        note = own.get(REASON, "") or (f"as trial {own[SAME_AS]}" if SAME_AS in own else "")
        note = note or (f"trial {own[RETRY_OF]} again" if RETRY_OF in own else "")
        done = trial.state == TrialState.COMPLETE
        rows.append(
            Row(
                number=trial.number,
                state=STATES[trial.state.name],
                params=dict(trial.params),
                values=list(trial.values) if done else [],
                seconds=own.get(SECONDS),
                note=note,
                best=trial.number in best and SAME_AS not in own,
                experiment=f"sweep-{name}-{origin}" if done else "",
            )
        )
    code = study.user_attrs.get("code", {}).get("code", "")
    return Results(name, space, rows, importance(study, space.objectives, len(complete)), code)


def ended(study: optuna.Study, space: Space, name: str) -> list[Trial]:
    """Trials with an end of their own, for their MLflow runs; not those that took the figures of another."""
    from optuna.trial import TrialState

    names = [one.name for one in space.objectives]
    return [
        Trial(
            number=trial.number,
            name=f"sweep-{name}-{trial.number}",
            state=STATES[trial.state.name],
            ended=int(trial.datetime_complete.timestamp() * 1000),
            # of one that was stopped Optuna keeps the last loss on the way, which is no objective
            figures=dict(zip(names, trial.values, strict=True)) if trial.state == TrialState.COMPLETE else {},
            params=space.values(trial.params),
        )
        for trial in study.get_trials(deepcopy=False)
        if trial.datetime_complete and SECONDS in trial.user_attrs
    ]


def importance(study: optuna.Study, objectives: Sequence[Objective], complete: int) -> dict[str, dict[str, float]]:
    """The share of each key in the variance of each objective (fANOVA, Hutter et al. 2014)."""
    import optuna

    if complete < ENOUGH:
        return {}
    found = {}
    for place, objective in enumerate(objectives):
        try:
            found[objective.name] = optuna.importance.get_param_importances(
                study,
                evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
                target=lambda trial, place=place: trial.values[place],  # type: ignore[misc]
            )
        except (ValueError, RuntimeError):  # all trials alike
            continue
    return found


def numeric(space: Space, key: str) -> bool:
    return not isinstance(space.search[key], Choice)
