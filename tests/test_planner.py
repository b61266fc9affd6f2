"""The forecast of a meta-training's cost, on tiny models of both kinds."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import tiny
import torch
from test_algorithms_models import batch, both_models, each_algorithm, episode, problem

from metaspeech.config import MetaTrain, Params
from metaspeech.errors import UserError
from metaspeech.meta.base import OuterStep
from metaspeech.training import planner
from metaspeech.training.memory import LiveTensors, limits_left
from metaspeech.training.planner import (
    Plan,
    affordable_steps,
    duration,
    gradient_bytes,
    on_line,
    plan,
    size,
    task_cost,
    with_steps,
)
from pipelines.plan import plan_all

SETTINGS = MetaTrain(gradient_evaluations=64, meta_batch=2)
PLENTY = 10**15


@pytest.fixture
def fixed_clock(monkeypatch):
    """Whatever would be timed takes a second and is not run."""
    monkeypatch.setattr(planner, "_seconds", lambda work, device, clock=None: 1.0)


quick = pytest.mark.usefixtures("fixed_clock")


def planned(kind, name="tacotron", settings=SETTINGS, devices=1, available=PLENTY, **inner):
    algorithm, loss_fn, start = problem(kind, name, rate=0.1, **inner)
    steps = affordable_steps(algorithm, kind, settings, devices)
    return plan(algorithm, loss_fn, start, episode(1), settings, steps, devices, available=available)


def memory(kind, name, **inner):
    """Bytes, counted at the algorithm's own number of steps."""
    return gradient_bytes(*problem(kind, name, rate=0.1, **inner), episode(1))


@quick
@both_models
@each_algorithm
def test_every_algorithm_can_be_planned(kind, name):
    made = planned(kind, name)
    if kind in tiny.NOT_META_TRAINED:
        assert (made.outer_steps, made.gradient_evaluations, made.seconds, made.memory_bytes) == (0, 0, 0.0, 0)
        assert not made.warnings()
        return
    assert made.outer_steps > 0
    assert made.gradient_evaluations <= SETTINGS.gradient_evaluations
    assert made.seconds > 0
    assert made.memory_bytes > 0
    assert made.sentence().startswith(f"{made.outer_steps} outer steps of 2 tasks: about ")


@quick
@both_models
@pytest.mark.parametrize("inner", [{}, {"adapts": "low_rank", "optimiser": "momentum"}, {"recompute": True}])
def test_memory_is_linear_in_inner_steps(name, inner):
    """Through two and three steps, to 2 % at five."""
    algorithm, loss_fn, start = problem("maml", name, rate=0.1, steps=5, **inner)
    predicted = task_cost(algorithm, loss_fn, start, episode(1)).memory_bytes
    assert predicted == pytest.approx(memory("maml", name, steps=5, **inner), rel=0.02)


@quick
@both_models
@pytest.mark.parametrize("kind", ["fomaml", "anil", "boil", "meta_sgd", "mamlpp", "imaml"])
def test_memory_of_other_algorithms_is_linear_too(kind, name):
    algorithm, loss_fn, start = problem(kind, name, rate=0.1, steps=5)
    at = OuterStep(30, 100)  # of MAML++: second order, all losses
    predicted = task_cost(algorithm, loss_fn, start, episode(1), at).memory_bytes
    assert predicted == pytest.approx(gradient_bytes(algorithm, loss_fn, start, episode(1), at), rel=0.02)


@quick
@both_models
def test_second_order_grows_with_the_steps_and_first_order_does_not(name):
    assert memory("maml", name, steps=6) > 1.5 * memory("maml", name, steps=3)
    assert memory("fomaml", name, steps=6) == pytest.approx(memory("fomaml", name, steps=3), rel=0.02)


@quick
@both_models
def test_recomputing_lowers_the_memory(name):
    kept, recomputed = (planned("maml", name, steps=6, recompute=recompute) for recompute in (False, True))
    assert recomputed.memory_bytes < 0.7 * kept.memory_bytes


