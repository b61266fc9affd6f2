"""The generated corpus, and its stage."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from metaspeech import config, registry
from metaspeech.corpora import espeak_worker
from metaspeech.corpora.espeak import Espeak, deal_texts, read_voices, say
from metaspeech.corpora.espeak_variants import listed, variant_file
from metaspeech.errors import UserError
from metaspeech.text.phrases import capacity

ROOT = Path(__file__).resolve().parents[1]
DRAWN_17 = "8578646327566f6f112ebe6b1c9aa80c1e698921d9b7b937ff0b7f903d75d335"
VOICES = ROOT / "assets" / "espeak_voices.csv"


def settings(**changes: Any) -> config.Corpus:
    return config.Corpus(**{"path": str(VOICES), "speakers": 3, "utterances": 4, **changes})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    Espeak().build(settings(), out, seed=1, workers=2)
    return out


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_row_is_an_audible_segment_of_its_speakers_file(built: Path) -> None:
    table = pd.read_parquet(built / "corpus.parquet")
    assert len(table) == 12
    assert table["speaker"].nunique() == 3
    assert table["utt_id"].is_unique
    for path, rows in table.groupby("path"):
        samples, rate = soundfile.read(built / str(path))
        assert rows["speaker"].nunique() == 1
        ordered = rows.sort_values("start")
        assert ordered["start"].tolist() == [0, *ordered["stop"].tolist()[:-1]]
        assert ordered["stop"].iloc[-1] == len(samples)
        for row in rows.itertuples():
            segment = samples[row.start : row.stop]
            assert 0.5 < len(segment) / rate < 5
            assert 0.02 < np.abs(segment).max() < 0.99  # neither silent nor clipped


def test_the_note_says_that_it_is_synthetic(built: Path) -> None:
    info = json.loads((built / "corpus.json").read_text())
    assert (info["source"], info["root"], info["language"]) == ("espeak", ".", "en")
    assert (info["speakers"], info["utterances"], info["rejected"]) == (3, 12, 0)
    assert "Synthetic" in info["note"]
    assert pd.read_csv(built / "rejected.csv").columns.tolist() == ["utt_id", "speaker", "path", "stage", "reason"]


def test_the_same_bits_whatever_the_number_of_workers(built: Path, tmp_path: Path) -> None:
    Espeak().build(settings(), tmp_path, seed=1, workers=1)
    assert digests(tmp_path) == digests(built)


def test_a_voice_sounds_the_same_whoever_speaks_beside_it(built: Path, tmp_path: Path) -> None:
    """The first of four speakers says what the first of three says: its samples must not depend on the others."""
    voice, texts = read_voices(VOICES)[0], deal_texts(3, settings(), seed=1)[0]
    alone, rate = say(voice.variant, voice.rate, voice.pitch, texts)
    samples, stored_rate = soundfile.read(built / "audio" / f"{voice.speaker}.flac", dtype="int16")
    assert rate == stored_rate
    assert np.array_equal(np.concatenate(alone), samples)


def test_breath_noise_does_not_depend_on_the_time_of_day() -> None:
    """eSpeak NG seeds its noise with the second at which it starts."""
    first, _ = say("f5", 160, 50, ["good dog"])
    time.sleep(1.1)
    again, _ = say("f5", 160, 50, ["good dog"])
    assert np.array_equal(first[0], again[0])


def test_a_second_build_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    Espeak().build(settings(speakers=3, utterances=1), tmp_path, seed=1, workers=2)
    Espeak().build(settings(speakers=2, utterances=1), tmp_path, seed=1, workers=2)
    assert len(list((tmp_path / "audio").iterdir())) == 2


def phrases_over(vocabulary: int, utterances: int = 40) -> config.Corpus:
    return config.Corpus(texts="phrases", words_per_phrase=3, vocabulary=vocabulary, utterances=utterances)


def test_speakers_share_no_phrase_while_there_are_enough() -> None:
    texts = deal_texts(48, phrases_over(40), seed=1)
    said = [text for speaker in texts for text in speaker]
    assert len(said) == len(set(said)) == 48 * 40


def test_no_speaker_repeats_itself_when_phrases_run_out() -> None:
    most = capacity(6, 3)
    for texts in deal_texts(5, phrases_over(6, most - 1), seed=1):
        assert len(set(texts)) == len(texts) == most - 1
    with pytest.raises(UserError, match=r"corpus\.vocabulary"):
        deal_texts(5, phrases_over(6, most + 1), seed=1)


def test_the_stored_voices_are_distinct_and_of_an_even_pace() -> None:
    voices = read_voices(VOICES)
    assert len(voices) == 48
    assert len({(voice.variant, voice.pitch) for voice in voices}) == 48
    assert {voice.gender for voice in voices} == {"f", "m"}
    assert all(140 <= voice.rate <= 190 for voice in voices)
    assert pd.read_csv(VOICES)["nearest_cosine"].max() < 0.85


def test_the_library_runs_in_a_process_of_its_own() -> None:
    """eSpeak NG is GPL: building a corpus never loads it into this interpreter."""
    code = (
        "import sys; from metaspeech.corpora.espeak import say; say('f2', 160, 50, ['good dog']);"
        "assert 'espeakng_loader' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "src")})
    source = Path(espeak_worker.__file__).read_text()
    assert "import metaspeech" not in source
    assert "from metaspeech" not in source


GOOD = "speaker,variant,rate,pitch,gender\na,f2,160,50,f\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speaker,variant,rate\na,f2,160\n", "column pitch, gender is missing"),
        (GOOD, "lists 1 voices, expected at least 2"),
        (GOOD + "a,m3,160,50,m\n", "speaker 'a'.*once"),
        (GOOD + "b/c,m3,160,50,m\n", "speaker 'b/c'.*without '/'"),
        (GOOD + "b,m3,quick,50,m\n", "line 3: rate: 'quick', expected a whole number from 80 to 450"),
        (GOOD + "b,m3,160,100,m\n", "line 3: pitch: '100', expected a whole number from 0 to 99"),
        ("", "cannot be read as CSV"),
    ],
)
def test_a_bad_list_of_voices_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "voices.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_voices(path)
    assert str(path) in str(error.value)


def test_a_missing_list_of_voices_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.csv: no such file. corpus.path must be a list of voices"):
        Espeak().build(settings(path="nowhere.csv"), tmp_path, seed=1, workers=1)


def test_an_unknown_variant_is_an_error_not_another_voice(tmp_path: Path) -> None:
    path = tmp_path / "voices.csv"
    path.write_text(GOOD + "b,nobody,160,50,m\n")
    with pytest.raises(UserError, match=r"no voice 'en-us\+nobody'"):
        Espeak().build(settings(path=str(path)), tmp_path / "out", seed=1, workers=1)
    assert not (tmp_path / "out" / "corpus.parquet").exists()


def test_a_drawn_voice_is_the_same_on_any_machine_and_unlike_others() -> None:
    text = variant_file("drawn-17")
    assert hashlib.sha256(text.encode()).hexdigest() == DRAWN_17
    assert text.startswith("language variant\nname drawn-17\ngender male\n")
    (first,), rate = say("drawn-17", 165, 50, ["young dog ran"])
    (again,), _ = say("drawn-17", 165, 50, ["young dog ran"])
    (other,), _ = say("drawn-19", 165, 50, ["young dog ran"])
    assert np.array_equal(first, again)
    assert 0.5 < len(first) / rate < 3
    assert len(first) != len(other) or not np.array_equal(first, other)


def test_drawn_voices_make_a_list(tmp_path: Path) -> None:
    path = tmp_path / "drawn.csv"
    path.write_text(listed(5))
    voices = read_voices(path)
    assert [voice.variant for voice in voices] == [f"drawn-{number}" for number in range(5)]
    assert [voice.gender for voice in voices] == ["f", "m", "f", "m", "f"]
    info = Espeak().build(settings(path=str(path), speakers=2), tmp_path / "corpus", seed=1, workers=1)
    assert (info.speakers, info.utterances) == (2, 8)


@pytest.mark.parametrize("variant", ["drawn-", "drawn-x", "drawn-1234567", "drawn-1/../x"])
def test_only_numbers_are_drawn(variant: str) -> None:
    with pytest.raises(UserError, match="no voice"):
        say(variant, 165, 50, ["dog"])


def test_no_utterances_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus\.utterances: 0"):
        Espeak().build(settings(utterances=0), tmp_path, seed=1, workers=1)


@pytest.mark.parametrize("name", registry.CORPORA)
def test_every_registered_corpus_can_be_made(name: str) -> None:
    assert callable(registry.resolve(registry.CORPORA, name)().build)


def test_the_stage_writes_the_corpus_and_its_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import corpus as stage_file

    monkeypatch.setattr(stage_file, "CORPUS", tmp_path)
    metrics: dict[str, float] = {}
    track = SimpleNamespace(log_metrics=lambda values: None, log_artifact=lambda path: None)
    params = config.Params(corpus=settings())
    stage_file.corpus(SimpleNamespace(params=params, metrics=metrics.update, track=track))  # type: ignore[arg-type]
    assert (metrics["speakers"], metrics["utterances"], metrics["rejected"]) == (3, 12, 0)
    assert 0 < metrics["hours"] < 0.1
    assert (tmp_path / "corpus.parquet").is_file()
