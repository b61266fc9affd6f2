"""AudioMNIST (Becker et al. 2018): 60 speakers, each digit 50 times.

::

    data/01/0_01_0.wav         (digit, speaker, repetition)
    data/audioMNIST_meta.txt   (JSON by speaker)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pandas as pd

from metaspeech.corpora.archives import Archive
from metaspeech.corpora.metadata import read_text, table
from metaspeech.corpora.published import Published
from metaspeech.errors import UserError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class AudioMnist(Published):
    """Single digits. There are ten texts only, so episodes need ``text_split: none``."""

    name = "audiomnist"
    folders = ("AudioMNIST-master", "AudioMNIST")
    marker = "data/audioMNIST_meta.txt"
    licence = "MIT"
    note = "AudioMNIST, spoken digits, 48 kHz. Ten texts: set episodes.text_split to none."
    archives: ClassVar[dict[str, Archive]] = {
        "all": Archive("https://github.com/soerenab/AudioMNIST/archive/refs/heads/master.zip", sha256="")
    }
    parts = ("all",)

    def entries(self, root: Path) -> pd.DataFrame:
        meta = root / self.marker
        try:
            speakers = json.loads(read_text(meta))
        except ValueError as error:
            raise UserError(f"{meta}: is not JSON: {error}") from None
        rows = []
        for file in sorted(root.glob("data/*/*.wav")):
            digit, _, _ = file.stem.partition("_")
            known = speakers.get(file.parent.name, {})
            rows.append(
                {
                    "utt_id": file.stem,
                    "speaker": file.parent.name,
                    "path": file.relative_to(root).as_posix(),
                    "text": DIGITS[int(digit)] if digit.isdecimal() and int(digit) < 10 else "",
                    "gender": str(known.get("gender", ""))[:1],
                    "age": str(known.get("age", "")),
                    "accent": str(known.get("accent", "")),
                }
            )
        return table(rows)
