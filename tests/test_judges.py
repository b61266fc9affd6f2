"""Judges against cases whose answer is known, and against real recordings."""

from __future__ import annotations

import math
from importlib.metadata import version

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
from metaspeech.evaluation.judges.attention import failures
from metaspeech.evaluation.judges.base import RATE, Candidate, Query, Setting
from metaspeech.evaluation.judges.f0 import PitchError, compare, pitch
from metaspeech.evaluation.judges.mcd import MelCepstralDistortion
from metaspeech.evaluation.judges.mos import WINDOW, PredictedMos
from metaspeech.evaluation.judges.phonemes import PhonemeError, error_rate, pronunciation
from metaspeech.evaluation.judges.prosody import ProsodyError, energy
from metaspeech.evaluation.judges.sentences import CHOICES, SentenceAccuracy
from metaspeech.registry import JUDGES, resolve

NOBODY = Setting({}, ())


def query(audio, text="a word", speaker="a"):
    return Query("u", speaker, text, np.asarray(audio, dtype=np.float32))


def heard(*audio):
    return [Candidate(np.asarray(one, dtype=np.float32)) for one in audio]


@pytest.fixture(scope="module")
def sentences():
    return SentenceAccuracy(Setting({}, TEXTS))


@pytest.fixture(scope="module")
def mos():
    return PredictedMos(NOBODY)


TEXTS = ("Good dog!", "The bird took a cup.", "a king made chairs", "A king made chairs", "xyzzyx plugh", "42 !")


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
    judge = MelCepstralDistortion(NOBODY)
    scores = judge(query(audio), heard(audio, audio + 1e-3 * noise, audio + 1e-2 * noise))
    values = [score["mcd"] for score in scores]
    assert values[0] == 0.0
    assert values == sorted(values)
    assert values[1] > 0.1


def test_mcd_does_not_hear_level_nor_tempo():
    audio = syllables(0.8)
    halved, slower = MelCepstralDistortion(NOBODY)(
        query(audio), heard(0.5 * audio, np.repeat(audio.reshape(-1, 160), 2, 0).ravel())
    )
    assert halved["mcd"] == pytest.approx(0, abs=1e-4)
    unrelated = MelCepstralDistortion(NOBODY)(query(audio), heard(syllables(0.8, pitch=310, seed=5)))[0]
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
    same, apart = PitchError(NOBODY)(query(low), heard(low, high))
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
    enrolment = {"b": [np.zeros(2)], "a": [np.zeros(1), np.zeros(1)], "c": [np.zeros(3)]}
    judge = similarity.SpeakerSimilarity(Setting(enrolment, ()))
    score = judge(query(np.zeros(9), speaker="a"), heard(np.zeros(4)))[0]
    assert score["similarity"] == pytest.approx(0.6)
    assert score["impostor_similarity"] == pytest.approx((0.8 - 0.6) / 2)
    assert score["margin"] == pytest.approx(0.5)
    assert score["impostor_scores"] == pytest.approx([0.8, -0.6])  # of b, of c


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


def test_energy_and_duration_by_hand():
    """A tone, silence, the same tone 20 dB lower: against the tone at one level, half of the frames are 20 dB off."""
    tone = np.sin(2 * np.pi * 200 * np.arange(8000) / RATE)
    flat, stepped = np.concatenate([tone, tone]), np.concatenate([tone, 0.1 * tone])
    assert energy(flat).max() == pytest.approx(10 * np.log10(0.5), abs=0.1)
    assert energy(stepped)[-20] == pytest.approx(10 * np.log10(0.005), abs=0.1)
    assert energy(np.zeros(900)).tolist() == [-120.0] * 6
    same, lower, halved = ProsodyError(NOBODY)(query(flat), heard(flat, 0.1 * flat, flat[:8000]))
    assert same == {"energy_error": 0.0, "duration_error": 0.0}
    assert lower["energy_error"] == pytest.approx(0, abs=1e-3)
    assert halved["duration_error"] == pytest.approx(1, abs=0.05)  # an octave
    assert ProsodyError(NOBODY)(query(flat), heard(stepped))[0]["energy_error"] == pytest.approx(10, abs=0.5)


def test_duration_does_not_count_silence_around_speech():
    audio = syllables(0.8)
    padded = np.concatenate([np.zeros(3200), audio, np.zeros(8000)])
    assert ProsodyError(NOBODY)(query(audio), heard(padded))[0]["duration_error"] == pytest.approx(0, abs=0.05)


def test_attention_failures_by_hand():
    straight = np.eye(6)
    assert failures(straight) == {"focus_rate": 1.0, "skipped": 0.0, "repeated": 0.0}
    assert failures(straight[[0, 2, 4, 5]])["skipped"] == 0.0  # several characters a step
    jumped = failures(straight[[0, 4, 5]])  # 2 is more than one away from 0 and from 4
    assert jumped == {"focus_rate": 1.0, "skipped": 1 / 6, "repeated": 0.0}
    again = failures(straight[[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 4]])  # one jump back; 5 to 4 is near
    assert again == {"focus_rate": 1.0, "skipped": 0.0, "repeated": 0.1}
    blurred = failures(np.full((3, 4), 0.25))
    assert blurred == {"focus_rate": 0.25, "skipped": 0.5, "repeated": 0.0}
    assert all(math.isnan(value) for value in failures(None).values())


def test_predicted_mos_is_the_packages_own(mos):
    """Less silence goes through the convolutions here; shorter and longer than the network's window."""
    import torch

    rng = np.random.default_rng(0)
    for samples in (1, 5000, 16000, WINDOW - 3000, WINDOW - 1, WINDOW + 5000):
        audio = np.resize(syllables(1.0), samples) + 0.01 * rng.normal(size=samples).astype(np.float32)
        with torch.inference_mode():
            expected = float(mos._model(torch.from_numpy(audio)[None]))
        assert mos.rate(audio) == pytest.approx(expected, abs=2e-5)
        assert 1 <= expected <= 5


