"""Every leak, built by hand, stops the evaluation and is named; a clean project passes and says what was looked at."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from metaspeech import registry
from metaspeech.data.episodes import EpisodeSpec, write_episodes, write_pool
from metaspeech.errors import UserError
from metaspeech.evaluation.leakage import Inputs, check_leakage
from metaspeech.tasks.representation import write_vectors

POOL = {"anna": ("a1", "a2"), "bert": ("b1",)}
VAL = EpisodeSpec("cleo-0", "val", "cleo", ("c1",), ("c2",))
TEST = EpisodeSpec("dora-0", "test", "dora", ("d1", "d2"), ("d3",))
TEXTS = {
    "a1": "one two", "a2": "two, three!", "b1": "four one", "c1": "five two", "c2": "six one",
    "d1": "seven one", "d2": "eight two", "d3": "nine three",
}  # fmt: skip
OWNERS = {"a": "anna", "b": "bert", "c": "cleo", "d": "dora"}


class Project:
    """Files of a small project without a leak; tests spoil one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.texts, self.owners = dict(TEXTS), {utt_id: OWNERS[utt_id[0]] for utt_id in TEXTS}
        start = folder / "assets/starts/tacotron"
        self.inputs = Inputs(
            pool=folder / "train.parquet",
            val=folder / "val.parquet",
            test=folder / "test.parquet",
            trained={"tacotron, pretraining": folder / "pretrained", "tacotron-maml-1": folder / "meta_trained"},
            starts={"tacotron": folder / "start.json"},
            vectors={"tacotron": folder / "vectors.parquet"},
        )
        write_pool(self.inputs.pool, POOL)
        write_episodes(self.inputs.val, [VAL])
        write_episodes(self.inputs.test, [TEST])
        for trained in self.inputs.trained.values():
            self.card(trained, ["anna", "bert"])
        self.start(start, "espeak", ["erna"], ["ten"])
        self.vectors(["anna", "bert"])

    def card(self, folder: Path, speakers: list[str] | None) -> None:
        folder.mkdir(exist_ok=True)
        known = {} if speakers is None else {"speakers": speakers}
        card = {"model": "tacotron", "settings": {}, "features": {}, **known}
        (folder / "model.json").write_text(json.dumps(card))

    def start(self, folder: Path, source: str, speakers: list[str], texts: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        digest = hashlib.sha256(b"weights").hexdigest()
        training = {"steps": 1, "hours": 1.0, "started": "2026-01-01", "commit": ""}
        corpus = {"source": source, "licence": "none"}
        card = {"sha256": digest, "corpus": corpus, "training": training, "speakers": speakers, "texts": texts}
        (folder / "card.json").write_text(json.dumps(card))
        described = {"name": folder.as_posix(), "sha256": digest}
        self.inputs.starts["tacotron"].write_text(json.dumps(described))

    def vectors(self, training: list[str]) -> None:
        rows = [("speaker_embedding", speaker, "train", speaker, [1.0]) for speaker in training]
        rows.append(("speaker_embedding", "dora-0", "test", "dora", [1.0]))
        table = pd.DataFrame(rows, columns=["representation", "id", "split", "speaker", "vector"])
        write_vectors(self.inputs.vectors["tacotron"], table)

    def check(self, text_split="phrases", source="vctk", judges=()):
        manifest = pd.DataFrame({"speaker": self.owners, "text": self.texts})
        return check_leakage(self.inputs, manifest, text_split=text_split, source=source, judges=judges)

    def refused(self, **how) -> str:
        with pytest.raises(UserError) as error:
            self.check(**how)
        (line,) = str(error.value).splitlines()[1:]
        return line


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)


def judge(monkeypatch, *trained_on: str) -> list[str]:
    """A judge of a given training, in the registry."""
    monkeypatch.setitem(registry.JUDGES, "ear", f"{__name__}:Ear")
    monkeypatch.setattr(Ear, "trained_on", trained_on, raising=False)
    return ["ear"]


class Ear:
    pass


@pytest.mark.parametrize("text_split", ["phrases", "words", "none"])
def test_a_clean_project_passes_and_says_what_was_looked_at(project, monkeypatch, text_split):
    table = project.check(text_split, judges=judge(monkeypatch, "voxceleb1"))
    assert list(table.columns) == ["check", "passed", "detail"]
    assert table["passed"].all()
    assert len(table) == 4 + 2 + 1 + 1 + 1
    assert table["detail"].str.len().gt(0).all()


def test_a_test_speaker_in_the_training_pool(project):
    write_pool(project.inputs.pool, POOL | {"dora": ("a1",)})
    line = project.refused()
    assert line.startswith(f"- {project.inputs.pool}: has speaker 'dora' of ")
    assert line.endswith("Make it again: dvc repro -sf episodes, then dvc repro")


def test_a_validation_speaker_in_the_training_pool(project):
    write_pool(project.inputs.pool, POOL | {"cleo": ("a1",)})
    assert "has speaker 'cleo'" in project.refused()


def test_a_recording_of_a_test_speaker_under_another_name(project):
    project.owners["b1"] = "dora"
    assert f"{project.inputs.pool}: has speaker 'dora'" in project.refused()


def test_a_test_speaker_that_rates_are_tuned_on(project):
    write_episodes(project.inputs.val, [replace(VAL, speaker="dora", support=("d1",), query=("d2",))])
    with pytest.raises(UserError, match="has speaker 'dora' of") as error:
        project.check(text_split="none")
    assert str(project.inputs.val) in str(error.value)


