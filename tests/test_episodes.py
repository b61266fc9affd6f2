"""Splits and tasks: what must hold for any corpus."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from metaspeech import profiles
from metaspeech.config import Episodes, Params
from metaspeech.corpora.espeak import deal_texts, read_voices
from metaspeech.data.episodes import (
    SPLITS,
    Splits,
    joint_batch,
    pooled,
    read_episodes,
    read_pool,
    split_corpus,
    stored_episodes,
    train_episode,
    turn_speaker,
    write_episodes,
    write_pool,
)
from metaspeech.data.texts import hashed, read_texts
from metaspeech.errors import UserError
from metaspeech.text.normalise import normalise

ROOT = Path(__file__).parents[1]
WORDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay"]
SMALL = Episodes(val_speakers=2, test_speakers=2, shots=2, queries=1)


def corpus(speakers: int, texts: dict[int, list[str]] | list[str]) -> pd.DataFrame:
    """Each speaker says all of ``texts``, or their own."""
    rows = []
    for speaker in range(speakers):
        own = texts[speaker] if isinstance(texts, dict) else texts
        rows += [(f"u{speaker:02d}_{k:03d}", f"s{speaker:02d}", text) for k, text in enumerate(own)]
    return pd.DataFrame(rows, columns=["utt_id", "speaker", "text"])


def own_texts(speakers: int, each: int = 8) -> pd.DataFrame:
    return corpus(speakers, {s: [f"{WORDS[k]} {s} of {each}" for k in range(each)] for s in range(speakers)})


@st.composite
def corpora_and_settings(draw: st.DrawFn) -> tuple[pd.DataFrame, Episodes, int]:
    """Speakers who say a few of the same texts, some of them several times."""
    speakers = draw(st.integers(6, 14))
    text = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True).map(" ".join)
    texts = {s: draw(st.lists(text, min_size=4, max_size=14)) for s in range(speakers)}
    config = Episodes(
        val_speakers=draw(st.integers(1, 2)),
        test_speakers=draw(st.integers(1, 2)),
        text_split=draw(st.sampled_from(["phrases", "words", "none"])),
        shots=draw(st.integers(1, 2)),
        queries=1,
        tasks_per_speaker=draw(st.integers(1, 3)),
    )
    return corpus(speakers, texts), config, draw(st.integers(0, 3))


def texts_of(manifest: pd.DataFrame, splits: Splits, split: str) -> set[str]:
    used = [utt_id for utterances in splits.pools[split].values() for utt_id in utterances]
    return set(manifest.set_index("utt_id")["text"].loc[used])


@given(corpora_and_settings())
@settings(max_examples=80, deadline=None)
def test_nothing_leaks_between_splits(case: tuple[pd.DataFrame, Episodes, int]) -> None:
    manifest, config, seed = case
    try:
        splits = split_corpus(manifest, config, seed)
    except UserError:
        assume(False)
    speakers = {split: set(splits.speakers(split)) for split in SPLITS}
    assert len(speakers["val"]) == config.val_speakers
    assert len(speakers["test"]) == config.test_speakers
    assert len(speakers["train"]) >= 2
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        assert speakers[first].isdisjoint(speakers[second])
        if config.text_split != "none":
            assert texts_of(manifest, splits, first).isdisjoint(texts_of(manifest, splits, second))
    if config.text_split == "words":
        known = {word for text in texts_of(manifest, splits, "train") for word in text.split()}
        for split in ("val", "test"):
            assert all(set(text.split()) - known for text in texts_of(manifest, splits, split))
    everyone = set().union(*speakers.values()) | set(splits.dropped)
    assert everyone == set(manifest["speaker"]), "every speaker is in a split or named as left out"
    owner = manifest.set_index("utt_id")["speaker"]
    for pool in splits.pools.values():
        for speaker, utterances in pool.items():
            assert set(owner.loc[list(utterances)]) == {speaker}


@given(corpora_and_settings(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_manifest_changes_nothing(case: tuple[pd.DataFrame, Episodes, int], random: object) -> None:
    manifest, config, seed = case
    shuffled = manifest.sample(frac=1, random_state=random.randrange(2**31))  # type: ignore[attr-defined]

    def outcome(table: pd.DataFrame) -> object:
        try:
            splits = split_corpus(table, config, seed)
        except UserError as error:
            return str(error)
        return splits, [stored_episodes(splits, split, config, seed) for split in ("val", "test")]

    assert outcome(shuffled) == outcome(shuffled.set_index("utt_id")) == outcome(manifest)


@given(corpora_and_settings(), st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_episodes_hold_what_they_promise(case: tuple[pd.DataFrame, Episodes, int], index: int) -> None:
    manifest, config, seed = case
    try:
        splits = split_corpus(manifest, config, seed)
    except UserError:
        assume(False)
    texts = manifest.set_index("utt_id")["text"]
    episodes = [spec for split in ("val", "test") for spec in stored_episodes(splits, split, config, seed)]
    speaker = turn_speaker(splits.speakers("train"), seed, index)
    pool = splits.pools["train"]
    episodes.append(train_episode(pool, texts.to_dict(), speaker, config.shots, config.queries, seed, index))
    assert len({spec.episode_id for spec in episodes}) == len(episodes)
    for spec in episodes:
        own = splits.pools[spec.split][spec.speaker]
        assert len(spec.support) == config.shots
        assert len(spec.query) == config.queries
        chosen = [*spec.support, *spec.query]
        assert len(set(chosen)) == len(chosen)
        assert set(chosen) <= set(own)
        said = [texts[utt_id] for utt_id in chosen]
        distinct = len({texts[utt_id] for utt_id in own})
        assert len(set(said)) == min(len(said), distinct)
        if config.text_split != "none":
            assert {texts[u] for u in spec.support}.isdisjoint(texts[u] for u in spec.query)


def test_every_training_speaker_is_reached_equally_often() -> None:
    manifest = own_texts(9)
    splits = split_corpus(manifest, SMALL, seed=1)
    pool, texts = splits.pools["train"], manifest.set_index("utt_id")["text"].to_dict()
    stream = [turn_speaker(sorted(pool), 1, index) for index in range(3 * len(pool))]
    turns = [tuple(stream[turn * len(pool) : (turn + 1) * len(pool)]) for turn in range(3)]
    assert all(sorted(turn) == sorted(pool) for turn in turns)
    assert len(set(turns)) > 1
    specs = [train_episode(pool, texts, speaker, 2, 1, 1, index) for index, speaker in enumerate(stream)]
    drawn = {utt_id for spec in specs for utt_id in spec.support + spec.query}
    assert len(drawn) > 0.6 * sum(map(len, pool.values()))


def test_every_speaker_comes_up_for_every_role_over_seeds() -> None:
    manifest = own_texts(7)
    for split in SPLITS:
        seen = {speaker for seed in range(25) for speaker in split_corpus(manifest, SMALL, seed).speakers(split)}
        assert seen == set(manifest["speaker"])


def test_training_draws_are_the_same_whoever_asks_and_when() -> None:
    manifest = own_texts(8)
    pool, texts = split_corpus(manifest, SMALL, 1).pools["train"], manifest.set_index("utt_id")["text"].to_dict()
    reordered = dict(reversed(pool.items()))

    def draw(index: int) -> tuple[object, list[str]]:
        return train_episode(pool, texts, next(iter(pool)), 2, 1, 7, index), joint_batch(pooled(pool), 5, 7, index)

    alone = [draw(index) for index in range(60)]
    with ThreadPoolExecutor(4) as workers:
        assert list(workers.map(draw, range(60))) == alone
    assert [draw(index) for index in reversed(range(60))] == alone[::-1]
    assert train_episode(reordered, texts, next(iter(pool)), 2, 1, 7, 11) == alone[11][0]
    assert joint_batch(pooled(reordered), 5, 7, 11) == alone[11][1]
    assert alone[0][0] != train_episode(pool, texts, next(iter(pool)), 2, 1, 8, 0)
    assert [batch for _, batch in alone] != [joint_batch(pooled(pool), 5, 8, k) for k in range(60)]


@given(st.integers(1, 60), st.integers(0, 30), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_joint_batches_go_through_the_pool_turn_by_turn(size: int, seed: int, utterances: int) -> None:
    pool = {"a": [f"a{k}" for k in range(utterances)], "b": [f"b{k}" for k in range(3)]}
    total = utterances + 3
    stream = [utt_id for index in range(2 * total) for utt_id in joint_batch(pooled(pool), size, seed, index)]
    assert len(stream) == 2 * total * size
    for turn in range(2):
        assert sorted(stream[turn * total : (turn + 1) * total]) == sorted([*pool["a"], *pool["b"]])


def test_draws_are_pinned() -> None:
    """What a stored experiment was drawn as must not change with a new version of a library."""
    manifest = own_texts(8)
    splits = split_corpus(manifest, SMALL, seed=1)
    assert {split: splits.speakers(split) for split in SPLITS} == {
        "train": ["s01", "s03", "s05", "s06"],
        "val": ["s04", "s07"],
        "test": ["s00", "s02"],
    }
    spec = stored_episodes(splits, "test", SMALL, 1)[0]
    assert (spec.support, spec.query) == (("u00_003", "u00_006"), ("u00_002",))
    texts = manifest.set_index("utt_id")["text"].to_dict()
    assert turn_speaker(splits.speakers("train"), 1, 3) == "s06"
    drawn = train_episode(splits.pools["train"], texts, "s06", 2, 1, 1, 3)
    assert (drawn.support, drawn.query) == (("u06_004", "u06_001"), ("u06_002",))
    assert joint_batch(pooled(splits.pools["train"]), 3, 1, 2) == ["u06_004", "u03_005", "u05_005"]


def test_another_speaker_does_not_change_the_episodes_of_those_who_stay() -> None:
    small, large = (split_corpus(own_texts(speakers), SMALL, 1) for speakers in (8, 9))
    kept = 0
    for split in ("val", "test"):
        after = {spec.speaker: spec for spec in stored_episodes(large, split, SMALL, 1)}
        for spec in stored_episodes(small, split, SMALL, 1):
            if spec.speaker in after:
                assert after[spec.speaker] == spec
                kept += 1
    assert kept >= 2


def test_a_shared_text_goes_to_one_split_and_stays_in_the_corpus() -> None:
    manifest = corpus(20, [f"{first} {second}" for first in WORDS for second in WORDS])
    config = Episodes(val_speakers=2, test_speakers=4, shots=3, queries=2)
    splits = split_corpus(manifest, config, seed=1)
    texts = {split: texts_of(manifest, splits, split) for split in SPLITS}
    assert sum(map(len, texts.values())) == 100, "no text is lost"
    assert len(texts["train"]) > len(texts["val"]) >= 5, "most go where most speakers are"


@settings(max_examples=20, deadline=None)
@given(held_out=st.sets(st.integers(0, 59), min_size=30, max_size=50), seed=st.integers(0, 99))
def test_texts_that_are_held_out_stay_out_of_training_and_nothing_else_does(held_out: set[int], seed: int) -> None:
    texts = [f"{one} {other}" for one, other in itertools.permutations(WORDS, 2)][:60]
    chosen = {texts[number] for number in held_out}
    manifest = corpus(12, texts)
    splits = split_corpus(manifest, SMALL, seed, chosen)
    assert texts_of(manifest, splits, "train") == set(texts) - chosen
    assert texts_of(manifest, splits, "val") | texts_of(manifest, splits, "test") == chosen


def test_the_list_of_held_out_texts_is_that_of_the_phrases_of_a_start() -> None:
    """The start of WaveNet knows every other phrase."""
    params = Params()
    voices = read_voices(ROOT / params.corpus.path)
    phrases = profiles.settings(ROOT / "profiles/pretrained_wavenet.yaml").corpus
    texts = deal_texts(len(voices), replace(phrases, utterances=40), params.data_seed)
    rows = [(f"{v.speaker}-{k}", v.speaker, t) for v, own in zip(voices, texts, strict=True) for k, t in enumerate(own)]
    manifest = pd.DataFrame(rows, columns=["utt_id", "speaker", "text"])
    splits = split_corpus(manifest, params.episodes, params.data_seed)
    held_out = texts_of(manifest, splits, "val") | texts_of(manifest, splits, "test")
    assert held_out == set(read_texts(ROOT / "assets/held_out_texts.txt"))


def test_a_list_of_held_out_texts_is_normalised(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("Ant, bee!\n\n2 cats\n", encoding="utf-8")
    assert read_texts(tmp_path / "texts.txt") == ["ant bee", "two cats"]


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe"])
def test_a_list_of_held_out_texts_that_cannot_be_used(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"texts\.txt: .*episodes\.held_out_texts"):
        read_texts(path)


def test_punctuation_does_not_make_another_text() -> None:
    texts = [normalise(f"{a} {b}{mark}") for a in WORDS for b in WORDS[:5] for mark in ("", "!", ".")]
    splits = split_corpus(corpus(8, texts), Episodes(val_speakers=1, test_speakers=1, shots=1, queries=1), 1)
    for spec in stored_episodes(splits, "test", Episodes(shots=1, queries=1), 1):
        assert splits.texts[spec.support[0]] != splits.texts[spec.query[0]]
    phrases = {split: {splits.texts[u] for own in splits.pools[split].values() for u in own} for split in SPLITS}
    assert phrases["train"].isdisjoint(phrases["test"])


def test_unseen_words_cost_training_little() -> None:
    """40 words, 40 phrases a speaker: 10 phrases with an unseen word must not take most of the training texts."""
    names = [f"w{chr(97 + a)}{chr(97 + b)}" for a in range(8) for b in range(5)]
    texts = {s: [" ".join(sorted(names, key=lambda w: hashed(s, k, w))[:3]) for k in range(40)] for s in range(24)}
    manifest = corpus(24, texts)
    config = Episodes(val_speakers=3, test_speakers=5, text_split="words")
    splits = split_corpus(manifest, config, seed=1)
    kept = sum(map(len, splits.pools["train"].values())) / (40 * 16)
    assert kept > 0.4


def test_a_speaker_with_too_few_recordings_is_left_out_and_another_takes_the_place() -> None:
    manifest = own_texts(9)
    short = split_corpus(manifest, SMALL, 1).speakers("test")[0]
    manifest = manifest.drop(manifest[manifest["speaker"] == short].index[2:])
    splits = split_corpus(manifest, SMALL, 1)
    assert splits.dropped == {short: 2}
    assert len(splits.speakers("test")) == 2


def test_two_speakers_only() -> None:
    with pytest.raises(UserError, match=r"2 speakers are left, but 20 are needed.*test_speakers 12.*val_speakers 6"):
        split_corpus(own_texts(2, 10), Episodes(), 1)


def test_fewer_recordings_than_shots_and_queries() -> None:
    with pytest.raises(UserError) as caught:
        split_corpus(own_texts(30, 8), Episodes(), 1)
    message = str(caught.value)
    for part in ("30 were left out", "s00 (8)", "episodes.shots 5", "episodes.queries 5", "Lower shots"):
        assert part in message


def test_the_same_few_texts_said_by_all() -> None:
    """Digits: no split by text is possible, and without one support and query still differ."""
    manifest = corpus(6, WORDS * 5)
    config = Episodes(val_speakers=1, test_speakers=2)
    with pytest.raises(UserError, match=r"episodes\.text_split to none"):
        split_corpus(manifest, config, 1)
    config.text_split = "none"
    splits = split_corpus(manifest, config, 1)
    for spec in stored_episodes(splits, "test", config, 1):
        texts = [splits.texts[utt_id] for utt_id in spec.support + spec.query]
        assert sorted(texts) == sorted(WORDS)


def test_a_pool_that_is_too_small_is_said() -> None:
    with pytest.raises(UserError, match="2 utterances are fewer than shots 2 \\+ queries 1"):
        train_episode({"a": ["x", "y"]}, {"x": "one", "y": "two"}, "a", 2, 1, 1, 0)


def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    splits = split_corpus(own_texts(8), SMALL, 1)
    episodes = stored_episodes(splits, "test", SMALL, 1)
    write_pool(tmp_path / "train.parquet", splits.pools["train"])
    write_episodes(tmp_path / "test.parquet", episodes)
    assert read_pool(tmp_path / "train.parquet") == splits.pools["train"]
    assert read_episodes(tmp_path / "test.parquet") == episodes
    with pytest.raises(UserError, match="no such file"):
        read_pool(tmp_path / "absent.parquet")
    with pytest.raises(UserError, match="not as expected"):
        read_pool(tmp_path / "test.parquet")
    (tmp_path / "train.parquet").write_bytes(b"not parquet")
    with pytest.raises(UserError, match="not as expected"):
        read_pool(tmp_path / "train.parquet")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("speechocean762_adults60", Episodes()),
        ("speechocean762_adults60", Episodes(text_split="words")),
        ("fsdd", Episodes(text_split="none", val_speakers=1, test_speakers=2)),
        ("timit_sample", Episodes(val_speakers=2, test_speakers=4, shots=4, queries=4)),
    ],
)
def test_real_corpora_give_usable_splits(corpora: Path, name: str, config: Episodes) -> None:
    manifest = pd.read_csv(corpora / name / "metadata.csv", dtype="str")
    manifest["text"] = manifest["text"].map(normalise)
    splits = split_corpus(manifest, config, seed=1)
    assert len(splits.speakers("test")) == config.test_speakers
    assert len(stored_episodes(splits, "test", config, 1)) == config.test_speakers
    assert not splits.dropped
