"""What starting costs: ``python -m benchmarks.startup [--rounds 3] [--project build/smoke]``; the last line is JSON.

Of each stage everything but its work: the process, imports, params, the run in MLflow and its end. The stage's own
function is left out. Stages that do not train must not import Lightning, which takes seconds: if one does, the status
is 1. Then a ``dvc repro`` in which nothing has changed, where the project (by default this one) has been run to its
end; else the figure is null. Seconds are of the clock, and of CPU in all processes; both are the least of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ("pretrain", "meta_train")
LIGHTNING, WATCHED = "pytorch_lightning", ("torch", "mlflow", "pytorch_lightning", "pandas", "librosa", "ray", "optuna")
ITEMS = {"model": "tacotron", "algorithm": "maml", "seed": "1"}
CHILD = """
import importlib, json, sys
name, *item = sys.argv[1:]
importlib.import_module(f"pipelines.{name}")
from pipelines._stage import run_stage
run_stage(name, lambda stage: None, item)
print(json.dumps([one for one in %r if one in sys.modules]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--project", type=Path, default=ROOT)
    arguments = parser.parse_args()
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        project = Path(place)
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy2(ROOT / name, project / name)
        (project / ".dvc").mkdir()
        started(project, "corpus", {})  # makes MLflow's database
        for name, stage in stages.items():
            found[name] = started(project, name, stage, arguments.rounds)
            clock, cpu, modules = (found[name][key] for key in ("seconds", "cpu_seconds", "imports"))
            print(
                f"{name:12}{clock:7.2f} s{cpu:7.2f} s of CPU  imports {', '.join(modules) or 'none of those'}",
                flush=True,
            )
    no_op = no_op_repro(arguments.project.resolve(), arguments.rounds)
    print(f"{'no-op repro':12}{f'{no_op:7.2f} s' if no_op else ' the project has not been run to its end'}")
    wrong = [name for name, one in found.items() if LIGHTNING in one["imports"] and name not in TRAINING]
    print(json.dumps({"stages": found, "no_op_repro_seconds": no_op, "lightning_where_nothing_trains": wrong}))
    if wrong:
        sys.exit(f"{', '.join(wrong)}: imports {LIGHTNING}, and does not train")


def started(project: Path, name: str, stage: dict[str, Any], rounds: int = 1) -> dict[str, Any]:
    """Of one stage: seconds and which of the heavy modules it imports before its work."""
    item = [ITEMS[key] for key in stage.get("matrix", {})]
    command = [sys.executable, "-c", CHILD % (WATCHED,), name, *item]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    own = kept | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    clocks, cpus = [], []
    for _ in range(rounds):
        before, began = children(), monotonic()
        done = subprocess.run(command, cwd=project, env=own, capture_output=True, text=True, check=False)
        clocks.append(monotonic() - began)
        cpus.append(children() - before)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr[-2000:]}")
    imports = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": round(min(clocks), 2), "cpu_seconds": round(min(cpus), 2), "imports": imports}


def no_op_repro(project: Path, rounds: int) -> float | None:
    """Seconds; None where DVC would have something to do."""
    own = os.environ | {"PYTHONPATH": "src", "DVC_NO_ANALYTICS": "1"}

    def dvc(*arguments: str) -> str:
        command = [sys.executable, "-m", "dvc", *arguments]
        done = subprocess.run(command, cwd=project, env=own, capture_output=True, text=True, check=False)
        return done.stdout if not done.returncode else "failed"

    if dvc("status", "--json").strip() != "{}":
        return None
    clocks = []
    for _ in range(rounds):
        began = monotonic()
        dvc("repro")
        clocks.append(monotonic() - began)
    return round(min(clocks), 2)


def children() -> float:
    """Seconds of CPU that the processes started here, which have ended, have taken."""
    taken = os.times()
    return taken.children_user + taken.children_system


if __name__ == "__main__":
    main()
