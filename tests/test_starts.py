"""Starts that ship: made from a run, taken by another where they fit and know nothing of what it holds out."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from speech import write_corpus
from typer.testing import CliRunner

from metaspeech import config
from metaspeech.data.episodes import EpisodeSpec, read_episodes
from metaspeech.data.prepare import prepare_corpus
from metaspeech.data.statistics import read_statistics
from metaspeech.data.store import Features, Store
from metaspeech.errors import UserError
from metaspeech.files import replacing
from metaspeech.registry import MODELS, resolve
from metaspeech.text.frontend import Frontend
from metaspeech.training import starts
from metaspeech.training.checkpoint import load_model, read_card
from metaspeech.training.joint_learner import JointLearner
from pipelines import pretrained
from pipelines._stage import run_stage
from pipelines.episodes import episodes
from pipelines.pretrain import pretrain

REPO = Path(__file__).resolve().parents[1]
START = Path("assets/starts/tacotron")
VALUES = {
    "device": "cpu",
    "threads": 1,
    "corpus": {"source": "folder", "path": "recordings"},
    "prepare": {"workers": 1, "statistics": str(REPO / "assets" / "mel_statistics.json")},
    "episodes": {"val_speakers": 1, "test_speakers": 1, "shots": 2, "queries": 2},
    "tacotron": {"preset": "tiny"},
    "pretrain": {"init": "none", "steps": 3, "batch_size": 4, "warmup": 1, "checkpoint_every": 2},
    "adapt": {"shots": [2]},
    "evaluate": {"shots": [2], "queries": 1},
}
CORPUS = {"source": "folder", "root": ".", "language": "en", "licence": "Free of rights.", "note": "Hums."}


def write_params(changes: dict[str, dict[str, object]] | None = None) -> config.Params:
    values = VALUES | {name: VALUES[name] | keys for name, keys in (changes or {}).items()}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return config.load("params.yaml")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A project whose pretraining was exported as a start."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "dvc.yaml").write_text((REPO / "dvc.yaml").read_text())
    before = Path.cwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", "nowhere://")
        params = write_params()
        write_corpus(Path("data/corpus"), speakers=4, utterances=6)
        Path("data/corpus/corpus.json").write_text(json.dumps(CORPUS))
        prepare_corpus(Path("data/corpus"), Path("data/prepared"), params.prepare, progress=False)
        run_stage("episodes", episodes, [])
        run_stage("pretrain", pretrain, ["tacotron"])
        done = CliRunner().invoke(pretrained.app, ["export", "tacotron", "--from", str(folder)])
        assert done.exit_code == 0, done.output
    os.chdir(before)
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch) -> Path:
    """The same project before pretraining, with the start."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("models", "results"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    return tmp_path


def shipped(**changes: dict[str, object]) -> config.Params:
    params = write_params(changes | {"pretrain": {"init": "shipped", "steps": 0} | changes.get("pretrain", {})})
    run_stage("pretrain", pretrain, ["tacotron"])
    return params


def refused(capsys, **changes: dict[str, object]) -> str:
    with pytest.raises(SystemExit) as end:
        shipped(**changes)
    assert end.value.code == 2
    assert not Path("models").exists()
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_start_says_what_it_is(made):
    card = json.loads((made / START / "card.json").read_text())
    assert card["settings"] == {"preset": "tiny", "reduction_factor": 4}
    assert (card["training"]["steps"], len(card["speakers"]), len(card["texts"])) == (3, 2, 12)
    assert card["corpus"]["licence"] == "Free of rights."
    held_out = [spec for split in ("val", "test") for spec in read_episodes(made / f"data/episodes/{split}.parquet")]
    assert {spec.speaker for spec in held_out}.isdisjoint(card["speakers"])
    page = (made / START / "README.md").read_text()
    for told in ("3 steps of 4 utterances", "2 speakers of folder", "Free of rights.", "Hums."):
        assert told in page
    assert all(abs(card["validation"]["float32"][k] / v - 1) < 0.01 for k, v in card["validation"]["float16"].items())


