"""The mathematics of the algorithms: golden values by hand, finite differences, and what must not leak."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from metaspeech.config import MetaTrain
from metaspeech.data.batch import Episode
from metaspeech.errors import UserError
from metaspeech.meta.adapted import LowRank, Weights
from metaspeech.meta.base import OuterStep
from metaspeech.meta.baselines import Pretrained, Scratch, Transfer
from metaspeech.meta.descent import DESCENTS
from metaspeech.meta.imaml import Imaml, conjugate_gradients
from metaspeech.meta.inner import InnerLoop, on
from metaspeech.meta.maml import Fomaml, Maml
from metaspeech.meta.mamlpp import MamlPlusPlus, multi_step_weights
from metaspeech.meta.meta_sgd import MetaSgd
from metaspeech.meta.reptile import Reptile


@dataclass(frozen=True)
class Point:
    """One input of the linear model; ``power`` 2 is L = y^2 / 2, power 1 is L = y."""

    x: tuple[float, float, float]
    power: int = 2


def linear(params, point):
    output = (params["w"] * torch.tensor(point.x, dtype=params["w"].dtype)).sum()
    return output**2 / 2 if point.power == 2 else output, {}


def outer(algorithm, support, query):
    start = {"w": torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)}
    gradients, _ = algorithm.outer_gradient(linear, start, [Episode("s", support, query)])
    return gradients["w"].tolist()


def test_maml_golden():
    algorithm = Maml(InnerLoop(steps=1, rate=0.5))
    assert outer(algorithm, Point((1, 2, 3)), Point((4, 5, 6))) == [3780, 8505, 13230]


def test_fomaml_golden():
    algorithm = Fomaml(InnerLoop(steps=1, rate=0.5))
    assert outer(algorithm, Point((4, 5, 6)), Point((1, 2, 3))) == [-825, -1650, -2475]


def test_a_task_with_a_huge_gradient_does_not_drown_the_others():
    """MAML on sentences had norms of 10 to 35,000; clipped as a mean, a step was that of its worst task alone."""
    start = {"w": torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)}
    wild = Episode("a", Point((1, 2, 3)), Point((4, 5, 6)))  # (3780, 8505, 13230), as above
    tame = Episode("b", Point((0, 0, 0)), Point((0.3, 0, 0.4), power=1))
    gradients, metrics = Maml(InnerLoop(steps=1, rate=0.5)).outer_gradient(linear, start, [wild, tame], clip=1.0)
    long = (3780**2 + 8505**2 + 13230**2) ** 0.5
    expected = [(3780 / long + 0.3) / 2, 8505 / long / 2, (13230 / long + 0.4) / 2]
    assert gradients["w"].tolist() == pytest.approx(expected, rel=1e-12)
    assert metrics["gradient_norm"] == pytest.approx((long + 0.5) / 2)


def test_maml_three_steps_golden():
    """phi_k = (1 - x.x)^k theta along x: the factor (1 - 14)^3 - 1 over 14 multiplies x (x . q)."""
    for recompute in (False, True):
        algorithm = Maml(InnerLoop(steps=3, rate=1.0), recompute)
        gradient = outer(algorithm, Point((1, 2, 3)), Point((4, 5, 6), power=1))
        assert gradient == [-5020, -10043, -15066]


def test_reptile_by_hand():
    """phi = w - a y x; the outer gradient is w - phi = a y x, and SGD at rate eps is the published update."""
    algorithm = Reptile(InnerLoop(steps=1, rate=0.5))
    assert outer(algorithm, Point((1, 2, 3)), Point((4, 5, 6))) == [11.5, 23.0, 34.5]
    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0, 5.0]))
    optimiser, schedule = algorithm.optimiser({"weight": weight}, MetaTrain(reptile_rate=0.5), total_steps=2)
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
    stepped, _ = inner.step(on(linear, Point((1, 2, 3))), inner.begin(start, seed=0))
    assert float((inner.parameters(stepped)["w"] - start["w"]).norm()) == pytest.approx(2.0)


def squares(params):
    return sum(value.square().sum() for value in params.values()), {}


def test_only_named_modules_adapt():
    inner = InnerLoop(steps=1, rate=0.1, adapted=Weights(("decoder.*",)))
    params = {"decoder.a": torch.ones(2), "encoder.a": torch.ones(2)}
    stepped = inner.parameters(inner.step(squares, inner.begin(params, seed=0))[0])
    assert torch.equal(stepped["encoder.a"], torch.ones(2))
    assert torch.allclose(stepped["decoder.a"], torch.full((2,), 0.8))


def test_clipping_a_gradient_of_zero_is_differentiable():
    """A body behind a head that starts at zero gets no gradient at all, and still has an outer one."""
    inner = InnerLoop(steps=1, rate=0.1, clip=1.0)
    start = {"w": torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)}
    gradients, metrics = Maml(inner).outer_gradient(linear, start, [Episode("s", Point((1, 2, 0)), Point((4, 5, 6)))])
    assert metrics["skipped"] == 0
    assert torch.isfinite(gradients["w"]).all()


def test_nothing_to_adapt_is_an_error_that_says_so():
    inner = InnerLoop(steps=1, rate=0.1, adapted=Weights(("encodr.*",)))
    with pytest.raises(UserError, match=r"inner.adapt_modules.*encoder.a"):
        inner.begin({"encoder.a": torch.ones(2)}, seed=0)


def test_vectors_alone():
    inner = InnerLoop(steps=1, rate=0.1, adapted=Weights(vectors_only=True))
    params = {"a.weight": torch.ones(2, 2), "a.bias": torch.ones(2)}
    stepped = inner.parameters(inner.step(squares, inner.begin(params, seed=0))[0])
    assert torch.equal(stepped["a.weight"], torch.ones(2, 2))
    assert torch.allclose(stepped["a.bias"], torch.full((2,), 0.8))


def test_adapters_start_as_nothing_and_stay_of_low_rank():
    torch.manual_seed(0)
    inner = InnerLoop(steps=4, rate=0.05, adapted=LowRank(2))
    params = {"a.weight": torch.randn(6, 5), "a.bias": torch.ones(6)}
    start = params | inner.learned(params)
    position = inner.begin(start, seed=0)
    assert torch.equal(inner.parameters(position)["a.weight"], params["a.weight"])
    for _ in range(4):
        position, _ = inner.step(lambda p: squares({"a.weight": p["a.weight"]}), position)
    moved = inner.parameters(position)["a.weight"] - params["a.weight"]
    assert torch.linalg.matrix_rank(moved, atol=1e-5) == 2
    assert torch.equal(inner.parameters(position)["a.bias"], params["a.bias"])


def test_inner_momentum_and_adam_by_hand():
    """Constant gradient 2: momentum goes 2, then 2 + 0.9 * 2; Adam goes the length of its rate."""
    params = {"w": torch.zeros(1)}
    for name, expected in (("momentum", [-0.2, -0.58]), ("adam", [-0.1, -0.2])):
        inner = InnerLoop(steps=1, rate=0.1, descent=DESCENTS[name])
        walk = inner.walk(lambda p: (2 * p["w"].sum(), {}), inner.begin(params, seed=0))
        next(walk)
        assert [float(next(walk).variables["w"]) for _ in expected] == pytest.approx(expected)


def test_outer_gradient_through_inner_adam():
    """By finite differences where no gradient is near zero: there Adam's step is a sign."""
    algorithm = Maml(InnerLoop(steps=3, rate=0.05, descent=DESCENTS["adam"]))
    task = Episode("s", Point((1, 2, 3)), Point((4, 5, 6)))
    start = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    gradients, _ = algorithm.outer_gradient(linear, {"w": start}, [task])
    for one in torch.eye(3, dtype=torch.float64) * 1e-5:
        ahead, behind = (algorithm.adapt(linear, {"w": start + d}, task, 3) for d in (one, -one))
        numeric = (linear(ahead, task.query)[0] - linear(behind, task.query)[0]) / 2e-5
        assert float((gradients["w"] * one).sum() / 1e-5) == pytest.approx(float(numeric), rel=1e-6)


