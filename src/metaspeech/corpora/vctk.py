"""VCTK (Yamagishi et al. 2019), releases 0.92 and 0.80: 110 speakers of English accents, about 400 sentences each.

::

    wav48_silence_trimmed/p225/p225_001_mic1.flac    (0.92; two microphones)
    wav48/p225/p225_001.wav                          (0.80)
    txt/p225/p225_001.txt
    speaker-info.txt                                 (optional)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import pandas as pd

from metaspeech.corpora.archives import Archive
from metaspeech.corpora.metadata import read_text, table
from metaspeech.corpora.published import Published
from metaspeech.errors import UserError
from metaspeech.files import AUDIO_SUFFIXES

_MICROPHONE = re.compile(r"_mic\d$")


class Vctk(Published):
    """The first microphone is used, the second where the first is missing. Speaker p315 has no texts."""

    name = "vctk"
    folders = ("VCTK-Corpus-0.92", "VCTK-Corpus")
    marker = "wav48*"
    licence = "CC BY 4.0"
    note = "CSTR VCTK Corpus, read speech, 48 kHz"
    archives: ClassVar[dict[str, Archive]] = {
        "0.92": Archive(
            "https://datashare.is.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip",
            "f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c",
            into="VCTK-Corpus-0.92",
        )
    }
    parts = ("0.92",)

    def entries(self, root: Path) -> pd.DataFrame:
        return entries(root)


def entries(root: Path) -> pd.DataFrame:
    """One entry for each sentence of each speaker that has a recording.

    Raises:
        UserError: there is no folder wav48*.
    """
    audio = next(iter(sorted(root.glob("wav48*"), reverse=True)), None)  # the trimmed one of 0.92 before the other
    if audio is None:
        raise UserError(f"{root}: expected a folder wav48 or wav48_silence_trimmed, as in VCTK")
    info = _speaker_info(root / "speaker-info.txt")
    rows = []
    for folder in sorted(path for path in audio.iterdir() if path.is_dir()):
        files: dict[str, Path] = {}
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in AUDIO_SUFFIXES:
                files.setdefault(_MICROPHONE.sub("", file.stem), file)
        for utt_id, file in files.items():
            text = read_text(root / "txt" / folder.name / f"{utt_id}.txt")
            path = file.relative_to(root).as_posix()
            rows.append(
                {"utt_id": utt_id, "speaker": folder.name, "path": path, "text": text, **info.get(folder.name, {})}
            )
    return table(rows)


def _speaker_info(path: Path) -> dict[str, dict[str, str]]:
    """Gender, age and accent by speaker, from lines such as ``p225  23  F  English  Southern  England``."""
    info = {}
    for line in read_text(path).splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 4:
            speaker = fields[0] if not fields[0].isdecimal() else f"p{fields[0]}"  # 0.80 leaves the letter out
            info[speaker] = {"gender": fields[2].lower(), "age": fields[1], "accent": fields[3]}
    return info