def test_without_steps_the_start_is_taken_as_it_is(project):
    params = shipped()
    kept = load_file(START / "model.safetensors")
    taken = load_model(Path("models/pretrain/tacotron"), params, Store("data/prepared").features()).state_dict()
    assert kept.keys() == taken.keys()
    for name, value in taken.items():
        assert kept[name].dtype == torch.float16
        assert value.dtype == torch.float32
        assert torch.equal(value, kept[name].float()), name
    card = json.loads((START / "card.json").read_text())
    metrics = json.loads(Path("results/pretrain/tacotron/metrics.json").read_text())
    assert metrics["start_steps"] == 3
    assert metrics["validation_loss"] == pytest.approx(card["validation"]["float16"]["loss"], rel=1e-5)
    described = json.loads(Path("results/pretrain/tacotron/start.json").read_text())
    assert described == read_card(Path("models/pretrain/tacotron"))["start"]
    assert described["sha256"] == card["sha256"]
    assert (described["name"], described["steps"]) == ("assets/starts/tacotron", 3)


def test_it_is_trained_on_from_the_start(project):
    shipped(pretrain={"steps": 2, "rate": 1e-4})
    kept, trained = load_file(START / "model.safetensors"), load_file("models/pretrain/tacotron/model.safetensors")
    moved = max(float((trained[name] - kept[name].float()).abs().max()) for name in kept)
    assert 0 < moved < 1e-3


def test_without_a_start_nothing_is_said_of_one(made):
    assert json.loads((made / "results/pretrain/tacotron/start.json").read_text()) is None
    assert read_card(made / "models/pretrain/tacotron")["start"] is None
    assert "start_steps" not in json.loads((made / "results/pretrain/tacotron/metrics.json").read_text())


def test_the_same_run_without_start_makes_the_weights_that_were_exported(made):
    single, kept = (load_file(made / place / "model.safetensors") for place in ("models/pretrain/tacotron", START))
    assert all(torch.equal(single[name].half(), kept[name]) for name in single)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reduction_factor": 2}, "tacotron.reduction_factor: 2, but assets/starts/tacotron was trained with 4"),
        ({"preset": "small"}, "tacotron.preset: 'small', but assets/starts/tacotron was trained with 'tiny'"),
        ({"stop_weight": 2.0}, None),
    ],
)
def test_only_what_decides_the_weights_must_be_the_same(project, capsys, changes, expected):
    if expected is None:
        shipped(tacotron=changes)
    else:
        message = refused(capsys, tacotron=changes)
        assert expected in message
        assert "Set pretrain.init to none, and pretrain.steps" in message


def prepared_otherwise(**settings: object) -> Store:
    wanted = config.Prepare(**(VALUES["prepare"] | {"statistics": ""} | settings))
    shutil.rmtree("data/prepared")
    prepare_corpus(Path("data/corpus"), Path("data/prepared"), wanted, progress=False)
    return Store("data/prepared")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"hop": 200}, "prepare.hop: 200, but assets/starts/tacotron was trained with 256"),
        ({"text": "characters"}, "prepare.text: 'characters', but"),
        ({}, "prepare.statistics: features are not normalised by the statistics that"),
        ({"loudness_db": -20.0, "statistics": VALUES["prepare"]["statistics"]}, None),
    ],
)
def test_other_features_are_refused_by_name(project, settings, expected):
    start, params = starts.read_start(START, "tacotron"), write_params()
    store = prepared_otherwise(**settings)
    if expected is None:
        starts.check_fit(start, params, store)
    else:
        with pytest.raises(UserError, match=re.escape(expected)):
            starts.check_fit(start, params, store)


def test_another_symbol_table_is_refused(project):
    start = starts.read_start(START, "tacotron")
    other = replace(start, card=dict(start.card) | {"symbols": [*start.card["symbols"], "+"]})
    with pytest.raises(UserError, match="symbol table"):
        starts.check_fit(other, write_params(), Store("data/prepared"))


def test_a_run_that_holds_out_who_trained_the_start_is_refused(project, capsys):
    """Another data_seed draws other speakers; among four, some are those of the start."""
    speakers = json.loads((START / "card.json").read_text())["speakers"]
    values = yaml.safe_load(Path("params.yaml").read_text())
    for seed in range(2, 50):
        Path("params.yaml").write_text(yaml.safe_dump(values | {"data_seed": seed}))
        run_stage("episodes", episodes, [])
        if read_episodes(Path("data/episodes/val.parquet"))[0].speaker in speakers:
            break
    shutil.rmtree("results")
    message = refused(capsys)
    assert re.search(r"val speaker 's\d' is not unseen: assets/starts/tacotron was trained on this speaker", message)
    assert "Set pretrain.init to none" in message


