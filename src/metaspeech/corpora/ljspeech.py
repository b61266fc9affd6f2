"""LJ Speech 1.1 (Ito and Johnson 2017): one reader, 24 hours.

::

    metadata.csv           (id|text|normalised text, no header, no quoting)
    wavs/LJ001-0001.wav
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pandas as pd

from metaspeech.corpora.archives import Archive
from metaspeech.corpora.metadata import read_text, table
from metaspeech.corpora.published import Published
from metaspeech.errors import UserError
from metaspeech.files import AUDIO_SUFFIXES


class LjSpeech(Published):
    """A single speaker: for training that needs no episodes."""

    name = "ljspeech"
    folders = ("LJSpeech-1.1",)
    marker = "metadata.csv"
    licence = "public domain"
    note = "LJ Speech, one reader of books, 22.05 kHz. Episodes need several speakers."
    archives: ClassVar[dict[str, Archive]] = {
        "1.1": Archive(
            "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
            "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
        )
    }
    parts = ("1.1",)
    least_speakers = 1

    def entries(self, root: Path) -> pd.DataFrame:
        return table(rows(root, "LJ"))


def rows(root: Path, speaker: str) -> list[dict[str, str]]:
    """The utterances of metadata.csv, with paths relative to ``root``.

    Raises:
        UserError: a line has no text field.
    """
    suffixes = {file.stem: file.suffix for file in root.glob("wavs/*") if file.suffix.lower() in AUDIO_SUFFIXES}
    result = []
    for number, line in enumerate(read_text(root / "metadata.csv").splitlines(), start=1):
        fields = line.split("|")
        if len(fields) < 2:
            raise UserError(f"{root / 'metadata.csv'}: line {number}: expected id|text or id|text|normalised text")
        utt_id, text = fields[0].strip(), fields[-1] or fields[1]
        path = f"wavs/{utt_id}{suffixes.get(utt_id, '.wav')}"
        result.append({"utt_id": utt_id, "speaker": speaker, "path": path, "text": text})
    return result
