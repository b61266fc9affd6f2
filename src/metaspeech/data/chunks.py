"""Recordings to features, a chunk of utterances at a time: what each process of prepare does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from metaspeech.audio import level
from metaspeech.audio.features import SETTINGS, LogMel, resample
from metaspeech.audio.io import Reader
from metaspeech.config import Prepare
from metaspeech.data.store import AUDIO_SCALE
from metaspeech.errors import UserError
from metaspeech.files import replacing
from metaspeech.text.frontend import Frontend
from metaspeech.text.normalise import normalise

_LONGEST_RAW = 5  # times max_seconds: a recording longer than this is not even read


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


@dataclass(frozen=True)
class Utterance:
    """One utterance with its features."""

    text: str
    tokens: list[int]
    mel: np.ndarray  # (frames, n_mels) float16
    audio: np.ndarray  # (samples,) int16
    limited: bool  # less loud than asked for, because a peak would have clipped


def process(chunk: Chunk) -> int:
    """Writes the chunk's two files, unless they are there, and returns the number of its utterances."""
    if chunk.table_path.is_file() and chunk.arrays_path.is_file():
        return len(chunk.rows)
    done: list[Utterance | None] = []
    reasons: list[str] = []
    with Reader() as reader, _one_thread():
        for row in chunk.rows.itertuples(index=False):
            try:
                done.append(_utterance(reader, row, chunk.root, chunk.config))
                reasons.append("")
            except UserError as error:
                done.append(None)
                reasons.append(str(error))
    _write_arrays(chunk, [item for item in done if item])
    write_table(_table(chunk, done, reasons), chunk.table_path)
    return len(chunk.rows)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Parquet, with ``tokens`` as lists of int32 even where all are empty."""
    arrow = pa.Table.from_pandas(table.drop(columns="tokens"), preserve_index=False)
    tokens = pa.array(table["tokens"].tolist(), pa.list_(pa.int32()))
    with replacing(path) as temporary:
        pq.write_table(arrow.append_column("tokens", tokens), temporary)


def _utterance(reader: Reader, row: Any, root: Path, config: Prepare) -> Utterance:
    """Raises UserError with the reason why the utterance is left out; what stands before its colon is counted."""
    text = normalise(row.text)
    tokens = _frontend(config.text).encode(text)
    waveform = _read(reader, row, root, config)
    speech = level.find_speech(waveform, config.sample_rate, config.trim_db)
    if speech is None:
        raise UserError("silence: nothing above -60 dB")
    seconds = (speech.stop - speech.start) / config.sample_rate
    if seconds < config.min_seconds:
        raise UserError(f"too short: {seconds:.2f} s of speech, prepare.min_seconds is {config.min_seconds:g}")
    if seconds > config.max_seconds:
        raise UserError(f"too long: {seconds:.2f} s of speech, prepare.max_seconds is {config.max_seconds:g}")
    waveform = level.trim(waveform, config.sample_rate, speech)
    factor = level.gain(waveform, speech, config.loudness_db)
    audio = np.round(waveform * (factor * AUDIO_SCALE)).astype(np.int16)
    mel = _log_mel(*(getattr(config, name) for name in SETTINGS))(torch.from_numpy(audio / np.float32(AUDIO_SCALE)))
    limited = factor * speech.rms < 10 ** (config.loudness_db / 20) * (1 - 1e-6)
    return Utterance(text, tokens, mel.numpy().astype(np.float16), audio, limited)


def _read(reader: Reader, row: Any, root: Path, config: Prepare) -> np.ndarray:
    """(samples,) float32 at the rate asked for, without offset."""
    path = root / row.path
    start, stop = (None if isnan(value) else int(value) for value in (row.start, row.stop))
    file = reader.open(path)
    raw_seconds = ((file.frames if stop is None else stop) - (start or 0)) / file.samplerate
    if raw_seconds > _LONGEST_RAW * config.max_seconds:
        raise UserError(f"too long: a recording of {raw_seconds:.0f} s, prepare.max_seconds is {config.max_seconds:g}")
    waveform, rate = reader.read(path, start, stop)
    if not len(waveform):
        raise UserError("too short: a recording without samples")
    if not np.isfinite(waveform).all():
        raise UserError("unreadable audio: samples that are not numbers")
    clipped = level.clipped_share(waveform)
    if clipped > config.max_clipped:
        raise UserError(f"clipping: {clipped:.1%} of the samples at full scale, prepare.max_clipped is {config.max_clipped:g}")
    return resample(torch.from_numpy(waveform - waveform.mean()), rate, config.sample_rate).numpy()


def _write_arrays(chunk: Chunk, done: list[Utterance]) -> None:
    mel = np.concatenate([np.zeros((0, chunk.config.n_mels), np.float16), *(item.mel for item in done)])
    audio = np.concatenate([np.zeros(0, np.int16), *(item.audio for item in done)])
    exact = mel.astype(np.float64)
    with replacing(chunk.arrays_path) as temporary:
        np.savez(temporary, mel=mel, audio=audio, sum=exact.sum(axis=0), square=np.square(exact).sum(axis=0))


def _table(chunk: Chunk, done: list[Utterance | None], reasons: list[str]) -> pd.DataFrame:
    samples = np.array([len(item.audio) if item else 0 for item in done], np.int32)
    return chunk.rows.drop(columns=["start", "stop"]).assign(
        text=pd.Series([item.text if item else "" for item in done], index=chunk.rows.index, dtype="str"),
        tokens=pd.Series([item.tokens if item else [] for item in done], index=chunk.rows.index, dtype=object),
        seconds=samples / chunk.config.sample_rate,
        frames=np.array([len(item.mel) if item else 0 for item in done], np.int32),
        samples=samples,
        limited=[item is not None and item.limited for item in done],
        reason=pd.Series(reasons, index=chunk.rows.index, dtype="str"),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes are the parallelism here; and sums do not depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _frontend(kind: str) -> Frontend:
    return Frontend(kind)


@lru_cache(maxsize=1)
def _log_mel(*settings: Any) -> LogMel:
    return LogMel(*settings)
