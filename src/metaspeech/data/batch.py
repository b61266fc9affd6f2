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
    | audio | (batch, samples) float32 | in [-1, 1], padded with 0; frame t is centred on sample ``t * hop`` |
    | audio_lengths | (batch,) int64 | samples |
    | starts | (batch, characters) float32 | frame at which each begins, the first at 0; None where that is not known |
    """

    tokens: Tensor
    token_lengths: Tensor
    mels: Tensor
    mel_lengths: Tensor
    audio: Tensor
    audio_lengths: Tensor
    starts: Tensor | None = None

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    def to(self, device: torch.device | str) -> SpeechBatch:
        return replace(self, **{name: value.to(device) for name, value in vars(self).items() if value is not None})

    def double(self) -> SpeechBatch:
        """The same with float64 features, for finite differences."""
        return replace(self, mels=self.mels.double(), audio=self.audio.double())


@dataclass(frozen=True)
class Episode:
    """A task: a few utterances to adapt on and others to measure on, all of one speaker.

    ``seed`` fixes whatever a model draws while it works on this task (dropout), so that neither the order of tasks nor
    a restart changes a result. ``representation`` is the task's vector (width,), and ``neighbour`` are recordings of
    the training speaker whose vector is nearest to it; only for algorithms that need them.
    """

    speaker: str
    support: SpeechBatch
    query: SpeechBatch
    seed: int = 0
    representation: Tensor | None = None
    neighbour: SpeechBatch | None = None

    def to(self, device: torch.device | str) -> Episode:
        return replace(
            self,
            support=self.support.to(device),
            query=self.query.to(device),
            representation=None if self.representation is None else self.representation.to(device),
            neighbour=None if self.neighbour is None else self.neighbour.to(device),
        )


def collate(
    items: Sequence[tuple[Sequence[int], np.ndarray, np.ndarray]], starts: Sequence[np.ndarray] = ()
) -> SpeechBatch:
    """Pads (token ids, normalised log-mel of shape (frames, mels), samples) to one batch.

    ``starts`` are the frames at which an utterance's symbols begin; unless they are there for all, they count for none.
    """
    tokens, token_lengths = _padded([np.asarray(ids, dtype=np.int64) for ids, _, _ in items])
    mels, mel_lengths = _padded([mel for _, mel, _ in items])
    audio, audio_lengths = _padded([samples for _, _, samples in items])
    begun = _padded(starts)[0] if len(starts) and all(map(len, starts)) else None
    return SpeechBatch(tokens, token_lengths, mels, mel_lengths, audio, audio_lengths, begun)


def concatenate(batches: Sequence[SpeechBatch]) -> SpeechBatch:
    """Several batches as one, padded to the longest of all."""
    starts = [batch.starts for batch in batches]

    def stack(tensors: list[Tensor]) -> Tensor:
        longest = max(tensor.shape[1] for tensor in tensors)
        pad = [(0, 0) * (tensor.dim() - 2) + (0, longest - tensor.shape[1]) for tensor in tensors]
        return torch.cat([torch.nn.functional.pad(t, p) for t, p in zip(tensors, pad, strict=True)])

    return SpeechBatch(
        tokens=stack([batch.tokens for batch in batches]),
        token_lengths=torch.cat([batch.token_lengths for batch in batches]),
        mels=stack([batch.mels for batch in batches]),
        mel_lengths=torch.cat([batch.mel_lengths for batch in batches]),
        audio=stack([batch.audio for batch in batches]),
        audio_lengths=torch.cat([batch.audio_lengths for batch in batches]),
        starts=None if any(one is None for one in starts) else stack([one for one in starts if one is not None]),
    )


def _padded(arrays: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Arrays that differ in length as one tensor, padded with 0, and their lengths."""
    lengths = torch.tensor([len(array) for array in arrays])
    tensors = [torch.as_tensor(array) for array in arrays]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), lengths
