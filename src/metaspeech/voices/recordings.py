"""A folder of recordings with their texts: metadata.csv, or beside each recording a text file of the same name."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from metaspeech.errors import UserError
from metaspeech.files import AUDIO_SUFFIXES, is_inside
from metaspeech.voices.names import shown

MOST = 500  # recordings: a voice takes a handful, so more is most often the wrong folder
_MOST_BYTES = 1 << 20  # of metadata.csv or a text
LAYOUTS = (
    "metadata.csv with the columns path and text, or audio files (wav, flac, ogg) each with a .txt of the same name"
)


@dataclass(frozen=True)
class Entry:
    """One recording as the folder names it.

    Attributes:
        path: relative to the folder.
        text: as written; empty where there is none.
        refused: why it is not even opened; empty otherwise.
    """

    path: str
    text: str
    refused: str = ""


def read_folder(folder: Path, speaker: str = "") -> list[Entry]:
    """The recordings of one speaker, in the order of metadata.csv, or else of their names.

    Args:
        folder: of one of the two layouts.
        speaker: whose, where metadata.csv has a column ``speaker`` with several.

    Raises:
        UserError: the folder has neither layout, or nothing in it; metadata.csv cannot be read or lacks a column;
            several speakers and none was named.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Expected one with {LAYOUTS}")
    entries = _from_metadata(folder, speaker) if (folder / "metadata.csv").is_file() else _from_sidecars(folder)
    if not entries:
        raise UserError(f"{folder}: holds no recordings. Expected {LAYOUTS}")
    return entries


def _check_count(folder: Path, count: int) -> None:
    """Before the paths are looked at, which takes its time."""
    if count > MOST:
        raise UserError(
            f"{folder}: {count} recordings, expected at most {MOST}: a voice is made from a handful. Put those "
            "to be used into a folder of their own"
        )


def _from_metadata(folder: Path, speaker: str) -> list[Entry]:
    file = folder / "metadata.csv"
    try:
        reader = csv.DictReader(_text(file, 16 * _MOST_BYTES).splitlines(), restkey="", restval="", strict=True)
        rows, columns = list(reader), {(name or "").strip() for name in reader.fieldnames or ()}
    except csv.Error as error:
        raise UserError(f"{file}: cannot be read as CSV: {error}") from None
    rows = [{(key or "").strip(): value for key, value in row.items() if isinstance(value, str)} for row in rows]
    if missing := [name for name in ("path", "text") if name not in columns]:
        raise UserError(
            f"{file}: column {', '.join(missing)} is missing. Expected path and text, found: "
            f"{', '.join(map(shown, sorted(columns))) or 'an empty file'}"
        )
    speakers = sorted({row.get("speaker", "") for row in rows})
    if speaker or len(speakers) > 1:
        if speaker not in speakers:
            some = ", ".join(map(shown, speakers[:8])) + (", ..." if len(speakers) > 8 else "")
            raise UserError(f"{file}: has recordings of {some}; a voice is of one speaker. Name one of them: --speaker")
        rows = [row for row in rows if row.get("speaker", "") == speaker]
    _check_count(folder, len(rows))
    return [Entry(row["path"], row["text"].strip(), _refused(folder, row["path"])) for row in rows]


def _from_sidecars(folder: Path) -> list[Entry]:
    entries = []
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
    _check_count(folder, len(found))
    for audio in found:
        beside = audio.with_suffix(".txt")
        refused = _refused(folder, audio.name)
        if not refused and beside.exists() and not is_inside(folder, beside.name):
            refused = "path outside the folder"
        text = _text(beside, _MOST_BYTES).strip() if beside.is_file() and not refused else ""
        entries.append(Entry(audio.name, text, refused))
    return entries


def _refused(folder: Path, path: str) -> str:
    if not path:
        return "no path"
    if not is_inside(folder, path):
        return "path outside the folder"
    if Path(path).suffix.lower() not in AUDIO_SUFFIXES:
        return "unreadable audio: not a wav, flac or ogg file"
    return ""


def _text(file: Path, most: int) -> str:
    try:
        if file.stat().st_size > most:
            raise UserError(
                f"{file}: larger than {most >> 20} MiB. Expected the text of a recording, or a list of them"
            )
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start} is not UTF-8. Convert it, e.g. with iconv") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
