"""The field's unit test: sinusoid regression (Finn et al. 2017, section 5.1): ``python -m benchmarks.sinusoid``.

Tasks are y = a sin(x + p) with a in [0.1, 5], p in [0, pi], x in [-5, 5]; the model is an MLP of two layers of 40.
After meta-training on ten points a task each algorithm adapts to 600 new tasks, and the mean squared error over 100
points of each is printed, for 5 and 10 points and 0 to 10 steps; for 10 points also after 20 times the steps that it
was trained with, beyond which some algorithms diverge. Algorithms are those of the project, given a model of another
kind: one of many tasks at once, whose parameters have the task as a dimension of their own. ``--recipes`` and
``--share`` take less time; a table and one JSON line come last.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metaspeech import config
from metaspeech.data.batch import Episode
from metaspeech.meta.adapted import is_learned
from metaspeech.meta.base import MetaAlgorithm, OuterStep
from metaspeech.models.base import ModelLoss, Parameters, loss_function, parameters_of
from metaspeech.registry import ALGORITHMS, resolve
from metaspeech.training.adaptation import adaptation_curve

TEST_TASKS, TEST_POINTS, SHOTS, STEPS = 600, 100, (5, 10), (0, 1, 5, 10)
TUNING_TASKS, TUNING_RATES, TUNING_STEPS = 100, (0.01, 0.02, 0.05), 5  # for what is trained without an inner rate
HORIZON = 20  # times the steps of training

Points = tuple[Tensor, Tensor]


class Sinusoid(nn.Module):
    """An MLP as the algorithms know a model. A batch is (x, y), each (points, 1), or (tasks, points, 1) with parameters
    that have a first dimension of tasks too: then the loss is the sum over tasks, and their gradients are apart."""

    head_modules = ("last.*",)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(1, 40), nn.Linear(40, 40)])
        self.last = nn.Linear(40, 1)

    def body(self, batch: Points, voices: Tensor | None = None) -> tuple[Tensor]:
        hidden = batch[0]
        for layer in self.layers:
            hidden = torch.relu(_affine(hidden, layer))
        return (hidden,)

    def head(self, hidden: tuple[Tensor, ...], batch: Points) -> tuple[Tensor, dict[str, Tensor]]:
        error = _affine(hidden[0], self.last) - batch[1]
        return error.square().mean(dim=(-1, -2)).sum(), {}

    def forward(self, batch: Points, voices: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return self.head(self.body(batch), batch)


@dataclass(frozen=True)
class Recipe:
    """How an algorithm is trained here."""

    algorithm: str
    outer: int  # steps
    inner: int  # steps
    rate: float = 0.01
    tasks: int = 25  # an outer step
    reptile_rate: float = 1.0
    own: tuple[tuple[str, float], ...] = ()  # per_algorithm


RECIPES = {  # the outer steps of published set-ups, cut to what a core does in minutes
    "transfer": Recipe("transfer", 8000, 1),
    "anil": Recipe("anil", 8000, 1),
    "boil": Recipe("boil", 8000, 1),
    "fomaml": Recipe("fomaml", 8000, 1),
    "reptile": Recipe("reptile", 30000, 5, 0.02, tasks=1, reptile_rate=0.1),
    "maml": Recipe("maml", 8000, 1),
    "maml, 5 steps": Recipe("maml", 4000, 5),
    "meta_sgd": Recipe("meta_sgd", 8000, 1),
    "mamlpp": Recipe("mamlpp", 4000, 5, own=(("multi_step", 1.0), ("first_order", 0.0), ("rates_rate", 0.05))),
    "imaml": Recipe("imaml", 400, 16, 0.01, tasks=5, own=(("strength", 0.5), ("solver_steps", 5), ("damping", 10.0))),
}
APART = ("imaml",)  # its solver's steps are not those of each task when tasks are solved together


def together(seeds: Sequence[int], support: int, query: int) -> Episode:
    """The tasks of these seeds as one: support and query points."""
    tasks = [_task(seed, support + query) for seed in seeds]
    x, y = (torch.stack(parts) for parts in zip(*tasks, strict=True))
    sets = (x[:, :support], y[:, :support]), (x[:, support:], y[:, support:])
    return Episode("sinusoids", *sets)  # type: ignore[arg-type]


def expanded(params: Mapping[str, Tensor], tasks: int) -> Parameters:
    """Parameters with a dimension of tasks; what is learned besides is the same for all tasks and broadcast."""
    return {
        name: (value if is_learned(name) else value.expand(tasks, *value.shape)).detach().clone()
        for name, value in params.items()
    }


def outer_gradient(
    algorithm: MetaAlgorithm, loss_fn: ModelLoss, params: Mapping[str, Tensor], episode: Episode, at: OuterStep
) -> Parameters:
    """What ``algorithm.outer_gradient`` gives for the tasks of an episode, from one call for all."""
    tasks = len(episode.query[0])  # type: ignore[index]
    leaves = {name: value.requires_grad_() for name, value in expanded(params, tasks).items()}
    found = algorithm.task_gradient(loss_fn, leaves, episode, at).gradients
    return {name: value / tasks if is_learned(name) else value.mean(dim=0) for name, value in found.items()}


def train(recipe: Recipe, seed: int) -> tuple[MetaAlgorithm, ModelLoss, Parameters]:
    """The algorithm, the meta-trained model and its parameters with what was learned besides."""
    inner = {"steps": recipe.inner, "rate": recipe.rate, "clip": 0.0, "adapt_modules": ["*"]}
    meta = {"rate": 1e-3, "reptile_rate": recipe.reptile_rate, "meta_batch": recipe.tasks}
    own = {recipe.algorithm: dict(recipe.own)}
    params = config.from_mapping({"inner": inner, "meta_train": meta, "per_algorithm": own})
    algorithm: MetaAlgorithm = resolve(ALGORITHMS, recipe.algorithm).from_params(params)
    torch.manual_seed(seed)
    model = Sinusoid()
    loss_fn, start = loss_function(model), parameters_of(model)
    leaves = {key: nn.Parameter(value.clone()) for key, value in (start | algorithm.learned(loss_fn, start)).items()}
    optimiser, schedule = algorithm.optimiser(leaves, params.meta_train, recipe.outer)
    for step in range(recipe.outer):
        first = 10**6 * (seed + 1) + step * recipe.tasks
        seeds, at = range(first, first + recipe.tasks), OuterStep(step, recipe.outer)
        groups = [[one] for one in seeds] if recipe.algorithm in APART else [list(seeds)]
        parts = [outer_gradient(algorithm, loss_fn, leaves, together(group, 10, 10), at) for group in groups]
        for key, leaf in leaves.items():
            leaf.grad = torch.stack([part[key] for part in parts]).mean(dim=0)
        optimiser.step()
        schedule.step()
    return algorithm, loss_fn, {key: leaf.detach() for key, leaf in leaves.items()}


def measure(algorithm: MetaAlgorithm, loss_fn: ModelLoss, params: Parameters, trained: int) -> dict[str, float]:
    """Mean squared error by points and steps, over the same tasks for every algorithm."""

    def errors(first: int, tasks: int, shots: int, steps: Sequence[int], rate: float | None) -> list[float]:
        episode = together(range(first, first + tasks), shots, TEST_POINTS)
        curve = adaptation_curve(loss_fn, algorithm, expanded(params, tasks), episode, steps, rate)
        return [losses["loss"] / tasks for _, losses, _ in curve]

    rate = None
    if type(algorithm).__name__ == "Transfer":
        tuned = {one: errors(TEST_TASKS, TUNING_TASKS, max(SHOTS), [TUNING_STEPS], one)[0] for one in TUNING_RATES}
        rate = min(tuned, key=lambda one: tuned[one])
    found = {}
    for shots in SHOTS:
        means = errors(0, TEST_TASKS, shots, STEPS, rate)
        found |= {f"K{shots}/{step}": mean for step, mean in zip(STEPS, means, strict=True)}
    return found | {"horizon": errors(0, TEST_TASKS, max(SHOTS), [HORIZON * trained], rate)[0]}


def _task(seed: int, points: int) -> Points:
    draw = np.random.default_rng(seed)
    amplitude, phase = draw.uniform(0.1, 5.0), draw.uniform(0, np.pi)
    x = torch.from_numpy(draw.uniform(-5, 5, (points, 1)).astype(np.float32))
    return x, amplitude * torch.sin(x + phase)


def _affine(x: Tensor, layer: nn.Module) -> Tensor:
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    return x @ weight.transpose(-1, -2) + bias.unsqueeze(-2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--share", type=float, default=1.0, help="of the outer steps")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    columns = [f"K{shots}/{step}" for shots in SHOTS for step in STEPS] + ["horizon"]
    print(f"{'':13} {'outer':>6} {'inner':>5} {'':>6}" + "".join(f"{name:>9}" for name in columns))
    for name in given.recipes:
        recipe = RECIPES[name]
        recipe = replace(recipe, outer=max(1, round(recipe.outer * given.share)))
        since = time.monotonic()
        found = measure(*train(recipe, given.seed), recipe.inner)
        results[name] = {key: float(f"{found[key]:.4g}") if math.isfinite(found[key]) else None for key in columns}
        figures = "".join(f"{found[key]:>9.2f}" if found[key] < 1e5 else f"{'inf':>9}" for key in columns)
        taken = f"{time.monotonic() - since:.0f} s"
        print(f"{name:13} {recipe.outer:6} {recipe.inner:5} {taken:>6}{figures}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
