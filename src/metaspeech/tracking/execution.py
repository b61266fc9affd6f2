"""Which pipeline execution this is, and how to repeat it: commit, changed params, DVC experiment."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUN_CHANGES = {"params.yaml", "dvc.lock"}  # told apart from a changed program: told by `overrides`, written by DVC

OPTIONAL = "per_model"  # may have keys that the commit lacks; of other sections its code would not know them


@dataclass(frozen=True)
class Execution:
    """One run of the pipeline: the stages of one ``dvc repro`` or one DVC experiment share it."""

    commit: str  # empty outside git
    dirty: bool  # tracked files other than params.yaml differ from the commit
    experiment: str  # DVC_EXP_NAME, else empty
    baseline: str  # DVC_EXP_BASELINE_REV, else empty
    params_hash: str
    overrides: tuple[str, ...]  # key=value, where params differ from the commit's params.yaml

    @property
    def key(self) -> str:
        """Equal for all stages of an execution; a resumed execution has the key of the interrupted one."""
        return f"{self.experiment or self.commit[:10] or 'no-git'}-{self.params_hash}"

    def reproduce(self, stage: str) -> str:
        """The command that makes the stage's result again (an empty name: the whole pipeline's)."""
        steps = [f"git checkout {self.commit}"] if self.commit else []
        if self.experiment:
            steps = [f"dvc exp apply {self.experiment}"]
        elif self.overrides:
            settings = " ".join(f"-S {shlex.quote(one)}" for one in self.overrides)
            return " && ".join([*steps, f"dvc exp run {settings} {stage}".rstrip()])
        return " && ".join([*steps, f"dvc repro {stage}".rstrip()])

    def tags(self, stage: str) -> dict[str, str]:
        """For an MLflow run; empty values left out."""
        tags = {
            "execution": self.key,
            "commit": self.commit,
            "dirty": str(self.dirty).lower() if self.commit else "",
            "reproduce": self.reproduce(stage),
            "DVC_STAGE": os.environ.get("DVC_STAGE", ""),
            "DVC_EXP_NAME": self.experiment,
            "DVC_EXP_BASELINE_REV": self.baseline,
            "sweep": os.environ.get("METASPEECH_SWEEP", ""),
            "trial": os.environ.get("METASPEECH_TRIAL", ""),
        }
        return {key: value for key, value in tags.items() if value}


def current(root: Path, params: Mapping[str, Any]) -> Execution:
    """``params``: the flat, resolved params. Without git, or a commit, the fields that need it are empty."""
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    changed = {line[3:] for line in _git(root, "status", "--porcelain", "--untracked-files=no").splitlines()}
    text = json.dumps(dict(params), sort_keys=True)
    return Execution(
        commit=commit,
        dirty=bool(changed - RUN_CHANGES),
        experiment=os.environ.get("DVC_EXP_NAME", ""),
        baseline=os.environ.get("DVC_EXP_BASELINE_REV", ""),
        params_hash=hashlib.sha256(text.encode()).hexdigest()[:8],
        overrides=_overrides(root, params) if commit else (),
    )


def _overrides(root: Path, params: Mapping[str, Any]) -> tuple[str, ...]:
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        committed = OmegaConf.create(_git(root, "show", "HEAD:./params.yaml"))
    except (YAMLError, OmegaConfBaseException):
        return ()
    if not isinstance(committed, DictConfig):
        return ()
    missing = object()
    changed = []
    for key, value in params.items():
        before = OmegaConf.select(committed, key, default=missing)
        is_new = before is missing
        if before != value and (not is_new or (key.startswith(f"{OPTIONAL}.") and OPTIONAL in committed)):
            changed.append(f"{'+' if is_new else ''}{key}={json.dumps(value) if isinstance(value, list) else value}")
    return tuple(changed)


def _git(root: Path, *arguments: str) -> str:
    """Output of a git command, empty when there is no git or no such thing."""
    try:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
