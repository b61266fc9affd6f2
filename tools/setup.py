"""Builds the virtual environment and what the pipeline needs beside it. Standard library only; safe to repeat.

    python3 tools/setup.py [--venv .venv] [--torch pinned|own]

A stamp in the environment keeps the digest of what it was built from: when nothing changed, nothing is done.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)
MIGRATE = """
from mlflow.cli import cli
from mlflow.tracking import MlflowClient
cli(["db", "upgrade", "sqlite:///mlflow.db"], standalone_mode=False)
MlflowClient("sqlite:///mlflow.db").search_experiments()
"""
LOADS = """
import sys, torch
try:
    import torchaudio
except OSError:
    sys.exit(3 if torch.version.cuda is None else 4)
"""
SAMPLER = Path("src/metaspeech/models/wavenet/sampling/build.py")
LIBRARIES = "import importlib.util as u; print(u.find_spec('torchaudio').submodule_search_locations[0])"


class SetupError(Exception):
    """Something that the user can put right."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", default=".venv", help="made if missing (default: .venv)")
    parser.add_argument(
        "--torch", choices=("pinned", "own"), default="pinned", help="own: keep the torch that is installed already"
    )
    arguments = parser.parse_args()
    try:
        set_up(ROOT, (ROOT / arguments.venv).absolute(), arguments.torch == "own")
    except SetupError as error:
        sys.exit(f"setup: {error}")


def set_up(root: Path, venv: Path, own_torch: bool) -> bool:
    """Returns whether anything had to be installed. Raises SetupError."""
    choose_scm(root)
    stamp, wanted = venv / ".metaspeech-setup", digest(root, venv, own_torch)
    fresh = not (stamp.exists() and stamp.read_text() == wanted and (venv / "bin" / "python").exists())
    if fresh:
        started = time.monotonic()
        check_python(sys.version_info[:2])
        make_venv(venv, own_torch)
        install(root, venv, own_torch)
        mend_torchaudio(venv / "bin" / "python")
        mend_soundfile(root, venv / "bin" / "python")
        stamp.write_text(wanted)
        print(f"setup: {venv} is ready ({time.monotonic() - started:.0f} s)")
    compile_sampler(root, venv / "bin" / "python")
    if fresh or not (root / "mlflow.db").exists():
        migrate(root, venv / "bin" / "python")
    return fresh


def digest(root: Path, venv: Path, own_torch: bool) -> str:
    """Of everything that the environment is built from. Its own place counts: a moved one does not work."""
    parts = [str(venv), str(own_torch), str(sys.version_info[:2])]
    parts += [(root / name).read_text() for name in ("pyproject.toml", "constraints.txt", "tools/setup.py")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def check_python(version: tuple[int, int]) -> None:
    if version < OLDEST:
        found, oldest = ".".join(map(str, version)), ".".join(map(str, OLDEST))
        raise SetupError(f"Python {found} is too old, {oldest} or newer is needed: make setup PYTHON=python{oldest}")


def make_venv(venv: Path, own_torch: bool) -> None:
    """An environment that is there is kept and updated, unless it was moved."""
    python = venv / "bin" / "python"
    works = python.exists() and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
    if works:
        return
    options = ["--clear"] + (["--system-site-packages"] if own_torch else [])
    if subprocess.run([sys.executable, "-m", "venv", *options, venv]).returncode:
        raise SetupError(f"{venv} could not be made. On Debian and Ubuntu: apt install python3-venv")


def install(root: Path, venv: Path, own_torch: bool) -> None:
    python = venv / "bin" / "python"
    lines = (root / "constraints.txt").read_text().splitlines()
    if own_torch:
        if subprocess.run([python, "-c", "import torch"]).returncode:
            raise SetupError(
                f"--torch own: {python} cannot import torch. Install torch for {sys.executable}, name the environment "
                "that has it (make setup TORCH=own VENV=/its/folder), or leave TORCH=own out"
            )
        lines = [line for line in lines if not line.startswith(("torch==", "torchaudio=="))]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(lines) + "\n")
        wanted = ["--constraint", str(constraints), "--editable", f"{root}[dev,ray,serve]"]
        print("setup: installing packages; the first time takes a minute or more", flush=True)
        if not own_torch and install_with_uv(python, wanted, root):
            return
        if subprocess.run([python, "-m", "pip", "install", "-qq", *wanted], cwd=root).returncode:
            version = ".".join(map(str, sys.version_info[:2]))
            raise SetupError(
                f"pip failed, see above. constraints.txt is made for Python 3.11, this is {version}; two packages are "
                "compiled and need a C++ compiler (g++, or Xcode's command line tools). With another Python: "
                "make setup PYTHON=python3.11, or TORCH=own to keep a torch that is installed"
            )


