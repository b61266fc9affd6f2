"""Meta-SGD (Li et al. 2017, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning", algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from metaspeech.meta.adapted import LEARNED
from metaspeech.meta.inner import InnerLoop
from metaspeech.meta.maml import Maml
from metaspeech.models.base import Parameters


class RateOfEach:
    """A rate for every single weight, the same in all steps. They begin at the loop's own rate."""

    def learned(self, variables: Mapping[str, Tensor], rate: float, steps: int) -> Parameters:
        return {_name(name): torch.full_like(value, rate).detach() for name, value in variables.items()}

    def of(self, params: Mapping[str, Tensor], variable: str, step: int) -> Tensor:
        return params[_name(variable)]


class MetaSgd(Maml):
    """MAML that learns the direction and the size of its steps: phi = theta - alpha * grad, alpha of theta's size."""

    def __init__(self, inner: InnerLoop, recompute: bool = False) -> None:
        super().__init__(replace(inner, rates=RateOfEach()), recompute)


def _name(variable: str) -> str:
    return f"{LEARNED}rate/{variable}"
