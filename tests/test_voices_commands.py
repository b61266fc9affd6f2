"""metaspeech adapt, say and voices, as typed; and a voice in MLflow's registry."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner
from voices_made import CONSENT, REPO, write_meta_model, write_recordings

from metaspeech.cli import app
from metaspeech.voices import load, wav
from metaspeech.voices.store import VoiceStore

ADAPT = ("adapt", "--recordings", "recordings", "--consent", CONSENT, "--steps", "2", "--no-check-texts")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A project with a meta-model, recordings, and a voice."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "assets").symlink_to(REPO / "assets")
    write_meta_model(folder / "models/meta_train/tacotron-maml-1")
    write_recordings(folder / "recordings", 3)
    before = Path.cwd()
    os.chdir(folder)
    done = run(*ADAPT, "--name", "anna")
    os.chdir(before)
    assert done.exit_code == 0, done.output
    (folder / "output.txt").write_text(done.output)
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("METASPEECH_VOICES", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def run(*arguments: object, stdin: bytes | None = None):
    return CliRunner().invoke(app, [str(one) for one in arguments], input=stdin)


def refused(*arguments: object) -> str:
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert done.output.startswith("error: ") or "\nerror: " in done.output, done.output
    return done.output


def test_adapting_says_what_it_does(made):
    lines = (made / "output.txt").read_text().splitlines()
    assert lines[0].startswith("tacotron: models/meta_train/tacotron-maml-1 (maml, ")
    assert "3 recordings: 3 good, 0 doubtful, 0 refused" in lines
    assert any(line.startswith("tacotron: ") and "loss on what was held back" in line for line in lines)
    assert lines[-1].startswith("hear it: metaspeech say --voice anna")


def test_without_training_the_start_that_ships_is_taken(project):
    shutil.rmtree("models")
    done = run(*ADAPT, "--name", "bea")
    assert "the start that ships" in done.output
    assert "expect little of voices of another kind" in done.output
    assert load("bea", "voices").card.parts["tacotron"].origin == "assets/starts/tacotron"


def test_say_writes_what_it_says_of_itself(project):
    for name in ("a.wav", "a.flac", "a.ogg"):
        done = run("say", "--voice", "anna", "boy made bath", "-o", name)
        assert done.exit_code == 0, done.output
        note = wav.note_of(Path(name))
        card = VoiceStore("voices").card("anna")
        assert note.startswith("Synthesised speech, not a recording: voice 'anna'")
        assert card.parts["tacotron"].meta_model[:16] in note
    samples, rate = soundfile.read("a.wav", dtype="float32")
    np.testing.assert_allclose(samples, load("anna", "voices").say("boy made bath")[0], atol=1 / 32768)
    assert rate == 16000
    content = Path("a.wav").read_bytes()
    assert b"LIST" in content[:300]
    assert b"ICMT" in content[:300]


def test_a_stream_is_a_wav_with_the_note_that_any_reader_takes(project):
    done = run("say", "--voice", "anna", "boy. made bath", "-o", "-")
    content = done.stdout_bytes
    Path("s.wav").write_bytes(content)
    assert "Synthesised speech" in wav.note_of(Path("s.wav"))
    streamed, _ = soundfile.read("s.wav", dtype="float32")
    np.testing.assert_allclose(streamed, load("anna", "voices").say("boy. made bath")[0], atol=1 / 32768)
    raw = run("say", "--voice", "anna", "boy. made bath", "-o", "-", "--raw").stdout_bytes
    assert content.endswith(raw)
    assert len(raw) == 2 * len(streamed)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_a_stream_that_nobody_can_take_is_one_message(project):
    command = [sys.executable, "-m", "metaspeech.cli", "say", "--voice", "anna", "boy made bath", "-o", "-"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: standard output: cannot be written: No space left on device"


def test_the_header_of_a_stream_by_the_book():
    """RIFF, WAVE, fmt, LIST INFO ICMT of even length, data: Multimedia Programming Interface 1.0, chapter 3."""
    head = wav.stream_header(16000, "odd")
    assert head[:4] + head[8:16] == b"RIFFWAVEfmt "
    assert struct.unpack("<IHHIIHH", head[16:36]) == (16, 1, 1, 16000, 32000, 2, 16)
    assert head[36:40] == b"LIST"
    assert struct.unpack("<I", head[40:44]) == (16,)
    assert head[44:52] == b"INFOICMT"
    assert struct.unpack("<I", head[52:56]) == (4,)
    assert head[56:] == b"odd\0data\xff\xff\xff\xff"
    assert wav.as_pcm(np.array([0.0, 1.0, -2.0])) == struct.pack("<3h", 0, 32767, -32767)


def test_what_cannot_be_said_or_written(project):
    assert "CYRILLIC" in refused("say", "--voice", "anna", "мир", "-o", "a.wav")
    assert "expected a name that ends in .wav" in refused("say", "--voice", "anna", "boy", "-o", "a.mp3")
    assert "expected a name that ends in .wav" in refused("say", "--voice", "anna", "boy", "-o", "a")
    assert "There: anna" in refused("say", "--voice", "bob", "boy")
    assert "There: anna" in refused("say", "boy")
    assert "speed" in refused("say", "--voice", "anna", "--speed", "9", "boy")
    assert "cannot be written" in refused("say", "--voice", "anna", "boy", "-o", "dvc.yaml/a.wav")
    assert "not UTF-8" in refused_input(b"\xff\xfe")
    assert not Path("a.wav").exists()
    done = run("say", "--voice", "anna", "-o", "a.wav", stdin="boy 😀".encode())
    assert done.exit_code == 0
    assert "left out: '😀' (U+1F600 GRINNING FACE)" in done.output


def refused_input(content: bytes) -> str:
    done = run("say", "--voice", "anna", "-o", "a.wav", stdin=content)
    assert done.exit_code == 2
    return done.output


def test_adapt_refuses_before_it_works(project):
    assert "--consent" in refused("adapt", "--recordings", "recordings", "--name", "bea", "--no-check-texts")
    assert "expected 1 to 40" in refused(*ADAPT, "--name", "../x")
    assert "there is one already" in refused(*ADAPT, "--name", "anna")
    assert "expected one of griffin-lim, wavenet" in refused(*ADAPT, "--name", "bea", "--vocoder", "mp3")
    assert "no such folder" in refused("adapt", "--recordings", "nowhere", "--name", "bea")
    assert "no tacotron trained by reptile" in refused(*ADAPT, "--name", "bea", "--algorithm", "reptile")
    assert VoiceStore("voices").names() == ["anna"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_disk_that_is_full_is_said_and_nothing_is_lost(project):
    """A limit on the size of files stands for it: what is written fails in the same places."""
    line = " ".join(f"'{one}'" for one in (*ADAPT, "--name", "bea"))
    command = f"ulimit -f 1; {sys.executable} -m metaspeech.cli {line.replace(CONSENT, 'Its own leave.')}"
    environment = {**os.environ, "PYTHONPATH": str(REPO / "src")}
    for kept in (True, False):
        if not kept:
            shutil.rmtree("voices/.models")
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 2, done.stderr
        assert "cannot be written" in done.stderr
        assert "Traceback" not in done.stderr
        assert sorted(path.name for path in Path("voices").iterdir() if path.name != ".models") == ["anna"]


def test_the_life_of_a_voice(project):
    assert run("voices", "list").output.startswith("anna  ")
    assert json.loads(run("voices", "show", "anna").output)["consent"] == CONSENT
    assert run("voices", "export", "anna").exit_code == 0
    assert Path("anna.voice").stat().st_size < 1e6
    assert run("voices", "import", "anna.voice", "--name", "bea").exit_code == 0
    assert "anna and bea: 1.000" in run("voices", "compare", "anna", "bea").output
    assert "--yes" in refused("voices", "delete", "bea")
    assert run("voices", "delete", "bea", "--yes").exit_code == 0
    assert VoiceStore("voices").names() == ["anna"]
    shutil.move("voices", "elsewhere")
    assert "no voices in" in run("voices", "list").output
    done = run("voices", "import", "anna.voice")  # the meta-model is the project's own
    assert done.exit_code == 0, done.output
    shutil.rmtree("voices")
    shutil.rmtree("models")
    meta = VoiceStore("elsewhere").card("anna").parts["tacotron"].meta_model
    assert meta in refused("voices", "import", "anna.voice")
    assert run("voices", "import", "anna.voice", "--model-from", f"elsewhere/.models/{meta}").exit_code == 0
    Path("voices/anna/voice.json").write_text("{")
    assert "damaged" in run("voices", "list").output


def test_a_registered_voice_speaks_in_a_fresh_process(project):
    """Without this project: neither its folder nor its sources on the path."""
    done = run("voices", "register", "anna", "--alias", "best")
    assert done.exit_code == 0, done.output
    assert "models:/voice-anna@best" in done.output
    expected, rate = load("anna", "voices").say("boy made bath", seed=3)
    shutil.rmtree("voices")
    uri = f"sqlite:///{project / 'mlflow.db'}"
    code = (
        "import json, sys, mlflow, pandas as pd\n"
        f"mlflow.set_tracking_uri({uri!r})\n"
        "model = mlflow.pyfunc.load_model('models:/voice-anna@best')\n"
        "import metaspeech\n"
        "spoken = model.predict(pd.DataFrame({'text': ['boy made bath']}), params={'seed': 3})[0]\n"
        "print(json.dumps([spoken['rate'], spoken['samples'], metaspeech.__file__]))\n"
    )
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", env=own, check=False)
    assert done.returncode == 0, done.stderr
    got_rate, samples, source = json.loads(done.stdout.splitlines()[-1])
    assert got_rate == rate
    np.testing.assert_allclose(samples, expected, atol=1e-6)
    assert "mlartifacts" in source
    files = [path.suffix for path in (project / "mlartifacts").rglob("*") if path.is_file()]
    assert not {".pkl", ".pickle", ".pt", ".pth"} & set(files)


def test_the_champion_of_the_registry_is_adapted_from(project):
    from mlflow.tracking import MlflowClient

    from metaspeech.tracking.voices import champion, meta_model_name

    uri = f"sqlite:///{project / 'mlflow.db'}"
    assert champion("tacotron", uri, project) is None
    champ = write_meta_model(project / "champion" / "tacotron-fomaml-1", algorithm="fomaml", seed=9)
    client = MlflowClient(uri)
    experiment = client.create_experiment("metaspeech", artifact_location=(project / "mlartifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    client.log_artifacts(run_id, str(champ), "model")
    name = meta_model_name("tacotron")
    client.create_registered_model(name)
    version = client.create_model_version(
        name, f"{(project / 'mlartifacts').as_uri()}/{run_id}/artifacts/model", run_id
    )
    assert champion("tacotron", uri, project) is None
    client.set_registered_model_alias(name, "champion", version.version)
    done = run(*ADAPT, "--name", "bea")
    assert done.exit_code == 0, done.output
    part = load("bea", "voices").card.parts["tacotron"]
    assert (part.algorithm, part.origin) == ("fomaml", "the champion of MLflow's registry")
