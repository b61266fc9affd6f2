"""The user's own recordings, in one of three layouts.

| layout | expected in the folder |
|---|---|
| metadata | metadata.csv with a header: speaker, path, text; optionally utt_id, start, stop (samples) and any other |
| ljspeech | for each speaker a folder with metadata.csv (id&#124;text) and wavs/ |
| vctk | wav48/speaker/\\*.wav (or .flac, .ogg) and txt/speaker/\\*.txt |
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pandas as pd

from metaspeech import config
from metaspeech.corpora import ljspeech, metadata, vctk
from metaspeech.corpora.base import CorpusInfo
from metaspeech.errors import UserError

LAYOUTS = (
    "metadata.csv with the columns speaker, path and text (metadata), a folder for each speaker with metadata.csv and "
    "wavs/ (ljspeech), or wav48*/ and txt/ (vctk)"
)


class Folder:
    """``corpus.path`` is a folder of recordings; ``corpus.layout`` says how it is laid out."""

    def build(self, config: config.Corpus, out: Path, seed: int, workers: int) -> CorpusInfo:
        """See :class:`metaspeech.corpora.base.Corpus`. ``workers`` is not used: no audio is decoded here."""
        root = Path(config.path)
        if not root.is_dir():
            raise UserError(f"corpus.path: {root}: no such folder. Expected a folder with {LAYOUTS}.")
        layout = detect(root) if config.layout == "auto" else config.layout
        found = " (detected)" if config.layout == "auto" else ""
        return metadata.build(
            READERS[layout](root),
            root,
            config,
            out,
            seed,
            licence="not stated",
            language="en",
            note=f"Recordings of the user's own, layout {layout}{found}",
        )


def detect(root: Path) -> str:
    """Which layout a folder has.

    Raises:
        UserError: none that is known. Names what was found instead.
    """
    if any(root.glob("wav48*")) and (root / "txt").is_dir():
        return "vctk"
    if (root / "metadata.csv").is_file():
        return "ljspeech" if "|" in metadata.read_text(root / "metadata.csv").partition("\n")[0] else "metadata"
    if any(root.glob("*/metadata.csv")):
        return "ljspeech"
    inside = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    listed = ", ".join(inside[:8]) + (" ..." if len(inside) > 8 else "")
    raise UserError(f"corpus.path: {root}: expected {LAYOUTS}. Found: {listed or 'an empty folder'}.")


def read_metadata(root: Path) -> pd.DataFrame:
    """Entries from metadata.csv. Without a column utt_id, the name of the file is used, or its path if names repeat.

    Raises:
        UserError: the file is missing, cannot be read as CSV in UTF-8, or lacks a column.
    """
    file = root / "metadata.csv"
    try:
        entries = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{file}: no such file. Expected a list with the columns speaker, path and text.") from None
    except (ValueError, OSError) as error:  # also UnicodeDecodeError and pandas' own
        raise UserError(f"{file}: cannot be read as CSV in UTF-8: {error}") from None
    entries.columns = entries.columns.str.strip()
    missing = [name for name in ("speaker", "path", "text") if name not in entries]
    if missing:
        raise UserError(
            f"{file}: column {', '.join(missing)} is missing. Expected speaker, path and text (utt_id and others are "
            f"optional), found: {', '.join(entries.columns)}"
        )
    if "utt_id" not in entries:
        paths = entries["path"].map(PurePosixPath)
        names = paths.map(lambda path: path.stem)
        whole = paths.map(lambda path: "-".join([*path.parts[:-1], path.stem]))
        entries["utt_id"] = names if names.is_unique else whole
    return entries


def read_ljspeech(root: Path) -> pd.DataFrame:
    """Entries of the speakers' folders, in the layout of LJ Speech; utt_id is speaker-id.

    Raises:
        UserError: metadata.csv lies in the folder itself, which leaves room for one speaker, or nowhere.
    """
    if (root / "metadata.csv").is_file():
        raise UserError(
            f"{root}: metadata.csv in the layout of LJ Speech holds one speaker, and episodes need several. Give each "
            f"speaker a folder: {root.name}/<speaker>/metadata.csv and {root.name}/<speaker>/wavs/."
        )
    folders = sorted(file.parent for file in root.glob("*/metadata.csv"))
    if not folders:
        raise UserError(f"{root}: expected a folder for each speaker with metadata.csv and wavs/")
    rows = []
    for folder in folders:
        for row in ljspeech.rows(folder, folder.name):
            rows.append({**row, "utt_id": f"{folder.name}-{row['utt_id']}", "path": f"{folder.name}/{row['path']}"})
    return metadata.table(rows)


READERS = {"metadata": read_metadata, "ljspeech": read_ljspeech, "vctk": vctk.entries}
