"""How alike two voices are, by the speaker encoder that judges the pipeline's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from metaspeech.audio.features import resample
from metaspeech.evaluation.judges.similarity import centroid
from metaspeech.evaluation.speaker_encoder import SAMPLE_RATE, embed
from metaspeech.voices.voice import Voice

SENTENCES = (
    "young dog ran home",
    "the boat found a green bird",
    "a big house by the road",
    "he saw the moon and the sea",
    "good food is on the table",
    "she read the book at night",
)


@dataclass(frozen=True)
class Comparison:
    """Cosines of the encoder's vectors, 1 for the same.

    Attributes:
        similarity: of the two voices, by the centroids of what they say.
        within: of each voice to itself: half of what it says against the other half. What to compare with.
    """

    similarity: float
    within: tuple[float, float]


def compare(one: Voice, other: Voice, seed: int = 1) -> Comparison:
    """Lets both say the same sentences."""
    first, second = (voice_vectors(voice, seed) for voice in (one, other))
    return Comparison(_cosine(first, second), (_halves(first), _halves(second)))


def voice_vectors(voice: Voice, seed: int = 1, sentences: Sequence[str] = SENTENCES) -> np.ndarray:
    """(sentences, 256): who speaks, by each sentence."""
    spoken = [voice.say(sentence, seed=seed)[0] for sentence in sentences]
    return vectors(spoken, voice.rate)


def vectors(recordings: Sequence[np.ndarray], rate: int) -> np.ndarray:
    """(recordings, 256) for waveforms of (samples,) at ``rate``."""
    return embed([resample(torch.from_numpy(one), rate, SAMPLE_RATE).numpy() for one in recordings])


def _halves(found: np.ndarray) -> float:
    return _cosine(found[::2], found[1::2])


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(centroid(one) @ centroid(other))
