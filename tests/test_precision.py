"""Training with half-width matrix products: near enough to full width, with everything that is kept in full width."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch

from metaspeech.registry import MODELS
from metaspeech.training.trainer import make_trainer


def first_gradient(model: str, algorithm: str, precision: str) -> torch.Tensor:
    """The outer gradient of the first step, after which nothing moves."""
    params = tiny.params()
    params = replace(params, precision=precision, meta_train=replace(params.meta_train, clip=0.0))
    learner, module = tiny.learner(model, algorithm, params), tiny.module(params)
    make_trainer(params, 1, lambda *_: None, None, max_steps=1, limit_val_batches=0).fit(learner, datamodule=module)
    values = learner.meta_parameters
    assert all(value.dtype == torch.float32 for value in values.values())
    gradients = [value.grad for value in values.values()]
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    return torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("algorithm", ["transfer", "fomaml", "maml"])
def test_half_width_products_give_nearly_the_same_outer_gradient(algorithm, model):
    full, half = (first_gradient(model, algorithm, precision) for precision in ("float32", "bfloat16"))
    assert not torch.equal(full, half)
    assert torch.cosine_similarity(full, half, dim=0) > 0.995
    assert half.norm() / full.norm() == pytest.approx(1, abs=0.05)
