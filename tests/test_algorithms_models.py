"""The algorithms on tiny models of both kinds, in double precision: finite differences, and what must not leak."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from metaspeech import config
from metaspeech.config import Tacotron, Wavenet
from metaspeech.data.batch import Episode, SpeechBatch
from metaspeech.errors import UserError
from metaspeech.meta.base import OuterStep
from metaspeech.meta.inner import on
from metaspeech.meta.unrolled import query_loss
from metaspeech.models.base import FeatureSpec, loss_function, parameters_of
from metaspeech.models.tacotron.model import TacotronModel
from metaspeech.models.wavenet.model import WaveNetModel
from metaspeech.registry import ALGORITHMS, resolve

FEATURES = FeatureSpec(symbols=9, n_mels=6, hop=16, sample_rate=16000)
each_model = pytest.mark.parametrize("name", ["tacotron", "wavenet-mulaw", "wavenet-logistics", "wavenet-gaussian"])
both_models = pytest.mark.parametrize("name", ["tacotron", "wavenet-mulaw"])
each_algorithm = pytest.mark.parametrize("kind", list(ALGORITHMS))
SECOND_ORDER = ["maml", "anil", "boil", "meta_sgd", "mamlpp"]


def tiny(name, draws=False):
    """``draws``: with random numbers in the forward pass: dropout in the prenet, windows shorter than the waveform."""
    torch.manual_seed(3)
    if name == "tacotron":
        settings = Tacotron(preset="tiny", reduction_factor=2, dropout=0.0, prenet_dropout=0.5 if draws else 0.0)
        model = TacotronModel(settings, FEATURES).double()
        torch.nn.init.normal_(model.postnet.last.weight, std=0.1)
        return model
    window, output = 64 if draws else 160, name.partition("-")[2]
    wavenet = WaveNetModel(Wavenet(preset="tiny", output=output, window=window), FEATURES).double()
    torch.nn.init.normal_(wavenet.stack.last.weight, std=0.1)
    return wavenet


def batch(seed, lengths=(5, 4), frames=(9, 7)):
    generator = torch.Generator().manual_seed(seed)
    return SpeechBatch(
        tokens=torch.randint(1, 9, (2, max(lengths)), generator=generator),
        token_lengths=torch.tensor(lengths),
        mels=torch.randn(2, max(frames), 6, generator=generator, dtype=torch.float64),
        mel_lengths=torch.tensor(frames),
        audio=0.1 * torch.randn(2, 16 * max(frames), generator=generator, dtype=torch.float64),
        audio_lengths=16 * torch.tensor(frames),
    )


def episode(seed):
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(256, generator=generator, dtype=torch.float64) / 16
    return Episode(f"speaker-{seed}", batch(seed), batch(seed + 100), seed, vector, batch(seed + 200))


def make(kind, **inner):
    inner = {"steps": 2, "rate": 0.3, "clip": 0.5, "adapt_modules": ["*"]} | inner
    meta_train = {"recompute": inner.pop("recompute", False)}
    return resolve(ALGORITHMS, kind).from_params(config.from_mapping({"inner": inner, "meta_train": meta_train}))


def problem(kind, name, draws=False, **inner):
    """Algorithm, loss function and start, with what is learned besides."""
    model, algorithm = tiny(name, draws), make(kind, **inner)
    loss_fn, start = loss_function(model), parameters_of(model)
    torch.manual_seed(5)
    return algorithm, loss_fn, start | algorithm.learned(loss_fn, start)


def directions(start, number=2):
    for seed in range(number):
        generator = torch.Generator().manual_seed(seed)
        yield {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in start.items()}


def derivative(objective, start, direction, step):
    ahead = objective({n: v + step * direction[n] for n, v in start.items()})
    behind = objective({n: v - step * direction[n] for n, v in start.items()})
    return (ahead - behind) / (2 * step)


def along(gradients, direction):
    return float(sum((gradients[n] * direction[n]).sum() for n in direction))


def agrees(gradients, objective, start):
    """To 1e-6 with one of three steps: the best one lies between rounding and the kinks of WaveNet's head."""
    for direction in directions(start):
        exact = along(gradients, direction)
        differences = (derivative(objective, start, direction, step) for step in (1e-6, 1e-5, 1e-7))
        assert any(exact == pytest.approx(numeric, rel=1e-6) for numeric in differences)


@each_model
@pytest.mark.parametrize("kind", SECOND_ORDER)
def test_outer_gradient_by_finite_differences(kind, name):
    check_outer_gradient(*problem(kind, name), kind)


@both_models
@pytest.mark.parametrize("adapts", ["vectors", "low_rank"])
@pytest.mark.parametrize("kind", ["maml", "mamlpp"])
def test_outer_gradient_of_other_variables_by_finite_differences(kind, name, adapts):
    check_outer_gradient(*problem(kind, name, adapts=adapts), kind)


