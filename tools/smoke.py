"""Runs the whole pipeline at toy sizes in a copy of the project: ``python tools/smoke.py build/smoke``.

The copy has the sources as they are, committed or not, and its own data, results, DVC cache and MLflow database.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = (
    "assets", "native", "pipelines", "profiles", "src",
    ".dvc/plots", ".dvc/config", ".dvcignore", "dvc.yaml", "params.yaml",
)  # fmt: skip


def copy(target: Path) -> None:
    """Makes ``target`` anew with what the pipeline needs, as a DVC project without git."""
    shutil.rmtree(target, ignore_errors=True)
    update(target)


def update(target: Path) -> None:
    """The same, but what the pipeline has made there stays."""
    for name in NEEDED:
        source, place = ROOT / name, target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(source, place)
    (target / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")


def environment() -> dict[str, str]:
    """This process's, with the tools of its Python first and nothing that points at another project or server."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", "PYTHONPATH": "src"}


def run(target: Path, *command: str) -> None:
    """A command in the copy. Leaves the process with its status when it fails."""
    done = subprocess.run(command, cwd=target, env=environment(), check=False)
    if done.returncode:
        sys.exit(f"'{' '.join(command)}' failed in {target}")


def main() -> None:
    target, started = Path(sys.argv[1]).absolute(), time.monotonic()
    copy(target)
    run(target, sys.executable, "-m", "pipelines.profile", "apply", "smoke")
    run(target, sys.executable, "-m", "dvc", "repro")
    print(
        f"smoke: every stage ran, {time.monotonic() - started:.0f} s. The report: {target / 'reports' / 'index.html'}"
    )


if __name__ == "__main__":
    main()
