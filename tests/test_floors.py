"""Floors of judges: the file that ships, and part of it measured again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import judge_floors
from benchmarks.judge_floors import Corpus, figures, measure
from metaspeech.errors import UserError
from metaspeech.evaluation.floors import FLOORS, floors
from metaspeech.evaluation.judges.base import Query
from metaspeech.registry import JUDGES

ASSET = Path(__file__).resolve().parents[1] / "assets" / "judge_floors.json"


@pytest.fixture(scope="module")
def shipped():
    return floors(ASSET)


def test_the_shipped_floors_have_every_measure_of_both_corpora(shipped):
    assert list(shipped.columns) == FLOORS
    assert set(shipped["judge"]) <= set(JUDGES)
    for _, rows in shipped.groupby("corpus"):
        assert [tuple(row[:3]) for row in judge_floors.MEASURED] == list(
            rows[["judge", "metric", "of"]].itertuples(index=False, name=None)
        )
    assert (shipped["low"] <= shipped["value"]).all()
    assert (shipped["value"] <= shipped["high"]).all()
    assert set(shipped["speakers"]) == {16, 60}


def test_floors_are_those_of_judges_that_hear(shipped):
    """Same speaker 0.85 to 0.90 and others 0.52 to 0.63, EER of some 4 %, wrong texts at about 1."""
    value = shipped.set_index(["of", "metric"])["value"]
    assert value["own speaker", "similarity"].between(0.80, 0.92).all()
    assert value["other speakers", "similarity"].between(0.50, 0.65).all()
    assert (value["recordings", "eer"] < 0.06).all()
    assert (value["own text", "phoneme_error"] < 0.5).all()
    assert value["wrong text", "phoneme_error"].between(0.8, 1.2).all()
    assert (value["own text", "sentence_accuracy"] > 0.8).all()
    assert (value["wrong text", "sentence_accuracy"] < 0.05).all()


def test_part_of_them_measured_again(shipped, corpora):
    """Of TIMIT's sample six speakers, and twenty sentences."""
    every = Corpus(corpora / "timit_sample").queries()
    chosen = sorted({query.speaker for query in every})[::3]
    voices = measure([query for query in every if query.speaker in chosen], ("similarity",))
    found = figures(voices) + figures(measure(every[::8], ("sentences",)))
    timit = shipped[shipped["corpus"] == "timit_sample"].set_index(["metric", "of"])["value"]
    for row in found:
        assert row["value"] == pytest.approx(timit[row["metric"], row["of"]], abs=0.05), row


def test_every_utterance_is_compared_with_centroids_that_it_is_not_part_of(monkeypatch):
    """Embeddings stand for recordings: each is a direction of its own, so a centroid with it would be nearer."""
    from metaspeech.evaluation.judges import similarity

    monkeypatch.setattr(similarity, "embed", lambda audio: np.eye(40)[[int(one[0]) for one in audio]])
    queries = [
        Query(f"{speaker}{index}", speaker, "text", np.array([10 * number + index], np.float32))
        for number, speaker in enumerate("abc")
        for index in range(7)
    ]
    table = measure(queries, ("similarity",))
    assert table["similarity"].tolist() == [0.0] * 21


def test_a_corpus_and_how_much_of_it():
    assert Corpus.parse("some/where:5") == Corpus(Path("some/where"), 5)
    assert Corpus.parse("some/where") == Corpus(Path("some/where"))


def test_a_file_without_floors_is_told(tmp_path):
    with pytest.raises(UserError, match=r"benchmarks\.judge_floors --write"):
        floors(tmp_path / "floors.json")
    (tmp_path / "floors.json").write_text("{}")
    with pytest.raises(UserError, match="no floors of judges"):
        floors(tmp_path / "floors.json")
