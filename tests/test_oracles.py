"""The exact gradients against two independent libraries for differentiable optimisation: torchopt and higher."""

from __future__ import annotations

import copy

import higher
import pytest
import torch
import torchopt
from test_algorithms_models import both_models, episode, make, tiny

from metaspeech.models.base import loss_function, parameters_of

STEPS, RATE, TASKS = 3, 0.1, (1, 2)


def ours(kind, name):
    model = tiny(name)
    tasks = [episode(seed) for seed in TASKS]
    algorithm = make(kind, steps=STEPS, rate=RATE, clip=0)
    return algorithm.outer_gradient(loss_function(model), parameters_of(model), tasks)[0]


def agree(gradients, expected):
    for name, value in expected.items():
        assert torch.allclose(gradients[name], value, rtol=1e-5, atol=1e-10), name


@both_models
def test_agrees_with_torchopt(name):
    model, total = tiny(name), {}
    for task in map(episode, TASKS):
        net = copy.deepcopy(model)
        inner = torchopt.MetaSGD(net, lr=RATE)
        leaves = dict(net.named_parameters())
        for _ in range(STEPS):
            inner.step(net(task.support)[0])
        gradients = torch.autograd.grad(net(task.query)[0], list(leaves.values()), allow_unused=True)
        for key, gradient in zip(leaves, gradients, strict=True):
            total[key] = total.get(key, 0) + (torch.zeros_like(leaves[key]) if gradient is None else gradient) / 2
    agree(ours("maml", name), total)


@both_models
@pytest.mark.parametrize("kind", ["maml", "fomaml"])
def test_agrees_with_higher(kind, name):
    model = tiny(name)
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
    for task in map(episode, TASKS):
        with higher.innerloop_ctx(model, optimiser, copy_initial_weights=False, track_higher_grads=kind == "maml") as (
            net,
            inner,
        ):
            for _ in range(STEPS):
                inner.step(net(task.support)[0])
            loss = net(task.query)[0] / 2
            if kind == "maml":
                loss.backward()
            else:
                gradients = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    if gradient is not None:
                        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    expected = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    assert expected
    agree(ours(kind, name), expected)