@quick
def test_tasks_take_time_and_no_memory():
    two, four = (planned("maml", settings=replace(SETTINGS, meta_batch=number)) for number in (2, 4))
    assert four.memory_bytes == two.memory_bytes
    assert four.seconds / four.outer_steps == pytest.approx(2 * two.seconds / two.outer_steps)


@both_models
@pytest.mark.parametrize("kind", ["maml", "fomaml", "reptile", "anil"])
def test_an_outer_step_of_many_tasks_takes_the_memory_that_one_of_two_takes(kind, name):
    """Counted, not planned: neither graphs nor gradients of one task lie about while the next is taken."""
    algorithm, loss_fn, start = problem(kind, name, rate=0.1)

    def highest(tasks):
        episodes = [replace(episode(1), speaker=f"speaker-{number}") for number in range(tasks)]
        gc.collect()
        with LiveTensors() as live:
            algorithm.outer_gradient(loss_fn, start, episodes)
        return live.peak

    highest(2)
    assert highest(5) <= 1.005 * highest(2)


@quick
def test_processes_share_the_time_and_not_the_memory():
    settings = replace(SETTINGS, meta_batch=4)
    one, two, three = (planned("maml", settings=settings, devices=number) for number in (1, 2, 3))
    assert two.seconds == pytest.approx(one.seconds / 2)
    assert three.seconds == pytest.approx(one.seconds / 2)  # of four tasks one process of three takes two
    assert two.memory_bytes == 2 * one.memory_bytes


def test_costs_follow_the_line(monkeypatch):
    monkeypatch.setattr(planner, "gradient_seconds", lambda algorithm, *_: 1.0 + algorithm.inner.steps)
    monkeypatch.setattr(planner, "gradient_bytes", lambda algorithm, *_: 5 * algorithm.inner.steps)
    algorithm, loss_fn, start = problem("maml", "tacotron")
    for steps in (1, 2, 3, 5, 50):
        cost = task_cost(with_steps(algorithm, steps), loss_fn, start, episode(1))
        assert cost == planner.Cost(1.0 + steps, 5 * steps)
    assert on_line({1: 2.0, 3: 1.9}, 9) == 1.9


@quick
def test_validation_takes_time_of_its_own():
    algorithm, loss_fn, start = problem("maml", "tacotron", rate=0.1)
    settings = replace(SETTINGS, validate_every=4, checkpoint_every=2)
    times = [plan(algorithm, loss_fn, start, episode(1), settings, 10, held_out=number).seconds for number in (0, 3)]
    assert times == [10 * 2 * 1.0, 10 * 2 * 1.0 + 2 * 3 * 1.0]  # after the 4th and the 8th step


def test_mamlpp_is_measured_where_it_is_dearest_and_at_the_end():
    algorithm, *_ = problem("mamlpp", "tacotron")
    assert planner._moments(algorithm, 40) == [(OuterStep(19, 40), 0.5), (OuterStep(39, 40), 0.5)]
    algorithm, *_ = problem("maml", "tacotron")
    assert planner._moments(algorithm, 40) == [(OuterStep(39, 40), 1.0)]


