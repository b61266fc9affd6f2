"""A DVC project whose stages compute a known function at once, for tests of what a sweep does around trials.

The params are the real ones, and so are git, DVC, Optuna and the files between them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml
from import_graph import ROOT
from omegaconf import OmegaConf

LOSS = {"model": "tacotron", "metric": "validation_loss", "direction": "minimise"}
ERROR = {"model": "tacotron", "metric": "error", "direction": "minimise"}

# loss is least at rate 0.1 with 3 steps, error at the highest rate: with both there is a front
STAGE = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, {library!r})
import yaml
from metaspeech.sweeps import progress

params = yaml.safe_load(Path("params.yaml").read_text())
rate, steps = params["inner"]["rate"], params["inner"]["steps"]
if params["inner"]["clip"] == 9:
    sys.exit("\\nerror in adapt: the disk is full")
loss = (rate - 0.1) ** 2 + 0.1 * (steps - 3) ** 2
told = progress.file_of_this_process()
for quarter in range(1, 4):
    if told:
        progress.append(told, ("tacotron", "maml", "1"), quarter / 4, {{"validation_after": loss}})
    while told and (told.parent.parent / "hold").exists():
        time.sleep(0.05)
    if told and progress.stop_file(told).exists():
        sys.exit("\\nerror in adapt: stopped")
figures = {{"validation_loss": loss, "error": 1 - rate, "lost": None}}
for item in ("tacotron-maml-1",):
    folder = Path("results/adapt") / item
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(figures))
if params["inner"]["clip"] == 8:
    (folder / "metrics.json").write_text(json.dumps(figures | {{"validation_loss": None}}))
Path("results/at.txt").write_text(f"{{os.environ.get('METASPEECH_SWEEP')}} {{os.environ.get('METASPEECH_TRIAL')}}")
"""
SHARED = """
from pathlib import Path
Path("data").mkdir(exist_ok=True)
Path("data/corpus.txt").write_text("speech")
"""
GIT = {f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def make_project(folder: Path, **params: object) -> Path:
    """The project, committed."""
    folder.mkdir()
    values = OmegaConf.load(ROOT / "params.yaml")
    for key, value in {"algorithms": ["maml"], "models": ["tacotron"], **params}.items():
        OmegaConf.update(values, key, value)
    (folder / "params.yaml").write_text(OmegaConf.to_yaml(values))
    (folder / "shared.py").write_text(SHARED)
    (folder / "stage.py").write_text(STAGE.format(library=str(ROOT / "src")))
    item = "${item.model}-${item.algorithm}-${item.seed}"
    stages = {
        "corpus": {"cmd": "python shared.py", "deps": ["shared.py"], "params": ["corpus"], "outs": ["data/corpus.txt"]},
        "adapt": {
            "matrix": {"model": "${models}", "algorithm": "${algorithms}", "seed": "${seeds}"},
            "cmd": "python stage.py",
            "deps": ["data/corpus.txt", "stage.py"],
            "params": ["inner", "adapt"],
            "outs": ["results/at.txt"],
            "metrics": [f"results/adapt/{item}/metrics.json"],
        },
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (folder / ".gitignore").write_text("/data\n/results\n/.metaspeech\n/pipelines\n/mlflow.db\n")
    (folder / ".dvcignore").write_text("/.metaspeech\n")
    shutil.copytree(ROOT / "pipelines", folder / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "config", "core.analytics", "false")
    commit(folder, "start")
    return folder


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)


def environment(library: str = str(ROOT / "src")) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_", "MLFLOW_"))}
    tools = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, **GIT, "PATH": tools, "PYTHONPATH": library, "OMP_NUM_THREADS": "1", "COLUMNS": "400"}


def run(folder: Path, *command: str, status: int | None = 0, library: str = str(ROOT / "src")) -> str:
    """Output and errors of a command."""
    done = subprocess.run(
        [sys.executable, "-m", *command] if command[0] in ("dvc", "metaspeech.cli") else command,
        cwd=folder,
        env=environment(library),
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert status is None or done.returncode == status, f"{command}: {done.returncode}\n{output[-4000:]}"
    return output


def space(folder: Path, name: str = "mine", **changes: object) -> Path:
    """A space of two keys in a file that git does not know."""
    raw = {
        "target": "adapt",
        "objectives": [LOSS],
        "search": {"inner.rate": {"low": 0.01, "high": 1.0}, "inner.steps": {"low": 1, "high": 5}},
    }
    path = folder / ".metaspeech" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(raw | changes, sort_keys=False))
    return path


def hold(folder: Path, study: str) -> Path:
    """Trials of the study do not end while the file exists."""
    path = folder / ".metaspeech/sweeps" / study / "hold"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A sweep in the background, to be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "metaspeech.cli", "sweep", *arguments],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # else ignored where tests run in background
    )  # fmt: skip


def wait_for(what, seconds: float = 90) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
