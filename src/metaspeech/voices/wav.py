"""Speech with a note in it that says what it is: as a file, or as a stream whose length nobody knows yet."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import soundfile

from metaspeech.errors import UserError
from metaspeech.files import AUDIO_SUFFIXES, replacing

_ENDLESS = 0xFFFFFFFF  # sizes of a stream: readers go on to the end


def write(path: Path, samples: np.ndarray, rate: int, note: str) -> None:
    """Writes (samples,) float in [-1, 1] as 16 bit, atomically, with ``note`` as the file's comment.

    In a wav the note is the ICMT chunk of its RIFF LIST/INFO, in flac and ogg the comment ``COMMENT``.

    Raises:
        UserError: the suffix is not .wav, .flac or .ogg, or the file cannot be written.
    """
    if path.suffix.lower() not in AUDIO_SUFFIXES:
        raise UserError(f"{path}: expected a name that ends in {', '.join(AUDIO_SUFFIXES)}")
    content = encoded(samples, rate, note, path.suffix[1:].upper())
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def encoded(samples: np.ndarray, rate: int, note: str, kind: str = "WAV") -> bytes:
    """What :func:`write` writes to a file of this kind: WAV, FLAC or OGG."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, channels=1, format=kind) as file:
        file.comment = note
        file.write(np.clip(samples, -1, 1))
    return buffer.getvalue()


def note_of(path: Path | io.BytesIO) -> str:
    """What a file says of itself; empty where it says nothing. Raises UserError when it is no audio file."""
    try:
        with soundfile.SoundFile(path) as file:
            return str(file.comment)
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def stream_header(rate: int, note: str) -> bytes:
    """The beginning of a wav (16 bit, mono) of unknown length, with ``note`` as its ICMT chunk."""
    text = note.encode("utf-8") + b"\0"
    text += b"\0" * (len(text) % 2)
    comment = b"INFO" + b"ICMT" + struct.pack("<I", len(text)) + text
    form = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)  # PCM, channels, bytes a second, bytes a sample, bits
    return b"".join(
        (
            *(b"RIFF", struct.pack("<I", _ENDLESS), b"WAVE"),
            *(b"fmt ", struct.pack("<I", len(form)), form),
            *(b"LIST", struct.pack("<I", len(comment)), comment),
            *(b"data", struct.pack("<I", _ENDLESS)),
        )
    )


def as_pcm(samples: np.ndarray) -> bytes:
    """(samples,) float in [-1, 1] -> 16 bit little endian."""
    return bytes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())
