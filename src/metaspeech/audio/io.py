"""Recordings to arrays and back, through libsndfile."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from metaspeech.errors import UserError
from metaspeech.files import replacing


class Reader:
    """Reads segments; keeps the last file open, so that segments of one long recording cost no reopening.

    Use as a context manager.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: soundfile.SoundFile | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._path, self._file = None, None

    def open(self, path: Path) -> soundfile.SoundFile:
        """The file, for its ``frames`` and ``samplerate``. Raises UserError when it is absent or not audio."""
        if self._file is None or path != self._path:
            self.close()
            if not path.is_file():
                raise UserError(f"missing file: {path}")
            try:
                self._file = soundfile.SoundFile(path)
            except (soundfile.LibsndfileError, OSError) as error:
                raise UserError(f"unreadable audio: {path}: {_reason(error)}") from None
            self._path = path
        return self._file

    def read(self, path: Path, start: int | None = None, stop: int | None = None) -> tuple[np.ndarray, int]:
        """Samples ``start`` to ``stop`` (exclusive; default: all).

        Returns:
            (samples,) float32 in [-1, 1], the mean of the channels, and the file's sample rate.

        Raises:
            UserError: the file is absent, is not audio, or is shorter than ``stop``.
        """
        file = self.open(path)
        first, last = start or 0, file.frames if stop is None else stop
        if not 0 <= first <= last <= file.frames:
            raise UserError(f"segment outside the file: {path}: {first} to {last} of {file.frames} samples")
        try:
            file.seek(first)
            samples = file.read(last - first, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError) as error:
            self.close()
            raise UserError(f"unreadable audio: {path}: {_reason(error)}") from None
        if len(samples) != last - first:
            raise UserError(f"unreadable audio: {path}: {len(samples)} of {last - first} samples, the file is cut off")
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
        return np.ascontiguousarray(mono), int(file.samplerate)


def read(path: Path | str, start: int | None = None, stop: int | None = None) -> tuple[np.ndarray, int]:
    """One recording, or a segment of it. See :meth:`Reader.read`."""
    with Reader() as reader:
        return reader.read(Path(path), start, stop)


def write(path: Path | str, samples: np.ndarray, rate: int) -> None:
    """Writes (samples,) float in [-1, 1] as 16 bit, atomically. The suffix chooses the format: .wav, .flac, .ogg."""
    path, encoded = Path(path), BytesIO()  # libsndfile does not say why it could not write to a file
    soundfile.write(encoded, np.clip(np.asarray(samples), -1, 1), rate, format=path.suffix.removeprefix("."))
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error))
