"""Prepare: what is kept, what is left out and why, interruption, damage."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from metaspeech.config import Prepare
from metaspeech.data import chunks, prepare, publish, shards
from metaspeech.data.manifest import check_manifest, read_corpus
from metaspeech.data.prepare import prepare_corpus
from metaspeech.data.statistics import read_statistics
from metaspeech.data.store import Store
from metaspeech.errors import UserError
from metaspeech.text.frontend import Frontend
from tests.conftest import REPOSITORY
from tests.speech import save_corpus, syllables, write_corpus

OWN = ""  # statistics: those of the corpus
ONE = Prepare(workers=1, statistics=OWN)


def run(corpus: Path, out: Path, config: Prepare = ONE) -> publish.Summary:
    return prepare_corpus(corpus, out, config, progress=False)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    folder = tmp_path_factory.mktemp("prepared")
    table = write_corpus(folder / "corpus", rate=22050, gender="f")
    run(folder / "corpus", folder / "out")
    return table, folder / "out"


def test_a_store_gives_back_every_utterance(prepared: tuple[pd.DataFrame, Path]) -> None:
    table, out = prepared
    store = Store(out)
    store.verify()
    assert sorted(store.manifest.index) == sorted(table["utt_id"])
    assert set(store.manifest["gender"]) == {"f"}
    for row in table.itertuples():
        mel, audio = store.mel(row.utt_id), store.audio(row.utt_id)
        assert mel.shape == (len(audio) // store.settings["hop"] + 1, 80)
        assert len(audio) / 16000 == pytest.approx(
            0.4 + 0.05 * int(row.utt_id[-1]) + 0.1, abs=0.04
        )  # with both margins
        assert audio.std() > 0.02
        assert store.manifest.loc[row.utt_id, "text"] == row.text.lower()
        assert list(store.tokens(row.utt_id)) == Frontend(store.settings["text"]).encode(row.text.lower())


def test_utterances_are_not_mixed_up(prepared: tuple[pd.DataFrame, Path]) -> None:
    """Each speaker hums at a pitch of its own (100, 130, 160 Hz), which must come back under the right name."""
    store = Store(prepared[1])
    for speaker in range(3):
        audio = store.audio(f"s{speaker}_1")
        spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 160000))
        assert np.argmax(spectrum[600:1900]) / 10 + 60 == pytest.approx(100 + 30 * speaker, abs=3)


def test_statistics_are_those_of_all_frames(prepared: tuple[pd.DataFrame, Path]) -> None:
    store = Store(prepared[1])
    frames = np.concatenate([store.mel(utt_id) for utt_id in store.manifest.index])
    np.testing.assert_allclose(store.mel_mean, frames.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(store.mel_std, frames.std(axis=0), rtol=1e-3)
    normalised = np.concatenate([store.normalised_mel(utt_id) for utt_id in store.manifest.index])
    np.testing.assert_allclose(normalised.std(axis=0), 1, atol=1e-2)
    np.testing.assert_allclose(store.denormalise(normalised), frames, atol=1e-4)


SHIPPED = Prepare(workers=1, statistics=str(REPOSITORY / "assets" / "mel_statistics.json"))


def test_statistics_of_a_file_take_the_place_of_the_corpus_own(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    run(tmp_path / "corpus", tmp_path / "own")
    run(tmp_path / "corpus", tmp_path / "shipped", SHIPPED)
    numbers = json.loads(Path(SHIPPED.statistics).read_text())
    found, own = (json.loads((tmp_path / name / "store.json").read_text()) for name in ("shipped", "own"))
    names = ("mel_mean", "mel_std")
    assert {name: found[name] for name in names} == {name: numbers[name] for name in names}
    assert {k: v for k, v in found.items() if k not in names} == {k: v for k, v in own.items() if k not in names}
    store = Store(tmp_path / "shipped")
    np.testing.assert_allclose(store.denormalise(store.normalised_mel("s0_0")), store.mel("s0_0"), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"hop": 200}, r"prepare\.hop: 200, but the mel statistics of .*mel_statistics\.json are those of hop 256"),
        ({"fmax": 7600.0}, r"prepare\.fmax: 7600\.0, .* fmax 8000\.0"),
        ({"statistics": "nowhere.json"}, r"prepare\.statistics: nowhere\.json: no such file"),
    ],
)
def test_statistics_of_other_features_are_refused_before_anything_is_done(
    tmp_path: Path, change: dict[str, object], expected: str
) -> None:
    write_corpus(tmp_path / "corpus")
    with pytest.raises(UserError, match=expected + ".* set prepare.statistics to '' and pretrain.init to none"):
        run(tmp_path / "corpus", tmp_path / "out", replace(SHIPPED, **change))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("mel_std"),
        lambda content: content["mel_mean"].pop(),
        lambda content: content["mel_std"].__setitem__(3, 0.0),
        lambda content: content["mel_mean"].__setitem__(3, float("nan")),
        lambda content: content["settings"].pop("hop"),
    ],
)
def test_damaged_statistics_are_named(tmp_path: Path, damage: object) -> None:
    content = json.loads(Path(SHIPPED.statistics).read_text())
    damage(content)  # type: ignore[operator]
    path = tmp_path / "statistics.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"prepare\.statistics: .*statistics\.json"):
        read_statistics(path, Prepare())


def test_a_batch_is_padded_and_normalised(prepared: tuple[pd.DataFrame, Path]) -> None:
    store = Store(prepared[1])
    batch = store.batch(["s0_0", "s1_3"])
    assert batch.mel_lengths.tolist() == [len(store.mel("s0_0")), len(store.mel("s1_3"))]
    assert batch.token_lengths.tolist() == [len(store.tokens("s0_0")), len(store.tokens("s1_3"))]
    np.testing.assert_array_equal(batch.mels[1].numpy(), store.normalised_mel("s1_3"))
    assert batch.mels[0, batch.mel_lengths[0] :].abs().sum() == 0
    assert store.features().n_mels == 80
    assert store.features().symbols == len(store.symbols)


def test_the_number_of_processes_and_the_order_of_the_table_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "CHUNK", 3)
    table = write_corpus(tmp_path / "corpus", speakers=4, utterances=7)
    run(tmp_path / "corpus", tmp_path / "one")
    run(tmp_path / "corpus", tmp_path / "two", Prepare(workers=2, statistics=OWN))
    save_corpus(tmp_path / "corpus", table.sample(frac=1, random_state=1))
    run(tmp_path / "corpus", tmp_path / "shuffled")
    assert content(tmp_path / "one") == content(tmp_path / "two") == content(tmp_path / "shuffled")


def test_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "CHUNK", 2)
    monkeypatch.setattr(prepare, "_MEGABYTE", 100_000)
    write_corpus(tmp_path / "corpus")
    run(tmp_path / "corpus", tmp_path / "many", Prepare(workers=1, statistics=OWN, shard_mb=1))
    run(tmp_path / "corpus", tmp_path / "one", Prepare(workers=1, statistics=OWN, shard_mb=100))
    many, one = Store(tmp_path / "many"), Store(tmp_path / "one")
    assert many.manifest["shard"].nunique() > 2
    assert one.manifest["shard"].nunique() == 1
    many.verify()
    np.testing.assert_allclose(many.mel_mean, one.mel_mean, rtol=1e-6)
    for utt_id in one.manifest.index:
        np.testing.assert_array_equal(many.mel(utt_id), one.mel(utt_id))
        np.testing.assert_array_equal(many.audio(utt_id), one.audio(utt_id))


def test_segments_of_a_long_recording(tmp_path: Path) -> None:
    pieces = [syllables(0.5, pitch=100 + 40 * k) for k in range(4)]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    soundfile.write(corpus / "long.flac", np.concatenate(pieces), 16000)
    rows = [(f"u{k}", f"s{k % 2}", "long.flac", "a text", 8000.0 * k, 8000.0 * (k + 1)) for k in range(4)]
    save_corpus(corpus, pd.DataFrame(rows, columns=["utt_id", "speaker", "path", "text", "start", "stop"]))
    run(corpus, tmp_path / "out")
    store = Store(tmp_path / "out")
    for k, piece in enumerate(pieces):
        audio = store.audio(f"u{k}")[800:-800]
        assert abs(len(audio) - len(piece)) < 400
        assert np.corrcoef(audio[:7600], piece[:7600])[0, 1] > 0.99


def test_each_bad_entry_is_left_out_with_its_reason(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    table = write_corpus(corpus)
    speech = syllables(0.6)
    sounds = {
        "silent": np.zeros(8000),
        "clipped": np.clip(speech * 100, -1, 1),
        "short": speech[:1200],
        "long": np.tile(speech, 30),
        "endless": np.tile(speech, 120),
        "nothing": np.zeros(0),
        "fine": speech,
    }
    for name, samples in sounds.items():
        soundfile.write(corpus / f"{name}.wav", samples, 16000)
    soundfile.write(corpus / "odd_rate.wav", speech, 15_991)
    soundfile.write(corpus / "huge_rate.wav", speech, 2**31 - 1)
    (corpus / "noise.wav").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "outside.wav").write_bytes((corpus / "fine.wav").read_bytes())
    bad = [
        ("missing", "absent.wav", "a text", "missing file"),
        ("unreadable", "noise.wav", "a text", "unreadable audio"),
        ("odd_rate", "odd_rate.wav", "a text", "unreadable audio"),
        ("huge_rate", "huge_rate.wav", "a text", "unreadable audio"),
        ("no_text", "fine.wav", " ?! ", "empty text"),
        ("none_text", "fine.wav", None, "empty text"),
        ("letters", "fine.wav", "\u0436\u0430\u0431\u0430", "unknown symbols"),
        ("silent", "silent.wav", "a text", "silence"),
        ("clipped", "clipped.wav", "a text", "clipping"),
        ("short", "short.wav", "a text", "too short"),
        ("nothing", "nothing.wav", "a text", "too short"),
        ("long", "long.wav", "a text", "too long"),
        ("endless", "endless.wav", "a text", "too long"),
        ("s0_0", "fine.wav", "a text", "duplicate id"),
        ("outside", "../outside.wav", "a text", "path outside the folder"),
        ("absolute", str(tmp_path / "outside.wav"), "a text", "path outside the folder"),
    ]
    extra = pd.DataFrame(bad, columns=["utt_id", "path", "text", "reason"]).assign(speaker="s0")
    save_corpus(corpus, pd.concat([table, extra.drop(columns="reason")], ignore_index=True))
    pd.DataFrame(
        [("early", "s9", "x.wav", "corpus", "no text")], columns=["utt_id", "speaker", "path", "stage", "reason"]
    ).to_csv(corpus / "rejected.csv", index=False)

    summary = run(corpus, tmp_path / "out", Prepare(workers=1, statistics=OWN, max_rejected=0.9))

    assert sorted(Store(tmp_path / "out").manifest.index) == sorted(table["utt_id"])
    rejected = pd.read_csv(tmp_path / "out" / "rejected.csv").set_index("path")
    assert rejected.loc["x.wav", "stage"] == "corpus"
    written = rejected[rejected["stage"] == "prepare"].reset_index().set_index("utt_id")
    assert sorted(written.index) == sorted(extra["utt_id"])
    for row in extra.itertuples():
        assert written.loc[row.utt_id, "reason"].startswith(row.reason), written.loc[row.utt_id, "reason"]
    assert summary.utterances == len(table)
    assert sum(summary.rejected.values()) == len(bad)
    assert summary.rejected["too long"] == 2


def test_an_empty_list_of_rejected_is_written_too(prepared: tuple[pd.DataFrame, Path]) -> None:
    rejected = pd.read_csv(prepared[1] / "rejected.csv")
    assert list(rejected.columns) == ["utt_id", "speaker", "path", "stage", "reason"]
    assert rejected.empty


def test_too_many_bad_entries_stop_with_a_summary_and_keep_earlier_results(tmp_path: Path) -> None:
    table = write_corpus(tmp_path / "corpus")
    run(tmp_path / "corpus", tmp_path / "out")
    before = content(tmp_path / "out")
    for row in table.iloc[:5].itertuples():
        (tmp_path / "corpus" / row.path).unlink()
    with pytest.raises(UserError) as caught:
        run(tmp_path / "corpus", tmp_path / "out")
    message = str(caught.value)
    assert "5 of 12 utterances" in message
    assert "prepare.max_rejected" in message
    assert "5 x missing file" in message
    listed = tmp_path / "out" / ".work" / "rejected.csv"
    assert str(listed) in message
    assert len(pd.read_csv(listed)) == 5
    assert {name: data for name, data in content(tmp_path / "out").items() if ".work" not in name} == before
    assert (
        run(tmp_path / "corpus", tmp_path / "out", Prepare(workers=1, statistics=OWN, max_rejected=0.5)).utterances == 7
    )
    Store(tmp_path / "out").verify()


def test_nothing_usable_is_an_error_whatever_the_share(tmp_path: Path) -> None:
    table = write_corpus(tmp_path / "corpus", speakers=1).assign(path="../x.wav")
    save_corpus(tmp_path / "corpus", table)
    with pytest.raises(UserError, match="4 x path outside the folder"):
        run(tmp_path / "corpus", tmp_path / "out", Prepare(workers=1, statistics=OWN, max_rejected=1))


def test_changed_settings_and_recordings_are_prepared_again(tmp_path: Path) -> None:
    table = write_corpus(tmp_path / "corpus")
    run(tmp_path / "corpus", tmp_path / "out")
    first = Store(tmp_path / "out").mel("s0_0")
    run(tmp_path / "corpus", tmp_path / "out", Prepare(workers=1, statistics=OWN, n_mels=40))
    assert Store(tmp_path / "out").mel("s0_0").shape == (len(first), 40)
    soundfile.write(tmp_path / "corpus" / table["path"][0], syllables(1.5), 16000)
    run(tmp_path / "corpus", tmp_path / "out", Prepare(workers=1, statistics=OWN, n_mels=40))
    assert len(Store(tmp_path / "out").mel("s0_0")) > 2 * len(first)


@pytest.mark.parametrize("stop_at", [2, 5, 7])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int) -> None:
    monkeypatch.setattr(prepare, "CHUNK", 2)
    monkeypatch.setattr(prepare, "_MEGABYTE", 150_000)
    config = Prepare(workers=1, statistics=OWN, shard_mb=1)
    write_corpus(tmp_path / "corpus", speakers=4)
    run(tmp_path / "corpus", tmp_path / "undisturbed", config)
    made: list[int] = []
    write = chunks._write_arrays

    def counted(chunk: chunks.Chunk, done: list[object]) -> None:
        if len(made) == stop_at:
            raise KeyboardInterrupt
        made.append(chunk.index)
        write(chunk, done)  # type: ignore[arg-type]

    monkeypatch.setattr(chunks, "_write_arrays", counted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "corpus", tmp_path / "out", config)
    stop_at = 100
    run(tmp_path / "corpus", tmp_path / "out", config)
    assert sorted(made) == list(range(8)), "no chunk is done twice"
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


KILLED = """
import sys
from pathlib import Path
from metaspeech.config import Prepare
from metaspeech.data import prepare
prepare.CHUNK = 4
prepare._MEGABYTE = 400_000
if __name__ == "__main__":
    config = Prepare(workers=2, statistics="", shard_mb=1)
    prepare.prepare_corpus(Path(sys.argv[1]), Path(sys.argv[2]), config, progress=False)
