"""One recording with its text to features, or the reason why not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import gcd, isnan
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metaspeech.audio import level
from metaspeech.audio.features import SETTINGS, LogMel, resample
from metaspeech.audio.io import Reader
from metaspeech.config import Prepare
from metaspeech.data.store import AUDIO_SCALE
from metaspeech.errors import UserError
from metaspeech.text.frontend import Frontend
from metaspeech.text.normalise import normalise

_LONGEST_RAW = 5  # times max_seconds: a recording longer than this is not even read
_LARGEST_FILTER = 20_000_000  # numbers; 44,056 to 16,000 Hz takes 11 million


@dataclass(frozen=True)
class Utterance:
    """One utterance with its features."""

    text: str
    tokens: list[int]
    mel: np.ndarray  # (frames, n_mels) float16
    audio: np.ndarray  # (samples,) int16
    limited: bool  # less loud than asked for, because a peak would have clipped
    starts: list[float]  # seconds, when each symbol begins; empty where that is not known


def prepare_utterance(reader: Reader, row: Any, root: Path, config: Prepare) -> Utterance:
    """Levelled audio, log-mel and symbol ids of one row of the corpus.

    Raises:
        UserError: with the reason why the utterance is left out; what stands before its colon is counted.
    """
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
    starts = _starts(text, tokens, audio, config) if config.align == "pocketsphinx" else []
    return Utterance(text, tokens, mel.numpy().astype(np.float16), audio, limited, starts)


def _starts(text: str, tokens: list[int], audio: np.ndarray, config: Prepare) -> list[float]:
    from metaspeech.audio import aligner  # its acoustic model takes a moment to load

    symbols = _frontend(config.text).symbols
    heard = resample(torch.from_numpy(audio / np.float32(AUDIO_SCALE)), config.sample_rate, aligner.RATE).numpy()
    return aligner.symbol_starts(text, [symbols[token] for token in tokens], heard)


def _read(reader: Reader, row: Any, root: Path, config: Prepare) -> np.ndarray:
    """(samples,) float32 at the rate asked for, without offset."""
    path = root / row.path
    start, stop = (None if isnan(value) else int(value) for value in (row.start, row.stop))
    file = reader.open(path)
    _check_rate(file.samplerate, config.sample_rate)
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
        raise UserError(
            f"clipping: {clipped:.1%} of the samples at full scale, prepare.max_clipped is {config.max_clipped:g}"
        )
    return resample(torch.from_numpy(waveform - waveform.mean()), rate, config.sample_rate).numpy()


def _check_rate(rate: int, target: int) -> None:
    """A filter between rates with a small common divisor has so many phases that it takes gigabytes."""
    shared = gcd(rate, target)
    if (rate // shared) * (target // shared) > _LARGEST_FILTER:
        raise UserError(f"unreadable audio: a sample rate of {rate} Hz, which cannot be brought to {target} Hz")


@contextmanager
def one_thread() -> Iterator[None]:
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
