"""The mathematics of the algorithms: golden values by hand, finite differences, and what must not leak."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from metaspeech.config import MetaTrain, Tacotron, Wavenet
from metaspeech.data.batch import Episode, SpeechBatch
from metaspeech.meta.base import InnerLoop
from metaspeech.meta.baselines import Transfer
from metaspeech.meta.maml import Fomaml, Maml
from metaspeech.meta.reptile import Reptile
from metaspeech.models.base import FeatureSpec, loss_function, parameters_of
from metaspeech.models.tacotron.model import TacotronModel
from metaspeech.models.wavenet.model import WaveNetModel


@dataclass(frozen=True)
class Point:
    """One input of the linear model; ``power`` 2 is L = y^2 / 2, power 1 is L = y."""

    x: tuple[float, float, float]
    power: int = 2


def linear(params, point):
    output = (params["w"] * torch.tensor(point.x, dtype=params["w"].dtype)).sum()
    return output**2 / 2 if point.power == 2 else output, {}


def outer(algorithm, support, query, loss_fn=linear):
    start = {"w": torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)}
    gradients, _ = algorithm.outer_gradient(loss_fn, start, [Episode("s", support, query)])
    return gradients["w"].tolist()


def test_maml_golden():
    algorithm = Maml(InnerLoop(steps=1, rate=0.5))
    assert outer(algorithm, Point((1, 2, 3)), Point((4, 5, 6))) == [3780, 8505, 13230]


def test_fomaml_golden():
    algorithm = Fomaml(InnerLoop(steps=1, rate=0.5))
    assert outer(algorithm, Point((4, 5, 6)), Point((1, 2, 3))) == [-825, -1650, -2475]


def test_maml_three_steps_golden():
    """phi_k = (1 - x.x)^k theta along x: the factor (1 - 14)^3 - 1 over 14 multiplies x (x . q)."""
    algorithm = Maml(InnerLoop(steps=3, rate=1.0))
    gradient = outer(algorithm, Point((1, 2, 3)), Point((4, 5, 6), power=1))
    assert gradient == [-5020, -10043, -15066]


def test_reptile_by_hand():
    """phi = w - a y x; the outer gradient is w - phi = a y x, and SGD at rate eps is the published update."""
    algorithm = Reptile(InnerLoop(steps=1, rate=0.5))
    assert outer(algorithm, Point((1, 2, 3)), Point((4, 5, 6))) == [11.5, 23.0, 34.5]
    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0, 5.0]))
    optimiser, schedule = algorithm.optimiser([weight], MetaTrain(reptile_rate=0.5), total_steps=2)
    for expected in ([-3.75, -8.5, -12.25], [-6.625, -14.25, -20.875]):
        weight.grad = torch.tensor([11.5, 23.0, 34.5])
        optimiser.step()
        schedule.step()
        assert weight.tolist() == expected


def test_transfer_is_the_gradient_of_all_utterances_at_the_start():
    algorithm = Transfer(InnerLoop(steps=3, rate=1.0))
    # y_s = 23, y_q = 53: (23 [1,2,3] + 53 [4,5,6]) / 2
    assert outer(algorithm, Point((1, 2, 3)), Point((4, 5, 6))) == [117.5, 155.5, 193.5]


def test_clipping_bounds_the_step():
    inner = InnerLoop(steps=1, rate=1.0, clip=2.0)
    start = {"w": torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)}
    stepped, _ = inner.step(linear, start, Point((1, 2, 3)))
    assert float((stepped["w"] - start["w"]).norm()) == pytest.approx(2.0)


def test_only_named_modules_adapt():
    inner = InnerLoop(steps=1, rate=0.1, adapt_modules=("decoder.*",))
    params = {"decoder.a": torch.ones(2), "encoder.a": torch.ones(2)}
    stepped, _ = inner.step(lambda p, _: (sum(v.square().sum() for v in p.values()), {}), params, None)
    assert torch.equal(stepped["encoder.a"], torch.ones(2))
    assert torch.allclose(stepped["decoder.a"], torch.full((2,), 0.8))


def test_budget_is_the_same_number_of_gradients_for_every_algorithm():
    settings = MetaTrain(gradient_evaluations=240, meta_batch=2)
    inner = InnerLoop(steps=3, rate=0.1)
    for algorithm in (Maml(inner), Fomaml(inner), Reptile(inner), Transfer(inner)):
        counted = counting(linear)
        algorithm.outer_gradient(counted, {"w": torch.ones(3)}, [Episode("s", Point((1, 2, 3)), Point((4, 5, 6)))])
        assert counted.calls == algorithm.evaluations_per_task
        assert algorithm.outer_steps(settings) * 2 * counted.calls == 240


def counting(loss_fn):
    def counted(params, batch):
        counted.calls += 1
        return loss_fn(params, batch)

    counted.calls = 0
    return counted


# Tiny models in double precision ----------------------------------------------------------------------------------


FEATURES = FeatureSpec(symbols=9, n_mels=6, hop=16, sample_rate=16000)
each_model = pytest.mark.parametrize("name", ["tacotron", "wavenet-mulaw", "wavenet-logistics", "wavenet-gaussian"])


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
    return Episode(f"speaker-{seed}", batch(seed), batch(seed + 100), seed)


@each_model
def test_maml_outer_gradient_by_finite_differences(name):
    model = tiny(name)
    loss_fn, start = loss_function(model), parameters_of(model)
    inner = InnerLoop(steps=2, rate=0.3, clip=0.5)
    task = episode(1)
    gradients, _ = Maml(inner).outer_gradient(loss_fn, start, [task])

    def after_adaptation(params):
        adapted = Maml(inner).adapt(loss_fn, params, task.support, inner.steps)
        return float(loss_fn(adapted, task.query)[0])

    for seed in range(3):  # directional derivatives over all parameters at once
        generator = torch.Generator().manual_seed(seed)
        direction = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in start.items()}
        step = 1e-5 if name == "tacotron" else 1e-6  # WaveNet's head has kinks, which a longer step crosses
        ahead = after_adaptation({n: v + step * direction[n] for n, v in start.items()})
        behind = after_adaptation({n: v - step * direction[n] for n, v in start.items()})
        numeric = (ahead - behind) / (2 * step)
        exact = float(sum((gradients[n] * direction[n]).sum() for n in start))
        assert exact == pytest.approx(numeric, rel=1e-6)


@each_model
def test_second_order_differs_from_first_order(name):
    model = tiny(name)
    loss_fn, start, tasks = loss_function(model), parameters_of(model), [episode(1)]
    inner = InnerLoop(steps=2, rate=0.3)
    exact, _ = Maml(inner).outer_gradient(loss_fn, start, tasks)
    first, _ = Fomaml(inner).outer_gradient(loss_fn, start, tasks)
    assert any(not torch.allclose(exact[n], first[n], rtol=1e-3) for n in start)


@each_model
@pytest.mark.parametrize("kind", [Maml, Fomaml, Reptile, Transfer])
def test_nothing_leaks_between_tasks(kind, name):
    """A task's part of the outer gradient is the same alone, first or last, and the start is left as it was."""
    model = tiny(name, draws=True)
    loss_fn, start = loss_function(model), parameters_of(model)
    untouched = {n: value.clone() for n, value in start.items()}
    algorithm = kind(InnerLoop(steps=2, rate=0.1))
    one, other = episode(1), episode(2)
    alone = [algorithm.outer_gradient(loss_fn, start, [task])[0] for task in (one, other)]
    both, _ = algorithm.outer_gradient(loss_fn, start, [one, other])
    swapped, _ = algorithm.outer_gradient(loss_fn, start, [other, one])
    for n in start:
        assert torch.equal(both[n], swapped[n])
        assert torch.allclose(both[n], (alone[0][n] + alone[1][n]) / 2, rtol=1e-12, atol=1e-15)
        assert torch.equal(start[n], untouched[n])


