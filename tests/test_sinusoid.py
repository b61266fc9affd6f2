"""The sinusoid benchmark computes many tasks at once: that must be what the algorithms give task by task."""

from __future__ import annotations

import pytest
import torch

from benchmarks.sinusoid import APART, RECIPES, Recipe, Sinusoid, measure, outer_gradient, together, train
from metaspeech import config
from metaspeech.data.batch import Episode
from metaspeech.meta.base import OuterStep
from metaspeech.models.base import loss_function, parameters_of
from metaspeech.registry import ALGORITHMS, resolve


@pytest.mark.parametrize("name", sorted({one.algorithm for one in RECIPES.values()} - set(APART)))
def test_tasks_together_have_the_gradient_of_tasks_apart(name):
    params = config.from_mapping({"inner": {"steps": 2, "rate": 0.05, "clip": 0.0, "adapt_modules": ["*"]}})
    algorithm = resolve(ALGORITHMS, name).from_params(params)
    torch.manual_seed(0)
    model = Sinusoid().double()
    loss_fn, start = loss_function(model), parameters_of(model)
    start = start | algorithm.learned(loss_fn, start)

    def double(points):
        return tuple(part.double() for part in points)

    all_tasks = together(range(4), 5, 7)
    all_tasks = Episode("all", double(all_tasks.support), double(all_tasks.query))
    apart = [
        Episode(f"s{k}", tuple(p[k] for p in all_tasks.support), tuple(p[k] for p in all_tasks.query)) for k in range(4)
    ]
    at = OuterStep(3, 10)
    expected, _ = algorithm.outer_gradient(loss_fn, start, apart, at)
    found = outer_gradient(algorithm, loss_fn, start, all_tasks, at)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-12)


def test_a_little_training_helps():
    untrained = measure(*train(Recipe("maml", 1, 1), 0), 1)
    trained = measure(*train(Recipe("maml", 60, 1), 0), 1)
    assert trained["K10/5"] < 0.9 * untrained["K10/5"]
