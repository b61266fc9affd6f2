"""A task as its speaker's voice: the mean of a pretrained speaker encoder's embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from metaspeech.audio.features import resample
from metaspeech.evaluation import speaker_encoder


class SpeakerEmbedding:
    """(256,) of length 1. See :class:`~metaspeech.tasks.representation.Representation`."""

    def vector(self, waveforms: Sequence[np.ndarray], rate: int) -> np.ndarray:
        tensors = [torch.from_numpy(np.asarray(waveform, dtype=np.float32)) for waveform in waveforms]
        resampled = [resample(tensor, rate, speaker_encoder.SAMPLE_RATE).numpy() for tensor in tensors]
        mean = speaker_encoder.embed(resampled).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)
