"""Files that are either whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")  # of recordings that are read


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to, which becomes ``path`` when the block ends without an error.

    The temporary name keeps the suffix, since writers choose the format by it. The folder is made when absent.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_inside(folder: Path, path: str) -> bool:
    """Whether a path that somebody wrote stays in ``folder``: not absolute, nor out by ``..`` or through a link."""
    try:
        base = folder.resolve()
        return not Path(path).is_absolute() and (base / path).resolve().is_relative_to(base)
    except (OSError, ValueError):  # a loop of links, a name that no file can have
        return False
