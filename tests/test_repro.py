"""``make repro``: independent stages side by side, with the results of ``dvc repro``."""

from __future__ import annotations

import io
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sweeping
import yaml
from hypothesis import given
from hypothesis import strategies as st
from import_graph import ROOT
from omegaconf import OmegaConf
from rich.console import Console

from metaspeech import config
from metaspeech.together import Lane, run_together
from pipelines import repro

PARAMS = config.load(ROOT / "params.yaml")
STAGE = """
import sys, time
from pathlib import Path
name, model, algorithm, seed = sys.argv[1:5]
if name == "represent":
    Path("data").mkdir(exist_ok=True)
    Path("data/vectors.txt").write_text("vectors")
else:
    mine = Path(".metaspeech/at") / model
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.touch()
    deadline = time.monotonic() + 60
    while len(list(mine.parent.iterdir())) < 2:  # both models are at it at the same time, or nobody gets on
        if time.monotonic() > deadline:
            sys.exit("alone")
        time.sleep(0.02)
    if Path("broken").exists() and model == "wavenet":
        sys.exit("error in adapt: the disk is full")
    if Path("slow").exists():
        time.sleep(600)
    out = Path(name) / f"{model}-{algorithm}-{seed}.txt"
    out.parent.mkdir(exist_ok=True)
    out.write_text(f"{model} {algorithm} {seed}")
"""


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    values = OmegaConf.load(ROOT / "params.yaml")
    for key, value in {"algorithms": ["transfer", "maml"], "models": ["tacotron", "wavenet"]}.items():
        OmegaConf.update(values, key, value)
    (folder / "params.yaml").write_text(OmegaConf.to_yaml(values))
    (folder / "stage.py").write_text(STAGE)
    matrix = {"model": "${models}", "algorithm": "${algorithms}", "seed": "${seeds}"}
    item = "${item.model} ${item.algorithm} ${item.seed}"
    stages = {
        "represent": {"cmd": "python stage.py represent - - -", "deps": ["stage.py"], "outs": ["data/vectors.txt"]},
        "meta_train": {
            "matrix": matrix,
            "cmd": f"python stage.py models {item}",
            "deps": ["data/vectors.txt", "stage.py"],
            "outs": [f"models/{item.replace(' ', '-')}.txt"],
        },
        "adapt": {
            "matrix": matrix,
            "cmd": f"python stage.py results {item}",
            "deps": [f"models/{item.replace(' ', '-')}.txt", "data/vectors.txt", "stage.py"],
            "outs": [f"results/{item.replace(' ', '-')}.txt"],
        },
        "report": {
            "cmd": "cat results/*.txt > report.txt", "deps": ["results"], "outs": ["report.txt"],
        },
    }  # fmt: skip
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    shutil.copytree(ROOT / "pipelines", folder / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    sweeping.run(folder, "dvc", "init", "--quiet", "--no-scm")
    sweeping.run(folder, "dvc", "config", "core.analytics", "false")
    return folder


def make(folder: Path, *arguments: str, status: int = 0) -> str:
    return sweeping.run(folder, sys.executable, "-m", "pipelines.repro", *arguments, status=status)


def test_two_jobs_share_the_items_and_leave_what_one_would(project):
    output = make(project, "--jobs", "2")
    ran = re.findall(r"^(\[\d\]|)  ?Running stage '(adapt@[\w-]+)'", output, re.MULTILINE)
    assert sorted(name for _, name in ran) == [
        f"adapt@{one}" for one in ("tacotron-maml-1", "tacotron-transfer-1", "wavenet-maml-1", "wavenet-transfer-1")
    ]
    assert {lane for lane, _ in ran} == {"[1]", "[2]"}
    assert "Running stage 'report'" in output
    lock = (project / "dvc.lock").read_text()
    assert "up to date" in make(project, "--jobs", "2")
    assert "up to date" in sweeping.run(project, "dvc", "repro")
    (project / "dvc.lock").unlink()
    sweeping.run(project, "dvc", "repro", "--no-run-cache", "--force")
    assert yaml.safe_load((project / "dvc.lock").read_text()) == yaml.safe_load(lock)


def test_what_fails_is_shown_and_what_did_not_is_kept(project):
    (project / "broken").touch()
    output = make(project, "--jobs", "2", status=1 if sys.platform == "win32" else 255)
    assert "error in adapt: the disk is full" in output
    assert "The end of .metaspeech/repro/" in output
    (project / "broken").unlink()
    again = make(project, "--jobs", "2")
    assert "Running stage 'report'" in again
    assert "Running stage 'represent'" not in again


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_it_leaves_no_process_and_goes_on(project, number):
    (project / "slow").touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.repro", "--jobs", "2"], cwd=project, env=sweeping.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    sweeping.wait_for(lambda: len(list((project / ".metaspeech").glob("at/*"))) == 2)
    time.sleep(0.3)
    process.send_signal(number)
    if number == signal.SIGINT:
        assert process.wait(timeout=60) == 130
        assert "The same command goes on where this one stopped" in process.stdout.read()
    process.wait(timeout=60)
    sweeping.wait_for(lambda: str(project) not in "".join(_directories()), 30)
    (project / "slow").unlink()
    assert "Running stage 'report'" in make(project, "--jobs", "2")


def _directories():
    """Working directories of all Python processes but this one."""
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            yield f"{os.readlink(link)}\n"
        except OSError:
            continue


def test_jobs_that_cannot_be(project):
    assert "--jobs: 5: expected 0 (by cores and memory) to 4" in make(project, "--jobs", "5", status=2)


@given(st.integers(1, 5), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3))
def test_every_item_has_one_job_and_the_jobs_are_alike(algorithms, models, seeds, jobs):
    params = replace(
        PARAMS,
        algorithms=["transfer", "maml", "anil", "boil", "reptile"][:algorithms],
        models=["tacotron", "wavenet"][:models],
        seeds=list(range(1, seeds + 1)),
    )
    found = repro.shares(params, jobs)
    items = ["-".join(map(str, one)) for one in itertools.product(params.models, params.algorithms, params.seeds)]
    assert sorted(itertools.chain(*found)) == sorted(
        f"{stage}@{one}" for stage in ("meta_train", "adapt") for one in items
    )
    for share in found:
        assert all(share.index(f"meta_train@{one}") < share.index(f"adapt@{one}")
                   for one in items if f"adapt@{one}" in share)  # fmt: skip
    assert max(map(len, found)) - min(map(len, found)) <= 2, "an item's two stages"
    if jobs == models == 2:
        slow = [sum("adapt@wavenet" in one for one in share) for share in found]
        assert abs(slow[0] - slow[1]) <= 1


def test_bars_are_shown_but_not_kept(tmp_path):
    code = r"import sys; sys.stderr.write('begun\n 10%|#  | 1/9\r 20%|## | 2/9\r\x1b[A100%|###| 9/9\nlast words')"
    lane = Lane("one", [sys.executable, "-c", code], tmp_path / "logs/one.log")
    console = Console(file=io.StringIO(), width=60)
    assert run_together([lane], os.environ, lambda line: line.startswith("begun"), console)
    assert lane.said == ["begun", "last words"]
    assert console.file.getvalue().strip() == "one  begun"
    assert "20%|##" in lane.log.read_text()


def test_one_that_fails_does_not_stop_the_other(tmp_path):
    lanes = [
        Lane(name, [sys.executable, "-c", code], tmp_path / name)
        for name, code in {"bad": "raise SystemExit(3)", "good": "import time; time.sleep(0.3); print('here')"}.items()
    ]
    assert not run_together(lanes, os.environ, lambda line: False, Console(file=io.StringIO()))
    assert [lane.status for lane in lanes] == [3, 0]
    assert lanes[1].said == ["here"]
