"""Set-up: pinned versions fit the ranges, nothing is done twice, and the torch of a user is left alone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPO = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("setup_tool", REPO / "tools" / "setup.py")
assert SPEC is not None
assert SPEC.loader is not None
setup_tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(setup_tool)

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(name): Version(version)
    for name, _, version in (
        line.partition("==") for line in (REPO / "constraints.txt").read_text().splitlines() if "==" in line
    )
}


def test_every_dependency_is_pinned_within_its_range():
    extras = PROJECT["optional-dependencies"]
    for text in PROJECT["dependencies"] + extras["dev"] + extras["serve"]:
        requirement = Requirement(text)
        assert PINS[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_constraints_hold_plain_pins_only():
    lines = [line for line in (REPO / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 and not set(line) & set(" @/+:;") for line in lines)
    assert lines == sorted(lines, key=str.lower) or len(lines) == len(PINS)


def test_the_torch_of_a_gpu_machine_is_within_the_ranges():
    ranges = {Requirement(text).name: Requirement(text).specifier for text in PROJECT["dependencies"]}
    assert Version("2.11.0+cu130") in ranges["torch"]
    assert Version("2.11.0") in ranges["torchaudio"]
    assert Version("2.6.6") in ranges["pytorch-lightning"]
    assert Version("2.6.3") not in ranges["pytorch-lightning"]  # a compromised release


def test_an_old_python_is_refused_with_the_one_needed():
    with pytest.raises(setup_tool.SetupError, match=r"Python 3\.10 is too old, 3\.11 or newer"):
        setup_tool.check_python((3, 10))
    setup_tool.check_python((3, 13))


@pytest.fixture
def project(tmp_path) -> Path:
    for name in ("pyproject.toml", "constraints.txt", "tools/setup.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((REPO / name).read_text())
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "mlflow.db").touch()
    return tmp_path


def test_nothing_is_done_when_nothing_changed(project, monkeypatch):
    venv = project / ".venv"
    installed = []

    def make(place: Path, own_torch: bool) -> None:
        (place / "bin").mkdir(parents=True, exist_ok=True)
        (place / "bin" / "python").touch()

    monkeypatch.setattr(setup_tool, "make_venv", make)
    monkeypatch.setattr(setup_tool, "install", lambda *arguments: installed.append(arguments))
    monkeypatch.setattr(setup_tool, "mend_torchaudio", lambda python: None)
    monkeypatch.setattr(setup_tool, "mend_soundfile", lambda root, python: None)
    monkeypatch.setattr(setup_tool, "migrate", lambda root, python: None)
    started = time.monotonic()
    assert setup_tool.set_up(project, venv, own_torch=False)
    assert not setup_tool.set_up(project, venv, own_torch=False)
    assert time.monotonic() - started < 5
    for change in ("constraints.txt", "pyproject.toml"):
        (project / change).write_text((project / change).read_text() + "\n# changed\n")
        assert setup_tool.set_up(project, venv, own_torch=False), change
    assert setup_tool.set_up(project, venv, own_torch=True)
    assert setup_tool.set_up(project, project / "elsewhere", own_torch=True)
    assert len(installed) == 5


def test_a_failed_installation_is_tried_again(project, monkeypatch):
    def fail(*arguments: object) -> None:
        raise setup_tool.SetupError("no network")

    monkeypatch.setattr(setup_tool, "make_venv", lambda venv, own: (venv / "bin").mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr(setup_tool, "install", fail)
    for _ in range(2):
        with pytest.raises(setup_tool.SetupError, match="no network"):
            setup_tool.set_up(project, project / ".venv", own_torch=False)


def test_dvc_works_without_git_and_takes_git_when_it_comes(project):
    local = project / ".dvc" / "config.local"
    setup_tool.choose_scm(project)
    assert "no_scm = true" in local.read_text()
    (project / ".git").mkdir()
    setup_tool.choose_scm(project)
    assert not local.exists()
    local.write_text("[cache]\n    dir = /elsewhere\n")
    setup_tool.choose_scm(project)
    assert "elsewhere" in local.read_text()


def test_uv_takes_packages_from_where_pip_does():
    settings = """:env:.find-links="/wheels '/more wheels'"