"""


def test_a_killed_run_ends_in_the_bytes_of_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "corpus", speakers=10, utterances=10)
    script = tmp_path / "prepare_killed.py"
    script.write_text(KILLED, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    process = psutil.Popen([sys.executable, script, tmp_path / "corpus", tmp_path / "out"], env=environment)
    work = tmp_path / "out" / ".work"
    deadline = time.monotonic() + 120
    while not list(work.glob("chunk-*.parquet")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = process.children(recursive=True)
    process.kill()
    process.wait()
    assert not (tmp_path / "out" / "store.json").exists(), "the run was over before it could be killed"
    assert list(work.glob("*-*.parquet"))
    assert workers
    assert psutil.wait_procs(workers, timeout=30)[1] == [], "workers outlive their parent"

    monkeypatch.setattr(prepare, "CHUNK", 4)
    monkeypatch.setattr(prepare, "_MEGABYTE", 400_000)
    for out in ("out", "undisturbed"):
        run(tmp_path / "corpus", tmp_path / out, Prepare(workers=1, statistics=OWN, shard_mb=1))
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")
    Store(tmp_path / "out").verify()


@pytest.mark.parametrize(("module", "step"), [(shards, "_join"), (publish, "write_table"), (publish, "_index")])
def test_a_full_disk_is_said_and_keeps_earlier_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str
) -> None:
    write_corpus(tmp_path / "corpus")
    run(tmp_path / "corpus", tmp_path / "out")
    before = content(tmp_path / "out")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, step, full)
        with pytest.raises(UserError, match="no space left on the disk") as caught:
            run(tmp_path / "corpus", tmp_path / "out", Prepare(workers=1, statistics=OWN, n_mels=40))
    assert str(tmp_path / "out") in str(caught.value)
    assert {name: data for name, data in content(tmp_path / "out").items() if ".work" not in name} == before
    run(tmp_path / "corpus", tmp_path / "out", Prepare(workers=1, statistics=OWN, n_mels=40))
    assert Store(tmp_path / "out").features().n_mels == 40


def test_an_interruption_while_replacing_is_mended_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "corpus")
    run(tmp_path / "corpus", tmp_path / "out")
    finished = content(tmp_path / "out")
    replace = os.replace

    def interrupted(source: Path, target: Path) -> None:
        if Path(target) == tmp_path / "out" / "manifest.parquet":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(publish.os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "corpus", tmp_path / "out")
    with pytest.raises(UserError, match=r"store\.json"):
        Store(tmp_path / "out")
    run(tmp_path / "corpus", tmp_path / "out")
    assert content(tmp_path / "out") == finished


def damaged(prepared: tuple[pd.DataFrame, Path], tmp_path: Path) -> Path:
    for name, data in content(prepared[1]).items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("mel-00000.npy", lambda path: path.unlink(), "missing"),
        ("audio-00000.npy", lambda path: path.write_bytes(path.read_bytes()[:-7]), "corrupt"),
        ("store.json", lambda path: path.unlink(), "no such file"),
        ("store.json", lambda path: path.write_text('{"settings": {}'), "cannot be read"),
        ("store.json", lambda path: path.write_text("{}"), "missing or malformed"),
        ("manifest.parquet", lambda path: path.write_bytes(b"PAR1"), "corrupt"),
        ("manifest.parquet", lambda path: path.write_bytes(bytes(path.stat().st_size)), "cannot be read as parquet"),
        ("manifest.parquet", lambda path: path.unlink(), "missing"),
    ],
)
def test_damage_is_named_when_a_store_is_opened(
    prepared: tuple[pd.DataFrame, Path], tmp_path: Path, name: str, damage: object, message: str
) -> None:
    folder = damaged(prepared, tmp_path)
    damage(folder / name)  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as caught:
        Store(folder)
    assert name in str(caught.value)
    assert "dvc repro" in str(caught.value)


def test_changed_bytes_are_found_by_verify(prepared: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    folder = damaged(prepared, tmp_path)
    data = bytearray((folder / "mel-00000.npy").read_bytes())
    data[-5] ^= 1
    (folder / "mel-00000.npy").write_bytes(data)
    with pytest.raises(UserError, match=r"mel-00000\.npy: corrupt shard"):
        Store(folder).verify()


def test_a_shard_without_its_header_is_corrupt(prepared: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    folder = damaged(prepared, tmp_path)
    path = folder / "mel-00000.npy"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match=r"mel-00000\.npy: corrupt shard"):
        Store(folder).mel("s0_0")


def test_an_unknown_utterance_is_named(prepared: tuple[pd.DataFrame, Path]) -> None:
    with pytest.raises(UserError, match="no utterance 'nobody'"):
        Store(prepared[1]).mel("nobody")


def test_a_table_without_a_column_is_refused_by_name(tmp_path: Path) -> None:
    table = write_corpus(tmp_path / "corpus")
    save_corpus(tmp_path / "corpus", table.drop(columns="speaker"))
    with pytest.raises(UserError, match="column speaker is missing"):
        read_corpus(tmp_path / "corpus" / "corpus.parquet")
    save_corpus(tmp_path / "corpus", table.assign(speaker=""))
    with pytest.raises(UserError, match=r"not as expected.*speaker"):
        read_corpus(tmp_path / "corpus" / "corpus.parquet")


def test_a_manifest_that_breaks_the_schema_is_refused(prepared: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    table = pq.read_table(prepared[1] / "manifest.parquet")
    path = tmp_path / "manifest.parquet"
    check_manifest(table, path)
    for broken, message in (
        (table.sort_by([("utt_id", "descending")]), "utt_id: not sorted"),
        (pa.concat_tables([table.slice(0, 1), table]), "not unique"),
        (
            table.set_column(table.column_names.index("frames"), "frames", pa.array([0] * len(table), pa.int32())),
            "frames",
        ),
        (table.drop_columns("shard"), "column shard is missing"),
        (table.slice(0, 0), "tokens"),
    ):
        with pytest.raises(UserError, match=message):
            check_manifest(broken, path)


@pytest.mark.parametrize("text", [None, "[]", '{"root": "nowhere"}'])
def test_a_corpus_without_its_root_is_said(tmp_path: Path, text: str | None) -> None:
    write_corpus(tmp_path)
    (tmp_path / "corpus.json").unlink()
    if text:
        (tmp_path / "corpus.json").write_text(text)
    with pytest.raises(UserError, match=r"corpus\.json"):
        run(tmp_path, tmp_path / "out")


def test_settings_are_stored(prepared: tuple[pd.DataFrame, Path]) -> None:
    settings = Store(prepared[1]).settings
    assert settings["hop"] == ONE.hop
    assert "workers" not in settings
    assert json.loads((prepared[1] / "store.json").read_text())["symbols"][0] == "<pad>"


@pytest.mark.parametrize("name", ["speechocean762_adults60", "fsdd"])
def test_real_recordings(corpora: Path, tmp_path: Path, name: str) -> None:
    table = pd.read_csv(corpora / name / "metadata.csv", dtype="str").iloc[::25]
    save_corpus(tmp_path / "corpus", table, root=str(corpora / name))
    summary = run(tmp_path / "corpus", tmp_path / "out")
    store = Store(tmp_path / "out")
    assert summary.utterances >= 0.95 * len(table)
    assert sum(summary.rejected.values()) + summary.utterances == len(table)
    levels = [20 * np.log10(np.sqrt(np.mean(np.square(store.audio(utt_id))))) for utt_id in store.manifest.index]
    assert -29 < np.median(levels) < -22, "pauses included, hence below the -23 dB of speech"
    assert max(np.abs(store.audio(utt_id)).max() for utt_id in store.manifest.index) < 0.995