def test_meta_sgd_doubles_the_parameters_and_differentiates_its_rates():
    """phi = w - a * g: d L_Q / d a = -grad L_Q(phi) * g."""
    algorithm = MetaSgd(InnerLoop(steps=1, rate=0.5))
    start = {"w": torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)}
    learned = algorithm.learned(linear, start)
    assert sum(value.numel() for value in learned.values()) == 3
    task = Episode("s", Point((1, 2, 3)), Point((4, 5, 6)))
    gradients, _ = algorithm.outer_gradient(linear, start | learned, [task])
    assert gradients["w"].tolist() == [3780, 8505, 13230]  # MAML's
    # g = 23 [1,2,3]; phi = w - 11.5 [1,2,3]; y_Q = 53 - 11.5 * 32 = -315
    assert gradients["inner/rate/w"].tolist() == [315 * 4 * 23, 315 * 5 * 46, 315 * 6 * 69]


def test_multi_step_weights_as_published():
    """K = 5, E = 10: 1/K at first; after E the last alone; in between non-final max(1/K - e d, 0.03/K), d = 1/(K E)."""
    assert multi_step_weights(5, 0, 10) == pytest.approx([0.2] * 5)
    assert multi_step_weights(5, 4, 10) == pytest.approx([0.12] * 4 + [0.52])
    assert multi_step_weights(5, 9, 10) == pytest.approx([0.02] * 4 + [0.92])
    assert multi_step_weights(5, 99, 100) == pytest.approx([0.006] * 4 + [0.976])
    assert multi_step_weights(5, 10, 10) == [0, 0, 0, 0, 1]
    for epoch in range(12):
        assert sum(multi_step_weights(3, epoch, 10)) == pytest.approx(1)


