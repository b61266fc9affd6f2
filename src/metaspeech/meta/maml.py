"""Model-agnostic meta-learning (Finn et al. 2017, "Model-Agnostic Meta-Learning for Fast Adaptation", algorithm 2)."""

from __future__ import annotations

from typing import ClassVar, Self

from metaspeech import config
from metaspeech.data.batch import Episode
from metaspeech.meta.base import MetaAlgorithm, OuterStep, TaskGradient
from metaspeech.meta.inner import Graph, InnerLoop, on
from metaspeech.meta.unrolled import recomputed, unrolled
from metaspeech.models.base import LossFn, Parameters, second_order


class Maml(MetaAlgorithm):
    """The exact gradient: d L_Q(phi_K) / d theta, through all K inner steps. Memory is linear in K.

    Args:
        recompute: take each inner step again on the way back, and so keep the memory of one.
    """

    graph: ClassVar[Graph] = "second"

    def __init__(self, inner: InnerLoop, recompute: bool = False) -> None:
        super().__init__(inner)
        self.recompute = recompute

    @classmethod
    def from_params(cls, params: config.Params) -> Self:
        return cls(InnerLoop.from_config(params.inner), params.meta_train.recompute)

    def evaluations(self, at: OuterStep) -> int:
        return self.inner.steps + 1

    def task_gradient(self, loss_fn: LossFn, params: Parameters, episode: Episode, at: OuterStep) -> TaskGradient:
        inner, start = self.inner_of(loss_fn), self.task_start(loss_fn, params, episode)
        support, query = self.support_loss(loss_fn, start, episode), on(loss_fn, episode.query)
        second = self.graph == "second"
        with second_order(second):
            if second and self.recompute:
                return recomputed(inner, support, query, params, start, episode.seed)
            return unrolled(inner, support, query, params, start, episode.seed, self.graph)


class Fomaml(Maml):
    """First order: the gradient of L_Q at phi_K, applied to theta (Finn et al. 2017, section 5.2)."""

    graph = "first"
