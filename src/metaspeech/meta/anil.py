"""MAML on a part of the network: the head alone, or the body alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaspeech.data.batch import Episode
from metaspeech.meta.adapted import Adapted, parameter_of
from metaspeech.meta.inner import InnerLoop, Loss
from metaspeech.meta.maml import Maml
from metaspeech.models.base import LossFn, ModelLoss, Parameters
from metaspeech.seeds import mixed_seed


@dataclass(frozen=True)
class Part:
    """Another choice of what adapts, among the parameters of one part of the network."""

    of: Adapted
    belongs: Callable[[str], bool]

    def learned(self, params: Mapping[str, Tensor]) -> Parameters:
        return self.of.learned(self._part(params))

    def variables(self, params: Mapping[str, Tensor]) -> Parameters:
        return self.of.variables(self._part(params))

    def apply(self, params: Mapping[str, Tensor], variables: Mapping[str, Tensor]) -> Parameters:
        return {**params, **self.of.apply(self._part(params), variables)}

    def _part(self, params: Mapping[str, Tensor]) -> Parameters:
        return {name: value for name, value in params.items() if self.belongs(parameter_of(name))}


class Anil(Maml):
    """Almost no inner loop (Raghu et al. 2020, "Rapid Learning or Feature Reuse?", section 4): only the head adapts.

    What the body makes of the support set is the same in every inner step, and is computed once. It is kept for the
    outer gradient: of inner steps through the head alone there is nothing worth recomputing.
    """

    def __init__(self, inner: InnerLoop, recompute: bool = False) -> None:
        super().__init__(inner)

    def inner_of(self, loss_fn: LossFn) -> InnerLoop:
        return replace(self.inner, adapted=Part(self.inner.adapted, _split(loss_fn, self).in_head))

    def support_loss(self, loss_fn: LossFn, params: Mapping[str, Tensor], episode: Episode) -> Loss:
        split = _split(loss_fn, self)
        torch.manual_seed(mixed_seed(episode.seed, 0))
        hidden = split.body(params, episode.support)
        return lambda moved: split.head(moved, hidden, episode.support)


class Boil(Maml):
    """Body only update in the inner loop (Oh et al. 2021, "BOIL: Towards Representation Change"): the head stays."""

    def inner_of(self, loss_fn: LossFn) -> InnerLoop:
        split = _split(loss_fn, self)
        return replace(self.inner, adapted=Part(self.inner.adapted, lambda name: not split.in_head(name)))


def _split(loss_fn: LossFn, algorithm: Maml) -> ModelLoss:
    if not isinstance(loss_fn, ModelLoss):
        raise TypeError(f"{type(algorithm).__name__} needs a model with body and head, not a plain loss function")
    return loss_fn