@each_model
@pytest.mark.parametrize("kind", [Maml, Fomaml, Reptile, Transfer])
def test_a_task_that_diverges_is_left_out_and_counted(kind, name):
    model = tiny(name)
    loss_fn, start = loss_function(model), parameters_of(model)
    broken = replace(episode(2), support=replace(batch(2), mels=torch.full((2, 9, 6), torch.inf, dtype=torch.float64)))
    algorithm = kind(InnerLoop(steps=1, rate=0.1))
    gradients, metrics = algorithm.outer_gradient(loss_fn, start, [episode(1), broken])
    expected, _ = algorithm.outer_gradient(loss_fn, start, [episode(1)])
    assert metrics["skipped"] == 1
    assert metrics["tasks"] == 1
    assert all(torch.equal(gradients[n], expected[n]) for n in start)


@each_model
def test_adaptation_lowers_the_support_loss(name):
    model = tiny(name)
    loss_fn, start, task = loss_function(model), parameters_of(model), episode(1)
    adapted = Maml(InnerLoop(steps=1, rate=0.1, clip=1.0)).adapt(loss_fn, start, task.support, 50)
    share = 0.9 if name == "tacotron" else 0.995  # WaveNet is given noise, of which it can learn the loudness
    assert float(loss_fn(adapted, task.support)[0]) < share * float(loss_fn(start, task.support)[0])
