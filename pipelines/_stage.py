"""The frame around every stage: params, tracking, metrics.json and readable errors.

A stage is a function that takes a :class:`Stage`; ``run_stage`` gives it one::

    def prepare(stage: Stage) -> None:
        ...
        stage.metrics({"utterances": 1200})

    if __name__ == "__main__":
        run_stage("prepare", prepare)
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from metaspeech import config
from metaspeech.errors import UserError
from metaspeech.tracking import Execution, Record, StageRun, current, stage_run
from metaspeech.tracking.lineage import upstream

RESULTS = Path("results")
RUNS = RESULTS / "runs"  # <stage>[/<item>].json: see metaspeech.tracking.record
DATA = ("data/corpus", "data/prepared", "data/episodes")  # what MLflow's list names as an execution's data sets
HEADLINE = [
    "seed",
    "seeds",
    "models",
    "algorithms",
    "corpus.source",
    "episodes.shots",
    "pretrain.steps",
    "inner",
    "meta_train.gradient_evaluations",
    "meta_train.meta_batch",
    "meta_train.rate",
    "per_model",
]
USER_ERROR = 2  # exit status of an error that the user can put right

Metrics = Mapping[str, "float | int | Mapping[str, float | int | None] | None"]


@dataclass(frozen=True)
class Stage:
    """What a stage is given."""

    name: str
    item: tuple[str, ...]  # the arguments of a matrix stage, e.g. ("tacotron", "maml", "1")
    params: config.Params  # of this item: what per_model says of its model, and its seed
    folder: Path  # results/<name>[/<item>], exists
    track: StageRun

    def metrics(self, values: Metrics) -> None:
        """Writes ``metrics.json`` (a flat or two-level dict of numbers) and logs the same numbers to tracking.

        Keep what differs from run to run of the same inputs (durations) out of it: that goes to ``track.log_metrics``.
        """
        rounded = {key: _rounded(value) for key, value in values.items()}
        path = self.folder / "metrics.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
        self.track.log_metrics(dict(_flat(rounded)))

    def records(self) -> list[Record]:
        """What the stages that these params ask for say of their last run, in the order of dvc.yaml."""
        return [Record.read(path) for path in _record_paths(self.params) if path.exists()]

    def mirror_cached(self) -> None:
        """Gives every stage that DVC took from its cache a run under this execution's parent run in MLflow.

        For the last stage.
        """
        self.track.mirror(self.records())


def run_stage(name: str, body: Callable[[Stage], None], arguments: list[str] | None = None) -> None:
    """Runs ``body`` and leaves the process: status 0, or 2 with one message for what the user can put right."""
    item = tuple(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(name, item, body)
    except UserError as error:
        _stop(name, item, str(error))
    except Exception as error:
        if not _disk_full(error):
            raise
        _stop(name, item, _disk_message(error))


def _run(name: str, item: tuple[str, ...], body: Callable[[Stage], None]) -> None:
    params = config.load("params.yaml")
    values = {key: value for key, value in config.flat(params).items() if value != {}}
    defaults = config.flat(config.Params())
    chosen = _chosen(name, item)
    keys, deps = _declared(name, chosen)
    execution = current(Path.cwd(), values)
    folder = RESULTS.joinpath(name, *(["-".join(item)] if item else []))
    folder.mkdir(parents=True, exist_ok=True)
    with (
        _alone("-".join((name, *item))),
        stage_run(
            name,
            "-".join(item),
            record=_record_path(name, item),
            params={key: value for key, value in values.items() if _covered(key, keys)} | _seed(chosen),
            execution=execution,
            headline={k: value for k, value in values.items() if value != defaults.get(k) or _covered(k, HEADLINE)},
            about=_about(params, execution),
            tags=chosen,
            inputs=upstream(Path("dvc.lock"), deps),
            data=DATA,
            experiment=params.tracking.experiment,
            name=_execution_name(params, execution),
            system_metrics=params.tracking.system_metrics,
        ) as track,
    ):
        own = config.for_model(params, chosen["model"]) if "model" in chosen else params
        body(Stage(name, item, replace(own, **_seed(chosen)), folder, track))


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """One process a stage: killing ``dvc repro`` may leave the stage that it started running, and writing."""
    digest = hashlib.sha256(f"{Path.cwd()}:{name}".encode()).hexdigest()[:12]
    with open(Path(tempfile.gettempdir()) / f"metaspeech-stage-{os.getuid()}-{digest}.lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip()
            raise UserError(
                f"process {owner} is still at this stage, left by a 'dvc repro' that was interrupted. Wait until it "
                f"has ended, or end it (kill {owner}); then start again: finished work is kept"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _dvc_stages() -> dict[str, Any]:
    """Of dvc.yaml; empty where there is none."""
    try:
        return dict(yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"])
    except FileNotFoundError:
        return {}


def _chosen(name: str, item: tuple[str, ...]) -> dict[str, str]:
    """The item by the names of the stage's matrix: ``{"model": "tacotron", "algorithm": "maml", "seed": "1"}``."""
    return dict(zip(_dvc_stages().get(name, {}).get("matrix", {}), item, strict=False))


