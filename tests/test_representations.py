"""Task representations, what is made of them: neighbours and samplers, and the vectors of all tasks."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metaspeech import config
from metaspeech.config import Episodes, Prepare
from metaspeech.data.episodes import EpisodeSpec, split_corpus, stored_episodes, turn_speaker, write_pool
from metaspeech.data.prepare import prepare_corpus
from metaspeech.data.store import Store
from metaspeech.data.tensors import EpisodeMaker
from metaspeech.errors import UserError
from metaspeech.models.base import loss_function, parameters_of
from metaspeech.registry import REPRESENTATIONS, SAMPLERS, resolve
from metaspeech.tasks import represent
from metaspeech.tasks.context import TaskContext
from metaspeech.tasks.files import TaskFiles
from metaspeech.tasks.inner_gradient import InnerGradient
from metaspeech.tasks.recordings import Gradients, Recordings
from metaspeech.tasks.representation import COLUMNS, TaskVectors, read_vectors, write_vectors
from metaspeech.tasks.samplers import Diverse, HardFirst, Uniform
from metaspeech.tasks.speaker_embedding import SpeakerEmbedding
from metaspeech.tasks.task2vec import Task2Vec
from metaspeech.training.checkpoint import build_model, save_model
from tests.speech import write_corpus

TINY = config.from_mapping(
    {"tacotron": {"preset": "tiny"}, "wavenet": {"preset": "tiny", "window": 256}, "represent": {"utterances": 2}}
)
SPEAKERS = 6


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    write_corpus(folder / "corpus", speakers=SPEAKERS, utterances=4)
    prepare_corpus(folder / "corpus", folder / "prepared", Prepare(workers=1, statistics=""), progress=False)
    return folder / "prepared"


@pytest.fixture(scope="module")
def store(prepared):
    return Store(prepared)


@pytest.fixture(scope="module")
def tacotron(store):
    torch.manual_seed(0)
    return build_model("tacotron", TINY, store.features()).eval()


def pool(store):
    return {name: tuple(group.index) for name, group in store.manifest.groupby("speaker")}


def of_gradients(mean=None, square=None):
    return SimpleNamespace(gradients=Gradients(mean or {}, square or {}))


# Gradients of recordings --------------------------------------------------------------------------------------------


def test_gradients_are_means_over_recordings_one_at_a_time(store, tacotron):
    loss_fn, start = loss_function(tacotron), parameters_of(tacotron)
    alone = [Recordings(store, [one], loss_fn, start, 1).gradients for one in ("s0_0", "s0_1")]
    both = Recordings(store, ["s0_0", "s0_1"], loss_fn, start, 1).gradients
    for name in start:
        torch.testing.assert_close(both.mean[name], (alone[0].mean[name] + alone[1].mean[name]) / 2)
        torch.testing.assert_close(alone[0].square[name], alone[0].mean[name] ** 2)
        torch.testing.assert_close(both.square[name], (alone[0].mean[name] ** 2 + alone[1].mean[name] ** 2) / 2)
    assert any(bool(value.any()) for value in both.mean.values())
    again = Recordings(store, ["s0_1", "s0_0"], loss_fn, start, 1).gradients
    torch.testing.assert_close(again.mean, both.mean)


# Representations ----------------------------------------------------------------------------------------------------


def test_task2vec_averages_over_each_output_unit():
    square = {"w": torch.tensor([[1.0, 3.0], [0.0, 4.0]]), "b": torch.tensor([2.0, 4.0])}
    assert Task2Vec().vector(of_gradients(square=square)).tolist() == [2.0, 2.0, 3.0]


def test_task2vec_compares_as_the_paper_does():
    a, b = np.array([[1.0, 1.0]]), np.array([[3.0, 1.0]])
    # a / (a + b) = (1/4, 1/2), b / (a + b) = (3/4, 1/2)
    expected = (1 / 4 * 3 / 4 + 1 / 2 * 1 / 2) / np.sqrt((1 / 16 + 1 / 4) * (9 / 16 + 1 / 4))
    assert Task2Vec().similarity(a, b)[0, 0] == pytest.approx(expected)
    scaled = np.array([1000.0, 1.0])
    assert Task2Vec().similarity(a * scaled, b * scaled)[0, 0] == pytest.approx(expected)
    assert Task2Vec().similarity(np.zeros((1, 2)), np.zeros((1, 2)))[0, 0] == 0.0


@given(st.integers(0, 1000))
def test_a_sketch_keeps_inner_products(seed):
    draw = np.random.default_rng(seed)
    a, b = ({"x": draw.normal(size=(40, 50)), "y": draw.normal(size=300)} for _ in range(2))
    b = {name: 0.5 * a[name] + 0.5 * b[name] for name in a}
    flat = [np.concatenate([value.ravel() for value in one.values()]) for one in (a, b)]
    sketches = [
        InnerGradient().vector(of_gradients(mean={name: torch.from_numpy(value) for name, value in one.items()}))
        for one in (a, b)
    ]
    error = abs(float(sketches[0] @ sketches[1]) - float(flat[0] @ flat[1]))
    assert error < 6 * np.linalg.norm(flat[0]) * np.linalg.norm(flat[1]) / 32


@pytest.mark.parametrize("name", REPRESENTATIONS)
@given(seed=st.integers(0, 100))
def test_similarity_is_symmetric_and_greatest_to_itself(name, seed):
    vectors = np.random.default_rng(seed).uniform(0.1, 1.0, (5, 7))
    similarity = resolve(REPRESENTATIONS, name)().similarity(vectors, vectors)
    np.testing.assert_allclose(similarity, similarity.T, atol=1e-9)
    np.testing.assert_allclose(np.diag(similarity), 1.0, atol=1e-9)
    assert similarity.max() <= 1 + 1e-9


# Neighbours ---------------------------------------------------------------------------------------------------------


def vectors():
    rows = [("s0", "train", [1.0, 0.0]), ("s1", "train", [0.8, 0.6]), ("s2", "train", [0.0, 1.0])]
    table = pd.DataFrame([*rows, ("t-0", "test", [0.6, 0.9])], columns=["id", "split", "vector"])
    as_arrays = table["vector"].map(lambda vector: np.array(vector, dtype=np.float32))
    return TaskVectors("speaker_embedding", SpeakerEmbedding(), table.assign(vector=as_arrays))


def test_a_task_learns_its_vector_and_its_nearest_neighbour_as_far_as_it_asks(store):
    test = EpisodeSpec("t-0", "test", "t", ("s2_0",), ("s2_1",))
    speakers = {name: pool(store)[name] for name in ("s0", "s1", "s2")}
    maker = EpisodeMaker(store, 1, TaskContext(store, vectors(), speakers, {"representation", "neighbour"}, 2).add)
    told = maker.stored(test)
    assert told.representation.tolist() == pytest.approx([0.6, 0.9])
    assert torch.equal(told.neighbour.audio, store.batch(["s1_0", "s1_1"]).audio)  # cosines 0.55, 0.94, 0.83
    plain = EpisodeMaker(store, 1, TaskContext(store, vectors(), speakers, (), 2).add).stored(test)
    assert plain.representation is None
    assert plain.neighbour is None


def test_a_training_speaker_is_not_its_own_neighbour(store):
    context = TaskContext(store, vectors(), {"s0": (), "s1": (), "s2": ()}, {"neighbour"}, 2)
    assert context.nearest(EpisodeSpec("train-3", "train", "s1", ("s1_0",), ("s1_1",))) == "s0"


def test_neighbours_come_nearest_first():
    assert [name for name, _ in vectors().nearest("t-0", ["s0", "s1", "s2"])] == ["s1", "s2", "s0"]
    assert vectors().ids("train") == ["s0", "s1", "s2"]


def test_a_task_without_a_vector_is_named():
    with pytest.raises(UserError, match=r"no vector for 'u-0'.*dvc repro"):
        vectors().of("u-0")


# Samplers -----------------------------------------------------------------------------------------------------------

NAMES = [f"s{number}" for number in range(8)]
CLUSTERS = np.kron(np.eye(2), np.ones((4, 4)))  # s0-s3 are alike, s4-s7 too
OUTLIER = np.full((8, 8), 0.9) + 0.1 * np.eye(8)
OUTLIER[0, 1:] = OUTLIER[1:, 0] = 0.1


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("size", [1, 3, 11])
def test_a_step_follows_from_seed_and_number_alone(name, size):
    samplers = [resolve(SAMPLERS, name)(NAMES, CLUSTERS, 5, size, 20) for _ in range(2)]
    forwards = [samplers[0].speakers_of(step) for step in range(20)]
    assert forwards == [samplers[1].speakers_of(step) for step in reversed(range(20))][::-1]
    assert all(len(speakers) == size and set(speakers) <= set(NAMES) for speakers in forwards)
    assert forwards != [resolve(SAMPLERS, name)(NAMES, CLUSTERS, 6, size, 20).speakers_of(step) for step in range(20)]
    if 1 < size <= len(NAMES):
        assert name == "uniform" or all(len(set(speakers)) == size for speakers in forwards)


def test_uniform_goes_through_all_speakers_in_turn():
    drawn = [speaker for step in range(8) for speaker in Uniform(NAMES, None, 1, 3, 8).speakers_of(step)]
    assert drawn == [turn_speaker(NAMES, 1, index) for index in range(24)]


def test_diverse_pairs_come_from_different_clusters():
    for step in range(50):
        pair = Diverse(NAMES, CLUSTERS, 1, 2, 50).speakers_of(step)
        assert {NAMES.index(speaker) // 4 for speaker in pair} == {0, 1}


def test_hard_first_begins_with_the_outlier_and_ends_with_all_alike():
    def share(step):
        drawn = [HardFirst(NAMES, OUTLIER, seed, 1, 10).speakers_of(step) for seed in range(400)]
        return sum(speakers == ["s0"] for speakers in drawn) / len(drawn)

    # hardness is 7 ** 0.5 for one of eight outliers and -1 / 7 ** 0.5 for the others
    first = np.exp(2 * 7**0.5)
    assert share(0) == pytest.approx(first / (first + 7 * np.exp(-2 / 7**0.5)), abs=0.03)
    assert share(10) == pytest.approx(1 / 8, abs=0.06)
    assert share(0) > share(5) > share(10)


def test_alike_speakers_are_drawn_alike():
    same = np.ones((8, 8))
    assert {HardFirst(NAMES, same, 1, 1, 10).speakers_of(step)[0] for step in range(60)} == set(NAMES)
    assert len({tuple(Diverse(NAMES, same, 1, 2, 10).speakers_of(step)) for step in range(60)}) > 20


# All tasks ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(prepared, store, tmp_path_factory):
    starts = tmp_path_factory.mktemp("starts")
    for name in ("tacotron", "wavenet"):
        torch.manual_seed(0)
        save_model(starts / name, build_model(name, TINY, store.features()), name, TINY, store.features())
    splits = split_corpus(store.manifest, Episodes(val_speakers=1, test_speakers=2, shots=2, queries=1), seed=1)
    episodes = [
        spec for split in ("val", "test") for spec in stored_episodes(splits, split, Episodes(shots=2, queries=1), 1)
    ]
    setting = represent.Setting(TINY, prepared, tuple((name, starts / name) for name in ("tacotron", "wavenet")))
    jobs = list(represent.jobs(setting, splits.pools["train"], episodes))
    return jobs, pd.concat([represent.run(job) for job in jobs], ignore_index=True)


def test_every_task_has_a_vector_of_each_kind_for_each_model(table, tmp_path):
    jobs, found = table
    assert len(found) == len(jobs) * len(REPRESENTATIONS) * 2
    assert {job.split for job in jobs} == {"train", "val", "test"}
    for model, own in found.groupby("model"):
        write_vectors(tmp_path / f"{model}.parquet", own)
        for name in REPRESENTATIONS:
            vectors = read_vectors(tmp_path / f"{model}.parquet", name)
            assert sorted(vectors.table["id"]) == sorted(job.id for job in jobs)
            assert len({len(vector) for vector in vectors.table["vector"]}) == 1
            assert all(np.isfinite(vector).all() and vector.any() for vector in vectors.table["vector"])
            similarity = vectors.similarity(vectors.ids("train"), vectors.ids("train"))
            np.testing.assert_allclose(np.diag(similarity), 1, atol=1e-5)


def test_a_voice_is_the_same_whatever_the_model_and_a_gradient_is_not(table):
    _, found = table
    by_model = found.groupby(["representation", "id"])["vector"].apply(lambda pair: pair.iloc[0] == pair.iloc[1])
    assert by_model["speaker_embedding"].all()
    assert not by_model["task2vec"].any()
    assert not by_model["inner_gradient"].any()


def test_vectors_of_other_representations_are_asked_for_by_name(tmp_path):
    write_vectors(tmp_path / "m.parquet", pd.DataFrame([("task2vec", "a", "train", "a", [1.0])], columns=COLUMNS))
    with pytest.raises(UserError, match=r"no vectors by 'inner_gradient'.*represent\.representations"):
        read_vectors(tmp_path / "m.parquet", "inner_gradient")
    with pytest.raises(UserError, match="dvc repro represent"):
        read_vectors(tmp_path / "absent.parquet", "task2vec")
    (tmp_path / "m.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"not as expected.*dvc repro -sf represent"):
        read_vectors(tmp_path / "m.parquet", "task2vec")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_outer_step_has_the_speakers_that_the_sampler_drew(sampler, prepared, store, tmp_path):
    speakers = pool(store)
    rows = [("speaker_embedding", name, "train", name, [float(number), 1.0]) for number, name in enumerate(speakers)]
    write_vectors(tmp_path / "m.parquet", pd.DataFrame(rows, columns=COLUMNS))
    write_pool(tmp_path / "train.parquet", speakers)
    params = replace(TINY, meta_train=replace(TINY.meta_train, sampler=sampler, meta_batch=2))
    params = replace(params, episodes=replace(params.episodes, shots=2, queries=1))
    files = TaskFiles(prepared, tmp_path / "train.parquet", tmp_path / "m.parquet")
    make = files.outer_step(params, files.episodes(params, ()), 10)
    steps = [make(step) for step in range(4)]
    assert all(len(episodes) == 2 for episodes in steps)
    again = make(3)
    assert [one.speaker for one in again] == [one.speaker for one in steps[3]]
    assert torch.equal(again[0].support.audio, steps[3][0].support.audio)
    assert len({one.seed for episodes in steps for one in episodes}) == 8
