"""The user's own recordings: layouts, what is rejected, what is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from metaspeech import config
from metaspeech.corpora.base import CorpusInfo
from metaspeech.corpora.folder import Folder, detect
from metaspeech.corpora.metadata import choose
from metaspeech.errors import UserError


def recording(path: Path, samples: int = 800, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.sin(np.arange(samples) / 20) / 2, rate)
    return path


def build(root: Path, **changes: Any) -> tuple[CorpusInfo, pd.DataFrame, dict[str, str]]:
    """The info, the accepted table, and the reason by utt_id of the rejected."""
    out = root.parent / "out"
    info = Folder().build(
        config.Corpus(**{"source": "folder", "path": str(root), "utterances": 0, **changes}), out, 1, 0
    )
    rejected = pd.read_csv(out / "rejected.csv", dtype=str, keep_default_na=False)
    return info, pd.read_parquet(out / "corpus.parquet"), dict(zip(rejected["utt_id"], rejected["reason"], strict=True))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two speakers with three recordings each, of three formats and rates, and no metadata.csv yet."""
    for speaker in ("ann", "bob"):
        for name, rate in (("1.wav", 8000), ("2.flac", 22050), ("3.ogg", 48000)):
            recording(tmp_path / "own" / speaker / name, rate=rate)
    return tmp_path / "own"


