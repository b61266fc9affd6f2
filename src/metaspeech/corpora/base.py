"""What every corpus ends as: one table of utterances, one of rejected ones, and a note on where they come from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd

from metaspeech import config
from metaspeech.files import replacing

REJECTED_COLUMNS = ["utt_id", "speaker", "path", "stage", "reason"]


@dataclass(frozen=True)
class CorpusInfo:
    """The content of corpus.json."""

    source: str
    root: str  # the folder that paths are relative to; ".": the folder of corpus.json itself
    licence: str
    language: str
    note: str
    speakers: int
    utterances: int
    rejected: int
    hours: float  # before silence is trimmed


class Corpus(Protocol):
    """A source of speech with speaker and text."""

    def build(self, config: config.Corpus, out: Path, seed: int, workers: int) -> CorpusInfo:
        """Writes corpus.parquet, corpus.json and rejected.csv into ``out``, and audio if it is generated.

        Args:
            config: the section ``corpus`` of the params.
            out: a folder; made when absent.
            seed: decides every choice.
            workers: processes that generate; 0: one a core. Does not change what is written.

        Raises:
            UserError: the corpus is missing, is not laid out as expected, or has fewer than two speakers.
        """


def write_corpus(out: Path, info: CorpusInfo, utterances: pd.DataFrame, rejected: pd.DataFrame) -> CorpusInfo:
    """Writes the three files of a corpus, each atomically.

    Args:
        out: a folder; made when absent.
        info: goes into corpus.json.
        utterances: utt_id, speaker, path (posix, relative to the root), text; optionally start and stop (samples at the
            file's own rate) and further columns.
        rejected: utt_id, speaker, path, stage, reason.
    """
    with replacing(out / "corpus.parquet") as path:
        utterances.sort_values("utt_id").to_parquet(path, index=False)
    with replacing(out / "rejected.csv") as path:
        rejected[REJECTED_COLUMNS].to_csv(path, index=False)
    with replacing(out / "corpus.json") as path:
        path.write_text(json.dumps(asdict(info), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return info


def no_rejected() -> pd.DataFrame:
    """An empty table of rejected utterances."""
    return pd.DataFrame(columns=REJECTED_COLUMNS, dtype="str")
