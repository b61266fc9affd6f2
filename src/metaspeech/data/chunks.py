"""A corpus in pieces: each is a few utterances, done by one process and kept until it is part of a shard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from metaspeech.audio.io import Reader
from metaspeech.config import Prepare
from metaspeech.errors import UserError
from metaspeech.files import replacing

if TYPE_CHECKING:
    from metaspeech.data.utterance import Utterance


@dataclass(frozen=True)
class Chunk:
    """Some utterances, neighbours in their files.

    Attributes:
        index: its place in the order of all chunks.
        rows: utt_id, speaker, path, text, start, stop and further columns.
        root: what the paths are relative to.
        work: the folder to write to.
        config: how.
    """

    index: int
    rows: pd.DataFrame
    root: Path
    work: Path
    config: Prepare

    @property
    def table_path(self) -> Path:
        """One row an utterance, whether left out (``reason``) or not. Its presence says that the chunk is done."""
        return self.work / f"chunk-{self.index:06d}.parquet"

    @property
    def arrays_path(self) -> Path:
        """mel (frames, n_mels) float16, audio (samples,) int16, sum and square (n_mels,) float64 over the frames."""
        return self.work / f"chunk-{self.index:06d}.npz"


def process(chunk: Chunk) -> int:
    """Writes the chunk's two files, unless they are there, and returns the number of its utterances."""
    if chunk.table_path.is_file() and chunk.arrays_path.is_file():
        return len(chunk.rows)
    from metaspeech.data.utterance import one_thread, prepare_utterance  # torch: only where features are made

    done: list[Utterance | None] = []
    reasons: list[str] = []
    with Reader() as reader, one_thread():
        for row in chunk.rows.itertuples(index=False):
            try:
                done.append(prepare_utterance(reader, row, chunk.root, chunk.config))
                reasons.append("")
            except UserError as error:
                done.append(None)
                reasons.append(str(error))
    _write_arrays(chunk, [item for item in done if item])
    write_table(_table(chunk, done, reasons), chunk.table_path)
    return len(chunk.rows)


def write_table(table: pa.Table, path: Path) -> None:
    """Parquet, atomically."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def _write_arrays(chunk: Chunk, done: list[Utterance]) -> None:
    mel = np.concatenate([np.zeros((0, chunk.config.n_mels), np.float16), *(item.mel for item in done)])
    audio = np.concatenate([np.zeros(0, np.int16), *(item.audio for item in done)])
    exact = mel.astype(np.float64)
    with replacing(chunk.arrays_path) as temporary:
        np.savez(temporary, mel=mel, audio=audio, sum=exact.sum(axis=0), square=np.square(exact).sum(axis=0))


def _table(chunk: Chunk, done: list[Utterance | None], reasons: list[str]) -> pa.Table:
    samples = np.array([len(item.audio) if item else 0 for item in done], np.int32)
    made = {
        "text": pa.array([item.text if item else "" for item in done], pa.large_string()),
        "tokens": pa.array([item.tokens if item else [] for item in done], pa.list_(pa.int32())),
        "starts": pa.array([item.starts if item else [] for item in done], pa.list_(pa.float32())),
        "seconds": pa.array(samples / chunk.config.sample_rate),
        "frames": pa.array([len(item.mel) if item else 0 for item in done], pa.int32()),
        "samples": pa.array(samples),
        "limited": pa.array([item is not None and item.limited for item in done]),
        "reason": pa.array(reasons, pa.large_string()),
    }
    given = chunk.rows.drop(columns=["start", "stop", *made], errors="ignore")
    table = pa.Table.from_pandas(given, preserve_index=False).replace_schema_metadata(None)
    for name, column in made.items():
        table = table.append_column(name, column)
    return table
