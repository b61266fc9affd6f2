"""The speaker encoder, and tasks as voices."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from metaspeech.audio import io
from metaspeech.evaluation import speaker_encoder
from metaspeech.evaluation.speaker_encoder import embed
from metaspeech.tasks.speaker_embedding import SpeakerEmbedding
from tests.speech import syllables


def embedding(waveforms: list[np.ndarray], rate: int = 16000) -> np.ndarray:
    return SpeakerEmbedding().vector(SimpleNamespace(waveforms=waveforms, rate=rate))  # type: ignore[arg-type]


SIGNALS = [syllables(seconds, pitch=pitch) for seconds, pitch in [(0.3, 90), (1.0, 150), (2.5, 220), (4.0, 120)]]


def test_a_vector_does_not_depend_on_its_neighbours() -> None:
    together = embed(SIGNALS)
    assert together.shape == (4, 256)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(embed(SIGNALS[::-1])[::-1], together)
    np.testing.assert_array_equal(np.concatenate([embed([signal]) for signal in SIGNALS]), together)


def test_vectors_are_those_of_the_package(corpora: Path) -> None:
    resemblyzer, encoder = speaker_encoder._package()
    waveform, _ = io.read(next((corpora / "timit_sample" / "audio").rglob("*.flac")))
    expected = encoder.embed_utterance(resemblyzer.preprocess_wav(waveform))
    np.testing.assert_allclose(embed([waveform])[0], expected, atol=1e-5)


@pytest.mark.parametrize("waveform", [np.zeros(16000), np.zeros(10), 1e-6 * np.ones(3000), np.zeros(0)])
def test_what_is_no_speech_gives_a_vector_too(waveform: np.ndarray) -> None:
    vector = embed([waveform])
    assert vector.shape == (1, 256)
    assert np.isfinite(vector).all()


def test_no_waveforms_no_vectors() -> None:
    assert embed([]).shape == (0, 256)


def test_loading_leaves_the_random_state_alone() -> None:
    speaker_encoder._package.cache_clear()
    before = torch.get_rng_state()
    embed(SIGNALS[:1])
    assert torch.equal(before, torch.get_rng_state())


def test_a_representation_is_the_direction_of_the_mean() -> None:
    vector = embedding(SIGNALS[:2])
    mean = embed(SIGNALS[:2]).mean(axis=0)
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), rtol=1e-5)
    assert vector.dtype == np.float32


def test_the_rate_is_taken_into_account() -> None:
    low = [syllables(2.0, rate=8000, pitch=130)]
    same = embedding([syllables(2.0, rate=16000, pitch=130)])
    assert embedding(low, 8000) @ same > embedding(low) @ same


def test_real_voices_are_told_apart(corpora: Path) -> None:
    table = pd.read_csv(corpora / "timit_sample" / "metadata.csv", dtype="str")
    speakers = table["speaker"].unique()[:6]
    halves: list[list[np.ndarray]] = [[], []]
    for speaker in speakers:
        paths = table[table["speaker"] == speaker]["path"]
        recordings = [io.read(corpora / "timit_sample" / path)[0] for path in paths.iloc[:6]]
        for half, part in zip(halves, (recordings[:3], recordings[3:]), strict=True):
            half.append(embedding(part))
    cosines = np.stack(halves[0]) @ np.stack(halves[1]).T
    assert (cosines.argmax(axis=1) == np.arange(len(speakers))).all()
    assert np.diag(cosines).mean() > 0.8