def test_predicted_mos_falls_with_noise(mos, corpora):
    path = sorted((corpora / "timit_sample" / "audio").rglob("*.flac"))[0]
    audio = _at_judge_rate(path)
    noise = np.random.default_rng(0).normal(0, audio.std(), len(audio)).astype(np.float32)
    clean, noisy = mos(query(audio), heard(audio, audio + noise))
    assert clean["mos"] > noisy["mos"] + 1


def test_sentences_are_those_that_the_dictionary_has_once_each(sentences):
    assert sentences.sentences == ["a king made chairs", "good dog", "the bird took a cup"]
    assert sentences.choices("good dog") == tuple(sentences.sentences)
    for text in ("xyzzyx plugh", "42 !"):
        score = sentences(query(np.zeros(8000), text), heard(np.zeros(8000)))[0]
        assert math.isnan(score["sentence_accuracy"])
    alone = SentenceAccuracy(Setting({}, ["good dog"]))
    assert math.isnan(alone(query(np.zeros(8000), "good dog"), heard(np.zeros(8000)))[0]["sentence_accuracy"])


def test_of_many_sentences_a_few_are_drawn_always_the_same_with_the_right_one():
    words = ["dog", "cat", "king", "bird", "cup", "chair", "house", "goat"]
    texts = [f"{one} {other}" for one in words for other in words]
    judge, again = SentenceAccuracy(Setting({}, texts)), SentenceAccuracy(Setting({}, texts[::-1]))
    for right in ("dog cat", "goat goat"):
        choices = judge.choices(right)
        assert len(set(choices)) == CHOICES
        assert right in choices
        assert choices == again.choices(right)
    assert set(judge.choices("dog cat")) != set(judge.choices("cat dog"))


def test_real_sentences_are_found_whatever_was_heard_before(corpora):
    table = pd.read_csv(corpora / "timit_sample" / "metadata.csv").head(6)
    audio = [_at_judge_rate(corpora / "timit_sample" / path) for path in table["path"]]
    judge = SentenceAccuracy(Setting({}, list(table["text"])))
    asked = list(zip(audio, table["text"], strict=True))
    right = [judge(query(one, text), heard(one))[0]["sentence_accuracy"] for one, text in asked]
    assert right == [1.0] * 6
    wrong = [judge(query(one, text), heard(audio[0]))[0]["sentence_accuracy"] for one, text in asked]
    assert wrong == [1.0] + [0.0] * 5
    assert [judge(query(one, text), heard(one))[0]["sentence_accuracy"] for one, text in asked[::-1]] == [1.0] * 6


@pytest.mark.parametrize("name", list(JUDGES))
def test_no_sound_breaks_a_judge(name):
    """Silence, noise, clicks and next to nothing: each gets every promised number, or NaN."""
    noise = np.random.default_rng(0).normal(0, 0.3, 4000).astype(np.float32)
    candidates = [np.zeros(1), np.zeros(4000), noise, noise[:100], np.ones(900), syllables(0.5)]
    audio = syllables(0.6)
    judge = resolve(JUDGES, name)(Setting({"a": [audio], "b": [syllables(0.6, pitch=200)]}, TEXTS))
    scores = judge(query(audio, TEXTS[0]), [Candidate(one.audio, np.eye(4)) for one in heard(*candidates)])
    assert len(scores) == len(candidates)
    promised = [column.name for column in judge.columns]
    assert all(set(promised) <= set(score) for score in scores)
    assert not any(math.isinf(score[column]) for score in scores for column in promised)
    assert all(not math.isnan(scores[-1][column]) for column in promised)


@pytest.mark.parametrize("name", list(JUDGES))
def test_a_judge_says_what_it_saw_in_training_and_whose_versions_matter(name):
    judge = resolve(JUDGES, name)
    assert all(name == name.lower() for name in judge.trained_on)
    assert all(version(package) for package in judge.packages)
    for column in judge.columns:
        assert column.explanation.endswith("."), column


def test_real_speech_is_recognised_and_a_wrong_text_is_not(corpora):
    table = pd.read_csv(corpora / "timit_sample" / "metadata.csv").head(8)
    judge = PhonemeError(NOBODY)
    right, wrong = [], []
    for row, other in zip(table.itertuples(), reversed(list(table.itertuples())), strict=True):
        audio = _at_judge_rate(corpora / "timit_sample" / row.path)
        right.append(judge(query(audio, row.text), heard(audio))[0]["phoneme_error"])
        wrong.append(judge(query(audio, other.text), heard(audio))[0]["phoneme_error"])
    assert np.mean(right) < 0.25
    assert np.mean(wrong) > 0.7


def test_real_speakers_are_told_apart(corpora):
    table = pd.read_csv(corpora / "timit_sample" / "metadata.csv")
    speakers = sorted(table["speaker"].unique())[:4]
    audio = {
        name: [_at_judge_rate(corpora / "timit_sample" / path) for path in table["path"][table["speaker"] == name][:5]]
        for name in speakers
    }
    judge = similarity.SpeakerSimilarity(Setting({name: recordings[:4] for name, recordings in audio.items()}, ()))
    scores = [judge(query(one[4], speaker=name), heard(one[4]))[0] for name, one in audio.items()]
    assert min(score["margin"] for score in scores) > 0.1
    assert np.mean([score["similarity"] for score in scores]) > 0.8


def _at_judge_rate(path):
    import torch

    audio, rate = read(path)
    return resample(torch.from_numpy(audio), rate, RATE).numpy()
