"""A judge that is not asked twice about the same sound: evaluating again after another change costs no judging.

What it said stands in an SQLite file by a digest of all that it depends on. Without the file, or with an unreadable
one, scores are the same and take longer.
"""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Sequence
from functools import cache, cached_property
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from metaspeech.audio import features
from metaspeech.evaluation import speaker_encoder
from metaspeech.evaluation.judges.base import Candidate, Judge, Query, Scores, Setting
from metaspeech.registry import JUDGES, resolve

LIMIT = 200_000  # scores in a file, some 300 bytes each: beyond, the oldest are forgotten
_TABLE = "CREATE TABLE IF NOT EXISTS scores (id INTEGER PRIMARY KEY, key TEXT UNIQUE, said TEXT)"
_PATIENCE = 60.0  # seconds that another process may hold the file


class Memory:
    """Scores by digest, for several processes at once. A file that cannot be used is said once and then left alone."""

    def __init__(self, path: Path | None) -> None:
        self._file: sqlite3.Connection | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=_PATIENCE)
            with self._file:
                self._file.execute(_TABLE)
                self._file.execute("DELETE FROM scores WHERE id <= (SELECT MAX(id) FROM scores) - ?", (LIMIT,))
        except (OSError, sqlite3.Error) as error:
            self._leave(error, path)

    def recall(self, keys: Sequence[str]) -> list[Scores | None]:
        """What is known of each."""
        if self._file is None:
            return [None] * len(keys)
        try:
            found = [self._file.execute("SELECT said FROM scores WHERE key = ?", (key,)).fetchone() for key in keys]
            return [json.loads(row[0]) if row else None for row in found]
        except (sqlite3.Error, ValueError) as error:
            self._leave(error)
            return [None] * len(keys)

    def keep(self, said: dict[str, Scores]) -> None:
        if self._file is None or not said:
            return
        try:
            rows = [(key, json.dumps(dict(scores))) for key, scores in said.items()]
            with self._file:
                self._file.executemany("INSERT OR REPLACE INTO scores (key, said) VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            self._leave(error)

    def _leave(self, error: Exception, path: Path | None = None) -> None:
        name = f"{path}: " if path else ""
        warnings.warn(f"{name}remembered scores cannot be used ({error}); delete the file to begin anew", stacklevel=3)
        self._file = None


class Remembered:
    """The judge of that name, made only when it has something to hear."""

    def __init__(self, name: str, setting: Setting, memory: Memory) -> None:
        self.name, self.setting, self.memory = name, setting, memory

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> list[Scores]:
        asked = digest(self._version, query.speaker.encode(), query.text.encode(), _bytes(query.audio)).encode()
        keys = [digest(asked, _bytes(one.audio), _bytes(one.alignment)) for one in candidates]
        known = dict(zip(keys, self.memory.recall(keys), strict=True))
        new = {key: one for key, one in zip(keys, candidates, strict=True) if known[key] is None}
        if new:
            said = dict(zip(new, self._judge(query, list(new.values())), strict=True))
            self.memory.keep(said)
            known.update(said)
        return [scores for scores in (known[key] for key in keys) if scores is not None]

    @cached_property
    def _judge(self) -> Judge:
        judge: Judge = resolve(JUDGES, self.name)(self.setting)
        return judge

    @cached_property
    def _version(self) -> bytes:
        """Of the judge, its code and packages, and of what it was told before."""
        packages = [f"{package} {version(package)}" for package in resolve(JUDGES, self.name).packages]
        parts = [part.encode() for part in (_code(), self.name, *packages, str(torch.get_num_threads()))]
        parts.append(digest(*(text.encode() for text in self.setting.texts)).encode())
        for speaker, recordings in sorted(self.setting.enrolment.items()):
            parts += [speaker.encode(), *map(_bytes, recordings)]
        return digest(*parts).encode()


def digest(*parts: bytes) -> str:
    """Of several parts, each with its length."""
    found = sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()


def _bytes(array: np.ndarray | None) -> bytes:
    """Of no array: none. Of an array: its shape too."""
    return b"" if array is None else f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()


@cache
def _code() -> str:
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(speaker_encoder.__file__), Path(str(features.__file__))]
    return digest(*(file.read_bytes() for file in files))