def write(root: Path, *rows: str, header: str = "utt_id,speaker,path,text") -> None:
    (root / "metadata.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


GOOD = ["a1,ann,ann/1.wav,One.", "a2,ann,ann/2.flac,Two.", "b1,bob,bob/1.wav,One.", "b3,bob,bob/3.ogg,Three."]


def test_metadata_with_more_columns(root: Path) -> None:
    write(root, *(f"{row},f" for row in GOOD), header="utt_id,speaker,path,text,gender")
    info, table, rejected = build(root)
    assert rejected == {}
    assert (info.source, info.root, info.speakers, info.utterances) == ("folder", root.as_posix(), 2, 4)
    assert "metadata (detected)" in info.note
    assert table["gender"].tolist() == ["f"] * 4
    assert info.hours == pytest.approx((800 / 8000 * 2 + 800 / 22050 + 800 / 48000) / 3600)
    assert not list((root.parent / "out").rglob("*.wav"))  # nothing is copied


def test_names_of_files_stand_in_for_utt_id(root: Path) -> None:
    write(root, "ann,ann/1.wav,One", "bob,bob/2.flac,Two", header="speaker,path,text")
    assert build(root)[1]["utt_id"].tolist() == ["1", "2"]
    write(root, "ann,ann/1.wav,One", "bob,bob/1.wav,Two", header="speaker,path,text")
    assert build(root)[1]["utt_id"].tolist() == ["ann-1", "bob-1"]


def test_segments_of_a_long_recording(root: Path) -> None:
    write(
        root,
        "a1,ann,ann/1.wav,One,0,400",
        "a2,ann,ann/1.wav,Two,400,",
        "b1,bob,bob/1.wav,One,,",
        "b2,bob,bob/1.wav,Two,0,801",
        "b3,bob,bob/1.wav,Three,soon,800",
        header="utt_id,speaker,path,text,start,stop",
    )
    info, table, rejected = build(root)
    assert table.set_index("utt_id").loc["a1", ["start", "stop"]].tolist() == [0, 400]
    assert pd.isna(table.set_index("utt_id").loc["a2", "stop"])
    assert rejected == {"b2": "segment outside the file", "b3": "start is not a number of samples"}
    assert info.hours * 3600 == pytest.approx(0.2)


def test_bad_entries_are_left_out_with_a_reason(root: Path, tmp_path: Path) -> None:
    outside = recording(tmp_path / "elsewhere" / "x.wav")
    (root / "ann" / "link.wav").symlink_to(outside)
    (root / "ann" / "noise.wav").write_bytes(b"not audio at all")
    (root / "ann" / "notes.txt").write_text("text")
    (root / "inner.wav").symlink_to(root / "ann" / "1.wav")
    write(
        root,
        *GOOD,
        "a1,ann,ann/2.flac,Again",
        "gone,ann,ann/9.wav,Nine",
        "folder,ann,ann,Nine",
        "empty,ann,ann/1.wav,  ",
        "up,ann,../elsewhere/x.wav,Up",
        f"absolute,ann,{outside},Abs",
        "link,ann,ann/link.wav,Link",
        "inner,ann,inner.wav,Inner",
        "noise,ann,ann/noise.wav,Noise",
        "notes,ann,ann/notes.txt,Notes",
        "nobody,,ann/1.wav,Nobody",
        "sl/ash,ann,ann/1.wav,Slash",
    )
    info, table, rejected = build(root)
    assert rejected == {
        "a1": "duplicate utt_id",
        "gone": "missing file",
        "folder": "missing file",
        "empty": "empty text",
        "up": "path outside the folder",
        "absolute": "path outside the folder",
        "link": "path outside the folder",
        "noise": "unreadable audio",
        "notes": "not a wav, flac or ogg file",
        "nobody": "speaker is empty or contains a slash",
        "sl/ash": "utt_id is empty or contains a slash",
    }
    assert info.rejected == len(rejected)
    assert table["utt_id"].tolist() == ["a1", "a2", "b1", "b3", "inner"]
    assert table.set_index("utt_id").loc["a1", "text"] == "One."  # of duplicates the first is kept
    stored = pd.read_csv(root.parent / "out" / "rejected.csv", dtype=str, keep_default_na=False)
    assert stored.loc[stored["utt_id"] == "gone"].to_dict("records") == [
        {"utt_id": "gone", "speaker": "ann", "path": "ann/9.wav", "stage": "corpus", "reason": "missing file"}
    ]


def test_ljspeech_layout_with_a_folder_for_each_speaker(tmp_path: Path) -> None:
    root = tmp_path / "own"
    for speaker in ("ann", "bob"):
        recording(root / speaker / "wavs" / "x-1.wav")
        recording(root / speaker / "wavs" / "x-2.flac")
        (root / speaker / "metadata.csv").write_text('x-1|10 "cats"|ten "cats"\nx-2|Two|\nx-3|Gone|gone\n')
    info, table, rejected = build(root)
    assert "ljspeech (detected)" in info.note
    assert rejected == {"ann-x-3": "missing file", "bob-x-3": "missing file"}
    assert table["utt_id"].tolist() == ["ann-x-1", "ann-x-2", "bob-x-1", "bob-x-2"]
    assert table["text"].tolist() == ['ten "cats"', "Two"] * 2
    assert table["path"].tolist()[:2] == ["ann/wavs/x-1.wav", "ann/wavs/x-2.flac"]


def test_vctk_layout(tmp_path: Path) -> None:
    root = tmp_path / "own"
    for speaker in ("p1", "p2"):
        recording(root / "wav48" / speaker / f"{speaker}_001.wav")
        (root / "txt" / speaker).mkdir(parents=True)
        (root / "txt" / speaker / f"{speaker}_001.txt").write_text("Please call.\n")
    info, table, _ = build(root)
    assert "vctk (detected)" in info.note
    assert table[["utt_id", "speaker", "text"]].to_numpy().tolist() == [
        ["p1_001", "p1", "Please call."],
        ["p2_001", "p2", "Please call."],
    ]


def test_a_layout_that_is_named_is_not_guessed(root: Path) -> None:
    write(root, *GOOD)
    assert "(detected)" not in build(root, layout="metadata")[0].note
    with pytest.raises(UserError, match=r"metadata.csv in the layout of LJ Speech holds one speaker.*<speaker>/wavs"):
        build(root, layout="ljspeech")
    with pytest.raises(UserError, match="expected a folder wav48"):
        build(root, layout="vctk")


def test_an_unknown_layout_says_what_was_found(tmp_path: Path) -> None:
    recording(tmp_path / "tape.wav")
    (tmp_path / "sub").mkdir()
    with pytest.raises(UserError, match=r"expected metadata.csv.*Found: sub/, tape.wav"):
        detect(tmp_path)
    with pytest.raises(UserError, match="Found: an empty folder"):
        detect(tmp_path / "sub")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.path: .*nowhere: no such folder. Expected"):
        build(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"utt_id,speaker,text\na,b,c\n", "column path is missing. Expected .*found: utt_id, speaker, text"),
        (b"", "cannot be read as CSV"),
        (b'speaker,path,text\na,b.wav,"open\n', "cannot be read as CSV"),
        ("speaker,path,text\na,b.wav,café\n".encode("latin-1"), "UTF-8"),
    ],
)
def test_bad_metadata_is_explained(root: Path, content: bytes, message: str) -> None:
    (root / "metadata.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        build(root, layout="metadata")
    assert str(root / "metadata.csv") in str(error.value)


def test_a_byte_order_mark_and_spaces_in_the_header_do_no_harm(root: Path) -> None:
    text = "utt_id, speaker ,path,text\n" + "\n".join(GOOD)
    (root / "metadata.csv").write_text(text, encoding="utf-8-sig")
    assert build(root)[0].utterances == 4


def test_one_speaker_is_too_few_and_the_reasons_are_summed_up(root: Path) -> None:
    write(root, *GOOD[:2], "b1,bob,bob/8.wav,One", "b2,bob,bob/9.wav,Two")
    with pytest.raises(UserError, match=r"1 speaker\(s\).*expected at least 2. Rejected: 2 missing file") as error:
        build(root)
    assert str(root) in str(error.value)


def test_limits_choose_by_the_seed(root: Path) -> None:
    write(root, *GOOD)
    info, table, _ = build(root, utterances=1)
    assert (info.speakers, info.utterances) == (2, 2)
    assert table["speaker"].tolist() == ["ann", "bob"]


@given(
    counts=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 6), min_size=2),
    speakers=st.integers(0, 7),
    utterances=st.integers(0, 7),
    seed=st.integers(0, 99),
    order=st.randoms(use_true_random=False),
)
def test_choice_keeps_to_the_limits_and_not_to_the_order(
    counts: dict[str, int], speakers: int, utterances: int, seed: int, order: Any
) -> None:
    rows = [(f"{name}{k}", name) for name, count in counts.items() for k in range(count)]
    table = pd.DataFrame(rows, columns=["utt_id", "speaker"])
    chosen = choose(table, speakers, utterances, seed)
    sizes = chosen.groupby("speaker").size().to_dict()
    assert len(sizes) == (min(speakers, len(counts)) if speakers else len(counts))
    for name, size in sizes.items():
        assert size == (min(utterances, counts[str(name)]) if utterances else counts[str(name)])
    order.shuffle(rows)
    again = choose(pd.DataFrame(rows, columns=["utt_id", "speaker"]), speakers, utterances, seed)
    assert set(again["utt_id"]) == set(chosen["utt_id"])


@pytest.mark.parametrize(("name", "speakers", "utterances"), [("fsdd", 6, 3000), ("speechocean762_adults60", 60, 1200)])
def test_real_recordings(corpora: Path, tmp_path: Path, name: str, speakers: int, utterances: int) -> None:
    settings = config.Corpus(source="folder", path=str(corpora / name), utterances=0)
    info = Folder().build(settings, tmp_path, seed=1, workers=0)
    assert (info.speakers, info.utterances, info.rejected) == (speakers, utterances, 0)
    assert json.loads((tmp_path / "corpus.json").read_text())["root"] == (corpora / name).as_posix()
