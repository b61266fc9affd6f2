"""Judges against cases whose answer is known, and against real recordings."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech import syllables

from metaspeech.audio.features import resample
from metaspeech.audio.io import read
from metaspeech.evaluation.judges import similarity
from metaspeech.evaluation.judges.alignment import COEFFICIENTS, DB, align, cepstra
from metaspeech.evaluation.judges.base import RATE, Query
from metaspeech.evaluation.judges.f0 import PitchError, compare, pitch
from metaspeech.evaluation.judges.mcd import MelCepstralDistortion
from metaspeech.evaluation.judges.phonemes import PhonemeError, error_rate, pronunciation
from metaspeech.registry import JUDGES, resolve


def query(audio, text="a word", speaker="a"):
    return Query("u", speaker, text, np.asarray(audio, dtype=np.float32))


def test_alignment_by_hand():
    """Reference 0 1 3, candidate 0 0 1 2 3: the cheapest path costs 1 and passes 2 over 1 or 3."""
    reference, candidate = np.array([[0.0], [1.0], [3.0]]), np.array([[0.0], [0.0], [1.0], [2.0], [3.0]])
    path, distances = align(reference, candidate)
    assert distances.sum() == 1.0
    assert [tuple(pair) for pair in path] in (
        [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4)],
        [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4)],
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=7), st.lists(st.floats(-5, 5), min_size=1, max_size=7))
def test_alignment_is_monotonic_complete_and_no_path_is_cheaper(first, second):
    x, y = np.array(first)[:, None], np.array(second)[:, None]
    path, distances = align(x, y)
    assert tuple(path[0]) == (0, 0)
    assert tuple(path[-1]) == (len(x) - 1, len(y) - 1)
    assert {tuple(step) for step in np.diff(path, axis=0)} <= {(1, 1), (1, 0), (0, 1)}
    assert distances.sum() == pytest.approx(cheapest(first, second))


def cheapest(x, y):
    """The textbook recursion."""
    cost = {(-1, -1): 0.0}
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            before = [cost.get(key, math.inf) for key in ((i - 1, j - 1), (i - 1, j), (i, j - 1))]
            cost[i, j] = abs(a - b) + min(before)
    return cost[len(x) - 1, len(y) - 1]


def test_mcd_of_a_recording_with_itself_is_exactly_zero_and_grows_with_noise():
    audio = syllables(0.8)
    noise = np.random.default_rng(0).normal(0, 1, len(audio)).astype(np.float32)
    judge = MelCepstralDistortion({})
    scores = judge(query(audio), [audio, audio + 1e-3 * noise, audio + 1e-2 * noise])
    values = [score["mcd"] for score in scores]
    assert values[0] == 0.0
    assert values == sorted(values)
    assert values[1] > 0.1


def test_mcd_does_not_hear_level_nor_tempo():
    audio = syllables(0.8)
    halved, slower = MelCepstralDistortion({})(
        query(audio), [0.5 * audio, np.repeat(audio.reshape(-1, 160), 2, 0).ravel()]
    )
    assert halved["mcd"] == pytest.approx(0, abs=1e-4)
    unrelated = MelCepstralDistortion({})(query(audio), [syllables(0.8, pitch=310, seed=5)])[0]
    assert slower["mcd"] < unrelated["mcd"]


def test_cepstra_are_in_decibels(monkeypatch):
    """Spectra that differ by a cosine over the bands of amplitude 6 dB are 6 / sqrt 2 dB apart, its RMS."""
    import torch

    from metaspeech.evaluation.judges import alignment

    bands = (np.arange(80) + 0.5) / 80
    flat, rippled = np.zeros((3, 80)), np.zeros((3, 80)) + 6 / DB * np.cos(np.pi * 4 * bands)
    frames = []
    for spectrum in (flat, rippled):
        monkeypatch.setattr(alignment, "_log_mel", lambda s=spectrum: lambda _: torch.from_numpy(s))
        frames.append(cepstra(np.zeros(320)))
    assert frames[0].shape == (3, COEFFICIENTS)
    assert np.linalg.norm(frames[0] - frames[1], axis=1) == pytest.approx([6 / math.sqrt(2)] * 3)


def test_f0_error_of_a_known_interval():
    """A tone of harmonics at 220 Hz against 200 Hz: 1200 log2 1.1 = 165 cents."""
    low, high = syllables(0.8, pitch=200), syllables(0.8, pitch=220)
    same, apart = PitchError({})(query(low), [low, high])
    assert same == {"f0_error": 0.0, "voicing_error": 0.0}
    assert apart["f0_error"] == pytest.approx(165, abs=5)


def test_pitch_has_a_value_for_every_frame_of_the_cepstra():
    for samples in (1, 159, 160, 161, 8000, 12345):
        audio = syllables(1.0)[:samples]
        assert len(pitch(audio)) == len(cepstra(audio)), samples


def test_voicing_errors_are_counted():
    scores = compare(np.array([100.0, 100.0, 0.0, 0.0]), np.array([200.0, 0.0, 0.0, 50.0]))
    assert scores == {"f0_error": 1200.0, "voicing_error": 0.5}
    assert math.isnan(compare(np.zeros(3), np.zeros(3))["f0_error"])


def test_similarity_is_a_cosine_to_centroids(monkeypatch):
    """Vectors stand for recordings here: speaker a lies along x, b along y, c along -x."""
    vectors = {1: (1.0, 0.0), 2: (0.0, 1.0), 3: (-1.0, 0.0), 4: (0.6, 0.8)}
    monkeypatch.setattr(similarity, "embed", lambda audio: np.array([vectors[len(one)] for one in audio]))
    judge = similarity.SpeakerSimilarity({"a": [np.zeros(1), np.zeros(1)], "b": [np.zeros(2)], "c": [np.zeros(3)]})
    score = judge(query(np.zeros(9), speaker="a"), [np.zeros(4)])[0]
    assert score["similarity"] == pytest.approx(0.6)
    assert score["impostor_similarity"] == pytest.approx((0.8 - 0.6) / 2)
    assert score["margin"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("reference", "heard", "rate"),
    [("a b c d", "a b c d", 0), ("a b c d", "a x c", 0.5), ("a b", "", 1), ("a", "a b c", 2)],
)
def test_phoneme_error_rate_by_hand(reference, heard, rate):
    assert error_rate(reference.split(), heard.split()) == rate


def test_pronunciation_does_not_depend_on_marks_and_case():
    plain = pronunciation("she had your dark suit")
    assert pronunciation("She had -- your 'dark' suit!?") == plain
    assert plain[:2] == ["ʃ", "i"]
    assert pronunciation("... 42 !") == []
    assert math.isnan(error_rate(pronunciation("?"), ["a"]))


@pytest.mark.parametrize("name", list(JUDGES))
def test_no_sound_breaks_a_judge(name):
    """Silence, noise, clicks and next to nothing: each gets every promised number, or NaN."""
    noise = np.random.default_rng(0).normal(0, 0.3, 4000).astype(np.float32)
    candidates = [np.zeros(1), np.zeros(4000), noise, noise[:100], np.ones(900), syllables(0.5)]
    audio = syllables(0.6)
    judge = resolve(JUDGES, name)({"a": [audio], "b": [syllables(0.6, pitch=200)]})
    scores = judge(query(audio), [np.asarray(one, dtype=np.float32) for one in candidates])
    assert len(scores) == len(candidates)
    promised = {column.name for column in judge.columns}
    assert all(set(score) == promised for score in scores)
    assert not any(math.isinf(value) for score in scores for value in score.values())
    assert all(not math.isnan(value) for value in scores[-1].values())


def test_real_speech_is_recognised_and_a_wrong_text_is_not(corpora):
    table = pd.read_csv(corpora / "timit_sample" / "metadata.csv").head(8)
    judge = PhonemeError({})
    right, wrong = [], []
    for row, other in zip(table.itertuples(), reversed(list(table.itertuples())), strict=True):
        audio = _at_judge_rate(corpora / "timit_sample" / row.path)
        right.append(judge(query(audio, row.text), [audio])[0]["phoneme_error"])
        wrong.append(judge(query(audio, other.text), [audio])[0]["phoneme_error"])
    assert np.mean(right) < 0.25
    assert np.mean(wrong) > 0.7


def test_real_speakers_are_told_apart(corpora):
    table = pd.read_csv(corpora / "timit_sample" / "metadata.csv")
    speakers = sorted(table["speaker"].unique())[:4]
    audio = {
        name: [_at_judge_rate(corpora / "timit_sample" / path) for path in table["path"][table["speaker"] == name][:5]]
        for name in speakers
    }
    judge = similarity.SpeakerSimilarity({name: recordings[:4] for name, recordings in audio.items()})
    scores = [judge(query(recordings[4], speaker=name), recordings[4:5])[0] for name, recordings in audio.items()]
    assert min(score["margin"] for score in scores) > 0.1
    assert np.mean([score["similarity"] for score in scores]) > 0.8


def _at_judge_rate(path):
    import torch

    audio, rate = read(path)
    return resample(torch.from_numpy(audio), rate, RATE).numpy()