def test_mamlpp_counts_what_it_evaluates():
    algorithm = MamlPlusPlus(InnerLoop(steps=3, rate=0.1), multi_step=0.5)
    assert [algorithm.evaluations(OuterStep(index, 4)) for index in range(4)] == [6, 6, 4, 4]
    settings = MetaTrain(gradient_evaluations=240, meta_batch=2)
    assert algorithm.outer_steps(settings) == 24  # 12 steps of 12 gradients, 12 of 8


def test_mamlpp_moves_rates_faster_than_weights():
    """Adam's first step is as large as its rate, whatever the gradient."""
    algorithm = MamlPlusPlus(InnerLoop(steps=2, rate=0.1), rates_rate=0.05)
    leaves = {"w": torch.nn.Parameter(torch.ones(3)), "inner/rates/w": torch.nn.Parameter(torch.zeros(2))}
    optimiser, schedule = algorithm.optimiser(leaves, MetaTrain(rate=0.001), total_steps=10)
    for value in leaves.values():
        value.grad = torch.full_like(value, 0.3)
    optimiser.step()
    assert leaves["w"].tolist() == pytest.approx([0.999] * 3)
    assert leaves["inner/rates/w"].tolist() == pytest.approx([-0.05] * 2)
    for _ in range(10):
        schedule.step()
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([1e-5] * 2), "both are annealed"


def test_conjugate_gradients_solve():
    torch.manual_seed(0)
    root = torch.randn(5, 5, dtype=torch.float64)
    matrix, target = root @ root.T + torch.eye(5), torch.randn(5, dtype=torch.float64)
    found = conjugate_gradients(lambda v: [matrix @ v[0]], [target], 5)
    assert torch.allclose(matrix @ found[0], target, atol=1e-9)