def check_outer_gradient(algorithm, loss_fn, start, kind):
    task, at = episode(1), OuterStep(30, 100)
    gradients, _ = algorithm.outer_gradient(loss_fn, start, [task], at)
    weights = algorithm.weights(at) if kind == "mamlpp" else [0.0, 1.0]

    def objective(params):
        path = algorithm.adaptation(loss_fn, params, task)
        next(path)
        return sum(w * float(loss_fn(adapted, task.query)[0]) for w, adapted in zip(weights, path, strict=False))

    agrees(gradients, objective, start)


@each_model
def test_outer_gradient_through_inner_momentum(name):
    algorithm, loss_fn, start = problem("maml", name, optimiser="momentum")
    task = episode(1)
    gradients, _ = algorithm.outer_gradient(loss_fn, start, [task])

    def objective(params):
        return float(loss_fn(algorithm.adapt(loss_fn, params, task, 2), task.query)[0])

    agrees(gradients, objective, start)


@each_model
@pytest.mark.parametrize("kind", ["transfer", "conditioned", "nearest"])
def test_joint_gradient_by_finite_differences(kind, name):
    algorithm, loss_fn, start = problem(kind, name)
    task = episode(1)
    gradients, _ = algorithm.outer_gradient(loss_fn, start, [task])

    def objective(params):
        params = algorithm.conditioned(params, task)
        return float(loss_fn(params, task.support)[0] + loss_fn(params, task.query)[0]) / 2

    agrees(gradients, objective, start)


@each_model
def test_fomaml_is_the_gradient_where_adaptation_ended(name):
    algorithm, loss_fn, start = problem("fomaml", name)
    task = episode(1)
    gradients, _ = algorithm.outer_gradient(loss_fn, start, [task])
    agrees(gradients, lambda p: float(loss_fn(p, task.query)[0]), algorithm.adapt(loss_fn, start, task, 2))


@each_model
def test_reptile_goes_the_way_of_its_inner_steps(name):
    """Its outer gradient is the sum of rate * gradient over the inner steps, each by finite differences."""
    algorithm, loss_fn, start = problem("reptile", name, clip=0)
    task = episode(1)
    gradients, _ = algorithm.outer_gradient(loss_fn, start, [task])
    first = algorithm.adapt(loss_fn, start, task, 1)
    for direction in directions(start):
        steps = ((start, task.support), (first, task.query))
        slopes = [derivative(lambda p, b=b: float(loss_fn(p, b)[0]), at, direction, 1e-6) for at, b in steps]
        assert along(gradients, direction) == pytest.approx(0.3 * sum(slopes), rel=1e-6)


@both_models
def test_implicit_gradient_at_the_minimum_by_finite_differences(name):
    """With a strong pull the inner problem has one minimum; the gradient is that of the query loss at it."""
    algorithm, loss_fn, start = problem("imaml", name, steps=100, rate=0.015, clip=0)
    algorithm.strength, algorithm.solver_steps = 60.0, 60
    task = episode(1)
    gradients, _ = algorithm.outer_gradient(loss_fn, start, [task])

    def objective(params):
        return float(loss_fn(algorithm.adapt(loss_fn, params, task, 100), task.query)[0])

    agrees(gradients, objective, start)


def test_implicit_gradient_refuses_adapters():
    with pytest.raises(UserError, match="imaml has no low_rank"):
        make("imaml", adapts="low_rank")


@both_models
@pytest.mark.parametrize("kind", ["maml", "anil", "boil", "meta_sgd"])
@pytest.mark.parametrize("inner", [{}, {"optimiser": "momentum"}, {"adapts": "low_rank"}])
def test_recomputing_changes_nothing_but_memory(kind, name, inner):
    task = episode(1)
    kept = problem(kind, name, draws=True, steps=3, **inner)
    again = problem(kind, name, draws=True, steps=3, recompute=True, **inner)
    expected, _ = kept[0].outer_gradient(*kept[1:], [task])
    gradients, _ = again[0].outer_gradient(*again[1:], [task])
    for n in expected:
        assert torch.allclose(gradients[n], expected[n], rtol=1e-9, atol=1e-12)


@both_models
def test_cached_features_change_nothing(name):
    """ANIL with the body computed once is MAML whose inner loop moves the head's parameters."""
    algorithm, loss_fn, start = problem("anil", name)
    naive = make("maml", adapt_modules=list(tiny(name).head_modules))
    cached, _ = algorithm.outer_gradient(loss_fn, start, [episode(1)])
    expected, _ = naive.outer_gradient(loss_fn, start, [episode(1)])
    for n in start:
        assert torch.allclose(cached[n], expected[n], rtol=1e-9, atol=1e-13)


