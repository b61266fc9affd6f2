"""Loaders of published corpora, each on a miniature of its layout, and downloads from a server of our own."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from typer import Typer
from typer.testing import CliRunner

from metaspeech import config
from metaspeech.corpora.archives import Archive, fetch, unpack
from metaspeech.corpora.audiomnist import AudioMnist
from metaspeech.corpora.base import CorpusInfo
from metaspeech.corpora.download import download, published
from metaspeech.corpora.libritts import LibriTts
from metaspeech.corpora.ljspeech import LjSpeech
from metaspeech.corpora.published import Published
from metaspeech.corpora.speechocean762 import SpeechOcean762
from metaspeech.corpora.vctk import Vctk
from metaspeech.errors import UserError


def recording(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.sin(np.arange(400) / 20) / 2, 16000, format="FLAC" if path.suffix == ".flac" else "WAV")


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def build(corpus: Published, path: Path, out: Path) -> tuple[CorpusInfo, pd.DataFrame, dict[str, str]]:
    info = corpus.build(config.Corpus(source=corpus.name, path=str(path), utterances=0), out, seed=1, workers=0)
    rejected = pd.read_csv(out / "rejected.csv", dtype=str)
    table = pd.read_parquet(out / "corpus.parquet").set_index("utt_id")
    return info, table, dict(zip(rejected["utt_id"], rejected["reason"], strict=True))


def test_vctk(tmp_path: Path) -> None:
    root = tmp_path / "VCTK-Corpus-0.92"
    for name in ("p225/p225_001_mic1", "p225/p225_001_mic2", "p280/p280_002_mic2", "p315/p315_001_mic1"):
        recording(root / "wav48_silence_trimmed" / f"{name}.flac")
    text(root / "wav48_silence_trimmed" / "log.txt", "not a speaker")
    text(root / "txt/p225/p225_001.txt", "Please call Stella.\n")
    text(root / "txt/p280/p280_002.txt", "Ask her.\n")
    text(
        root / "speaker-info.txt",
        "ID  AGE  GENDER  ACCENTS  REGION COMMENTS\np225  23  F    English    Southern  England\n",
    )
    info, table, rejected = build(Vctk(), tmp_path, tmp_path / "out")
    assert info.root == root.as_posix()
    assert table.index.tolist() == ["p225_001", "p280_002"]
    assert table.loc["p225_001", ["speaker", "path", "text", "gender", "age", "accent"]].tolist() == [
        "p225",
        "wav48_silence_trimmed/p225/p225_001_mic1.flac",
        "Please call Stella.",
        "f",
        "23",
        "English",
    ]
    assert table.loc["p280_002", "path"].endswith("_mic2.flac")
    assert rejected == {"p315_001": "empty text"}


def test_vctk_of_the_first_release(tmp_path: Path) -> None:
    for speaker in ("p225", "p226"):
        recording(tmp_path / "wav48" / speaker / f"{speaker}_001.wav")
        text(tmp_path / "txt" / speaker / f"{speaker}_001.txt", "Please call Stella.")
    text(tmp_path / "speaker-info.txt", "ID  AGE  GENDER  ACCENTS  REGION\n225  23  F    English    Surrey\n")
    _, table, _ = build(Vctk(), tmp_path, tmp_path / "out")
    assert table["gender"].to_dict() == {"p225_001": "f", "p226_001": ""}


def test_libritts(tmp_path: Path) -> None:
    root = tmp_path / "LibriTTS"
    for name in ("dev-clean/84/121123/84_121123_000007_000001", "train-clean-100/103/1241/103_1241_000000_000001"):
        recording(root / f"{name}.wav")
        text(root / f"{name}.normalized.txt", "mister Smith")
        text(root / f"{name}.original.txt", "Mr. Smith")
    text(root / "speakers.tsv", "READER\tGENDER\tSUBSET NAME\n84\tF\tdev-clean\tChristie Nowak\n")
    info, table, rejected = build(LibriTts(), tmp_path, tmp_path / "out")
    assert rejected == {}
    assert info.speakers == 2
    assert table.loc["84_121123_000007_000001", ["speaker", "text", "gender", "subset", "path"]].tolist() == [
        "84",
        "mister Smith",
        "f",
        "dev-clean",
        "dev-clean/84/121123/84_121123_000007_000001.wav",
    ]


def test_ljspeech(tmp_path: Path) -> None:
    root = tmp_path / "LJSpeech-1.1"
    recording(root / "wavs/LJ001-0001.wav")
    recording(root / "wavs/LJ001-0002.wav")
    text(root / "metadata.csv", 'LJ001-0001|in 1846, "so|in eighteen forty-six, "so\nLJ001-0002|modern|modern\n')
    info, table, _ = build(LjSpeech(), tmp_path, tmp_path / "out")
    assert (info.speakers, info.utterances) == (1, 2)
    assert table["text"].tolist() == ['in eighteen forty-six, "so', "modern"]
    text(root / "metadata.csv", "LJ001-0001|fine\nLJ001-0002 no bar\n")
    with pytest.raises(UserError, match=r"metadata.csv: line 2: expected id\|text"):
        build(LjSpeech(), root, tmp_path / "out")


def test_speechocean762(tmp_path: Path) -> None:
    for part, speaker, utt_id in (("train", "0001", "000010011"), ("test", "0003", "000030012")):
        recording(tmp_path / f"WAVE/SPEAKER{speaker}/{utt_id}.WAV")
        text(tmp_path / part / "wav.scp", f"{utt_id}\tWAVE/SPEAKER{speaker}/{utt_id}.WAV\n")
        text(tmp_path / part / "text", f"{utt_id}\tWE CALL IT BEAR\n")
        text(tmp_path / part / "utt2spk", f"{utt_id} {speaker}\n")
        text(tmp_path / part / "spk2gender", f"{speaker} m\n")
        text(tmp_path / part / "spk2age", f"{speaker} 6\n")
    info, table, rejected = build(SpeechOcean762(), tmp_path, tmp_path / "out")
    assert rejected == {}
    assert info.speakers == 2
    assert table.loc["000030012", ["speaker", "text", "gender", "age", "subset"]].tolist() == [
        "0003",
        "WE CALL IT BEAR",
        "m",
        "6",
        "test",
    ]


def test_audiomnist(tmp_path: Path) -> None:
    for name in ("01/0_01_0", "01/9_01_49", "02/3_02_7", "02/x_02_7"):
        recording(tmp_path / "data" / f"{name}.wav")
    text(tmp_path / "data/audioMNIST_meta.txt", '{"01": {"accent": "german", "age": 30, "gender": "male"}}')
    _, table, rejected = build(AudioMnist(), tmp_path, tmp_path / "out")
    assert table["text"].to_dict() == {"0_01_0": "zero", "3_02_7": "three", "9_01_49": "nine"}
    assert table.loc["0_01_0", ["gender", "age", "accent"]].tolist() == ["m", "30", "german"]
    assert table.loc["3_02_7", "gender"] == ""
    assert rejected == {"x_02_7": "empty text"}
    text(tmp_path / "data/audioMNIST_meta.txt", "{")
    with pytest.raises(UserError, match=r"audioMNIST_meta.txt: is not JSON"):
        build(AudioMnist(), tmp_path, tmp_path / "out")


@pytest.mark.parametrize("corpus", [Vctk(), LibriTts(), LjSpeech(), SpeechOcean762(), AudioMnist()])
def test_a_missing_corpus_says_where_it_was_looked_for_and_how_to_get_it(corpus: Published, tmp_path: Path) -> None:
    for path, found in ((tmp_path, "nothing matches"), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(UserError) as error:
            build(corpus, path, tmp_path / "out")
        message = str(error.value)
        assert message.startswith(f"corpus.path: {path}: {found}")
        assert corpus.folders[0] in message
        assert f"metaspeech.corpora.download {corpus.name} {path}" in message


def test_checksums_are_those_of_torchaudio() -> None:
    from torchaudio.datasets import libritts, ljspeech, vctk

    assert [Vctk.archives["0.92"].sha256] == list(vctk._CHECKSUMS.values())
    assert LjSpeech.archives["1.1"].sha256 == ljspeech._RELEASE_CONFIGS["release1"]["checksum"]
    theirs = {url.split("/")[-1]: checksum for url, checksum in libritts._CHECKSUMS.items()}
    assert {archive.url.split("/")[-1]: archive.sha256 for archive in LibriTts.archives.values()} == theirs


class Server(BaseHTTPRequestHandler):
    """Serves bytes with ranges; breaks the first answer off after some of them."""

    def __init__(self, *args: object, state: dict[str, object], **options: object) -> None:
        self.state = state
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        content, breaks = self.state["content"], self.state.pop("break_after", None)
        assert isinstance(content, bytes)
        ranged = self.headers.get("Range") if self.state.get("ranges", True) else None
        start = int(ranged.removeprefix("bytes=").rstrip("-")) if ranged else 0
        self.state.setdefault("starts", []).append(start)  # type: ignore[attr-defined]
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:breaks] if isinstance(breaks, int) else content[start:])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(**state: object) -> Iterator[tuple[str, dict[str, object]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, state=state))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/files/corpus.tar.gz", state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def tar(members: dict[str, bytes], link: tuple[str, str] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link[0])
            info.type, info.linkname = tarfile.SYMTYPE, link[1]
            archive.addfile(info)
    return stream.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


CONTENT = tar({"mini/a.txt": b"a", "mini/sub/b.bin": np.random.default_rng(0).bytes(50_000)})


def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serve(content=CONTENT, break_after=20_000) as (url, state):
        archive = Archive(url, sha256(CONTENT))
        with pytest.raises(UserError, match=r"Start again: what has arrived is kept in .*corpus.tar.gz.part"):
            fetch(archive, tmp_path)
        assert (tmp_path / "corpus.tar.gz.part").stat().st_size == 20_000
        assert not (tmp_path / "corpus.tar.gz").exists()
        assert fetch(archive, tmp_path).read_bytes() == CONTENT
        assert state["starts"] == [0, 20_000]
        fetch(archive, tmp_path)
        assert state["starts"] == [0, 20_000]  # what is there is not fetched again


def test_a_server_without_ranges_starts_over(tmp_path: Path) -> None:
    with serve(content=CONTENT, ranges=False) as (url, _):
        (tmp_path / "corpus.tar.gz.part").write_bytes(CONTENT[:100])
        assert fetch(Archive(url, sha256(CONTENT)), tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_whole_is_only_renamed(tmp_path: Path) -> None:
    with serve(content=CONTENT) as (url, _):
        (tmp_path / "corpus.tar.gz.part").write_bytes(CONTENT)
        assert fetch(Archive(url, sha256(CONTENT)), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_removed(tmp_path: Path) -> None:
    wrong = pytest.raises(UserError, match=f"the checksum is {sha256(CONTENT)}, expected 00ff.*removed")
    with serve(content=CONTENT) as (url, _), wrong:
        fetch(Archive(url, "00ff"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_gone_is_named(tmp_path: Path) -> None:
    with serve(content=CONTENT) as (url, _):
        pass
    with pytest.raises(UserError, match=url):
        fetch(Archive(url, ""), tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        tar({"fine.txt": b"", "../evil.txt": b"x"}),
        tar({"fine.txt": b"", "/tmp/evil.txt": b"x", "a/../../evil.txt": b"x"}),
        tar({"fine.txt": b""}, link=("door", "../..")),
    ],
)
def test_a_tar_that_leads_out_of_the_folder_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "evil.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match="Nothing was unpacked"):
        unpack(tmp_path / "evil.tar.gz", tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []
    assert not (tmp_path / "evil.txt").exists()


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt"])
def test_a_zip_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("fine.txt", "")
        archive.writestr(name, "x")
    with pytest.raises(UserError, match="Nothing was unpacked"):
        unpack(tmp_path / "evil.zip", tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.parametrize("content", [CONTENT[:30_000], b"<html>busy</html>"])
def test_a_damaged_archive_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"broken.tar.gz: is not a whole tar or zip archive"):
        unpack(tmp_path / "broken.tar.gz", tmp_path / "into")


def test_download_ends_in_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording(tmp_path / "made.wav")
    wav = (tmp_path / "made.wav").read_bytes()
    content = tar({"LJSpeech-1.1/metadata.csv": b"LJ1|one|one\n", "LJSpeech-1.1/wavs/LJ1.wav": wav})
    with serve(content=content) as (url, _):
        monkeypatch.setattr(LjSpeech, "archives", {"1.1": Archive(url, sha256(content))})
        app = Typer()
        app.command()(download)
        result = CliRunner().invoke(app, ["ljspeech", str(tmp_path / "got")])
    assert result.exit_code == 0, result.output
    assert f"corpus.path: {tmp_path / 'got'}" in result.output.replace("\n", "")
    assert [path.name for path in (tmp_path / "got").iterdir()] == ["LJSpeech-1.1"]
    assert build(LjSpeech(), tmp_path / "got", tmp_path / "out")[0].utterances == 1


def test_an_archive_without_a_folder_of_its_own_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(content=CONTENT) as (url, _):
        monkeypatch.setattr(Vctk, "archives", {"0.92": Archive(url, "", into="VCTK-Corpus-0.92")})
        Vctk().download(tmp_path)
    assert (tmp_path / "VCTK-Corpus-0.92" / "mini" / "a.txt").read_text() == "a"


def test_what_cannot_be_downloaded_says_what_can() -> None:
    with pytest.raises(UserError, match=r"'espeak' cannot be downloaded. These can: vctk, libritts, ljspeech"):
        published("espeak")
    with pytest.raises(UserError, match=r"libritts has no part 'train'. Known: dev-clean"):
        published("libritts").download(Path(), ("train",))