def test_conjugate_gradients_stop_where_the_curvature_is_negative():
    """A loss away from its minimum may curve downwards: a step along such a direction would go the wrong way."""
    target = torch.tensor([3.0, 4.0], dtype=torch.float64)
    bowl, saddle = torch.diag(target.new_tensor([2.0, 1.0])), torch.diag(target.new_tensor([1.0, -2.0]))
    assert torch.equal(conjugate_gradients(lambda v: [saddle @ v[0]], [target], 5)[0], target), "the plain gradient"

    def turning(vector):
        turning.calls += 1
        return [(bowl if turning.calls == 1 else -bowl) @ vector[0]]

    turning.calls = 0
    first = conjugate_gradients(turning, [target], 5)[0]
    assert torch.allclose(first, target * 25 / 34), "the step before: size 25 along a curvature of 34"


def test_damping_of_the_implicit_gradient():
    """(I + H / (strength + damping))^-1 g, by hand: L = (x w)^2 / 2 with x = 1 has H = 1 and g = w."""
    start, task = {"w": torch.tensor([2.0], dtype=torch.float64)}, Episode("s", Point((1,)), Point((1,)))
    plain, damped = (Imaml(InnerLoop(steps=1, rate=1e-9), 2.0, 3, damping) for damping in (0.0, 2.0))
    at = OuterStep(0, 10)
    assert float(plain.outer_gradient(linear, start, [task], at)[0]["w"]) == pytest.approx(2 / 1.5)
    assert float(damped.outer_gradient(linear, start, [task], at)[0]["w"]) == pytest.approx(2 / 1.25)


@pytest.mark.parametrize(("kind", "untrained"), [(Pretrained, False), (Scratch, True)])
def test_what_is_not_meta_trained(kind, untrained):
    algorithm = kind(InnerLoop(steps=3, rate=0.1))
    assert not algorithm.meta_trained
    assert algorithm.untrained_start == untrained
    assert algorithm.outer_steps(MetaTrain()) == 0


@pytest.mark.parametrize(
    ("algorithm", "expected"), [(Maml, 4), (Fomaml, 4), (Reptile, 3), (Transfer, 2), (MamlPlusPlus, 6)]
)
def test_budget_counts_the_gradients_that_are_taken(algorithm, expected):
    algorithm = algorithm(InnerLoop(steps=3, rate=0.1))
    counted = counting(linear)
    start = {"w": torch.ones(3)}
    at = OuterStep(0, 10)
    task = Episode("s", Point((1, 2, 3)), Point((4, 5, 6)))
    algorithm.outer_gradient(counted, start | algorithm.learned(linear, start), [task], at)
    assert counted.calls == algorithm.evaluations(at) == expected
    settings = MetaTrain(gradient_evaluations=240, meta_batch=2)
    steps = algorithm.outer_steps(settings)
    spent, more = (algorithm.gradient_evaluations(number, 2) for number in (steps, steps + 1))
    assert spent <= 240 < more


def counting(loss_fn):
    def counted(params, batch):
        counted.calls += 1
        return loss_fn(params, batch)

    counted.calls = 0
    return counted


def test_the_order_of_tasks_changes_no_bit():
    generator = torch.Generator().manual_seed(0)
    points = [Point(tuple(torch.randn(3, generator=generator).tolist())) for _ in range(14)]
    tasks = [Episode(f"s{k}", *points[2 * k : 2 * k + 2], seed=k) for k in range(7)]
    start = {"w": torch.tensor([0.2, 0.3, 0.5])}
    one, _ = Maml(InnerLoop(steps=2, rate=0.1)).outer_gradient(linear, start, tasks)
    other, _ = Maml(InnerLoop(steps=2, rate=0.1)).outer_gradient(
        linear, start, [tasks[k] for k in (3, 6, 0, 5, 1, 4, 2)]
    )
    assert torch.equal(one["w"], other["w"])
