"""LibriTTS (Zen et al. 2019): 2,456 readers of audiobooks, 585 hours.

::

    train-clean-100/103/1241/103_1241_000000_000001.wav
    train-clean-100/103/1241/103_1241_000000_000001.normalized.txt
    speakers.tsv                                     (optional)
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pandas as pd

from metaspeech.corpora.archives import Archive
from metaspeech.corpora.metadata import read_text, table
from metaspeech.corpora.published import Published

_CHECKSUMS = {
    "dev-clean": "da0864e1bd26debed35da8a869dd5c04dfc27682921936de7cff9c8a254dbe1a",
    "dev-other": "d413eda26f3a152ac7c9cf3658ef85504dfb1b625296e5fa83727f5186cca79c",
    "test-clean": "234ea5b25859102a87024a4b9b86641f5b5aaaf1197335c95090cde04fe9a4f5",
    "test-other": "33a5342094f3bba7ccc2e0500b9e72d558f72eb99328ac8debe1d9080402f10d",
    "train-clean-100": "c5608bf1ef74bb621935382b8399c5cdd51cd3ee47cec51f00f885a64c6c7f6b",
    "train-clean-360": "ce7cff44dcac46009d18379f37ef36551123a1dc4e5c8e4eb73ae57260de4886",
    "train-other-500": "e35f7e34deeb2e2bdfe4403d88c8fdd5fbf64865cae41f027a185a6965f0a5df",
}


class LibriTts(Published):
    """All subsets that lie in the folder are used. The normalised text is the one that is read."""

    name = "libritts"
    folders = ("LibriTTS",)
    marker = "*-*/*/*/*.normalized.txt"
    licence = "CC BY 4.0"
    note = "LibriTTS, audiobooks, 24 kHz"
    archives: ClassVar[dict[str, Archive]] = {
        part: Archive(f"https://www.openslr.org/resources/60/{part}.tar.gz", checksum)
        for part, checksum in _CHECKSUMS.items()
    }
    parts = ("train-clean-100",)

    def entries(self, root: Path) -> pd.DataFrame:
        genders = _genders(root / "speakers.tsv")
        rows = []
        for file in sorted(root.glob("*-*/*/*/*.wav")):
            subset, speaker = file.relative_to(root).parts[:2]
            rows.append(
                {
                    "utt_id": file.stem,
                    "speaker": speaker,
                    "path": file.relative_to(root).as_posix(),
                    "text": read_text(file.with_suffix(".normalized.txt")),
                    "gender": genders.get(speaker, ""),
                    "subset": subset,
                }
            )
        return table(rows)


def _genders(path: Path) -> dict[str, str]:
    """By reader, from lines of reader, gender, subset and name between tabs."""
    lines = [line.split("\t") for line in read_text(path).splitlines()[1:]]
    return {fields[0]: fields[1].lower() for fields in lines if len(fields) >= 2}
