"""From recordings to a voice that speaks: by tiny models, and by the starts that ship."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from voices_made import CONSENT, REPO, STARTS, TEXTS, features, spoken, write_meta_model, write_recordings

from metaspeech import config
from metaspeech.errors import UserError
from metaspeech.text.frontend import Frontend
from metaspeech.voices import adapt, load
from metaspeech.voices.adaptation import Settings, adapt_model, divided
from metaspeech.voices.archive import export_voice, import_voice
from metaspeech.voices.checks import _with_texts_judged, check_recordings, phoneme_listener, prepare_settings, snr_db
from metaspeech.voices.compare import compare, vectors, voice_vectors
from metaspeech.voices.meta_model import Places, at_hand, choose, read_any, read_meta_model, same_features
from metaspeech.voices.recordings import Entry, read_folder
from metaspeech.voices.store import VoiceStore
from metaspeech.voices.voice import stretched

FEW = Settings(steps=3, notable=0.0)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return write_meta_model(tmp_path_factory.mktemp("meta") / "tacotron-maml-1")


@pytest.fixture(scope="module")
def checked(recordings):
    return check_recordings(recordings, read_folder(recordings), features())


@pytest.fixture(scope="module")
def voices(tmp_path_factory, recordings, tiny) -> Path:
    """A store with a voice of tiny models, through a vocoder too."""
    store = tmp_path_factory.mktemp("store") / "voices"
    vocoder = write_meta_model(tmp_path_factory.mktemp("meta") / "wavenet-maml-1", "wavenet")
    voice = adapt(recordings, "anna", store, tiny, consent=CONSENT, vocoder_start=vocoder, settings=FEW)
    assert min(part.step for part in voice.card.parts.values()) > 0
    return store


def test_the_start_that_ships_becomes_the_speaker(tmp_path, recordings):
    steps = []
    voice = adapt(
        recordings, "anna", tmp_path / "voices", STARTS / "tacotron", consent=CONSENT,
        settings=Settings(steps=6), report=steps.append,
    )  # fmt: skip
    part = voice.card.parts["tacotron"]
    assert [one.step for one in steps] == list(range(7))
    assert part.step > 0
    assert part.losses[part.step] < 0.6 * part.losses[0]
    assert [one.role for one in voice.card.recordings] == ["adapted"] * 3 + ["held back"]
    samples, rate = voice.say("young dog ran home")
    assert rate == 16000
    assert 0.5 < len(samples) / rate < 7
    assert 0.02 < np.abs(samples).max() <= 1
    again, _ = load("anna", tmp_path / "voices").say("young dog ran home")
    np.testing.assert_array_equal(samples, again)
    assert VoiceStore(tmp_path / "voices").bytes("anna") < 4e6


def test_adapting_brings_a_voice_nearer_to_its_speaker(tmp_path, recordings):
    """By the speaker encoder, with the shipped start: against the same start before any step."""
    waveforms, rate = spoken()
    real = vectors([np.asarray(one / 32768, dtype=np.float32) for one in waveforms], rate).mean(axis=0)
    near = {}
    for steps in (0, 10):
        voice = adapt(
            recordings, f"steps{steps}", tmp_path, STARTS / "tacotron", consent=CONSENT, settings=Settings(steps=steps)
        )
        near[steps] = float(voice_vectors(voice, sentences=TEXTS[2:]).mean(axis=0) @ real)
    assert near[10] > near[0] + 0.05


def test_the_seed_the_speed_and_the_vocoder_do_what_they_say(voices):
    voice = load("anna", voices)
    text = "bath found boy. found a bird"
    first, _ = voice.say(text, seed=1, vocoder="griffin-lim")
    assert not np.array_equal(first, voice.say(text, seed=2, vocoder="griffin-lim")[0])
    fast, _ = voice.say(text, seed=1, speed=2.0, vocoder="griffin-lim")
    assert len(fast) / len(first) == pytest.approx(0.5, rel=0.02)
    parts = list(voice.stream(text, vocoder="griffin-lim"))
    assert [one.text for one in parts] == ["bath found boy.", "found a bird"]
    np.testing.assert_array_equal(np.concatenate([one.samples for one in parts]), first)
    assert not np.array_equal(voice.say("boy")[0], voice.say("boy", vocoder="griffin-lim")[0]), (
        "the vocoder's own sound"
    )
    assert parts[0].alignment.shape[1] == len(Frontend(config.Prepare().text).encode("bath found boy."))
    for wrong in ({"speed": 3.0}, {"speed": float("nan")}, {"vocoder": "pickle"}):
        with pytest.raises(UserError, match=r"speed|vocoder"):
            voice.say("boy", **wrong)


def test_a_synthesis_without_an_end_is_cut_and_said(voices, caplog):
    voice = load("anna", voices)
    voice._model.decoder.stop.bias.data.fill_(-50.0)
    (spoken,) = voice.stream("bath", vocoder="griffin-lim")
    assert not spoken.stopped
    assert "'bath' did not come to an end and was cut" in caplog.text
    assert len(spoken.samples) / voice.rate < 1.5 + 0.25 * 4 + 1


def test_two_voices_are_compared_with_themselves(voices):
    one = load("anna", voices)
    same = compare(one, one)
    assert same.similarity == pytest.approx(1)
    assert same.within[0] == same.within[1] <= 1 + 1e-6


def test_stretching_keeps_the_ends_and_the_bands():
    mel = np.linspace(0, 1, 11, dtype=np.float32)[:, None] * np.ones((1, 3), dtype=np.float32)
    for speed, frames in ((0.5, 22), (2.0, 6), (1.0, 11)):
        out = stretched(mel, speed)
        assert out.shape == (frames, 3)
        np.testing.assert_allclose(out[[0, -1]], mel[[0, -1]])
        assert (np.diff(out[:, 0]) > 0).all()
    assert stretched(mel[:1], 2.0).shape == (1, 3)


def test_the_best_step_is_kept_and_patience_ends_it(checked, tiny):
    meta = read_meta_model(tiny)
    utterances = [one.utterance for one in checked]
    done = adapt_model(meta, utterances, Settings(steps=40, patience=2, notable=0.5))
    assert "lower in 2 steps" in done.stopped
    assert len(done.losses) == done.step + 3
    assert done.step == 0 or done.losses[done.step] < 0.5 * done.losses[0]
    blind = adapt_model(meta, utterances[:2], Settings(blind_steps=2))
    assert (blind.step, blind.losses) == (2, [])
    before = meta.load().state_dict()
    again = adapt_model(meta, utterances, Settings(steps=40, patience=2, notable=0.5))
    assert again.losses == done.losses
    assert all((meta.load().state_dict()[name] == value).all() for name, value in before.items())


def test_a_rate_that_diverges_leaves_the_best_step(checked, tiny):
    done = adapt_model(read_meta_model(tiny), [one.utterance for one in checked], Settings(steps=30, rate=100.0))
    assert done.losses[done.step] <= done.losses[0]
    assert all(np.isfinite(value.numpy()).all() for value in done.params.values())


@pytest.mark.parametrize(
    ("recordings", "shots", "support", "held"),
    [(1, 20, 1, 0), (2, 20, 2, 0), (3, 20, 2, 1), (5, 20, 4, 1), (30, 10, 10, 10)],
)
def test_what_is_held_back_is_not_adapted_on(recordings, shots, support, held):
    first, second = divided(recordings, shots)
    assert (len(first), len(second)) == (support, held)
    assert not set(first) & set(second)


def test_what_reports_may_end_it_and_nothing_is_left(tmp_path, recordings, tiny):
    def enough(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(recordings, "anna", tmp_path / "voices", tiny, consent=CONSENT, settings=FEW, report=enough)
    assert VoiceStore(tmp_path / "voices").names() == []
    assert [path.name for path in (tmp_path / "voices").iterdir()] == [".models"]


def test_a_killed_save_leaves_no_voice_and_the_next_one_works(tmp_path, recordings, tiny):
    code = (
        "import os, sys; from metaspeech.voices import adapt\n"
        f"adapt({str(recordings)!r}, 'anna', {str(tmp_path / 'voices')!r}, {str(tiny)!r}, consent={CONSENT!r},"
        " report=lambda progress: os.kill(os.getpid(), 9))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(REPO / "src")}, check=False
    )
    assert done.returncode == -9
    assert VoiceStore(tmp_path / "voices").names() == []
    adapt(recordings, "anna", tmp_path / "voices", tiny, consent=CONSENT, settings=FEW)
    assert VoiceStore(tmp_path / "voices").names() == ["anna"]


def test_a_voice_is_replaced_only_when_asked_and_never_lost(tmp_path, voices, recordings, tiny):
    store = shutil.copytree(voices, tmp_path / "voices")
    with pytest.raises(UserError, match="there is one already"):
        adapt(recordings, "anna", store, tiny, consent=CONSENT, settings=FEW)
    before = VoiceStore(store).card("anna")
    with suppress(RuntimeError), VoiceStore(store).saving("anna", overwrite=True) as folder:
        (folder / "voice.json").write_text("{}")
        raise RuntimeError
    assert VoiceStore(store).card("anna") == before
    os.rename(store / "anna", store / ".replaced-anna")  # killed between the two renames
    assert VoiceStore(store).card("anna") == before
    voice = adapt(recordings, "anna", store, tiny, consent=CONSENT, settings=FEW, overwrite=True)
    assert "wavenet" not in voice.card.parts


def test_a_voice_needs_no_more_than_its_store(tmp_path, voices, recordings):
    meta = write_meta_model(tmp_path / "tacotron-maml-1", seed=7)
    store = tmp_path / "voices"
    said, _ = adapt(recordings, "anna", store, meta, consent=CONSENT, settings=FEW).say("boy")
    shutil.rmtree(meta)
    np.testing.assert_array_equal(load("anna", store).say("boy")[0], said)
    VoiceStore(store).delete("anna")
    assert not list((store / ".models").iterdir()), "no voice needs that meta-model any more"


def test_the_card_says_where_a_voice_comes_from_and_not_what_was_said(voices, recordings, checked, tiny):
    text = (voices / "anna" / "voice.json").read_text()
    card = VoiceStore(voices).card("anna")
    assert card.consent == CONSENT
    assert card.parts["tacotron"].meta_model == json.loads((tiny / "model.json").read_text())["sha256"]
    assert card.parts["tacotron"].algorithm == "maml"
    assert {one.sha256 for one in card.recordings} == {one.sha256 for one in checked}
    assert all(one not in text for one in TEXTS)
    assert str(recordings) not in text
    assert str(tiny.parent) not in text
    assert card.vocoder == "wavenet"


def test_consent_is_a_statement(tmp_path, recordings, tiny):
    for nothing in ("", "  ", "y", "yes"):
        with pytest.raises(UserError, match="consent: a voice is somebody's"):
            adapt(recordings, "anna", tmp_path, tiny, consent=nothing, settings=FEW)


def test_export_and_import_give_the_same_voice(tmp_path, voices, tiny):
    file = export_voice(VoiceStore(voices), "anna", tmp_path / "anna.voice")
    metas = [read_meta_model(folder) for folder in (voices / ".models").iterdir()]
    other = VoiceStore(tmp_path / "other")
    card = import_voice(other, file, metas, name="bea")
    assert (card.name, other.names()) == ("bea", ["bea"])
    np.testing.assert_array_equal(load("bea", other.folder).say("boy")[0], load("anna", voices).say("boy")[0])
    with pytest.raises(UserError, match="there is one already"):
        import_voice(other, file, metas, name="bea")
    with pytest.raises(UserError, match=card.parts["tacotron"].meta_model):
        import_voice(VoiceStore(tmp_path / "third"), file, [])
    assert not (tmp_path / "third").exists()


def test_which_meta_model(tmp_path):
    places = Places(tmp_path / "trained", STARTS)
    meta, why = choose("tacotron", places)
    assert (meta.algorithm, meta.origin) == ("transfer", "assets/starts/tacotron")
    assert "ships" in why
    write_meta_model(places.trained / "tacotron-transfer-1", algorithm="transfer")
    old = write_meta_model(places.trained / "tacotron-maml-1", seed=1)
    new = write_meta_model(places.trained / "tacotron-maml-2", seed=2)
    write_meta_model(places.trained / "tacotron-nearest-1", algorithm="nearest")
    write_meta_model(places.trained / "wavenet-maml-1", "wavenet")
    for folder, when in ((old, 1_000_000), (new, 2_000_000)):
        os.utime(folder / "model.json", (when, when))
    assert choose("tacotron", places)[0].folder == new
    assert choose("tacotron", places, algorithm="transfer")[0].algorithm == "transfer"
    assert choose("tacotron", places, champion=old)[1] == "the champion of the registry"
    assert choose("tacotron", places, champion=old, given=new)[0].folder == new
    with pytest.raises(UserError, match="no tacotron trained by reptile"):
        choose("tacotron", places, algorithm="reptile")
    with pytest.raises(UserError, match="is a wavenet, expected a tacotron"):
        choose("tacotron", places, given=places.trained / "wavenet-maml-1")
    with pytest.raises(UserError, match="nearest needs neighbour"):
        choose("tacotron", places, given=places.trained / "tacotron-nearest-1")
    assert len(at_hand(places)) == 6


def test_a_card_of_an_earlier_version_is_refused_with_a_way_out(tmp_path):
    folder = write_meta_model(tmp_path / "tacotron-maml-1")
    card = json.loads((folder / "model.json").read_text())
    del card["speech"]
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="dvc repro -s meta_train"):
        read_meta_model(folder)


def test_the_starts_go_together_and_other_statistics_do_not():
    one, other = read_any(STARTS / "tacotron"), read_any(STARTS / "wavenet")
    assert same_features(one, other)
    other.features.settings["text"] = "characters"
    assert same_features(one, other), "a vocoder reads mels alone"
    other.features.mel_mean[3] += 1
    assert not same_features(one, other)
    assert prepare_settings(one.features).trim_db == 40


def test_each_recording_is_told_what_is_wrong_with_it(tmp_path):
    folder = write_recordings(tmp_path / "recordings", 3)
    waveforms, rate = spoken()
    good = waveforms[3] / 32768
    noise = np.random.default_rng(1).standard_normal(len(good))
    sounds = {
        "short": good[:500], "silent": np.zeros(rate), "clipped": np.clip(good * 60, -1, 1),
        "noise": 0.1 * noise, "hiss": good + 0.02 * noise, "long": np.tile(good, 60),
        "notext": good * 0.9, "unspeakable": good * 0.8, "digits": good * 0.7,
    }  # fmt: skip
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, rate)
        (folder / f"{name}.txt").write_text(TEXTS[3])
    (folder / "notext.txt").unlink()
    (folder / "unspeakable.txt").write_text("до свидания")
    (folder / "digits.txt").write_text("... !!")
    (folder / "torn.wav").write_bytes(b"RIFF1234WAVEfmt ")
    (folder / "torn.txt").write_text("boy")
    shutil.copy(folder / "0.wav", folder / "twice.wav")
    (folder / "twice.txt").write_text(TEXTS[0])
    (folder / "link.wav").symlink_to("/etc/passwd")
    found = {Path(one.path).stem: one for one in check_recordings(folder, read_folder(folder), features())}
    expected = {
        "short": "too short", "silent": "silence", "clipped": "clipping", "noise": "noisy", "hiss": "noisy",
        "long": "too long", "notext": "empty text", "unspeakable": "unknown symbols", "digits": "empty text",
        "torn": "unreadable audio", "twice": "same recording", "link": "path outside the folder",
    }  # fmt: skip
    assert {name: found[name].reason.partition(":")[0] for name in expected} == expected
    assert {found[name].state for name in expected} == {"refused", "doubtful"}
    assert found["hiss"].state == "doubtful"
    assert all(found[name].advice for name in expected)
    assert {found[str(number)].state for number in range(3)} == {"good"}
    assert "prepare." not in " ".join(one.reason for one in found.values())


def test_a_wrong_text_stands_out(tmp_path):
    folder = write_recordings(tmp_path, variant="m3")
    (folder / "1.txt").write_text("small chair joined")
    found = check_recordings(folder, read_folder(folder), features(), phoneme_listener())
    assert [one.state for one in found] == ["good", "doubtful", "good", "good"]
    assert found[1].reason.startswith("wrong text: ")
    assert found[1].phoneme_error > 0.8 > max(one.phoneme_error for one in found if one is not found[1])


def test_texts_are_judged_against_the_others(checked):
    def verdicts(errors):
        replies = iter(errors)
        return [one.state for one in _with_texts_judged(checked, 16000, lambda audio, text: next(replies))]

    assert verdicts([0.3, 0.4, 0.35, 0.85]) == ["good", "good", "good", "doubtful"]
    assert verdicts([0.3, 0.4, 0.35, 0.78]) == ["good"] * 4, "below what another text gives"
    assert verdicts([0.8, 0.9, 0.85, 0.95]) == ["good"] * 4, "a speaker whom the judge does not understand"


@pytest.mark.parametrize("snr", [10.0, 20.0, 30.0])
def test_snr_of_what_has_pauses(snr):
    rng = np.random.default_rng(1)
    rate, speech = 16000, np.tile(np.repeat([1.0, 0.0], 8000), 4)
    tone = speech * np.sqrt(2) * np.sin(2 * np.pi * 200 * np.arange(len(speech)) / rate)
    noise = rng.standard_normal(len(tone)) * 10 ** (-snr / 20)
    assert snr_db(0.1 * (tone + noise), rate) == pytest.approx(snr, abs=1.5)


def test_metadata_and_sidecars(tmp_path):
    folder = write_recordings(tmp_path / "recordings", 2)
    assert read_folder(folder) == [Entry("0.wav", TEXTS[0]), Entry("1.wav", TEXTS[1])]
    rows = '﻿path,text,speaker\n0.wav,"young, dog",a\n1.wav,bird,b\n../../etc/x.wav,out,a\n/etc/x.wav,out,a\n,none,a\n'
    (folder / "metadata.csv").write_text(rows, encoding="utf-8")
    with pytest.raises(UserError, match="recordings of 'a', 'b'; a voice is of one speaker"):
        read_folder(folder)
    found = read_folder(folder, "a")
    assert found[0] == Entry("0.wav", "young, dog")
    assert [one.refused for one in found[1:]] == ["path outside the folder", "path outside the folder", "no path"]
    broken = {"path,words\n": "column text", "": "column path, text", 'path,text\n"0.wav': "as CSV"}
    for content, message in broken.items():
        (folder / "metadata.csv").write_text(content)
        with pytest.raises(UserError, match=message):
            read_folder(folder)
    (folder / "metadata.csv").write_bytes(b"path,text\n0.wav,\xff\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_folder(folder)
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(UserError, match="Expected"):
            read_folder(place)


def test_nothing_usable_is_said_recording_by_recording(tmp_path, tiny):
    folder = write_recordings(tmp_path / "recordings", 1)
    (folder / "0.txt").write_text("")
    with pytest.raises(UserError, match=r"(?s)none of the recordings can be used:.*'0\.wav': empty text.*Write down"):
        adapt(folder, "anna", tmp_path / "voices", tiny, consent=CONSENT)
    assert not (tmp_path / "voices" / "anna").exists()


def test_real_recordings(corpora, tmp_path):
    """Five sentences of a person, unseen by the start: adapted, and the texts are found to be theirs."""
    import pandas as pd

    table = pd.read_csv(corpora / "timit_sample" / "metadata.csv")
    own = table[table["speaker"] == table["speaker"].iloc[0]].head(5)
    own[["path", "text"]].to_csv(tmp_path / "metadata.csv", index=False)
    for path in own["path"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(corpora / "timit_sample" / path, tmp_path / path)
    voice = adapt(
        tmp_path, "real", tmp_path / "voices", STARTS / "tacotron", consent=CONSENT, settings=Settings(steps=2)
    )
    assert len(voice.card.recordings) == 5
    losses = voice.card.parts["tacotron"].losses
    assert losses[-1] < losses[0]
    assert all(one.phoneme_error < 0.6 and one.snr_db > 30 for one in voice.card.recordings)
