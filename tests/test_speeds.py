"""Recordings at other speeds, pretraining without voices, and what algorithms are told of a task."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from metaspeech.config import Prepare, Pretrain
from metaspeech.data.episodes import EpisodeSpec
from metaspeech.data.prepare import prepare_corpus
from metaspeech.data.speeds import Player
from metaspeech.data.store import Store
from metaspeech.data.tensors import EpisodeMaker
from metaspeech.errors import UserError
from metaspeech.tasks.context import TaskContext
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


# What algorithms are told of a task -------------------------------------------------------------------------------


def vectors():
    rows = [("s0", [1.0, 0.0]), ("s1", [0.8, 0.6]), ("s2", [0.0, 1.0]), ("t-0", [0.6, 0.9])]
    table = pd.DataFrame(rows, columns=["id", "vector"])
    return table.assign(vector=table["vector"].map(lambda vector: np.array(vector, dtype=np.float32)))


def test_a_task_learns_its_vector_and_its_nearest_neighbour_as_far_as_it_asks(store):
    test = EpisodeSpec("t-0", "test", "t", ("s2_0",), ("s2_1",))
    maker = EpisodeMaker(store, 1, TaskContext(store, vectors(), pool(store), {"representation", "neighbour"}, 2).add)
    told = maker.stored(test)
    assert told.representation.tolist() == pytest.approx([0.6, 0.9])
    assert torch.equal(told.neighbour.audio, store.batch(["s1_0", "s1_1"]).audio)  # cosines 0.55, 0.94, 0.83
    plain = EpisodeMaker(store, 1, TaskContext(store, vectors(), pool(store), (), 2).add).stored(test)
    assert plain.representation is None
    assert plain.neighbour is None


def test_a_training_speaker_is_not_its_own_neighbour(store):
    context = TaskContext(store, vectors(), pool(store), {"neighbour"}, 2)
    assert context.nearest(EpisodeSpec("train-3", "train", "s1", ("s1_0",), ("s1_1",))) == "s0"


def test_a_task_without_a_vector_is_named(store):
    context = TaskContext(store, vectors(), pool(store), {"representation"}, 2)
    with pytest.raises(UserError, match=r"no vector for 'u-0'.*dvc repro"):
        context.vector(EpisodeSpec("u-0", "test", "u", ("s1_0",), ("s1_1",)))
