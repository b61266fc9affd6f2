"""A task as its speaker's voice: the mean of a pretrained speaker encoder's embeddings."""

from __future__ import annotations

import numpy as np
import torch

from metaspeech.audio.features import resample
from metaspeech.evaluation import speaker_encoder
from metaspeech.tasks.recordings import Recordings
from metaspeech.tasks.representation import cosine


class SpeakerEmbedding:
    """(256,) of length 1, whatever the model. See :class:`~metaspeech.tasks.representation.Representation`."""

    label = "Speaker embedding"
    of_model = False

    def vector(self, recordings: Recordings) -> np.ndarray:
        tensors = [torch.from_numpy(np.asarray(waveform, dtype=np.float32)) for waveform in recordings.waveforms]
        resampled = [resample(tensor, recordings.rate, speaker_encoder.SAMPLE_RATE).numpy() for tensor in tensors]
        mean = speaker_encoder.embed(resampled).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return cosine(a, b)
