"""speechocean762 (Zhang et al. 2021): 250 speakers of Mandarin, half of them children, 20 English sentences each.

::

    WAVE/SPEAKER0001/000010011.WAV
    train/{wav.scp,text,utt2spk,spk2gender,spk2age}  (each line a key and a value, as in Kaldi)
    test/...
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pandas as pd

from metaspeech.corpora.archives import Archive
from metaspeech.corpora.metadata import read_text, table
from metaspeech.corpora.published import Published


class SpeechOcean762(Published):
    """Both parts are used. The text is the prompt; some speakers misread it."""

    name = "speechocean762"
    folders = ("speechocean762",)
    marker = "train/wav.scp"
    licence = "free for commercial and non-commercial use (its README)"
    note = "speechocean762, sentences read by learners of English whose first language is Mandarin, 16 kHz"
    archives: ClassVar[dict[str, Archive]] = {
        "all": Archive("https://www.openslr.org/resources/101/speechocean762.tar.gz", sha256="")
    }
    parts = ("all",)

    def entries(self, root: Path) -> pd.DataFrame:
        rows = []
        for part in ("train", "test"):
            texts, speakers, genders, ages = (
                _pairs(root / part / name) for name in ("text", "utt2spk", "spk2gender", "spk2age")
            )
            for utt_id, path in _pairs(root / part / "wav.scp").items():
                speaker = speakers.get(utt_id, "")
                rows.append(
                    {
                        "utt_id": utt_id,
                        "speaker": speaker,
                        "path": path,
                        "text": texts.get(utt_id, ""),
                        "gender": genders.get(speaker, ""),
                        "age": ages.get(speaker, ""),
                        "subset": part,
                    }
                )
        return table(rows)


def _pairs(path: Path) -> dict[str, str]:
    lines = [line.split(maxsplit=1) for line in read_text(path).splitlines()]
    return {fields[0]: fields[1].strip() for fields in lines if len(fields) == 2}
