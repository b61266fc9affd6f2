"""Judges are not asked twice, and what is remembered is what they would say."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from metaspeech.evaluation.judges import remembered
from metaspeech.evaluation.judges.base import Candidate, Column, Query, Setting
from metaspeech.evaluation.judges.remembered import Memory, Remembered

SETTING = Setting({"a": [np.ones(3, np.float32)], "b": [np.zeros(3, np.float32)]}, ("good dog",))
QUERY = Query("u", "a", "good dog", np.ones(4, np.float32))
SOUNDS = [Candidate(np.full(5, value, np.float32)) for value in (0.1, 0.2, 0.1)]


class Loudness:
    columns: ClassVar = (Column("loudness", "Loudness", "higher", "Mean."),)
    trained_on: ClassVar = ()
    dear: ClassVar = False
    packages: ClassVar = ("numpy",)
    asked: ClassVar[list[float]] = []

    def __init__(self, setting):
        self.made = True

    def __call__(self, query, candidates):
        self.asked.extend(float(one.audio[0]) for one in candidates)
        return [{"loudness": float(one.audio.mean()), "nothing": math.nan, "several": [0.1, 0.2]} for one in candidates]


@pytest.fixture
def judge(monkeypatch):
    monkeypatch.setitem(remembered.JUDGES, "loudness", f"{__name__}:Loudness")
    monkeypatch.setattr(remembered, "resolve", lambda table, name: Loudness)
    Loudness.asked.clear()
    return lambda path, setting=SETTING: Remembered("loudness", setting, Memory(path))


def test_a_sound_is_heard_once_and_the_answer_is_the_same_to_the_bit(judge, tmp_path):
    path = tmp_path / "cache" / "judges.sqlite"
    plain = judge(None)(QUERY, SOUNDS)
    Loudness.asked.clear()
    first = judge(path)(QUERY, SOUNDS)
    assert Loudness.asked == pytest.approx([0.1, 0.2])  # the third is the first
    again = judge(path)(QUERY, SOUNDS[::-1])[::-1]
    assert len(Loudness.asked) == 2
    for one in (first, again):
        assert [score["loudness"] for score in one] == [score["loudness"] for score in plain]
        assert all(math.isnan(score["nothing"]) for score in one)
        assert all(score["several"] == [0.1, 0.2] for score in one)


@pytest.mark.parametrize(
    "changed",
    [
        {"query": replace(QUERY, text="good dogs")},
        {"query": replace(QUERY, speaker="b")},
        {"query": replace(QUERY, audio=np.ones(5, np.float32))},
        {"sound": Candidate(np.full(6, 0.1, np.float32))},
        {"sound": Candidate(np.full(5, np.nextafter(np.float32(0.1), 1), np.float32))},
        {"sound": Candidate(SOUNDS[0].audio, np.eye(2, dtype=np.float32))},
        {"setting": replace(SETTING, texts=("good", "dog"))},
        {"setting": replace(SETTING, enrolment={**SETTING.enrolment, "b": [np.ones(3, np.float32)]})},
        {"code": "other"},
        {"packages": ("pandas",)},
    ],
)
def test_whatever_can_change_an_answer_asks_again(judge, tmp_path, monkeypatch, changed):
    path = tmp_path / "judges.sqlite"
    judge(path)(QUERY, SOUNDS[:1])
    if "code" in changed:
        monkeypatch.setattr(remembered, "_code", lambda: changed["code"])
    if "packages" in changed:
        monkeypatch.setattr(Loudness, "packages", changed["packages"])
    judge(path, changed.get("setting", SETTING))(changed.get("query", QUERY), [changed.get("sound", SOUNDS[0])])
    assert len(Loudness.asked) == 2


def test_who_an_utterance_is_called_changes_nothing(judge, tmp_path):
    for name in ("u", "v"):
        judge(tmp_path / "judges.sqlite")(replace(QUERY, utt_id=name), SOUNDS[:1])
    assert len(Loudness.asked) == 1


def test_a_file_that_is_something_else_is_told_and_left_alone(judge, tmp_path):
    path = tmp_path / "judges.sqlite"
    path.write_bytes(b"not a database " * 100)
    with pytest.warns(UserWarning, match="judges.sqlite.*delete the file"):
        scores = judge(path)(QUERY, SOUNDS)
    assert len(scores) == 3
    assert path.read_bytes() == b"not a database " * 100


def test_a_folder_that_cannot_be_made_is_told(judge, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(UserWarning, match="cannot be used"):
        assert len(judge(tmp_path / "cache" / "judges.sqlite")(QUERY, SOUNDS)) == 3


def test_the_oldest_are_forgotten(judge, tmp_path, monkeypatch):
    path = tmp_path / "judges.sqlite"
    monkeypatch.setattr(remembered, "LIMIT", 4)
    for value in range(8):
        judge(path)(QUERY, [Candidate(np.full(5, value, np.float32))])
    Memory(path)
    with sqlite3.connect(path) as file:
        assert file.execute("SELECT COUNT(*) FROM scores").fetchone() == (4,)
    Loudness.asked.clear()
    judge(path)(QUERY, [Candidate(np.full(5, value, np.float32)) for value in (0, 7)])
    assert Loudness.asked == [0.0]


def test_several_writers_at_once(judge, tmp_path):
    """Open at the same time, each writing the same and its own."""
    path = tmp_path / "judges.sqlite"
    writers = [judge(path) for _ in range(4)]
    for value in range(5):
        for writer in writers:
            writer(QUERY, [Candidate(np.full(5, value, np.float32))])
    assert len(Loudness.asked) == 5
