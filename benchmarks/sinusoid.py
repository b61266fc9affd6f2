"""The field's unit test: sinusoid regression (Finn et al. 2017, section 5.1): ``python -m benchmarks.sinusoid``.

Tasks are y = a sin(x + p) with a in [0.1, 5], p in [0, pi], x in [-5, 5]; the model is an MLP of two layers of 40.
After meta-training on ten points a task each algorithm adapts to 600 new tasks, and the mean squared error over 100
points of each is printed, for 5 and 10 points and 0 to 10 steps; over 60 of them also for 20 times the steps that it
was trained with, beyond which some algorithms diverge. Algorithms are those of the project, given a model of another
kind. ``--recipes`` and ``--share`` take less time; a table and one JSON line come last.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metaspeech import config
from metaspeech.data.batch import Episode
from metaspeech.meta.base import MetaAlgorithm, OuterStep
from metaspeech.models.base import loss_function, parameters_of
from metaspeech.registry import ALGORITHMS, resolve
from metaspeech.training.adaptation import adaptation_curve

TEST_TASKS, TEST_POINTS, SHOTS, STEPS = 600, 100, (5, 10), (0, 1, 5, 10)
HORIZON, HORIZON_TASKS = 20, 60  # times the steps of training, and over how many of the tasks


class Sinusoid(nn.Module):
    """An MLP as the algorithms know a model. A batch is (x, y), each (points, 1)."""

    head_modules = ("last.*",)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(1, 40), nn.Linear(40, 40)])
        self.last = nn.Linear(40, 1)
        self.voice = nn.Parameter(torch.zeros(40))

    def body(self, batch: tuple[Tensor, Tensor], voices: Tensor | None = None) -> tuple[Tensor]:
        hidden = torch.relu(self.layers[0](batch[0]) + self.voice)
        return (torch.relu(self.layers[1](hidden)),)

    def head(self, hidden: tuple[Tensor, ...], batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return (self.last(hidden[0]) - batch[1]).square().mean(), {}

    def forward(self, batch: tuple[Tensor, Tensor], voices: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return self.head(self.body(batch), batch)


@dataclass(frozen=True)
class Recipe:
    """How an algorithm is trained here."""

    algorithm: str
    outer: int  # steps
    inner: int  # steps
    rate: float = 0.01
    clip: float = 0.0
    tasks: int = 25  # an outer step
    reptile_rate: float = 1.0
    sections: tuple[tuple[str, dict[str, Any]], ...] = ()


RECIPES = {  # the outer steps of published set-ups, cut to what a core does in minutes
    "transfer": Recipe("transfer", 8000, 1),
    "anil": Recipe("anil", 8000, 1),
    "boil": Recipe("boil", 8000, 1),
    "fomaml": Recipe("fomaml", 8000, 1),
    "reptile": Recipe("reptile", 30000, 5, 0.02, tasks=1, reptile_rate=0.1),
    "maml": Recipe("maml", 8000, 1),
    "maml, 5 steps": Recipe("maml", 4000, 5),
    "meta_sgd": Recipe("meta_sgd", 8000, 1),
    "mamlpp": Recipe("mamlpp", 4000, 5),
    "imaml": Recipe("imaml", 4000, 16, 0.05, sections=(("imaml", {"strength": 0.5, "solver_steps": 5}),)),
}


def task(seed: int, support: int, query: int) -> Episode:
    """Task ``seed``: its support and query points."""
    draw = np.random.default_rng(seed)
    amplitude, phase = draw.uniform(0.1, 5.0), draw.uniform(0, np.pi)
    x = torch.from_numpy(draw.uniform(-5, 5, (support + query, 1)).astype(np.float32))
    y = amplitude * torch.sin(x + phase)
    return Episode(f"{seed:08d}", (x[:support], y[:support]), (x[support:], y[support:]), seed)  # type: ignore[arg-type]


def train(recipe: Recipe, seed: int) -> tuple[MetaAlgorithm, nn.Module, dict[str, Tensor]]:
    """The algorithm, the meta-trained model and its parameters with what was learned besides."""
    inner = {"steps": recipe.inner, "rate": recipe.rate, "clip": recipe.clip}
    meta = {"rate": 1e-3, "reptile_rate": recipe.reptile_rate, "meta_batch": recipe.tasks}
    params = config.from_mapping({"inner": inner, "meta_train": meta, **dict(recipe.sections)})
    algorithm: MetaAlgorithm = resolve(ALGORITHMS, recipe.algorithm).from_params(params)
    torch.manual_seed(seed)
    model = Sinusoid()
    loss_fn = loss_function(model)
    start = parameters_of(model)
    leaves = {key: nn.Parameter(value.clone()) for key, value in (start | algorithm.learned(loss_fn, start)).items()}
    optimiser, schedule = algorithm.optimiser(list(leaves.values()), params.meta_train, recipe.outer)
    for step in range(recipe.outer):
        tasks = [task(10**6 * (seed + 1) + step * recipe.tasks + k, 10, 10) for k in range(recipe.tasks)]
        gradients, _ = algorithm.outer_gradient(loss_fn, leaves, tasks, OuterStep(step, recipe.outer))
        for key, leaf in leaves.items():
            leaf.grad = gradients[key]
        optimiser.step()
        schedule.step()
    return algorithm, model, {key: leaf.detach() for key, leaf in leaves.items()}


def measure(algorithm: MetaAlgorithm, model: nn.Module, params: dict[str, Tensor], trained: int) -> dict[str, float]:
    """Mean squared error by points and steps, over the same tasks for every algorithm."""
    errors = {}
    for shots in SHOTS:
        curves = _curves(algorithm, model, params, shots, STEPS, TEST_TASKS)
        errors |= {f"K{shots}/{step}": mean for step, mean in zip(STEPS, curves.mean(axis=0).tolist(), strict=True)}
    horizon = _curves(algorithm, model, params, max(SHOTS), [HORIZON * trained], HORIZON_TASKS)
    return errors | {f"K{max(SHOTS)}/horizon": float(horizon.mean())}


def _curves(
    algorithm: MetaAlgorithm,
    model: nn.Module,
    params: dict[str, Tensor],
    shots: int,
    steps: Sequence[int],
    tasks: int,
) -> np.ndarray:
    """(tasks, steps); NaN from where a task's loss was no longer finite."""
    loss_fn = loss_function(model)
    curves = [
        [losses["loss"] for _, losses, _ in adaptation_curve(loss_fn, algorithm, params, one, steps, None)]
        for one in (task(number, shots, TEST_POINTS) for number in range(tasks))
    ]
    return np.array(curves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--share", type=float, default=1.0, help="of the outer steps")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name in given.recipes:
        recipe = RECIPES[name]
        recipe = replace(recipe, outer=max(1, round(recipe.outer * given.share)))
        since = time.monotonic()
        found = measure(*train(recipe, given.seed), recipe.inner)
        results[name] = found
        figures = "  ".join(f"{key} {value:.2f}" for key, value in sorted(found.items()))
        print(f"{name:13} {recipe.outer:6} x {recipe.inner:2}  {time.monotonic() - since:5.0f} s  {figures}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
