"""Recordings at other speeds, and pretraining without voices."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from metaspeech.config import Prepare, Pretrain
from metaspeech.data.prepare import prepare_corpus
from metaspeech.data.speeds import Player
from metaspeech.data.store import Store
from metaspeech.data.tensors import SORTED, EpisodeMaker
from metaspeech.training.joint_learner import JointLearner
from tests.speech import write_corpus


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speeds")
    write_corpus(folder / "corpus")
    prepare_corpus(folder / "corpus", folder / "prepared", Prepare(workers=1, statistics=""), progress=False)
    return Store(folder / "prepared")


def pool(store):
    return {name: tuple(group.index) for name, group in store.manifest.groupby("speaker")}


def pitch(audio, rate=16000):
    """The strongest frequency below 400 Hz."""
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 1 << 16))
    return int(np.argmax(spectrum[: 400 * (1 << 16) // rate])) * rate / (1 << 16)


def test_at_its_own_speed_a_recording_is_the_stored_one(store):
    tokens, mel, audio = Player(store).at("s1_2", 1.0)
    assert tokens == store.tokens("s1_2")
    np.testing.assert_array_equal(mel, store.normalised_mel("s1_2"))
    np.testing.assert_array_equal(audio, store.audio("s1_2"))


@pytest.mark.parametrize("speed", [0.8, 0.95, 1.25])
def test_faster_is_shorter_and_higher(store, speed):
    _, mel, audio = Player(store).at("s0_3", speed)
    original = store.audio("s0_3")
    assert len(audio) == pytest.approx(len(original) / speed, abs=2)
    assert len(mel) == len(audio) // 256 + 1
    assert pitch(audio) == pytest.approx(pitch(original) * speed, rel=0.02)


def test_every_speed_makes_another_speaker_and_a_step_repeats_itself(store):
    make = EpisodeMaker(store, 1).joint(pool(store), 6, [0.9, 1.0, 1.1])
    seen = {int(speaker) for step in range(30) for speaker in make(step)[1]}
    assert seen == set(range(9))
    one, again = make(4), make(4)
    assert torch.equal(one[0].audio, again[0].audio)
    assert torch.equal(one[1], again[1])


def test_a_joint_batch_has_utterances_of_like_length_and_nothing_is_lost(store):
    """Padded to the longest of anything at all, six frames in ten of real sentences were padding."""
    utterances = [utterance for names in pool(store).values() for utterance in names]
    size = 3
    make = EpisodeMaker(store, 1).joint(pool(store), size)
    batches = [make(step)[0] for step in range(SORTED * len(utterances))]
    for turn in range(0, len(batches), SORTED):
        some = [one.mel_lengths for one in batches[turn : turn + SORTED]]
        ranges = sorted((int(lengths.min()), int(lengths.max())) for lengths in some)
        assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    lengths = sorted(int(frames) for one in batches for frames in one.mel_lengths)
    assert lengths == sorted(size * SORTED * [store.frames(utterance) for utterance in utterances])
    longest_first = [int(one.mel_lengths.max()) for one in batches]
    assert longest_first != sorted(longest_first)


class Voiced(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.voice = torch.nn.Parameter(torch.ones(4))


@pytest.mark.parametrize("voices", [True, False])
def test_without_voices_all_speakers_are_one(voices):
    learner = JointLearner(Voiced(), 3, Pretrain(voices=voices), seed=1)
    assert learner.voices.requires_grad == voices
    assert bool(learner.voices.any()) == voices
    assert torch.equal(learner.common_start().voice, torch.ones(4)) != voices
