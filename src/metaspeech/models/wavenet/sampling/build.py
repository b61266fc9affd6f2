"""Compiles native/*.cpp into a shared library: ``python build.py``. Standard library only.

The library's name holds the digest of what it was made from, so a changed source never meets an old library. It lies
in the virtual environment, where two checkouts that share one find it too. ``make setup`` builds; a pipeline stage only
loads.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[5] / "native"
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden"]
SANITIZED = ["-fsanitize=address", "-fno-omit-frame-pointer", "-g", "-O1"]
UNDEFINED = ["-fsanitize=undefined", "-fno-sanitize-recover=undefined"]  # of the boundary: kernels would take minutes
PORTABLE = ["-DWAVENET_ISA=0"]
AVX2 = ["-DWAVENET_ISA=1", "-mavx2", "-mfma"]
AVX512 = ["-DWAVENET_ISA=2", "-mavx512f", "-mavx2", "-mfma"]


class BuildError(Exception):
    """Says why there is no library."""


def library_path(sanitize: bool = False) -> Path:
    """Where the library of these sources is or would be. Raises BuildError where there are no sources."""
    files = sorted(SOURCES.glob("*.cpp")) + sorted(SOURCES.glob("*.h"))
    if not files:
        raise BuildError(f"no C++ sources in {SOURCES}")
    parts = [*map(str, _flags(sanitize)), platform.system(), platform.machine()]
    digest = hashlib.sha256("\0".join(parts).encode() + b"".join(file.read_bytes() for file in files))
    return Path(sys.prefix) / "lib" / "metaspeech" / f"wavenet-{digest.hexdigest()[:16]}.so"


def build(sanitize: bool = False) -> Path:
    """The library, made if it is not there. Several processes may do so at once. Raises BuildError."""
    path = library_path(sanitize)
    if path.exists():
        return path
    compiler = _compiler()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = _compile(compiler, sanitize, Path(folder))
            if not sanitize:
                ctypes.CDLL(str(made)).wavenet_isas()
            os.replace(made, path)
    except OSError as error:
        raise BuildError(str(error)) from error
    return path


def _flags(sanitize: bool) -> tuple[list[str], list[list[str]]]:
    """Of every file, and the variants of kernel.cpp."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    common = FLAGS + (SANITIZED if sanitize else []) + (["-DWAVENET_X86"] if x86 else [])
    return common, [PORTABLE, AVX2, AVX512] if x86 else [PORTABLE]


def _compiler() -> list[str]:
    named = os.environ.get("CXX")
    if named:
        return shlex.split(named)
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise BuildError("no C++ compiler (c++, g++ or clang++; CXX names another)")


def _compile(compiler: list[str], sanitize: bool, folder: Path) -> Path:
    common, variants = _flags(sanitize)
    undefined = UNDEFINED if sanitize else []
    jobs = [("wavenet.cpp", undefined), *(("kernel.cpp", flags) for flags in variants)]
    running = []
    for number, (source, flags) in enumerate(jobs):
        command = [*compiler, *common, *flags, "-c", str(SOURCES / source), "-o", str(folder / f"{number}.o")]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate()[1] for process in running]
    for process, error in zip(running, errors, strict=True):
        if process.returncode:
            raise BuildError(f"{compiler[0]} failed: {_last_error(error)}")
    made = folder / "wavenet.so"
    objects = [str(folder / f"{number}.o") for number in range(len(jobs))]
    linked = subprocess.run(
        [*compiler, *common, *undefined, "-shared", *objects, "-o", str(made)], capture_output=True, text=True
    )
    if linked.returncode:
        raise BuildError(f"{compiler[0]} failed: {_last_error(linked.stderr)}")
    return made


def _last_error(text: str) -> str:
    lines = [line for line in text.splitlines() if "error" in line] or text.splitlines() or ["no message"]
    return lines[0]


def main() -> None:
    """Makes no fuss where there is no compiler: the sampler is slower then, and says so."""
    sanitize = sys.argv[1:] == ["--sanitize"]
    try:
        if not library_path(sanitize).exists():
            print(f"setup: compiled the WaveNet sampler ({build(sanitize).name})")
        if sanitize:
            print(library_path(sanitize))
    except BuildError as error:
        if sanitize:
            sys.exit(f"build: {error}")
        print(f"setup: the WaveNet sampler was not compiled, Numba takes over: {error}")


if __name__ == "__main__":
    main()
