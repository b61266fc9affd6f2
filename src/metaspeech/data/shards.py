"""Finished chunks to shards: large files, written as the chunks come in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metaspeech.data.chunks import Chunk, write_table
from metaspeech.data.store import describe
from metaspeech.files import replacing


@dataclass(frozen=True)
class Shard:
    """A shard in the work folder.

    Attributes:
        number: from 0.
        work: the folder.
    """

    number: int
    work: Path

    @property
    def mel_path(self) -> Path:
        return self.work / f"mel-{self.number:05d}.npy"

    @property
    def audio_path(self) -> Path:
        return self.work / f"audio-{self.number:05d}.npy"

    @property
    def table_path(self) -> Path:
        """The rows of its chunks, those left out included."""
        return self.work / f"shard-{self.number:05d}.parquet"

    @property
    def info_path(self) -> Path:
        """JSON: chunks (the number before its end), frames, sum, square, files. Present when the shard is done."""
        return self.work / f"shard-{self.number:05d}.json"

    @property
    def is_done(self) -> bool:
        return all(path.is_file() for path in (self.info_path, self.table_path, self.mel_path, self.audio_path))

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.info_path.read_text(encoding="utf-8"))
        return found


def finished_shards(work: Path) -> list[Shard]:
    """The shards that an interrupted run completed, from the first."""
    shards: list[Shard] = []
    while (shard := Shard(len(shards), work)).is_done:
        shards.append(shard)
    return shards


def join_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables below one another. A column that is empty in one of them may have any type in another."""
    return pa.concat_tables(tables, promote_options="permissive")


def write_shard(shard: Shard, chunks: Sequence[Chunk], n_mels: int) -> None:
    """Joins chunks to a shard and deletes their files. One chunk at a time is in memory."""
    table = join_tables([pq.read_table(chunk.table_path) for chunk in chunks])
    lengths = {name: table[name].to_numpy().astype(np.int64) for name in ("frames", "samples")}
    ends = {name: length.cumsum() for name, length in lengths.items()}
    totals = {name: int(end[-1]) for name, end in ends.items()}
    table = (
        table.append_column("shard", pa.array(np.full(len(table), shard.number, np.int32)))
        .append_column("frame_start", pa.array(ends["frames"] - lengths["frames"]))
        .append_column("sample_start", pa.array(ends["samples"] - lengths["samples"]))
    )
    sums = [_arrays(chunk, "sum", "square") for chunk in chunks]
    info = {
        "chunks": chunks[-1].index + 1,
        "frames": totals["frames"],
        "sum": np.sum([total for total, _ in sums], axis=0).tolist(),
        "square": np.sum([square for _, square in sums], axis=0).tolist(),
        "files": {
            "mel": _join(shard.mel_path, "mel", chunks, (totals["frames"], n_mels), np.dtype(np.float16)),
            "audio": _join(shard.audio_path, "audio", chunks, (totals["samples"],), np.dtype(np.int16)),
        },
    }
    write_table(table, shard.table_path)
    with replacing(shard.info_path) as temporary:
        temporary.write_text(json.dumps(info), encoding="utf-8")
    for chunk in chunks:
        chunk.table_path.unlink()
        chunk.arrays_path.unlink()


def _join(
    path: Path, name: str, chunks: Sequence[Chunk], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> dict[str, str | int]:
    """Writes the chunks' arrays after one another as one .npy and describes the file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for array in _each(chunks, name):
            file.write(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return describe(path)


def _each(chunks: Sequence[Chunk], name: str) -> Iterator[np.ndarray]:
    for chunk in chunks:
        yield _arrays(chunk, name)[0]


def _arrays(chunk: Chunk, *names: str) -> list[np.ndarray]:
    with np.load(chunk.arrays_path, allow_pickle=False) as arrays:
        return [arrays[name] for name in names]