def install_with_uv(python: Path, wanted: list[str], root: Path) -> bool:
    """Several times as fast as pip. False where it cannot be had or fails: pip then says why.

    It takes no account of packages outside the environment, so an own torch is left to pip.
    """
    pip = [python, "-m", "pip"]
    if subprocess.run([*pip, "install", "-qq", *wanted[:2], "uv"], capture_output=True).returncode:
        return False
    settings = subprocess.run([*pip, "config", "list"], capture_output=True, text=True).stdout
    uv = [python, "-m", "uv", "pip", "install", "--quiet", "--python", python, *as_uv(settings), *wanted]
    # a relative PYTHONPATH would lie in the sources of a package that is built
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(uv, cwd=root, env=alone, capture_output=True).returncode == 0


def as_uv(settings: str) -> list[str]:
    """Where packages come from, as ``pip config list`` tells it, in uv's options. Of environment and files pip takes
    the environment, and all indexes are equal to it."""
    options = {"index-url": "--default-index", "extra-index-url": "--index", "find-links": "--find-links"}
    found: dict[str, list[str]] = {}
    for line in settings.splitlines():
        place, _, value = line.partition("=")
        section, _, name = place.rpartition(".")
        if name in options and (section == ":env:" or name not in found):
            found[name] = shlex.split(ast.literal_eval(value))
    taken = [part for name, values in found.items() for value in values for part in (options[name], value)]
    return [*taken, "--index-strategy", "unsafe-best-match"]


def mend_torchaudio(python: Path) -> None:
    """Torchaudio's wheel may be linked to CUDA, which a CPU torch lacks. It works without its libraries too."""
    status = subprocess.run([python, "-c", LOADS]).returncode
    if status == 3:
        package = Path(subprocess.run([python, "-c", LIBRARIES], capture_output=True, text=True).stdout.strip())
        for library in sorted((package / "lib").glob("*.so")):
            library.unlink()
        status = subprocess.run([python, "-c", LOADS]).returncode
        print("setup: removed torchaudio's CUDA libraries, which this CPU build of torch cannot load")
    if status:
        raise SetupError("torchaudio cannot be imported beside the installed torch: install the two of one release")


def mend_soundfile(root: Path, python: Path) -> None:
    """Soundfile has wheels with libsndfile and one without. Of several indexes uv takes a version from the first that
    has it, with whatever wheels are there; pip looks through all of them."""
    pip = [python, "-m", "pip", "install", "-qq", "--force-reinstall", "--no-deps"]
    loads = [python, "-c", "import soundfile"]
    if subprocess.run(loads, capture_output=True).returncode == 0:
        return
    subprocess.run([*pip, "--constraint", str(root / "constraints.txt"), "soundfile"], cwd=root)
    if subprocess.run(loads, capture_output=True).returncode:
        raise SetupError(
            "soundfile finds no libsndfile, which reads and writes audio. On Debian: apt install libsndfile1"
        )


def compile_sampler(root: Path, python: Path) -> None:
    """WaveNet's C++ sampler, where its library is not there yet. Without a compiler the set-up goes on."""
    if (root / SAMPLER).exists():
        subprocess.run([python, root / SAMPLER], cwd=root)


def migrate(root: Path, python: Path) -> None:
    """The tables of MLflow, once: several processes that open a new database at the same time break it."""
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([python, "-c", MIGRATE], cwd=root, env=quiet, capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"mlflow.db could not be made: {done.stderr.strip().splitlines()[-1:]}")


def choose_scm(root: Path) -> None:
    """DVC looks for git unless told not to: a checkout has it, an unpacked archive does not."""
    local = root / ".dvc" / "config.local"
    setting = "[core]\n    no_scm = true\n"
    git = any((folder / ".git").exists() for folder in (root, *root.parents))
    if not git and not local.exists():
        local.write_text(setting)
    elif git and local.exists() and local.read_text() == setting:
        local.unlink()


if __name__ == "__main__":
    main()
