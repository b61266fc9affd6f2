"""From a text to a mel, and from a mel to a waveform by Griffin-Lim or by a vocoder."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import cast

import numpy as np
import torch
from torch import nn

from metaspeech.audio import bands
from metaspeech.audio.bands import BandMap
from metaspeech.audio.features import FLOOR, mel_to_audio
from metaspeech.data.batch import SpeechBatch
from metaspeech.data.store import Features, Store
from metaspeech.models.base import AcousticModel, Vocoder


@dataclass(frozen=True)
class Rendered:
    """The mel of one utterance: as a model speaks it, or of the recording."""

    mel: np.ndarray  # (frames, n_mels) log-mel
    alignment: np.ndarray | None = None  # (decoder steps, characters)
    stopped: bool = True  # False: it ran into the limit


def utterance_seed(seed: int, utt_id: str) -> int:
    """The same for an utterance whichever model, algorithm or step speaks it, so that like is compared to like."""
    return zlib.crc32(f"{seed} {utt_id}".encode())


def speak(
    model: nn.Module,
    store: Store,
    utt_ids: Sequence[str],
    *,
    max_seconds_ratio: float,
    seed: int,
    band_map: BandMap | None = None,
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
        alignment = None
        if synthesis.alignments.numel():
            characters = int(batch.token_lengths[row])
            alignment = synthesis.alignments[row, : ceil(length * steps / frames), :characters].numpy()
        mel = mels[row, :length]
        rendered.append(Rendered(band_map(mel) if band_map else mel, alignment, bool(synthesis.stopped[row])))
    return rendered


def matching_bands(
    model: nn.Module, features: Features, batch: SpeechBatch, *, max_seconds_ratio: float, seeds: list[int]
) -> BandMap | None:
    """From the bands of ``batch``'s texts, as the model speaks them, to those of its recordings.

    Args:
        model: acoustic, as it is once adapted.
        features: what its mels mean.
        batch: of one speaker.
        max_seconds_ratio: a text is spoken for at most so many times the length of its recording.
        seeds: one an utterance.
    """
    limits = torch.ceil(batch.mel_lengths * max_seconds_ratio).long()
    synthesis = cast(AcousticModel, model).synthesize(batch, seeds=seeds, max_frames=limits)
    spoken, recorded = (
        np.concatenate([features.denormalise(mel[:length].numpy()) for mel, length in zip(mels, lengths, strict=True)])
        for mels, lengths in ((synthesis.mels, synthesis.mel_lengths), (batch.mels, batch.mel_lengths))
    )
    return bands.fit(spoken, recorded)


def griffin_lim(store: Features, mel: np.ndarray, *, iterations: int, seed: int) -> np.ndarray | None:
    """(frames, n_mels) log-mel -> about (frames * hop,) samples in [-1, 1] at the store's rate.

    A mel that is shorter than an analysis window is continued with silence for the transform. None where the mel is not
    finite, or too loud for a float.
    """
    if not np.isfinite(mel).all():
        return None
    settings = store.settings
    window = ceil(settings["n_fft"] / settings["hop"]) + 1
    short = max(0, window - len(mel))
    padded = np.pad(mel, ((0, short), (0, 0)), constant_values=log(FLOOR))
    audio = mel_to_audio(torch.from_numpy(padded.astype(np.float32)), settings, iterations, seed).numpy()
    return _clipped(audio[: len(mel) * settings["hop"]])


def vocode(
    model: nn.Module, store: Features, mels: Sequence[np.ndarray], *, seeds: Sequence[int]
) -> list[np.ndarray | None]:
    """The same for several mels at once by a vocoder: together they take less time than one after the other."""
    diverged = not all(bool(torch.isfinite(value).all()) for value in model.parameters())
    finite = [index for index, mel in enumerate(mels) if np.isfinite(mel).all() and not diverged]
    normalised = [torch.from_numpy(store.normalise(mels[index])) for index in finite]
    made = cast(Vocoder, model).vocode(normalised, seeds=[seeds[index] for index in finite]) if finite else []
    audio = {index: _clipped(one.numpy()) for index, one in zip(finite, made, strict=True)}
    return [audio.get(index) for index in range(len(mels))]


def _clipped(audio: np.ndarray) -> np.ndarray | None:
    """None where there is nothing to listen to: the parameters have diverged."""
    return np.asarray(np.clip(audio, -1, 1), dtype=np.float32) if np.isfinite(audio).all() else None
