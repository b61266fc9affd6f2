"""Where a run of the study happens: a clone of the project with params of its own and the project's DVC cache.

A run that is interrupted goes on there. When the project has changed since, the clone is brought up to date, and what
DVC finds to be made from the same things is not made again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from metaspeech import config, profiles
from metaspeech.errors import UserError
from metaspeech.files import replacing
from metaspeech.sweeps.snapshot import BEGUN, LOCK, PARAMS, begun, environment, git, state, take

FOLDER = Path(".metaspeech/study")
KEPT = ("results/evaluate/summary.json", "results/evaluate/speakers.parquet", "reports/index.html")
DONE = "done.json"  # beside what is kept


@dataclass(frozen=True)
class Done:
    """What is known of a finished run besides its figures."""

    code: str  # the commit, and whether there were changes
    seconds: float  # of the last time that anything had to be made, all stages that were made then


def run(
    project: Path, name: str, params: config.Params, jobs: int, tracking_uri: str, out: Path, like: str = ""
) -> Done:
    """Runs the pipeline up to the report, or as much of it as has not been run yet.

    Args:
        project: its root.
        name: of the run.
        params: what its params.yaml is to say.
        jobs: stages at a time; 0: by cores and memory.
        tracking_uri: of the project's MLflow.
        out: folder that gets what tables and figures are made from.
        like: another run, whose stages serve where they are the same; empty: none.

    Raises:
        UserError: a stage has failed; its message has been printed.
    """
    clone = prepare(project, name, params, like)
    code = str(begun(clone.parent))  # the project may change while the run goes on
    began = time.monotonic()
    command = [sys.executable, "-m", "pipelines.repro", *(["--jobs", str(jobs)] if jobs else [])]
    told = environment({"MLFLOW_TRACKING_URI": tracking_uri})
    status = subprocess.run(command, cwd=clone, env=told, check=False).returncode
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise UserError(
            f"run '{name}' of the study has failed: see above. It lies in {clone}; what is finished is kept"
        )
    return keep(clone, out, code, time.monotonic() - began)


def prepare(project: Path, name: str, params: config.Params, like: str = "") -> Path:
    """The run's clone, at the project's state of now.

    DVC's cache of runs has no stage that can be resumed (``persist`` in dvc.yaml): pretraining, for one. So a new clone
    begins with the ``dvc.lock`` of the run that it is ``like``, and with the files of which that speaks.
    """
    folder = project / FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    before = begun(folder)
    if before not in (None, state(project)):
        _update(project, folder / "project")
    snapshot = take(project, folder, params)
    clone, other = snapshot.path, project / FOLDER / like / "project" / LOCK
    profiles.apply(clone / PARAMS, params)
    if before is None:
        if like and other.exists():
            shutil.copy2(other, clone / LOCK)
        if (clone / LOCK).exists():
            snapshot.dvc("checkout", "--quiet", "--force", "--allow-missing", log=folder / "checkout.log")
    return clone


def keep(clone: Path, out: Path, code: str, seconds: float) -> Done:
    """Copies what the study's page is made from; a repetition that made nothing keeps the time of the first one."""
    out.mkdir(parents=True, exist_ok=True)
    before = finished(out)
    same = before and all(_same(clone / name, out / Path(name).name) for name in KEPT[:1])
    for name in KEPT:
        with replacing(out / Path(name).name) as temporary:
            shutil.copy2(clone / name, temporary)
    done = Done(code, before.seconds if before and same else round(seconds, 1))
    with replacing(out / DONE) as temporary:
        temporary.write_text(json.dumps(asdict(done), indent=1) + "\n", encoding="utf-8")
    return done


def finished(out: Path) -> Done | None:
    """None: the run has not come to its end yet. Raises UserError for a file that is damaged."""
    path = out / DONE
    try:
        return Done(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}). Remove it; what is finished is not made again") from None


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


def _update(project: Path, clone: Path) -> None:
    """Sources of now; what the pipeline has made there stays."""
    lock = clone / LOCK
    kept = lock.read_bytes() if lock.exists() else None
    git(clone, "fetch", "--quiet", str(project), "HEAD")
    git(clone, "checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
    changes = git(project, "diff", "--binary", "HEAD")
    if changes:
        git(clone, "apply", "--index", "-", text=changes)
    if kept is not None:
        lock.write_bytes(kept)
    (clone / ".git" / BEGUN).write_text(json.dumps(asdict(state(project))), encoding="utf-8")