def _declared(name: str, chosen: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The params and deps that dvc.yaml names for this stage."""
    stage = _dvc_stages().get(name, {})

    def filled(entry: str) -> str:
        for key, value in chosen.items():
            entry = entry.replace(f"${{item.{key}}}", value)
        return entry

    return [filled(key) for key in stage.get("params", [])], [filled(path) for path in stage.get("deps", [])]


def _seed(chosen: Mapping[str, str]) -> dict[str, int]:
    """The params that the item itself says."""
    return {"seed": int(chosen["seed"])} if "seed" in chosen else {}


def _execution_name(params: config.Params, execution: Execution) -> str:
    """Of the parent run: the DVC experiment, or what tells this execution from the others in a list."""
    state = f"{execution.commit[:7]}{'+' if execution.dirty else ''}-" if execution.commit else ""
    return execution.experiment or f"{_corpus(params)}-{state}{execution.params_hash[:4]}"


def _about(params: config.Params, execution: Execution) -> dict[str, str]:
    """What a list of runs shows of an execution."""
    return {
        "corpus": _corpus(params),
        "models": ", ".join(params.models),
        "algorithms": ", ".join(params.algorithms),
        "seeds": ", ".join(map(str, params.seeds)),
        "changed": " ".join(execution.overrides),
    }


def _corpus(params: config.Params) -> str:
    source = params.corpus.source
    return Path(params.corpus.path).name if source == "folder" else source


def _record_path(name: str, item: tuple[str, ...]) -> Path:
    return (RUNS / name / "-".join(item) if item else RUNS / name).with_suffix(".json")


def _record_paths(params: config.Params) -> list[Path]:
    """Of the stages that these params ask for: results/runs may hold more, of items asked for earlier."""
    values = {"${models}": params.models, "${algorithms}": params.algorithms, "${seeds}": params.seeds}
    return [
        _record_path(name, item)
        for name, stage in _dvc_stages().items()
        for item in itertools.product(*(map(str, values[source]) for source in stage.get("matrix", {}).values()))
    ]


def _covered(key: str, declared: list[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in declared)


def _rounded(value: Any) -> Any:
    """Six significant digits; None for what JSON cannot say."""
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    if value is None or isinstance(value, (bool, int)):
        return value
    return float(f"{float(value):.6g}") if math.isfinite(value) else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        elif value is not None:
            yield f"{prefix}{key}", float(value)


def _stop(name: str, item: tuple[str, ...], message: str) -> None:
    sys.stdout.flush()
    print(f"\nerror in {' '.join((name, *item))}: {message}", file=sys.stderr, flush=True)
    sys.exit(USER_ERROR)


def _disk_full(error: BaseException | None) -> bool:
    """Or a limit on files is reached. Also through libraries that keep the text of the system's error alone."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(said in str(error).lower() for said in ("no space left on device", "file too large")):
            return True
        error = error.__cause__ or error.__context__
    return False


def _disk_message(error: BaseException) -> str:
    named = getattr(error, "filename", None)
    folder = Path(named).parent if isinstance(named, str) else Path.cwd()
    free = shutil.disk_usage(folder if folder.is_dir() else Path.cwd()).free / 2**20
    return (
        f"the disk that holds {folder} is full ({free:.0f} MiB free), or files may not be as large. What was finished "
        "before is intact. Free some space ('dvc gc --workspace' drops results of earlier runs) and start again: it "
        "goes on where it stopped."
    )