@pytest.mark.parametrize("text_split", ["phrases", "words"])
def test_a_shared_text_however_it_is_written(project, text_split):
    project.texts["d3"] = "two three."
    line = project.refused(text_split=text_split)
    assert f"{project.inputs.pool}: has text 'two three' of {project.inputs.test}" in line


def test_shared_texts_are_counted_where_they_are_allowed(project):
    project.texts["d3"] = "two three"
    table = project.check(text_split="none").set_index("check")["detail"]
    assert table["texts may be shared (episodes.text_split none)"].startswith("1 of 3 test texts")


@pytest.mark.parametrize(("utt_id", "owner"), [("c1", "test"), ("a1", "val")])
def test_other_splits_share_no_text_either(project, utt_id, owner):
    project.texts[utt_id] = project.texts["d1" if owner == "test" else "c2"]
    assert f"of {getattr(project.inputs, owner)}" in project.refused()


def test_a_text_of_known_words_is_no_new_text_where_words_are_split(project):
    project.texts["d3"] = "three one"
    assert "has text 'three one', of words that are all in" in project.refused(text_split="words")
    assert project.check(text_split="phrases")["passed"].all()


@pytest.mark.parametrize(("split", "task"), [("test", TEST), ("val", VAL)])
def test_a_support_recording_among_the_queries(project, split, task):
    path = getattr(project.inputs, split)
    write_episodes(path, [replace(task, query=(*task.query, task.support[0]))])
    assert f"{path}: task '{task.episode_id}' has recording '{task.support[0]}' in support and query" in (
        project.refused()
    )


def test_a_task_with_a_recording_of_somebody_else(project):
    write_episodes(project.inputs.test, [replace(TEST, support=("d1", "c1"))])
    with pytest.raises(UserError, match="task 'dora-0' has recording 'c1' of another speaker"):
        project.check(text_split="none")


@pytest.mark.parametrize("folder", ["pretrained", "meta_trained"])
def test_a_model_that_was_trained_on_a_test_speaker(project, folder):
    project.card(project.folder / folder, ["anna", "dora", "cleo"])
    line = project.refused()
    assert f"{folder}/model.json: the model was trained on held-out speakers 'cleo', 'dora'" in line
    project.card(project.folder / folder, None)
    assert "does not say whom the model was trained on" in project.refused()


def test_a_start_that_knows_a_test_speaker_or_a_test_text(project):
    start = project.folder / "assets/starts/tacotron"
    project.start(start, "vctk", ["dora"], ["ten"])
    assert f"test speaker 'dora' is not unseen: {start} was trained on this speaker" in project.refused()
    assert project.check(source="libritts")["passed"].all(), "another corpus has other people"
    project.start(start, "espeak", ["erna"], ["nine three"])
    assert "test text 'nine three' is not unseen" in project.refused()
    assert project.check(text_split="none")["passed"].all()


def test_a_start_that_is_not_the_one_of_the_pretraining(project):
    path = project.inputs.starts["tacotron"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": "0" * 64}))
    assert f"not the start that {path} speaks of" in project.refused()
    path.write_text("null\n")
    assert "trained from nothing" in set(project.check()["detail"])
    path.unlink()
    assert f"{path}: cannot be read" in project.refused()


def test_a_test_speaker_among_the_neighbours(project):
    project.vectors(["anna", "dora"])
    assert "vectors.parquet: has held-out speaker 'dora' among the training tasks" in project.refused()


def test_a_judge_that_names_a_test_speaker_is_refused_and_one_that_names_the_corpus_is_marked(project, monkeypatch):
    ear = judge(monkeypatch, "vctk/dora", "vctk/p225")
    assert "evaluate.judges: 'ear' was trained on speaker 'dora'" in project.refused(judges=ear)
    assert project.check(source="libritts", judges=ear)["passed"].all()
    ear = judge(monkeypatch, "librispeech", "voxceleb1")
    assert project.check(judges=ear)["passed"].all()
    marked = project.check(source="libritts", judges=ear).iloc[-1]
    assert not marked["passed"]
    assert marked["detail"].startswith("trained on librispeech, voxceleb1: librispeech has the speakers")
    ear = judge(monkeypatch, "unknown")
    assert not project.check(judges=ear)["passed"].iloc[-1]
    assert project.check(source="espeak", judges=ear)["passed"].iloc[-1], "generated voices"
    assert project.check(judges=judge(monkeypatch))["detail"].iloc[-1] == "learned from no recordings"


def test_all_leaks_are_told_at_once_and_many_culprits_are_counted(project):
    project.vectors(["dora"])
    project.card(project.folder / "pretrained", ["dora"])
    crowd = {f"x{number}": "dora" for number in range(9)}
    project.owners |= crowd
    project.texts |= {name: f"new {name}" for name in crowd}
    write_episodes(project.inputs.test, [replace(TEST, support=tuple(crowd), query=tuple(crowd))])
    with pytest.raises(UserError) as error:
        project.check()
    lines = str(error.value).splitlines()
    assert lines[0].startswith("what is to be evaluated was part of training")
    assert len(lines) == 4
    assert "recordings 'x0', 'x1', 'x2', 'x3', 'x4' and 4 more in support and query" in lines[1]
