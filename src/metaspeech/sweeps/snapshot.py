"""The project as it was when a study began: a clone with the changes of the day, which later edits do not reach.

Trials run from there as ``dvc exp run --temp``; what they made is in the project's own DVC cache, and their experiments
are handed to the project as refs, so that ``dvc exp show`` and ``dvc exp apply`` find them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from metaspeech import config, profiles
from metaspeech.errors import UserError

LOCK = "dvc.lock"
PARAMS = "params.yaml"
BEGUN = "metaspeech-study.json"  # beside the objects of the clone, where neither git nor DVC looks


@dataclass(frozen=True)
class Code:
    """What distinguishes one state of the project from another."""

    commit: str
    changes: str  # digest of what differs from the commit, params.yaml and dvc.lock left out; empty: nothing

    def __str__(self) -> str:
        return f"commit {self.commit[:10]}{f' with changes {self.changes}' if self.changes else ''}"


@dataclass(frozen=True)
class Snapshot:
    """A clone to run trials from."""

    path: Path
    project: Path
    cache: Path  # of DVC

    def dvc(self, *arguments: str, log: Path) -> None:
        """Runs a DVC command there. Raises UserError, with what the log says, when it fails."""
        with log.open("a", encoding="utf-8") as file:
            done = subprocess.run(
                [sys.executable, "-m", "dvc", *arguments],
                cwd=self.path,
                env=environment({}),
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise UserError(f"'dvc {' '.join(arguments)}' failed: {reason(log)}. All of it: {log}")

    def share(self, stages: Sequence[str], log: Path) -> None:
        """Makes the stages that all trials share, unless the project has made them already."""
        if not stages:
            return
        self.dvc("checkout", "--quiet", "--force", "--allow-missing", log=log)
        self.dvc("repro", *stages, log=log)
        git(self.path, "add", "--force", LOCK)

    def hand_over(self, experiment: str) -> None:
        """Gives the project a finished experiment."""
        ref = self._ref(experiment)
        git(self.project, "fetch", "--quiet", "--no-tags", str(self.path), f"+{ref}:{ref}")

    def output(self, experiment: str, file: str) -> str:
        """What a finished experiment has left in one of its small files, by its dvc.lock.

        Raises:
            UserError: it has left no such file.
        """
        lock = yaml.safe_load(git(self.path, "show", f"{self._ref(experiment)}:{LOCK}"))
        outs = [out for stage in lock["stages"].values() for out in stage.get("outs", []) if out["path"] == file]
        if not outs:
            raise UserError(f"{experiment} has left no {file}. Is it among the metrics of a stage in dvc.yaml?")
        digest = str(outs[0]["md5"])
        return (self.cache / "files" / "md5" / digest[:2] / digest[2:]).read_text(encoding="utf-8")

    def _ref(self, experiment: str) -> str:
        found = git(self.path, "for-each-ref", "--format=%(refname)", f"refs/exps/**/{experiment}").split()
        if not found:
            raise UserError(f"{self.path}: DVC has left no experiment {experiment}")
        return found[0]

    def forget_running(self) -> None:
        """Removes the copies of trials that were killed."""
        shutil.rmtree(self.path / ".dvc" / "tmp" / "exps", ignore_errors=True)


def state(project: Path) -> Code:
    """Of the project at this moment.

    Raises:
        UserError: it is no git repository with a commit.
    """
    try:
        commit = git(project, "rev-parse", "--verify", "HEAD").strip()
    except UserError:
        raise UserError(
            f"{project}: DVC keeps experiments in git, and this is no git repository with a commit. Make one: git init "
            "&& git add --all && git commit -m start"
        ) from None
    changes = git(project, "diff", "--binary", "HEAD", "--", ".", f":!{PARAMS}", f":!{LOCK}")
    return Code(commit, hashlib.sha256(changes.encode()).hexdigest()[:10] if changes else "")


def begun(folder: Path) -> Code | None:
    """What a study in ``folder`` runs; None: it has taken no clone yet."""
    try:
        return Code(**json.loads((folder / "project" / ".git" / BEGUN).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def take(project: Path, folder: Path, params: config.Params) -> Snapshot:
    """Clones the project into ``folder/project``, or takes what an earlier call left there.

    Args:
        params: what the clone's params.yaml is to say: the project's, with the fixed values of the study.

    Raises:
        UserError: git or DVC cannot do it.
    """
    path, cache = folder / "project", dvc_cache(project)
    if path.exists():
        return Snapshot(path, project, cache)
    making = folder / f".project.{os.getpid()}"
    try:
        git(project, "clone", "--quiet", str(project), str(making))
        git(making, "checkout", "--quiet", "--detach", git(project, "rev-parse", "HEAD").strip())
        changes = git(project, "diff", "--binary", "HEAD")
        if changes:
            git(making, "apply", "--index", "-", text=changes)
        if (project / LOCK).exists():  # else what is finished would be made again
            shutil.copy2(project / LOCK, making / LOCK)
            git(making, "add", "--force", LOCK)
        (making / ".dvc" / "config.local").write_text(
            f"[core]\n    autostage = true\n[cache]\n    dir = {cache}\n", encoding="utf-8"
        )
        profiles.apply(making / PARAMS, params)
        (making / ".git" / BEGUN).write_text(json.dumps(asdict(state(project))), encoding="utf-8")
        os.replace(making, path)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return Snapshot(path, project, cache)


def untracked(project: Path) -> list[str]:
    """Files that git neither knows nor ignores: no experiment has them."""
    found = git(project, "ls-files", "--others", "--exclude-standard").splitlines()
    return [name for name in found if name != LOCK]


def environment(values: Mapping[str, str]) -> dict[str, str]:
    """This process's, with the tools of its Python first and nothing of another DVC command."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_"))}
    tools = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": tools, "PYTHONPATH": "src", "DVC_NO_ANALYTICS": "1", **values}


def reason(log: Path) -> str:
    """The line of a log that says why a stage or DVC has failed."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except FileNotFoundError:
        return "it has left no log"
    for start in ("error in ", "ERROR: "):
        for line in reversed(lines):
            if line.startswith(start):
                return line.removeprefix("ERROR: ")[:500]
    return next((line[:500] for line in reversed(lines) if line), "it has said nothing")


def git(folder: Path, *arguments: str, text: str | None = None) -> str:
    """Output of a git command. Raises UserError with what git says."""
    command: Sequence[Any] = ["git", "-C", folder, *arguments]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=kept)
    except OSError as error:
        raise UserError(f"git cannot be run: {error}") from None
    if done.returncode:
        raise UserError(f"'git {' '.join(arguments[:2])}' failed in {folder}: {done.stderr.strip()[-300:]}")
    return done.stdout


def dvc_cache(project: Path) -> Path:
    """Where DVC keeps what a project has made. Raises UserError when it is no DVC project."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "cache", "dir"],
        cwd=project,
        env=environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"'dvc cache dir' failed in {project}: {done.stderr.strip()[-300:]}")
    return Path(done.stdout.strip())
