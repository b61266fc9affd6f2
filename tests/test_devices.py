"""Training in several processes: what they share, that its result is that of one, that they end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch

from metaspeech.registry import MODELS
from metaspeech.training import meta_learner
from metaspeech.training.checkpoint import build_model
from metaspeech.training.meta_learner import MetaLearner, shares
from metaspeech.training.trainer import finish, fit, make_trainer

ROOT = Path(__file__).resolve().parents[1]


def train(devices, folder, algorithm="fomaml", values=None, stop_at=None, **module):
    """The learner after training and what was logged; with ``stop_at`` fails as that step is loaded."""
    values = values or tiny.params()
    learner, data = tiny.learner("tacotron", algorithm, values), tiny.module(values, **module)
    make = data.make

    def failing(step):
        if step == stop_at:
            raise RuntimeError("stopped")
        return make(step)

    data.make = failing
    logged = []
    trainer = make_trainer(
        values, data.epochs, lambda found, step: logged.append(found), folder / "partial-x", devices,
        log_every_n_steps=1,
    )  # fmt: skip
    fit(trainer, learner, data, folder / "partial-x")
    finish(folder / "partial-x")
    return learner, logged


# Shares -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "processes", "expected"),
    [
        ([9, 1, 2, 3], 2, [["a"], ["d", "c", "b"]]),
        ([5, 5, 5, 5], 2, [["a", "c"], ["b", "d"]]),
        ([4, 6, 5, 3], 2, [["b", "d"], ["c", "a"]]),
        ([1, 7], 3, [["b"], ["a"], []]),
        ([2, 1], 1, [["a", "b"]]),
    ],
)
def test_the_longest_goes_first_to_the_process_with_the_least(lengths, processes, expected):
    assert shares("abcd"[: len(lengths)], lengths, processes) == expected


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_everything_once_and_as_even_as_the_longest_allows(seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 50, (3 + seed,), generator=generator).tolist()
    taken = shares(range(len(lengths)), lengths, 3)
    assert sorted(index for share in taken for index in share) == list(range(len(lengths)))
    loads = [sum(lengths[index] for index in share) for share in taken]
    assert max(loads) - min(loads) <= max(lengths)
    assert max(loads) <= 11 / 9 * max(sum(lengths[rank::3]) for rank in range(3))  # 4/3 - 1/(3 processes) of the best


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_says_how_much_it_computes(name):
    model = build_model(name, tiny.params(), tiny.FEATURES)
    short, long = (model.length(tiny.batch(1, characters)) for characters in (10, 30))
    assert (short, long) == ((40, 120) if name == "tacotron" else (16, 16))


def test_processes_that_take_one_and_three_tasks_train_what_one_does(tmp_path, monkeypatch):
    taken = tmp_path / "taken"
    outer_step = MetaLearner.training_step

    def noted(self, episodes, index):
        own = shares(episodes, [self._length(one) for one in episodes], self.trainer.world_size)[self.global_rank]
        with taken.open("a") as file:
            file.write(f"{len(own)}\n")
        outer_step(self, episodes, index)

    monkeypatch.setattr(MetaLearner, "training_step", noted)
    one, _ = train(1, tmp_path, values=tiny.params(meta_batch=4))
    assert taken.read_text().split() == ["4"] * tiny.STEPS
    taken.unlink()
    two, _ = train(2, tmp_path, values=tiny.params(meta_batch=4))
    assert sorted(taken.read_text().split()) == ["1"] * tiny.STEPS + ["3"] * tiny.STEPS
    assert int(two.tasks_seen) == int(one.tasks_seen) == 4 * tiny.STEPS
    for name, value in one.meta_parameters.items():
        assert torch.allclose(value, two.meta_parameters[name], rtol=1e-6, atol=1e-6), name


# Validation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("episodes", [1, 3, 4])
def test_validation_is_shared_and_says_what_one_process_says(episodes, tmp_path, monkeypatch):
    measured = tmp_path / "measured"
    curve = meta_learner.adaptation_curve

    def noted(*arguments):
        with measured.open("a") as file:
            file.write(f"{arguments[3].speaker}\n")
        return curve(*arguments)

    monkeypatch.setattr(meta_learner, "adaptation_curve", noted)
    figures = []
    for devices in (1, 2):
        _, logged = train(devices, tmp_path, validation=episodes)
        figures.append(
            [(one["validation_before"], one["validation_after"]) for one in logged if "validation_after" in one]
        )
        speakers = sorted(measured.read_text().split())
        assert speakers == sorted(f"speaker-{100 + index}" for index in range(episodes) for _ in range(2))
        measured.unlink()
    assert len(figures[0]) == 2
    assert figures[0][0][0] != figures[0][0][1]
    assert torch.allclose(torch.tensor(figures[1]), torch.tensor(figures[0]), rtol=1e-5)


# Interruption -----------------------------------------------------------------------------------------------------


def test_two_processes_that_were_interrupted_end_in_the_same_bits(tmp_path):
    whole, _ = train(2, tmp_path / "whole", "mamlpp")
    with pytest.raises(Exception, match="stopped"):
        train(2, tmp_path / "killed", "mamlpp", stop_at=3)
    assert (tmp_path / "killed" / "partial-x" / "last.ckpt").exists()
    resumed, logged = train(2, tmp_path / "killed", "mamlpp")
    assert len([one for one in logged if "loss_after" in one]) == 2
    assert all(torch.equal(value, resumed.meta_parameters[name]) for name, value in whole.meta_parameters.items())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_end_when_their_parent_is_killed(tmp_path):
    paths = os.pathsep.join(str(ROOT / name) for name in ("src", "tests"))
    command = [sys.executable, __file__, str(tmp_path)]
    parent = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.DEVNULL)
    try:
        soon(lambda: (tmp_path / "trained").exists(), 60)
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert len(children) == 2
    finally:
        parent.kill()
        parent.wait()
    soon(lambda: not any(running(child) for child in children), 10)


def soon(happened, seconds):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def running(process):
    """Whether it exists and is more than an entry that nobody has collected."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def train_on(folder):
    """Until it is killed, and deaf to SIGINT as whatever a shell starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    values = tiny.params()
    data = tiny.module(values, steps=10**6)
    trained = folder / "trained"
    trainer = make_trainer(
        values, data.epochs, lambda *_: trained.touch(), folder / "partial-x", 2, log_every_n_steps=1
    )
    fit(trainer, tiny.learner("tacotron", "fomaml", values, steps=10**6), data, folder / "partial-x")


if __name__ == "__main__":
    train_on(Path(sys.argv[1]))