@both_models
def test_body_and_head_make_up_the_model(name):
    _, loss_fn, start = problem("boil", name)
    head = {n for n in start if loss_fn.in_head(n)}
    assert head
    assert head < set(start)
    moved = {kind: make(kind).adapt(loss_fn, start, episode(1), 1) for kind in ("anil", "boil")}
    changed = {kind: {n for n in start if not torch.equal(moved[kind][n], start[n])} for kind in moved}
    assert changed["anil"] <= head
    assert not changed["boil"] & head
    assert changed["anil"] | changed["boil"] == {n for n in start if n != "none"} - unused(name)


def unused(name):
    """Parameters whose gradient is exactly zero on such short input."""
    model = tiny(name)
    loss, _ = model(batch(1))
    loss.backward()
    return {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}


@each_model
def test_second_order_differs_from_first_order(name):
    algorithm, loss_fn, start = problem("maml", name)
    exact, _ = algorithm.outer_gradient(loss_fn, start, [episode(1)])
    first, _ = make("fomaml").outer_gradient(loss_fn, start, [episode(1)])
    assert any(not torch.allclose(exact[n], first[n], rtol=1e-3) for n in start)


@each_model
@each_algorithm
def test_nothing_leaks_between_tasks(kind, name):
    """A task's part of the outer gradient is the same alone, first or last, and the start is left as it was."""
    algorithm, loss_fn, start = problem(kind, name, draws=True, rate=0.1)
    untouched = {n: value.clone() for n, value in start.items()}
    one, other = episode(1), episode(2)
    alone = [algorithm.outer_gradient(loss_fn, start, [task])[0] for task in (one, other)]
    both, _ = algorithm.outer_gradient(loss_fn, start, [one, other])
    swapped, _ = algorithm.outer_gradient(loss_fn, start, [other, one])
    for n in start:
        assert torch.equal(both[n], swapped[n])
        assert torch.allclose(both[n], (alone[0][n] + alone[1][n]) / 2, rtol=1e-12, atol=1e-15)
        assert torch.equal(start[n], untouched[n])


@both_models
@each_algorithm
def test_adaptation_leaves_the_start_alone_and_repeats_itself(kind, name):
    algorithm, loss_fn, start = problem(kind, name, draws=True, rate=0.1, optimiser="adam")
    untouched = {n: value.clone() for n, value in start.items()}
    first = algorithm.adapt(loss_fn, start, episode(1), 3)
    algorithm.adapt(loss_fn, start, episode(2), 3)
    again = algorithm.adapt(loss_fn, start, episode(1), 3)
    for n in start:
        assert torch.equal(start[n], untouched[n])
        assert torch.equal(first[n], again[n])


@each_model
@each_algorithm
def test_a_task_that_diverges_is_left_out_counted_and_named(kind, name, caplog):
    algorithm, loss_fn, start = problem(kind, name, rate=0.1)
    broken = replace(episode(2), support=replace(batch(2), mels=torch.full((2, 9, 6), torch.inf, dtype=torch.float64)))
    gradients, metrics = algorithm.outer_gradient(loss_fn, start, [episode(1), broken])
    expected, _ = algorithm.outer_gradient(loss_fn, start, [episode(1)])
    assert metrics["skipped"] == 1
    assert metrics["tasks"] == 1
    assert "task of speaker-2 left out" in caplog.text
    assert all(torch.equal(gradients[n], expected[n]) for n in start)


@each_model
def test_adaptation_lowers_the_support_loss(name):
    algorithm, loss_fn, start = problem("maml", name, rate=0.1, clip=1.0)
    task = episode(1)
    adapted = algorithm.adapt(loss_fn, start, task, 50)
    share = 0.9 if name == "tacotron" else 0.995  # WaveNet is given noise, of which it can learn the loudness
    assert float(loss_fn(adapted, task.support)[0]) < share * float(loss_fn(start, task.support)[0])


def test_conditioning_gives_each_task_its_own_start():
    algorithm, loss_fn, start = problem("conditioned", "tacotron")
    start["inner/voice_map"] = torch.randn_like(start["inner/voice_map"])
    voices = [algorithm.adapt(loss_fn, start, episode(seed), 0)["voice"] for seed in (1, 2)]
    assert not torch.allclose(*voices)
    expected = start["voice"] + start["inner/voice_map"] @ episode(1).representation
    assert torch.allclose(voices[0], expected)


def test_nearest_warms_up_on_the_neighbour():
    algorithm, loss_fn, start = problem("nearest", "tacotron", clip=0)
    task = episode(1)
    expected = start
    for step in range(5):
        loss = partial(query_loss, on(loss_fn, task.neighbour), seed=step)
        leaves = {n: v.detach().requires_grad_() for n, v in expected.items()}
        gradients = torch.autograd.grad(loss(leaves), list(leaves.values()))
        expected = {n: v - 0.3 * g for (n, v), g in zip(expected.items(), gradients, strict=True)}
    found = algorithm.adapt(loss_fn, start, task, 0)
    for n in start:
        assert torch.allclose(found[n], expected[n], rtol=1e-9, atol=1e-13)
