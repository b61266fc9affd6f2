"""Voices against what people and files may throw at them: no traceback, no hang, nothing outside its folder."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from voices_made import CONSENT, write_meta_model, write_recordings

from metaspeech.errors import UserError
from metaspeech.text.frontend import Frontend
from metaspeech.training.checkpoint import file_digest
from metaspeech.voices import adapt, load
from metaspeech.voices.adaptation import Settings
from metaspeech.voices.archive import export_voice, import_voice
from metaspeech.voices.card import read_card
from metaspeech.voices.names import checked_name, shown
from metaspeech.voices.recordings import read_folder
from metaspeech.voices.sentences import LONGEST, MOST_CHARACTERS, left_out, pieces
from metaspeech.voices.store import VoiceStore

FRONTEND = Frontend("characters")


@pytest.fixture(scope="module")
def voices(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("store") / "voices"
    meta = write_meta_model(tmp_path_factory.mktemp("meta") / "tacotron-maml-1")
    recordings = write_recordings(tmp_path_factory.mktemp("recordings"), 3)
    voice = adapt(recordings, "anna", store, meta, consent=CONSENT, settings=Settings(steps=1, notable=0.0))
    assert voice.card.parts["tacotron"].step == 1
    return store


@pytest.fixture
def store(voices, tmp_path) -> VoiceStore:
    return VoiceStore(shutil.copytree(voices, tmp_path / "voices"))


NO_NAMES = ["", ".", "..", "../x", "a/b", "a\\b", "/etc", ".hidden", "-rf", "_x", "a b", "a\nb", "a\0b", "x" * 41]


@pytest.mark.parametrize("name", [*NO_NAMES, "\u202eanna", "a.b", "😀"])
def test_names_that_are_no_names(name, store):
    before = sorted(store.folder.rglob("*"))
    for action in (checked_name, store.card, store.path, store.delete, lambda name: load(name, store.folder)):
        with pytest.raises(UserError, match="expected 1 to 40 letters"):
            action(name)
    assert sorted(store.folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["anna", "Anna-2", "анна", "åsa", "安娜", "0", "x" * 40])
def test_names_of_any_script(name, store, voices, tmp_path):
    metas = []
    file = export_voice(VoiceStore(voices), "anna", tmp_path / "a.voice")
    assert import_voice(store, file, metas, name=name, overwrite=True).name == checked_name(name)
    assert checked_name(name) in store.names()


def test_a_name_has_one_form():
    assert checked_name("a\u030asa") == checked_name("åsa") == "åsa"


@given(st.text(max_size=200))
def test_what_is_shown_is_one_printable_line(text):
    assert shown(text).isprintable()


def outcome(call: Callable[[], Any]) -> tuple[Any, str]:
    """What it returns, or the message by which it refuses."""
    try:
        return call(), ""
    except UserError as error:
        return None, str(error)


TEXTS = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="ab ,.?!;:'\n0123456789$%-–\t", max_size=80),
    st.text(alphabet="😀مرحبا\u202e\u200f\x00\x1b\u0301éß№½①٣٤２", max_size=20),
)


@settings(max_examples=300)
@given(TEXTS)
@example("1" * 400)
@example("a" * 500)
@example("9,999,999,999,999,999,999.99 $1e400 £٣ ½ № ㋿ ﷺ ²³ 1st 22nd 1900s 12:30")
@example("\ud800")
@example("mr. " * 300)
@example(". . . a . . .")
def test_any_text_is_pieces_or_a_message(text):
    left_out(text)
    found, refused = outcome(lambda: pieces(text, FRONTEND))
    assert bool(found) != bool(refused)
    assert refused.isprintable()
    for piece in found or []:
        assert 0 < len(piece.text) <= LONGEST
        assert set(piece.text) <= set("abcdefghijklmnopqrstuvwxyz' ,.?!;:")
        assert piece.pause > 0


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_any_text_is_spoken_or_refused(voices, text):
    voice = _loaded(voices)
    try:
        samples, rate = voice.say(text[:40])
    except UserError:
        return
    assert rate == 16000
    assert len(samples) > 0
    assert abs(samples).max() <= 1


_LOADED = {}


def _loaded(voices: Path):
    if voices not in _LOADED:
        _LOADED[voices] = load("anna", voices)
    return _LOADED[voices]


@pytest.mark.parametrize("text", ["word " * 20_000, "a" * 100_000, "7 " * 15_000, "9" * 19_999])
def test_a_text_of_a_hundred_kilobytes_is_refused_at_once(text):
    """Also one that becomes so long when its digits are read aloud."""
    began = time.monotonic()
    with pytest.raises(UserError, match=f"at most {MOST_CHARACTERS:,}"):
        pieces(text, FRONTEND)
    assert time.monotonic() - began < 10  # with a quadratic pattern it took 23 s


def test_unspeakable_letters_are_named():
    with pytest.raises(UserError, match=r"'щ' \(U\+0449 CYRILLIC SMALL LETTER SHCHA\)"):
        pieces("good щ morning", FRONTEND)
    with pytest.raises(UserError, match="no letter and no digit"):
        pieces(" 😀 ... \x00", FRONTEND)
    assert left_out("hi 😀, café\tno – yes ½ \x1b") == ["'\\u001b' (U+001B)", "'😀' (U+1F600 GRINNING FACE)"]


def test_sentences_are_divided_where_people_breathe():
    found = pieces("Dr. Bird has 2 dogs. They ran!\n\nThe end", FRONTEND)
    assert [one.text for one in found] == ["doctor bird has two dogs.", "they ran!", "the end"]
    assert [one.pause for one in found] == [0.3, 0.7, 0.7]
    long = ", ".join(["a good green bird"] * 12)
    parts = [one.text for one in pieces(long, FRONTEND)]
    assert " ".join(parts) == long
    assert all(one.endswith("bird,") for one in parts[:-1])
    assert all(LONGEST // 2 <= len(one) <= LONGEST for one in parts[:-1])


def changed(file: Path, out: Path, **members: bytes | None) -> Path:
    """A copy of an archive with other members; None leaves one out."""
    names = {"card": "voice.json", "delta": "tacotron.safetensors"}
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(out, "w") as copy:
        content = {name: archive.read(name) for name in archive.namelist()}
        content |= {names.get(key, key): value for key, value in members.items()}
        for name, value in content.items():
            if value is not None:
                copy.writestr(name, value)
    return out


def with_delta(file: Path, out: Path, delta: bytes) -> Path:
    """An archive whose voice.json vouches for another difference."""
    with zipfile.ZipFile(file) as archive:
        card = json.loads(archive.read("voice.json"))
    path = out.with_suffix(".tmp")
    path.write_bytes(delta)
    card["parts"]["tacotron"] |= {"sha256": file_digest(path), "bytes": len(delta)}
    return changed(file, out, card=json.dumps(card).encode(), delta=delta)


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/metaspeech-was-here",))


def deltas_of(voices: Path) -> dict[str, bytes]:
    """Differences that must not get in."""
    path = voices / "anna" / "tacotron.safetensors"
    good = load_file(path)
    key = next(name for name in good if "/" in name)
    step = key.partition("/")[0]

    def saved(tensors: dict, steps: str = step) -> bytes:
        from safetensors.torch import save

        return save(tensors, metadata={"steps": steps})

    buffer = io.BytesIO()
    torch.save({"weights": torch.zeros(3)}, buffer)
    return {
        "pickle": pickle.dumps(Evil()),
        "torch": buffer.getvalue(),
        "text": b"not a tensor",
        "empty": b"",
        "torn": path.read_bytes()[:1000],
        "header": (2**62).to_bytes(8, "little") + b"{}",
        "nan": saved({key: torch.full_like(good[key], float("nan"))}),
        "shape": saved({key: torch.zeros(1, dtype=torch.float16)}),
        "kind": saved({key: good[key].double()}),
        "name": saved({f"{step}/../../x": torch.zeros(3, dtype=torch.float16)}),
        "number": saved({f"x/{key}": good[key]}),
        "step": saved(good, "99"),
        "bands": saved(good | {"bands.matrix": torch.eye(2), "bands.offset": torch.zeros(2)}),
        "infinite bands": saved(good | {"bands.offset": torch.full_like(good["bands.offset"], float("inf"))}),
        "half of bands": saved({name: value for name, value in good.items() if name != "bands.offset"}),
    }


KINDS = ("pickle", "torch", "text", "empty", "torn", "header", "nan", "shape", "kind", "name", "number", "step")
KINDS += ("bands", "infinite bands", "half of bands")


@pytest.mark.parametrize("kind", KINDS)
def test_differences_that_are_none_are_refused(kind, store, voices, tmp_path):
    file = export_voice(store, "anna", tmp_path / "a.voice")
    bad = with_delta(file, tmp_path / "bad.voice", deltas_of(voices)[kind])
    before = sorted(store.folder.rglob("*"))
    with pytest.raises(UserError, match=r"safetensors|difference|step|bands") as caught:
        import_voice(store, bad, [], name="bad")
    assert ".new-" not in str(caught.value)
    assert sorted(store.folder.rglob("*")) == before
    assert not Path("/tmp/metaspeech-was-here").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "voice.json/../../x", "wavenet.pt", "anna/", "..\\x"])
def test_members_that_lead_outside_or_do_not_belong(name, store, tmp_path):
    file = export_voice(store, "anna", tmp_path / "a.voice")
    bad = changed(file, tmp_path / "bad.voice", **{name: b"x"})
    with pytest.raises(UserError, match="does not belong"):
        import_voice(store, bad, [], name="bad")
    assert store.names() == ["anna"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.voice", "bad.voice", "voices"]


def test_archives_that_are_none(store, tmp_path):
    file = export_voice(store, "anna", tmp_path / "a.voice")
    for content in (b"", b"PK", pickle.dumps(Evil()), file.read_bytes()[:500], b"\0" * 5000):
        bad = tmp_path / "bad.voice"
        bad.write_bytes(content)
        with pytest.raises(UserError, match="no archive of a voice"):
            import_voice(store, bad, [])
    with pytest.raises(UserError, match="No such file"):
        import_voice(store, tmp_path / "absent.voice", [])
    with pytest.raises(UserError, match=r"has no voice\.json"):
        import_voice(store, changed(file, tmp_path / "c.voice", card=None), [])
    with pytest.raises(UserError, match="speaks of other files"):
        import_voice(store, changed(file, tmp_path / "d.voice", delta=None), [], name="bad")
    bomb = tmp_path / "bomb.voice"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("voice.json", b" " * (5 << 20))
    with pytest.raises(UserError, match="expected at most"):
        import_voice(store, bomb, [])
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    bad.write_bytes(bytes(damaged))
    with pytest.raises(UserError):
        import_voice(store, bad, [], name="bad")
    assert store.names() == ["anna"]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_a_card_is_a_card_or_a_message(voices, data):
    values = json.loads((voices / "anna" / "voice.json").read_text())
    holder = values
    while True:
        key = data.draw(st.sampled_from(sorted(holder)))
        if isinstance(holder[key], dict) and holder[key] and data.draw(st.booleans()):
            holder = holder[key]
            continue
        break
    if data.draw(st.booleans()):
        holder[key] = data.draw(JSON)
    else:
        del holder[key]
    card, refused = outcome(lambda: read_card(json.dumps(values), "voice.json"))
    if card is None:
        assert refused.startswith("voice.json: not the voice.json of a voice: ")
    else:
        assert checked_name(card.name)
        assert card.parts["tacotron"].file == "tacotron.safetensors"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"format": 1e999}', "\xff", '"x"'])
def test_what_is_no_card(text):
    with pytest.raises(UserError, match=r"not the voice\.json"):
        read_card(text, "voice.json")
    with pytest.raises(UserError, match=r"not the voice\.json"):
        read_card(text.encode("latin-1"), "voice.json")


def test_a_damaged_voice_says_so_and_the_others_speak(store):
    path = store.folder / "anna" / "tacotron.safetensors"
    save_file({}, path)
    with pytest.raises(UserError, match=r"not the file that voice\.json speaks of"):
        load("anna", store.folder)
    (store.folder / "anna" / "voice.json").write_text("{}")
    assert store.names() == ["anna"]
    with pytest.raises(UserError, match=r"not the voice\.json"):
        store.card("anna")
    store.delete("anna")
    assert store.names() == []


def test_metadata_that_points_outside_is_not_read(tmp_path, voices):
    secret = tmp_path / "secret.wav"
    recordings = write_recordings(tmp_path / "recordings", 3)
    shutil.copy(recordings / "0.wav", secret)
    rows = ["path,text", "0.wav,boy watched now", "1.wav,king pushed house", "2.wav,goat found house"]
    rows += ["../secret.wav,out", f"{secret},out", "0.wav/../../secret.wav,out", "x\x00y.wav,out", "~/secret.wav,out"]
    (recordings / "metadata.csv").write_text("\n".join(rows))
    meta = next((voices / ".models").iterdir())
    voice = adapt(recordings, "b", tmp_path / "voices", meta, consent=CONSENT, settings=Settings(steps=1, notable=0.0))
    assert len(voice.card.recordings) == 3
    assert voice.card.refused == {"path outside the folder": 4, "missing file": 1}


def test_a_list_of_many_is_refused_before_its_paths_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("metaspeech.voices.recordings.is_inside", lambda *_: pytest.fail("it looked"))
    (tmp_path / "metadata.csv").write_text("path,text\n" + "0.wav,boy watched now\n" * 100_000)
    with pytest.raises(UserError, match="100000 recordings, expected at most 500"):
        read_folder(tmp_path)
    (tmp_path / "metadata.csv").write_text("")
    with pytest.raises(UserError, match="found: an empty file"):
        read_folder(tmp_path)


def test_a_folder_that_cannot_be_written_to(tmp_path, voices):
    (tmp_path / "file").write_text("")
    recordings = write_recordings(tmp_path / "recordings", 1)
    meta = next((voices / ".models").iterdir())
    with pytest.raises(UserError, match="cannot be written to"):
        adapt(
            recordings,
            "b",
            tmp_path / "file" / "voices",
            meta,
            consent=CONSENT,
            settings=Settings(steps=1, notable=0.0),
        )