:env:.timeout='180'
global.extra-index-url='file:///one/simple https://two.example/simple'
global.find-links='/other'
install.index-url='https://mirror.example/simple'
"""
    options = setup_tool.as_uv(settings)
    assert sorted(zip(options[::2], options[1::2], strict=True)) == [
        ("--default-index", "https://mirror.example/simple"),
        ("--find-links", "/more wheels"),
        ("--find-links", "/wheels"),
        ("--index", "file:///one/simple"),
        ("--index", "https://two.example/simple"),
        ("--index-strategy", "unsafe-best-match"),
    ]


def test_without_uv_it_is_left_to_pip(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert not setup_tool.install_with_uv(broken, ["--constraint", "constraints.txt"], tmp_path)


TORCHAUDIO = """
import pathlib
for library in (pathlib.Path(__file__).parent / "lib").glob("*.so"):
    raise OSError(f"{library.name}: libcudart.so: cannot open shared object file")
"""


@pytest.fixture
def packages(tmp_path, monkeypatch) -> Path:
    """A torchaudio that cannot load its library, importable by subprocesses."""
    library = tmp_path / "torchaudio" / "lib" / "libtorchaudio.so"
    library.parent.mkdir(parents=True)
    library.touch()
    (tmp_path / "torchaudio" / "__init__.py").write_text(TORCHAUDIO)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def torch(packages: Path, cuda: str | None) -> None:
    (packages / "torch.py").write_text(f"class version:\n    cuda = {cuda!r}\n")


def test_cuda_libraries_of_torchaudio_go_where_a_cpu_torch_cannot_load_them(packages):
    torch(packages, None)
    setup_tool.mend_torchaudio(Path(sys.executable))
    assert list(packages.rglob("*.so")) == []


def test_nothing_is_removed_beside_a_cuda_torch(packages):
    torch(packages, "13.0")
    with pytest.raises(setup_tool.SetupError, match="torchaudio cannot be imported"):
        setup_tool.mend_torchaudio(Path(sys.executable))
    assert len(list(packages.rglob("*.so"))) == 1


def test_nothing_is_removed_when_torchaudio_loads(packages):
    torch(packages, None)
    (packages / "torchaudio" / "__init__.py").write_text("")
    setup_tool.mend_torchaudio(Path(sys.executable))
    assert len(list(packages.rglob("*.so"))) == 1


@pytest.mark.parametrize("mends", [True, False])
def test_a_soundfile_without_its_library_is_left_to_pip(tmp_path, mends):
    """A Python that cannot import soundfile until pip was asked for it."""
    python, log = tmp_path / "python", tmp_path / "log"
    log.touch()
    python.write_text(
        f'#!/bin/sh\necho "$@" >> "{log}"\n[ "$1" = -m ] && exit 0\n'
        + (f'grep -q "pip install.*--constraint.*soundfile" "{log}" || exit 1\n' if mends else "exit 1\n")
    )
    python.chmod(0o755)
    if mends:
        setup_tool.mend_soundfile(tmp_path, python)
    else:
        with pytest.raises(setup_tool.SetupError, match="libsndfile1"):
            setup_tool.mend_soundfile(tmp_path, python)
    assert len(log.read_text().splitlines()) == 3


def test_make_lists_its_targets():
    done = subprocess.run(["make", "-C", str(REPO), "help"], capture_output=True, text=True, check=True, env=os.environ)
    for target in ("setup", "repro", "test", "lint", "smoke", "profile", "pretrained", "ui", "clean"):
        assert f"make {target} " in done.stdout


def test_an_audit_that_checked_nothing_does_not_pass(capsys):
    sys.path.insert(0, str(REPO / "tools"))
    import audit

    unknown = {"name": "a", "skip_reason": "not found"}
    clean = {"name": "b", "version": "1", "vulns": []}
    flawed = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
    assert audit.report([unknown]) == 2
    assert "Nothing was checked" in capsys.readouterr().err
    assert audit.report([unknown, clean]) == 0
    assert "unknown to the list: a" in capsys.readouterr().out
    assert audit.report([clean, flawed]) == 1
    assert "c 2: CVE-1, mended in 3" in capsys.readouterr().out
