"""Recordings played faster or slower: pitch, formants and tempo move together, and a few speakers become many.

Speed perturbation as in Ko et al. 2015, "Audio augmentation for speech recognition".
"""

from __future__ import annotations

import numpy as np
import torch

from metaspeech.audio.features import LogMel, resample
from metaspeech.data.store import Store


class Player:
    """The utterances of a store, as a model reads them, at other speeds."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.mel = LogMel.from_settings(store.settings)
        self.sample_rate = int(store.settings["sample_rate"])

    def at(self, utt_id: str, speed: float) -> tuple[list[int], np.ndarray, np.ndarray]:
        """(symbol ids, normalised log-mel of shape (frames, mels), samples) at ``speed`` times the recorded one."""
        store, tokens, audio = self.store, self.store.tokens(utt_id), self.store.audio(utt_id)
        if speed == 1.0:
            return tokens, store.normalised_mel(utt_id), audio
        played = resample(torch.from_numpy(audio), round(self.sample_rate * speed), self.sample_rate)
        mel = (self.mel(played).numpy() - store.mel_mean) / store.mel_std
        return tokens, np.asarray(mel, dtype=np.float32), played.numpy()
