"""What representations look at: a task's recordings as waveforms, and as gradients of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from metaspeech.data.store import Store
from metaspeech.models.base import LossFn, Parameters
from metaspeech.seeds import mixed_seed


@dataclass(frozen=True)
class Gradients:
    """Over the recordings of a task, by name of the parameter: of the loss of one recording at a time.

    Attributes:
        mean: of the gradient.
        square: mean of its square, element by element: the diagonal of the empirical Fisher information, where the
            loss is a negative log-likelihood.
    """

    mean: Parameters
    square: Parameters


class Recordings:
    """The recordings of one task; nothing is computed before it is asked for.

    Args:
        store: with the recordings.
        utt_ids: at least one.
        loss_fn, start: a model, and the parameters at which its gradients are taken.
        seed: of what the model draws in a forward pass.
    """

    def __init__(
        self, store: Store, utt_ids: Sequence[str], loss_fn: LossFn, start: Mapping[str, Tensor], seed: int
    ) -> None:
        self._store, self._utt_ids, self._loss_fn, self._start, self._seed = store, utt_ids, loss_fn, start, seed

    @property
    def rate(self) -> int:
        """Of the waveforms, Hz."""
        return int(self._store.settings["sample_rate"])

    @cached_property
    def waveforms(self) -> list[np.ndarray]:
        """Each (samples,) float in [-1, 1]."""
        return [self._store.audio(utt_id) for utt_id in self._utt_ids]

    @cached_property
    def gradients(self) -> Gradients:
        """Of the model's loss."""
        leaves = {name: value.detach().requires_grad_() for name, value in self._start.items()}
        mean = {name: torch.zeros_like(value) for name, value in self._start.items()}
        square = {name: torch.zeros_like(value) for name, value in self._start.items()}
        for utt_id in self._utt_ids:
            torch.manual_seed(mixed_seed(self._seed, utt_id))
            batch = self._store.batch([utt_id]).to(next(iter(leaves.values())).device)
            loss, _ = self._loss_fn(leaves, batch)
            found = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
            for name, gradient in zip(leaves, found, strict=True):
                mean[name] += gradient / len(self._utt_ids)
                square[name] += gradient.square() / len(self._utt_ids)
        return Gradients(mean, square)
