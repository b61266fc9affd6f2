"""A corpus to prepared speech: chunk by chunk, in several processes, in an order that does not depend on them.

Everything is written to ``<out>/.work`` first, and only a complete result replaces an earlier one. A run that was
interrupted goes on there, unless the corpus, the settings or this code have changed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

import metaspeech
from metaspeech import parallel
from metaspeech.config import Prepare
from metaspeech.data.chunks import Chunk, process
from metaspeech.data.manifest import read_corpus
from metaspeech.data.publish import Summary, publish
from metaspeech.data.shards import Shard, finished_shards, write_shard
from metaspeech.data.statistics import read_statistics
from metaspeech.errors import UserError
from metaspeech.files import replacing

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 128  # utterances: what a process holds in memory, and what an interruption loses
_MEGABYTE = 1 << 20
_CHUNKS_A_WORKER = 4  # at least: starting a process takes as long as a few chunks
_NOT_OF_SHARDS = ("workers", "max_rejected", "statistics")
_CODE = (  # what decides the result besides settings and corpus
    "audio/aligner.py",
    "audio/features.py",
    "audio/io.py",
    "audio/level.py",
    "data/chunks.py",
    "data/shards.py",
    "data/utterance.py",
    "text/frontend.py",
    "text/normalise.py",
)


class Pool(Protocol):
    """Where chunks are worked on: :mod:`metaspeech.parallel` on this machine, or a cluster."""

    def worker_count(self, workers: int) -> int: ...

    def ordered_map(
        self, function: Callable[[Item], Result], items: Iterable[Item], workers: int
    ) -> Iterator[Result]: ...


def prepare_corpus(corpus: Path, out: Path, config: Prepare, progress: bool = True, pool: Pool = parallel) -> Summary:
    """Writes manifest.parquet, the shards, store.json and rejected.csv into ``out``.

    Args:
        corpus: the folder with corpus.parquet and corpus.json.
        out: a folder; made when absent.
        config: the section ``prepare`` of the params. ``workers`` does not change what is written.
        progress: whether to show a bar.
        pool: does not change what is written either.

    Raises:
        UserError: the corpus is not as expected, ``statistics`` are of other features, more utterances than
            ``max_rejected`` had to be left out, or the disk is full. Earlier results stay as they were.
    """
    statistics = read_statistics(Path(config.statistics), config) if config.statistics else None
    pa.set_memory_pool(pa.system_memory_pool())  # the default one keeps several times what is in use
    table = read_corpus(corpus / "corpus.parquet")
    root = corpus_root(corpus)
    usable, refused = _screen(table)
    work = _work_folder(out, _fingerprint(usable, root, config))
    try:
        _process_all(usable, root, work, config, progress, pool)
        return publish(work, out, corpus, refused, config, statistics)
    except BrokenProcessPool:
        raise UserError(
            "prepare: a worker process was killed, most often for want of memory. What is finished is kept: set "
            "prepare.workers to 1 and run again"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{out}: no space left on the disk. What is finished is kept in {work}: free some space and run again"
        ) from None


def corpus_root(corpus: Path) -> Path:
    """The folder that the paths in corpus.parquet are relative to. Raises UserError when corpus.json does not say."""
    path = corpus / "corpus.json"
    try:
        root = json.loads(path.read_text(encoding="utf-8"))["root"]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Make it: dvc repro corpus") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error!r}). Make it again: dvc repro -sf corpus") from None
    folder = corpus if root == "." else Path(root)
    if not folder.is_dir():
        raise UserError(f"{path}: its root {folder} is no folder. Put the recordings back, or: dvc repro -sf corpus")
    return folder


def _screen(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What needs no look at a recording. Returns (usable, left out with a reason)."""
    reasons = pd.Series("", index=table.index, dtype="str")
    reasons[table["path"].map(_leads_outside).astype(bool)] = "path outside the folder: of the corpus"
    reasons[table["utt_id"].duplicated()] = "duplicate id: the first of its name is kept"
    usable = table[reasons == ""].sort_values(["path", "start", "utt_id"], ignore_index=True)
    return usable, table.assign(reason=reasons)[reasons != ""]


def _leads_outside(path: str) -> bool:
    depth = 0
    for part in PurePosixPath(path).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return PurePosixPath(path).is_absolute()


def _fingerprint(usable: pd.DataFrame, root: Path, config: Prepare) -> str:
    """A digest of all that decides the result: settings, table, the recordings' sizes and times, this code."""
    settings = {name: value for name, value in asdict(config).items() if name not in _NOT_OF_SHARDS}
    digest = hashlib.sha256(json.dumps([settings, CHUNK, list(usable.columns)]).encode())
    digest.update(pd.util.hash_pandas_object(usable, index=False).to_numpy().tobytes())
    for path in usable["path"].unique():
        try:
            state = (root / path).stat()
            digest.update(f"{state.st_size} {state.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(b"-\n")
    for source in _CODE:
        digest.update((Path(metaspeech.__path__[0]) / source).read_bytes())
    return digest.hexdigest()


def _work_folder(out: Path, fingerprint: str) -> Path:
    """``<out>/.work``, emptied unless it is of the same fingerprint."""
    work = out / ".work"
    mark = work / "fingerprint"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != fingerprint:
        shutil.rmtree(work, ignore_errors=True)
        with replacing(mark) as temporary:
            temporary.write_text(fingerprint, encoding="utf-8")
    return work


def _process_all(usable: pd.DataFrame, root: Path, work: Path, config: Prepare, progress: bool, pool: Pool) -> None:
    """Chunks, and a shard whenever enough of them are there."""
    done = finished_shards(work)
    first = done[-1].info()["chunks"] if done else 0
    total = math.ceil(len(usable) / CHUNK)

    def remaining() -> Iterator[Chunk]:
        for index in range(first, total):
            rows = usable.iloc[index * CHUNK : (index + 1) * CHUNK].reset_index(drop=True)
            yield Chunk(index, rows, root.resolve(), work.resolve(), config)

    waiting: list[Chunk] = []
    number, size = len(done), 0
    workers = min(pool.worker_count(config.workers), (total - first) // _CHUNKS_A_WORKER)
    before = min(first * CHUNK, len(usable))
    with tqdm(total=len(usable), initial=before, unit="utt", desc="prepare", disable=not progress) as bar:
        for chunk, utterances in zip(remaining(), pool.ordered_map(process, remaining(), workers), strict=True):
            bar.update(utterances)
            waiting.append(chunk)
            size += chunk.arrays_path.stat().st_size
            if size >= config.shard_mb * _MEGABYTE:
                write_shard(Shard(number, work), waiting, config.n_mels)
                waiting, number, size = [], number + 1, 0
        if waiting:
            write_shard(Shard(number, work), waiting, config.n_mels)
