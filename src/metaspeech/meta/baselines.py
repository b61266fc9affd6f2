"""What a meta-learned start has to beat, under the same interface and at the same number of gradient evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from metaspeech import config
from metaspeech.data.batch import Episode
from metaspeech.errors import UserError
from metaspeech.meta.adapted import LEARNED
from metaspeech.meta.base import MetaAlgorithm, OuterStep, TaskGradient
from metaspeech.meta.inner import InnerLoop, finite, on
from metaspeech.meta.unrolled import query_loss
from metaspeech.models.base import LossFn, Parameters
from metaspeech.seeds import mixed_seed

VOICE = "voice"  # the parameter that a model speaks as
VOICE_MAP = f"{LEARNED}voice_map"


class Transfer(MetaAlgorithm):
    """Joint training goes on: the gradient of all of a task's utterances at theta, without an inner loop."""

    def evaluations(self, at: OuterStep) -> int:
        return 2

    def task_gradient(self, loss_fn: LossFn, params: Parameters, episode: Episode, at: OuterStep) -> TaskGradient:
        start = self.conditioned(params, episode)
        torch.manual_seed(mixed_seed(episode.seed, 0))
        support = finite(loss_fn(start, episode.support)[0])
        query = query_loss(on(loss_fn, episode.query), start, episode.seed)
        gradients = torch.autograd.grad(0.5 * (support + query), list(params.values()), materialize_grads=True)
        return TaskGradient(dict(zip(params, gradients, strict=True)), support.detach(), query.detach())

    def conditioned(self, params: Parameters, episode: Episode) -> Parameters:
        """The parameters for this task before any step: all tasks have the same."""
        return params


class Pretrained(Transfer):
    """The common start as it is: what the other algorithms' training adds to joint training, they add to this."""

    meta_trained = False

    def outer_steps(self, settings: config.MetaTrain) -> int:
        return 0


class Scratch(Pretrained):
    """No training before adaptation: what the recordings of one speaker can teach by themselves."""

    untrained_start = True


class Conditioned(Transfer):
    """Zero-shot: the model's voice follows from the task's representation by a learned linear map (as in Jia et al.
    2018, with a pretrained speaker encoder). Adaptation, where it is asked for, goes on from there."""

    needs = frozenset({"representation"})

    @classmethod
    def from_params(cls, params: config.Params) -> Self:
        if params.represent.use != "speaker_embedding":
            raise UserError(
                f"represent.use: conditioned reads speaker embeddings, not '{params.represent.use}'. Set represent.use "
                "to speaker_embedding, or leave conditioned out of algorithms"
            )
        return super().from_params(params)

    def learned(self, loss_fn: LossFn, params: Mapping[str, Tensor]) -> Parameters:
        """The map: (voice, representation), zero at first, when every task has the model's own voice."""
        return super().learned(loss_fn, params) | {VOICE_MAP: params[VOICE].new_zeros(len(params[VOICE]), self.width)}

    def __init__(self, inner: InnerLoop, width: int = 256) -> None:
        super().__init__(inner)
        self.width = width

    def conditioned(self, params: Parameters, episode: Episode) -> Parameters:
        assert episode.representation is not None
        return {**params, VOICE: params[VOICE] + params[VOICE_MAP] @ episode.representation.to(params[VOICE])}

    def task_start(self, loss_fn: LossFn, params: Mapping[str, Tensor], episode: Episode) -> Parameters:
        return self.conditioned(dict(params), episode)


class Nearest(Transfer):
    """A warm start: a few steps on recordings of the training speaker whose representation is nearest to the task's,
    then the task itself. Training is that of :class:`Transfer`.

    Args:
        warm_steps: on the neighbour's recordings.
    """

    needs = frozenset({"neighbour"})

    def __init__(self, inner: InnerLoop, warm_steps: int = 5) -> None:
        super().__init__(inner)
        self.warm_steps = warm_steps

    @classmethod
    def from_params(cls, params: config.Params) -> Self:
        return cls(InnerLoop.from_config(params.inner), params.per_algorithm.nearest.warm_steps)

    def task_start(self, loss_fn: LossFn, params: Mapping[str, Tensor], episode: Episode) -> Parameters:
        assert episode.neighbour is not None
        position = self.inner.begin(dict(params), mixed_seed(episode.seed, "neighbour"))
        with torch.enable_grad():
            for _ in range(self.warm_steps):
                position, _ = self.inner.step(on(loss_fn, episode.neighbour), position)
        return self.inner.parameters(position)
