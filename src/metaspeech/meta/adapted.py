"""What an inner loop moves: a choice that every algorithm shares.

Each choice names the variables of the inner loop, where they start, and how the model's parameters follow from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Protocol

import torch
from torch import Tensor

from metaspeech.models.base import Parameters

LEARNED = "inner/"  # names of what an algorithm learns besides the model's parameters: inner/<what>/<parameter>


def parameter_of(name: str) -> str:
    """The model's parameter that a name is of or belongs to: "inner/low_rank/a.weight" belongs to "a.weight"."""
    return name.split("/", 2)[-1] if is_learned(name) else name


def is_learned(name: str) -> bool:
    """Whether a name is of something that an algorithm learns, not of a parameter of the model."""
    return name.startswith(LEARNED)


class Adapted(Protocol):
    """A choice of what adapts."""

    def learned(self, params: Mapping[str, Tensor]) -> Parameters:
        """What this choice adds to the meta-parameters, by name (:data:`LEARNED`). Draws from torch's generator."""

    def variables(self, params: Mapping[str, Tensor]) -> Parameters:
        """The variables of an inner loop that starts from ``params``."""

    def apply(self, params: Mapping[str, Tensor], variables: Mapping[str, Tensor]) -> Parameters:
        """``params`` with these variables in them."""


@dataclass(frozen=True)
class Weights:
    """Parameters themselves: those that a pattern names and that are not excepted.

    Args:
        modules: name patterns (fnmatch).
        vectors_only: of those, only vectors: biases, the gains of norms, the voice (biases alone: Ben Zaken et al.
            2022, "BitFit").
    """

    modules: tuple[str, ...] = ("*",)
    vectors_only: bool = False

    def learned(self, params: Mapping[str, Tensor]) -> Parameters:
        return {}

    def variables(self, params: Mapping[str, Tensor]) -> Parameters:
        named = _named(params, self.modules)
        return {name: value for name, value in named.items() if value.dim() == 1 or not self.vectors_only}

    def apply(self, params: Mapping[str, Tensor], variables: Mapping[str, Tensor]) -> Parameters:
        return {**params, **variables}


@dataclass(frozen=True)
class LowRank:
    """Low-rank adapters (Hu et al. 2022, "LoRA", section 4.1): of each matrix W that a pattern names, W + B A.

    Convolutions count as matrices of their output channels. A is learned in meta-training like every other parameter; B
    starts at zero, so that before the first step the model is what it is without adapters.
    """

    rank: int
    modules: tuple[str, ...] = ("*",)

    def learned(self, params: Mapping[str, Tensor]) -> Parameters:
        factors = {}
        for name, value in self._matrices(params).items():
            inputs = value.flatten(1).shape[1]
            factors[_factor(name)] = torch.randn(self.rank, inputs).to(value) / inputs**0.5
        return factors

    def variables(self, params: Mapping[str, Tensor]) -> Parameters:
        variables = {}
        for name, value in self._matrices(params).items():
            variables[f"{name}/in"] = params[_factor(name)]
            variables[f"{name}/out"] = value.new_zeros(len(value), self.rank)
        return variables

    def apply(self, params: Mapping[str, Tensor], variables: Mapping[str, Tensor]) -> Parameters:
        applied = dict(params)
        for name, value in self._matrices(params).items():
            applied[name] = value + (variables[f"{name}/out"] @ variables[f"{name}/in"]).view_as(value)
        return applied

    def _matrices(self, params: Mapping[str, Tensor]) -> Parameters:
        return {name: value for name, value in _named(params, self.modules).items() if value.dim() > 1}


def _factor(name: str) -> str:
    return f"{LEARNED}low_rank/{name}"


def _named(params: Mapping[str, Tensor], patterns: tuple[str, ...]) -> Parameters:
    return {
        name: value
        for name, value in params.items()
        if not is_learned(name) and any(fnmatch(name, pattern) for pattern in patterns)
    }
