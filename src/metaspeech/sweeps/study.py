"""The study of a sweep in Optuna's storage: opened, compared with what it was begun with, and put in order."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaspeech import config
from metaspeech.errors import UserError
from metaspeech.sweeps.snapshot import Code
from metaspeech.sweeps.space import Choice, Range, Scalar, Space, label

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.journal"
SAMPLERS = ("tpe", "nsga2", "random")
NOT_OF_RESULTS = ("device", "devices", "threads", "engine", "tracking.")  # where and how fast, not what
STARTUP = 5  # trials that are never stopped early, and after which a median is trusted
RETRIES = 3  # of a trial that was interrupted
OWNER, RETRY_OF, REASON, SAME_AS, SECONDS = "owner", "retry_of", "reason", "same_as", "seconds"


def checked_name(name: str) -> str:
    """A name that can be part of a folder, a DVC experiment and a git ref. Raises UserError."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name):
        raise UserError(f"study: {name!r}: expected at most 40 small letters, digits and '-', such as 'inner-2'")
    return name


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """One sweep a study on this machine, else UserError: two would take each other's running trials for dead ones."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"study {name}: process {lock.read().strip()} is at it. Wait until it has ended, give that one more "
                "--jobs, or give this one another --study"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def open_study(
    name: str, folder: Path, storage: str, space: Space, base: Mapping[str, Any], code: Code, sampler: str, seed: int
) -> optuna.Study:
    """Makes a study, or goes on with one.

    Args:
        storage: URL of a database; empty: the file ``study.journal`` in ``folder``.
        base: nested params with the fixed values.
        code: that the trials run.

    Raises:
        UserError: the storage cannot be used, or the study was begun with another space, other params or other code.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            study_name=name,
            storage=storage or _journal(folder),
            directions=[one.direction for one in space.objectives],  # type: ignore[misc]
            load_if_exists=True,
        )
        study.sampler = _sampler(sampler, seed + len(study.trials))  # or an interrupted study would draw the same again
    except (ValueError, OSError, ImportError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        where = re.sub("//[^/@ ]*@", "//", storage) or folder / JOURNAL
        raise UserError(f"study {name}: {where} cannot be used: {str(error).splitlines()[0][:300]}") from None
    median = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_min_trials=2)
    study.pruner = median if space.prune else optuna.pruners.NopPruner()
    begun = study.user_attrs
    wanted = {"space": space.described(), "params": _compared(base), "code": {"code": str(code)}}
    for part, values in wanted.items():
        if part not in begun:
            study.set_user_attr(part, values)
        elif begun[part] != values:
            raise UserError(
                f"study {name} was begun otherwise: {_differences(begun[part], values)}. Its trials could not be "
                "compared with new ones: set this back, or begin another with --study"
            )
    return study


def load(name: str, folder: Path, storage: str) -> optuna.Study:
    """A study to look at. Raises UserError when there is none."""
    import optuna

    try:
        return optuna.load_study(study_name=name, storage=storage or _journal(folder))
    except KeyError:
        raise UserError(f"study {name}: there is none in {storage or folder}") from None


def draws(space: Space, count: int, seed: int) -> list[dict[str, Any]]:
    """Some values of the searched keys, at random."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    scratch = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.values(suggest(scratch.ask(), space.search)) for _ in range(count)]


def mend(study: optuna.Study) -> int:
    """Trials of this machine that a killed sweep has left running count as failed and wait to be run again.

    Call under :func:`alone`. Trials that other machines run in the same database are left to them.

    Returns:
        How many will be run again.
    """
    from optuna.trial import TrialState

    again = 0
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if trial.user_attrs.get(OWNER, owner()) == owner():
            again += retry(study, trial.number, "the sweep was killed")
    return again


def retry(study: optuna.Study, number: int, why: str) -> bool:
    """Counts a running trial as failed and puts its values in the queue, unless that has happened too often."""
    from optuna.trial import Trial, TrialState

    trial = study.get_trials(deepcopy=False)[number]
    Trial(study, trial._trial_id).set_user_attr(REASON, why)
    study.tell(number, state=TrialState.FAIL)
    before, origin = 0, trial
    while RETRY_OF in origin.user_attrs:
        before, origin = before + 1, study.get_trials(deepcopy=False)[origin.user_attrs[RETRY_OF]]
    if not trial.params or before >= RETRIES:
        return False
    study.enqueue_trial(trial.params, user_attrs={RETRY_OF: number})
    return True


def suggest(trial: optuna.Trial, search: Mapping[str, Range | Choice]) -> dict[str, Scalar]:
    """A value for each searched key."""
    chosen: dict[str, Scalar] = {}
    for key, domain in search.items():
        if isinstance(domain, Choice):
            chosen[key] = label(trial.suggest_categorical(key, domain.labels()))
        elif domain.whole:
            step = int(domain.step or 1)
            chosen[key] = trial.suggest_int(key, int(domain.low), int(domain.high), step=step, log=domain.log)
        else:
            chosen[key] = trial.suggest_float(key, domain.low, domain.high, step=domain.step, log=domain.log)
    return chosen


def owner() -> str:
    """Who runs a trial, in a database that several machines share."""
    return socket.gethostname()


def _journal(folder: Path) -> optuna.storages.BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    file = str(folder / JOURNAL)
    return JournalStorage(JournalFileBackend(file, lock_obj=JournalFileOpenLock(file)))


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=12)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8, multivariate=True, constant_liar=True)


def _compared(base: Mapping[str, Any]) -> dict[str, Any]:
    flat = config.flat(config.from_mapping(base))
    return {key: value for key, value in flat.items() if not key.startswith(NOT_OF_RESULTS)}


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    shown = [f"{key}: {before.get(key, 'absent')} -> {now.get(key, 'absent')}" for key in keys[:6]]
    return "; ".join(shown) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")
