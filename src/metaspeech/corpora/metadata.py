"""From a list of recordings to a corpus: what is checked before any audio is decoded, and who is chosen.

The audio stays where it is; corpus.json records the folder.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pandera.pandas as pa
import soundfile
from tqdm import tqdm

from metaspeech import config
from metaspeech.corpora.base import REJECTED_COLUMNS, CorpusInfo, write_corpus
from metaspeech.errors import UserError
from metaspeech.files import AUDIO_SUFFIXES, is_inside

COLUMNS = ["utt_id", "speaker", "path", "text"]
_NAME = re.compile(r"[^/\\\x00-\x1f]+")  # names become file names


def build(
    entries: pd.DataFrame,
    root: Path,
    config: config.Corpus,
    out: Path,
    seed: int,
    *,
    licence: str,
    language: str,
    note: str,
    least_speakers: int = 2,
) -> CorpusInfo:
    """Checks ``entries``, keeps as many speakers and utterances as ``config`` allows, and writes the corpus.

    Args:
        entries: utt_id, speaker, path (relative to ``root``, posix), text, all strings; optionally start and stop
            (samples) and further columns.
        root: the folder of the recordings.
        config: the section ``corpus`` of the params.
        out: where corpus.parquet, corpus.json and rejected.csv go.
        seed: chooses speakers and utterances.
        licence: of the recordings.
        language: of the texts, ISO 639-1.
        note: for a reader of corpus.json.
        least_speakers: fewer than so many are an error.

    Raises:
        UserError: too few speakers, or fewer than ``config.speakers``.
    """
    accepted, rejected = check(entries, root)
    chosen = choose(accepted, config.speakers, config.utterances, seed)
    readable, seconds, unreadable = _open_all(chosen, root)
    rejected = pd.concat([rejected, unreadable], ignore_index=True)
    speakers = readable["speaker"].nunique()
    if speakers < least_speakers:
        reasons = ", ".join(f"{count} {reason}" for reason, count in rejected["reason"].value_counts().items())
        raise UserError(
            f"{root}: {speakers} speaker(s) with usable recordings, expected at least {least_speakers}. "
            f"Rejected: {reasons or 'nothing'}."
        )
    info = CorpusInfo(
        source=config.source,
        root=root.as_posix(),
        licence=licence,
        language=language,
        note=note,
        speakers=speakers,
        utterances=len(readable),
        rejected=len(rejected),
        hours=seconds / 3600,
    )
    return write_corpus(out, info, readable, rejected)


def check(entries: pd.DataFrame, root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divides entries into accepted ones and rejected ones with the first reason found.

    Of several entries with one utt_id the first is kept.
    """
    entries = entries.reset_index(drop=True)
    try:
        _schema(root).validate(entries, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases.dropna(subset="index")
        reasons = cases.drop_duplicates("index").set_index("index")["check"]
    else:
        reasons = pd.Series(dtype="str")
    bad = entries.index.isin(reasons.index)
    accepted = entries[~bad]
    rejected = entries.loc[bad, COLUMNS[:3]].assign(stage="corpus", reason=reasons)
    repeated = accepted.duplicated("utt_id")
    duplicates = accepted.loc[repeated, COLUMNS[:3]].assign(stage="corpus", reason="duplicate utt_id")
    return accepted[~repeated].copy(), pd.concat([rejected, duplicates], ignore_index=True)


def choose(entries: pd.DataFrame, speakers: int, utterances: int, seed: int) -> pd.DataFrame:
    """At most ``speakers`` speakers and ``utterances`` of each (0: all), whatever the order of ``entries``."""
    names = sorted(entries["speaker"].unique())
    if 0 < speakers < len(names):
        names = random.Random(f"speakers {seed}").sample(names, speakers)
    chosen: list[str] = []
    for name, group in entries[entries["speaker"].isin(names)].groupby("speaker"):
        ids = sorted(group["utt_id"])
        if 0 < utterances < len(ids):
            ids = random.Random(f"utterances {seed} {name}").sample(ids, utterances)
        chosen += ids
    return entries[entries["utt_id"].isin(chosen)]


def _schema(root: Path) -> pa.DataFrameSchema:
    """Each check carries the reason that goes to rejected.csv."""
    base = root.resolve()

    def named(values: pd.Series) -> pd.Series:
        return values.map(lambda value: _NAME.fullmatch(value) is not None)

    def number(values: pd.Series) -> pd.Series:
        return values.map(lambda value: value == "" or value.isdecimal())

    def inside(paths: pd.Series) -> pd.Series:
        return paths.map(lambda path: is_inside(base, path))

    def present(paths: pd.Series) -> pd.Series:
        return paths.map(lambda path: _is_file(base / path))

    def audio(paths: pd.Series) -> pd.Series:
        return paths.str.lower().str.endswith(AUDIO_SUFFIXES)

    def segment(reason: str) -> pa.Column:
        return pa.Column(str, pa.Check(number, error=reason), required=False)

    return pa.DataFrameSchema(
        {
            "utt_id": pa.Column(str, pa.Check(named, error="utt_id is empty or contains a slash")),
            "speaker": pa.Column(str, pa.Check(named, error="speaker is empty or contains a slash")),
            "path": pa.Column(
                str,
                [
                    pa.Check(inside, error="path outside the folder"),
                    pa.Check(present, error="missing file"),
                    pa.Check(audio, error="not a wav, flac or ogg file"),
                ],
            ),
            "text": pa.Column(str, pa.Check(lambda texts: texts.str.strip() != "", error="empty text")),
            "start": segment("start is not a number of samples"),
            "stop": segment("stop is not a number of samples"),
        }
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _open_all(entries: pd.DataFrame, root: Path) -> tuple[pd.DataFrame, float, pd.DataFrame]:
    """Reads the header of every file. Returns the readable entries, their seconds in all, and the unreadable ones."""
    headers: dict[str, tuple[int, int] | None] = {}
    for path in tqdm(entries["path"].unique(), desc="files", unit="file", disable=None):
        headers[path] = _header(root / path)
    entries = entries.copy()
    for column in {"start", "stop"} & set(entries):
        entries[column] = pd.to_numeric(entries[column].replace("", None)).astype("Int64")
    reasons: list[str | None] = []
    seconds = 0.0
    for row in entries.to_dict("records"):
        header = headers[row["path"]]
        start, stop = row.get("start"), row.get("stop")
        first = 0 if start is None or start is pd.NA else int(start)
        if header is None:
            reasons.append("unreadable audio")
            continue
        frames, rate = header
        last = frames if stop is None or stop is pd.NA else int(stop)
        fits = first < last <= frames
        reasons.append(None if fits else "segment outside the file")
        seconds += fits * (last - first) / rate
    reason = pd.Series(reasons, index=entries.index, dtype="object")
    bad = reason.notna()
    rejected = entries.loc[bad, COLUMNS[:3]].assign(stage="corpus", reason=reason[bad])
    return entries[~bad], seconds, rejected[REJECTED_COLUMNS]


def _header(path: Path) -> tuple[int, int] | None:
    """(samples, sample rate), or None if libsndfile cannot read the file."""
    try:
        with soundfile.SoundFile(path) as file:
            return file.frames, file.samplerate
    except (soundfile.LibsndfileError, OSError):
        return None


def table(rows: Iterable[dict[str, str]]) -> pd.DataFrame:
    """Entries from one dict an utterance. Absent values become empty strings."""
    frame = pd.DataFrame(list(rows))
    return frame.reindex(columns=[*COLUMNS, *(name for name in frame if name not in COLUMNS)]).fillna("").astype("str")


def read_text(path: Path) -> str:
    """A transcript. Empty if the file is absent, so that the entry is rejected for it.

    Raises:
        UserError: the file is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8. Convert it, e.g. with iconv") from None
