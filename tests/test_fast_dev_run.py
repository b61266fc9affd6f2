"""Every model with every algorithm through Lightning: one outer step and one validation batch."""

from __future__ import annotations

import math

import pytest
import tiny
import torch

from metaspeech.models.base import loss_function
from metaspeech.registry import ALGORITHMS, MODELS
from metaspeech.training.trainer import make_trainer


class Batches:
    """Hands a module's batches out and notes for what."""

    def __init__(self, module):
        self.asked, self.outer_step, self.held_out = [], module.make, module.validation[0]
        module.make, module.validation = self.train, self

    def train(self, step):
        self.asked.append("train")
        return self.outer_step(step)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        self.asked.append("validation")
        return self.held_out


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_step_and_a_validation_batch_of(algorithm, model):
    params = tiny.params()
    learner, module = tiny.learner(model, algorithm, params), tiny.module(params)
    batches = Batches(module)
    before = {name: value.detach().clone() for name, value in learner.meta_parameters.items()}
    trainer = make_trainer(params, module.epochs, lambda *_: None, None, fast_dev_run=True)
    trains = algorithm not in tiny.NOT_META_TRAINED
    if trains:
        trainer.fit(learner, datamodule=module)
    else:  # they take no outer step: like the stage, only measure its start
        trainer.validate(learner, datamodule=module, verbose=False)

    assert batches.asked == (["train", "validation"] if trains else ["validation"])
    assert trainer.global_step == trains
    assert int(learner.tasks_seen) == 2 * trains
    assert int(learner.tasks_skipped) == 0
    expected = {"validation_before", "validation_after"}
    if trains:
        expected |= {"loss_before", "loss_after", "tasks", "skipped", "gradient_norm"}
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics.keys() == expected
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["validation_before"] != metrics["validation_after"]

    after = learner.meta_parameters
    assert all(bool(torch.isfinite(value).all()) for value in after.values())
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert bool(changed) == trains
    if trains:
        in_head = {loss_function(learner.model).in_head(name) for name in changed}
        assert in_head == {True, False}, "body and head are trained"