@pytest.mark.parametrize("kind", ["maml", "mamlpp", "reptile", "conditioned", "imaml"])
def test_planning_changes_no_bit_of_what_follows(kind):
    algorithm, loss_fn, start = problem(kind, "tacotron", draws=True, rate=0.1, steps=4)
    untouched = {name: value.clone() for name, value in start.items()}
    torch.manual_seed(11)
    expected, drawn = algorithm.outer_gradient(loss_fn, start, [episode(2)])[0], torch.rand(3)
    torch.manual_seed(11)
    algorithm_before, state = dict(vars(algorithm)), torch.get_rng_state()
    plan(algorithm, loss_fn, start, episode(1), SETTINGS, 4, held_out=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert vars(algorithm) == algorithm_before
    found = algorithm.outer_gradient(loss_fn, start, [episode(2)])[0]
    assert torch.equal(torch.rand(3), drawn)
    for name, value in untouched.items():
        assert torch.equal(found[name], expected[name])
        assert torch.equal(start[name], value)
        assert start[name].grad is None


@quick
def test_too_little_memory_is_said_with_the_keys_to_change():
    (warning,) = planned("maml", available=1000).warnings()
    for said in ("meta_train.recompute: true", "inner.steps", "episodes.shots", "wavenet.window"):
        assert said in warning
    assert not planned("maml").warnings()


def test_what_a_process_holds_beside_its_tensors_counts():
    made = Plan(1, 1, 4, 1.0, 1_000_000_000, 2_000_000_000, held=3.5)
    (warning,) = made.warnings()
    assert "tensors of 1.00 GB" in warning
    assert "hold 3.50 GB" in warning
    assert "2.00 GB are available" in warning
    assert not replace(made, held=1.0).warnings()
    assert not replace(made, available_bytes=None).warnings()


def test_more_than_a_day_is_said():
    (warning,) = Plan(10, 1, 40, 3e5, 1, None).warnings()
    assert "3.5 days" in warning
    assert "meta_train.gradient_evaluations" in warning


def test_a_task_whose_loss_is_not_finite_cannot_be_measured():
    algorithm, loss_fn, start = problem("maml", "tacotron")
    broken = replace(episode(1), query=replace(batch(2), mels=torch.full((2, 9, 6), torch.inf, dtype=torch.float64)))
    with pytest.raises(UserError, match="speaker-1: its loss is not finite"):
        plan(algorithm, loss_fn, start, broken, SETTINGS, 4)


def test_live_tensors_are_counted_once_and_forgotten_when_freed():
    old = torch.ones(1000)
    with LiveTensors() as live:
        view = old.view(10, 100)[2:]
        assert live.now == 0
        double = old * 2
        also = double.view(10, 100)
        assert live.now == 4000
        double += 1
        assert live.now == 4000
        weights = old.clone().requires_grad_()
        graph = (weights.exp() * view.sum()).sum()
        del double, also
        gc.collect()
        held = live.now
        graph.backward()
    assert 8000 <= held < 8100  # weights and the result of exp
    assert live.peak >= 12000
    del weights, graph
    gc.collect()
    assert live.now < 100


def test_without_tasks_it_is_said_how_to_make_them(tmp_path):
    with pytest.raises(UserError, match="dvc repro episodes"):
        plan_all(Params(), tmp_path / "prepared", tmp_path / "episodes")


def test_limits_of_control_groups(tmp_path):
    version2, version1 = tmp_path / "a" / "b", tmp_path / "memory"
    for folder in (version2, version1):
        folder.mkdir(parents=True)
    for folder, names in [
        (
            tmp_path / "a",
            {"memory.max": "5000", "memory.current": "3000", "memory.stat": "anon 1\ninactive_file 500\n"},
        ),
        (version2, {"memory.max": "max", "memory.current": "10", "memory.stat": "inactive_file 0\n"}),
        (
            version1,
            {
                "memory.limit_in_bytes": "900",
                "memory.usage_in_bytes": "1000",
                "memory.stat": "inactive_file 7\ntotal_inactive_file 40\n",
            },
        ),
    ]:
        for name, text in names.items():
            (folder / name).write_text(text)
    assert list(limits_left("0::/a/b\n", tmp_path)) == [2500]
    assert list(limits_left("4:memory:/elsewhere\n1:cpu:/\n", tmp_path)) == [0]
    assert list(limits_left("1:cpu,cpuacct:/\n", tmp_path)) == []


def test_figures_for_people():
    assert [duration(one) for one in (1.24, 40, 96, 11520, 216000)] == ["1.2 s", "40 s", "1.6 min", "3.2 h", "2.5 days"]
    assert [size(one) for one in (4.1e8, 1.25e9)] == ["410 MB", "1.25 GB"]