def test_a_text_of_the_training_may_not_be_held_out_and_namesakes_elsewhere_may(project):
    start = starts.read_start(START, "tacotron")
    (trained, *_), (text, *_) = start.card["speakers"], start.card["texts"]
    task = EpisodeSpec("x-0", "test", "x", ("a",), ("b",))
    texts = {"a": "something else", "b": f"{text}!"}
    with pytest.raises(UserError, match=f"test text '{text}' is not unseen"):
        starts.check_unseen(start, "folder", [task], texts, texts_are_shared=False)
    starts.check_unseen(start, "folder", [task], texts, texts_are_shared=True)
    namesake, other = replace(task, speaker=trained), {"a": "something", "b": "else"}
    starts.check_unseen(start, "vctk", [namesake], other, texts_are_shared=False)
    with pytest.raises(UserError, match=f"test speaker '{trained}' is not unseen"):
        starts.check_unseen(start, "folder", [namesake], other, texts_are_shared=True)


def test_a_model_without_a_start_is_told_so(project, capsys):
    shutil.rmtree(START)
    message = refused(capsys)
    assert "no start ships for tacotron" in message
    assert "per_model.tacotron.pretrain" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [("card.json", b"{"), ("card.json", b'{"model": "tacotron"}'), ("model.safetensors", b"other weights")],
)
def test_a_damaged_start_is_named(project, capsys, name, content):
    (START / name).write_bytes(content)
    message = refused(capsys)
    assert f"assets/starts/tacotron/{name}" in message
    assert "git checkout assets/starts/tacotron" in message


def test_weights_that_do_not_fit_are_refused(project):
    start = starts.read_start(START, "tacotron")
    with replacing(START / "model.safetensors") as path:
        save_file({"voice": torch.zeros(3)}, path)
    model = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="weights do not fit the model"):
        starts.load_start(model, start)


def test_what_half_precision_cannot_hold_is_not_exported():
    assert starts.half({"a": torch.ones(2), "n": torch.ones(2, dtype=torch.int64)})["n"].dtype == torch.int64
    with pytest.raises(UserError, match="weights 'a': not finite in half precision"):
        starts.half({"a": torch.tensor([1e6])})


def test_an_export_without_a_run_is_one_message(tmp_path):
    done = CliRunner().invoke(pretrained.app, ["export", "tacotron", "--from", str(tmp_path)])
    assert done.exit_code == 2
    assert "params.yaml: no such file" in done.output


def test_voices_begin_as_one_beside_a_start():
    class Model(torch.nn.Module):
        voice = torch.nn.Parameter(torch.ones(3))

    learner = JointLearner(Model(), 4, config.Pretrain(), seed=1, spread=0.0)
    assert torch.equal(learner.common_start().voice, torch.ones(3))


@pytest.mark.parametrize("model", sorted(path.name for path in (REPO / "assets/starts").iterdir() if path.is_dir()))
def test_the_starts_that_ship_fit_the_default_params(model):
    start = starts.read_start(REPO / "assets/starts" / model, model)
    assert model in MODELS
    assert start.card["settings"] == config.weight_settings(config.Params(), model)
    assert start.card["training"]["data_seed"] == config.Params().data_seed
    prepare = config.Params().prepare
    of_mels = {key: value for key, value in start.card["features"].items() if key != starts.TEXT}
    assert of_mels == {name: getattr(prepare, name) for name in of_mels}
    if resolve(MODELS, model).role == "acoustic":
        assert start.card["symbols"] == Frontend(prepare.text).symbols


@pytest.mark.parametrize("text", ["characters", "phonemes"])
def test_a_vocoder_reads_mels_whatever_the_text_is_read_as(text):
    start = starts.read_start(REPO / "assets/starts/wavenet", "wavenet")
    params = config.Params(prepare=config.Prepare(text=text))
    numbers = read_statistics(REPO / "assets/mel_statistics.json", params.prepare)
    features = Features(vars(params.prepare), Frontend(text).symbols, numbers.mel_mean, numbers.mel_std)
    starts.check_fit(start, params, features)
    slower = Features(vars(params.prepare) | {"hop": 200}, features.symbols, numbers.mel_mean, numbers.mel_std)
    with pytest.raises(UserError, match=r"prepare\.hop: 200"):
        starts.check_fit(start, params, slower)
