"""What a model is given: padded tensors of a few utterances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class SpeechBatch:
    """Utterances of one task, or of several, padded to the longest.

    | field | shape | what |
    |---|---|---|
    | tokens | (batch, characters) int64 | symbol ids, padded with 0 |
    | token_lengths | (batch,) int64 | |
    | mels | (batch, frames, mels) float32 | log-mel, normalised per band, padded with 0 |
    | mel_lengths | (batch,) int64 | frames |
    """

    tokens: Tensor
    token_lengths: Tensor
    mels: Tensor
    mel_lengths: Tensor

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    def to(self, device: torch.device | str) -> SpeechBatch:
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})

    def double(self) -> SpeechBatch:
        """The same with float64 features, for finite differences."""
        return replace(self, mels=self.mels.double())


@dataclass(frozen=True)
class Episode:
    """A task: a few utterances to adapt on and others to measure on, all of one speaker.

    ``seed`` fixes whatever a model draws while it works on this task (dropout), so that neither the order of tasks nor
    a restart changes a result.
    """

    speaker: str
    support: SpeechBatch
    query: SpeechBatch
    seed: int = 0

    def to(self, device: torch.device | str) -> Episode:
        return replace(self, support=self.support.to(device), query=self.query.to(device))


def collate(items: Sequence[tuple[Sequence[int], np.ndarray]]) -> SpeechBatch:
    """Pads (token ids, normalised log-mel of shape (frames, mels)) to one batch."""
    token_lengths = torch.tensor([len(tokens) for tokens, _ in items])
    mel_lengths = torch.tensor([len(mel) for _, mel in items])
    tokens = torch.zeros(len(items), int(token_lengths.max()), dtype=torch.int64)
    mels = torch.zeros(len(items), int(mel_lengths.max()), items[0][1].shape[1])
    for row, (ids, mel) in enumerate(items):
        tokens[row, : len(ids)] = torch.as_tensor(ids)
        mels[row, : len(mel)] = torch.as_tensor(mel)
    return SpeechBatch(tokens, token_lengths, mels, mel_lengths)


def concatenate(batches: Sequence[SpeechBatch]) -> SpeechBatch:
    """Several batches as one, padded to the longest of all."""

    def stack(tensors: list[Tensor]) -> Tensor:
        longest = max(tensor.shape[1] for tensor in tensors)
        pad = [(0, 0) * (tensor.dim() - 2) + (0, longest - tensor.shape[1]) for tensor in tensors]
        return torch.cat([torch.nn.functional.pad(t, p) for t, p in zip(tensors, pad, strict=True)])

    return SpeechBatch(
        tokens=stack([batch.tokens for batch in batches]),
        token_lengths=torch.cat([batch.token_lengths for batch in batches]),
        mels=stack([batch.mels for batch in batches]),
        mel_lengths=torch.cat([batch.mel_lengths for batch in batches]),
    )
