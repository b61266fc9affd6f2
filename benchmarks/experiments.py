"""A grid by DVC's queue and a sweep on the default corpus: ``python -m benchmarks.experiments FOLDER``; a JSON line.

In a clone of this commit in FOLDER: everything up to ``represent``, then four queued experiments, two at a time, then
``sweeps/inner.yaml`` with 20 trials, two at a time. At the end every experiment and every trial that finished must have
its parent run in the one MLflow store; those that have not are counted as lost. On two idle cores the grid should take
about five minutes and the sweep 20 to 25 (not measured). Interrupted, it goes on where it stopped when given again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GRID = ("inner.rate=0.1,0.3", "inner.steps=1,3", "models=[tacotron]", "algorithms=[fomaml]")
POLL_SECONDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    project = arguments.folder.resolve()
    if not project.exists():
        subprocess.run(["git", "clone", "--quiet", ROOT, project], check=True)
    if not (project / "dvc.lock").exists():
        command(project, "dvc", "repro", "represent")
        subprocess.run(["git", "add", "dvc.lock"], cwd=project, check=True)
        subprocess.run(["git", "commit", "--quiet", "-m", "represented"], cwd=project, check=True)
    grid_seconds = grid(project, arguments.jobs)
    began = time.monotonic()
    options = ("--trials", str(arguments.trials), "--jobs", str(arguments.jobs))
    command(project, "metaspeech.cli", "sweep", "sweeps/inner.yaml", *options)
    sweep_seconds = time.monotonic() - began
    print(json.dumps(found(project) | {"grid_seconds": round(grid_seconds), "sweep_seconds": round(sweep_seconds)}))


def grid(project: Path, jobs: int) -> float:
    """Queues the experiments and waits for them. Returns the seconds; 0 if they were there already."""
    if len(experiments(project)) >= 4:
        return 0.0
    settings = [part for one in GRID for part in ("-S", one)]
    command(project, "dvc", "exp", "run", "--queue", *settings, "adapt")
    began = time.monotonic()
    command(project, "dvc", "queue", "start", "-j", str(jobs))
    while True:
        status = Counter(line.split()[-1] for line in command(project, "dvc", "queue", "status").splitlines() if line)
        if status["Queued"] + status["Running"] == 0:
            return time.monotonic() - began
        time.sleep(POLL_SECONDS)


def found(project: Path) -> dict[str, object]:
    """How many experiments and trials there are, how many runs of them, and which are lost."""
    from mlflow.tracking import MlflowClient

    from metaspeech.sweeps import study

    client = MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("metaspeech")
    runs = client.search_runs([experiment.experiment_id], "tags.role = 'pipeline'", max_results=5000)
    named = Counter(run.data.tags.get("DVC_EXP_NAME", "") for run in runs)
    trials = study.load("inner", project / ".metaspeech/sweeps/inner", "").trials
    ran = [f"sweep-inner-{one.number}" for one in trials if study.SECONDS in one.user_attrs]  # also stopped or failed
    expected = {*experiments(project), *ran}
    return {
        "experiments": len(experiments(project)),
        "trials": dict(Counter(one.state.name for one in trials)),
        "parent_runs": sum(named.values()),
        "twice": sorted(name for name, count in named.items() if name and count > 1),
        "lost": sorted(expected - set(named)),
    }


def experiments(project: Path) -> list[str]:
    return command(project, "dvc", "exp", "list", "--name-only").split()


def command(project: Path, *words: str) -> str:
    """Output of a module's command in the clone. Ends the benchmark when it fails."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "METASPEECH_"))}
    tools = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    environment = {**kept, "PATH": tools, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=project, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"'{' '.join(words)}' failed in {project}: {done.stdout[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
