"""From a text to a waveform: free-running synthesis, then Griffin-Lim."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import cast

import numpy as np
import torch
from torch import nn

from metaspeech.audio.features import FLOOR, mel_to_audio
from metaspeech.data.store import Store
from metaspeech.models.base import AcousticModel


@dataclass(frozen=True)
class Rendered:
    """One utterance as a model speaks it."""

    mel: np.ndarray  # (frames, n_mels) log-mel
    alignment: np.ndarray  # (decoder steps, characters); (0, 0) where a model has none
    stopped: bool  # False: it ran into the limit

    @property
    def finite(self) -> bool:
        """False: the parameters have diverged, and there is nothing to listen to."""
        return bool(np.isfinite(self.mel).all())


def utterance_seed(seed: int, utt_id: str) -> int:
    """The same for an utterance whichever model, algorithm or step speaks it, so that like is compared to like."""
    return zlib.crc32(f"{seed} {utt_id}".encode())


def speak(
    model: nn.Module, store: Store, utt_ids: Sequence[str], *, max_seconds_ratio: float, seed: int
) -> list[Rendered]:
    """Speaks the texts of ``utt_ids``, each for at most ``max_seconds_ratio`` times the length of its recording."""
    batch = store.batch(utt_ids)
    synthesis = cast(AcousticModel, model).synthesize(
        batch,
        seeds=[utterance_seed(seed, utt_id) for utt_id in utt_ids],
        max_frames=torch.ceil(batch.mel_lengths * max_seconds_ratio).long(),
    )
    mels = store.denormalise(synthesis.mels.numpy())
    steps, frames = synthesis.alignments.shape[1], mels.shape[1]
    rendered = []
    for row in range(len(utt_ids)):
        length = int(synthesis.mel_lengths[row])
        alignment = np.zeros((0, 0), dtype=np.float32)
        if synthesis.alignments.numel():
            characters = int(batch.token_lengths[row])
            alignment = synthesis.alignments[row, : ceil(length * steps / frames), :characters].numpy()
        rendered.append(Rendered(mels[row, :length], alignment, bool(synthesis.stopped[row])))
    return rendered


def vocode(store: Store, mel: np.ndarray, *, iterations: int, seed: int) -> np.ndarray:
    """Griffin-Lim: (frames, n_mels) log-mel -> about (frames * hop,) samples in [-1, 1] at the store's rate.

    A mel that is shorter than an analysis window is continued with silence for the transform.
    """
    settings = store.settings
    window = ceil(settings["n_fft"] / settings["hop"]) + 1
    short = max(0, window - len(mel))
    padded = np.pad(mel, ((0, short), (0, 0)), constant_values=log(FLOOR))
    audio = mel_to_audio(torch.from_numpy(padded.astype(np.float32)), settings, iterations, seed).numpy()
    return np.asarray(np.clip(audio[: len(mel) * settings["hop"]], -1, 1), dtype=np.float32)
