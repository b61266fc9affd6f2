"""Two real Ray nodes on this machine: preparation, training and sweeps on them, and what is lost with one of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import sweeping
import tiny
import torch
from ray_nodes import STORE_BYTES, two_nodes
from speech import write_corpus
from sweeping import hold, run, space, start, wait_for

from metaspeech import cluster
from metaspeech.config import Prepare
from metaspeech.data import prepare
from metaspeech.errors import UserError
from metaspeech.ray_pool import ray_pool
from metaspeech.sweeps import engine, study
from metaspeech.sweeps import space as spaces
from metaspeech.sweeps.snapshot import Code
from metaspeech.sweeps.trials import Outcome
from metaspeech.training.ray_trainer import fit_on_ray
from metaspeech.training.trainer import fit, make_trainer

Trials = optuna.trial.TrialState
SECONDS = 300  # to wait at most: a busy machine is slow, not wrong


@pytest.fixture(scope="module")
def nodes():
    """The cluster, and its second node."""
    with two_nodes() as both:
        yield both


@pytest.fixture
def address(nodes, monkeypatch):
    """Of the cluster, whose processes can import what tests do."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return nodes[0].address


# The cluster ------------------------------------------------------------------------------------------------------


def test_packages_that_a_node_lacks_are_named(address, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PACKAGES", ("torch", "no_such_package"))
    with (
        pytest.raises(UserError, match=r"cannot import no_such_package\. Install there what is installed here"),
        cluster.connected(address, [tmp_path]),
    ):
        pass


def test_a_node_that_does_not_see_the_folder_is_named(nodes, address, tmp_path):
    """A third node, for which something else lies in the folder's place."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    allowed = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(hidden)]
    if not shutil.which("unshare") or subprocess.run(allowed, capture_output=True).returncode:
        pytest.skip("this user may not mount: no way to hide a folder from a node")
    command = f"mount -t tmpfs none {hidden} && exec {sys.executable} -m ray.scripts.scripts start --block " + (
        f"--address {address} --num-cpus 1 --object-store-memory {STORE_BYTES} --disable-usage-stats"
    )
    node = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: sum(one["Alive"] for one in nodes[0].global_state.node_table()) == 3, SECONDS)
        with (
            pytest.raises(UserError, match=rf"does not see {hidden}. The project must lie in a folder that all nodes"),
            cluster.connected(address, [hidden]),
        ):
            pass
    finally:
        node.terminate()
        node.wait(60)
    wait_for(lambda: sum(one["Alive"] for one in nodes[0].global_state.node_table()) == 2, SECONDS)


# Preparation ------------------------------------------------------------------------------------------------------


def test_prepare_writes_the_same_bytes(address, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "CHUNK", 2)
    corpus, config = tmp_path / "corpus", Prepare(workers=2, statistics="")
    write_corpus(corpus, speakers=4)
    here = prepare.prepare_corpus(corpus, tmp_path / "here", config, progress=False)
    with ray_pool([tmp_path / "there"], [corpus], address) as pool:
        there = prepare.prepare_corpus(corpus, tmp_path / "there", config, progress=False, pool=pool)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            list(pool.ordered_map(lambda path: Path(path).stat(), ["/", "/nowhere"], 1))
    assert here == there
    assert here.utterances == 16
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert names == {path.name for path in (tmp_path / "there").iterdir()} >= {"manifest.parquet", "mel-00000.npy"}
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name


# Training ---------------------------------------------------------------------------------------------------------


def train(address, folder, at=lambda step: None, devices=2):
    """The learner, its final metrics and what was logged; ``at`` is called in a process before each outer step."""
    values = replace(tiny.params(), devices=devices)
    learner, data = tiny.learner("tacotron", "fomaml", values), tiny.module(values)
    make = data.make

    def noted(step):
        at(step)
        return make(step)

    data.make = noted
    logged = []
    final = fit_on_ray(
        values, learner, data, folder / "partial-x", lambda found, step: logged.append((step, found)), lambda *_: None,
        lambda log_image: [], address, log_every_n_steps=1,
    )  # fmt: skip
    return learner, final, logged


@pytest.mark.slow
def test_a_killed_process_resumes_from_the_last_checkpoint_to_the_same_parameters(address, tmp_path):
    mark, steps = tmp_path / "killed", tmp_path / "steps"

    def die_once(step):
        with steps.open("a") as file:
            file.write(f"{step}\n")
        if step == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    learner, final, logged = train(address, tmp_path / "ray", die_once)
    assert mark.exists()
    taken = [int(step) for step in steps.read_text().split()]
    assert taken.count(0) == taken.count(1) == 2, "by each process once: what the checkpoint has is not trained again"
    assert taken.count(2) == 4

    values = tiny.params()
    here, data = tiny.learner("tacotron", "fomaml", values), tiny.module(values)
    trainer = make_trainer(values, data.epochs, lambda *_: None, tmp_path / "partial-x", 2, log_every_n_steps=1)
    fit(trainer, here, data, tmp_path / "partial-x")
    assert all(torch.equal(value, learner.meta_parameters[name]) for name, value in here.meta_parameters.items())
    assert final["validation_after"] == pytest.approx(float(trainer.callback_metrics["validation_after"]))
    assert len({step for step, found in logged if "loss_after" in found}) == tiny.STEPS, "all of it reaches the tracker"


@pytest.mark.slow
def test_what_the_training_objects_to_is_said_and_not_tried_again(address, tmp_path):
    tried = tmp_path / "tried"

    def refuse(step):
        with tried.open("a") as file:
            file.write("x")
        raise UserError("no such utterance")

    with pytest.raises(UserError, match="no such utterance"):
        train(address, tmp_path, refuse, devices=1)
    assert tried.read_text() == "x"


def test_more_processes_than_the_cluster_has_are_refused(address, tmp_path):
    with pytest.raises(UserError, match="devices: 3 processes need as many CPUs, and the cluster has 2 nodes with 2"):
        train(address, tmp_path, devices=3)


# A sweep ----------------------------------------------------------------------------------------------------------


def test_halving_stops_the_worse_trial_and_the_study_knows_why(address, tmp_path):
    """With a function in the place of DVC: of two trials the second is the worse one from the start."""
    base = {"models": ["tacotron"], "algorithms": ["maml"]}
    raw = {
        "target": "adapt",
        "objectives": [sweeping.LOSS],
        "prune": True,
        "search": {"inner.rate": {"low": 0.01, "high": 1.0}},
    }
    searched = spaces.parse(raw, base, "mine.yaml")
    begun = study.open_study("mine", tmp_path, "", searched, base, Code("c" * 40, ""), "tpe", 1)
    ended = tmp_path / "ended"

    def work(number, values, report, stop):
        for rung in (1, 2, 3):
            if report(float(number), rung):
                ended.write_text(f"trial {number} at {rung}")
                return Outcome("pruned", reason="others did better by then")
        return Outcome("complete", [float(number)])

    told: list[str] = []
    beside = threading.Thread()  # a sweep has one that logs; Tune writes down its search, and cannot write a thread

    def tell(line):
        told.append(line)
        assert not beside.is_alive()

    with cluster.connected(address, [tmp_path / "shared"]) as found:
        assert not list((tmp_path / "shared").iterdir()), "nothing is left of the looking over"
        assert (len(found.nodes), found.cpus, found.gpus) == (2, 2, 0)
        assert [found.share(jobs) for jobs in (1, 2, 5)] == [(1, 0.0)] * 3, "no trial asks for more than a node has"
        from metaspeech.sweeps.ray_engine import RayEngine

        RayEngine(found, tmp_path).run(begun, searched, work, engine.Wanted(2), tell)
    assert [one.state for one in begun.trials] == [Trials.COMPLETE, Trials.PRUNED], told
    assert [one.intermediate_values for one in begun.trials] == [{1: 0.0, 2: 0.0, 3: 0.0}, {1: 1.0}]
    assert ended.read_text() == "trial 1 at 1", "the trial itself was told"


def trials(project, name):
    try:
        return study.load(name, project / ".metaspeech/sweeps" / name, "").trials
    except (UserError, FileNotFoundError):  # not begun yet
        return []


@pytest.mark.slow
def test_a_node_killed_in_the_middle_loses_no_finished_trial_and_the_sweep_ends(nodes, tmp_path):
    """The last test: it leaves one node."""
    both, second = nodes
    project, wanted = sweeping.make_project(tmp_path / "project"), 4
    file = space(project, "lost")
    process = start(
        project, str(file), "--trials", str(wanted), "--jobs", "2", "--engine", "ray", "--address", both.address
    )

    def now(state):
        return {one.number: one for one in trials(project, "lost") if one.state == state}

    def both_run():
        running = now(Trials.RUNNING)
        told = project / ".metaspeech/sweeps/lost/progress"
        return len(running) == 2 and all((told / f"{number}.jsonl").exists() for number in running)

    try:
        wait_for(lambda: process.poll() is not None or now(Trials.COMPLETE), SECONDS)
        held = hold(project, "lost")
        wait_for(lambda: process.poll() is not None or both_run(), SECONDS)
        before = {number: one.values for number, one in now(Trials.COMPLETE).items()}
        both.remove_node(second, allow_graceful=False)
        wait_for(lambda: process.poll() is not None or now(Trials.FAIL), SECONDS)
        held.unlink()
        output, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "its process or its machine was lost, so it will be run again" in output
    found = trials(project, "lost")
    finished = {one.number: one.values for one in found if one.state == Trials.COMPLETE}
    assert before
    assert before.items() <= finished.items()
    assert len(finished) == wanted
    [lost] = [one for one in found if one.state == Trials.FAIL]
    [again] = [one for one in found if one.user_attrs.get(study.RETRY_OF) == lost.number]
    assert again.params == lost.params
    assert again.state == Trials.COMPLETE
    experiments = run(project, "dvc", "exp", "list", "--name-only").split()
    assert {f"sweep-lost-{number}" for number in finished} <= set(experiments)
