"""Vectors for tasks: what the nearest tasks are found by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from metaspeech.errors import UserError
from metaspeech.files import replacing
from metaspeech.registry import REPRESENTATIONS, resolve
from metaspeech.tasks.recordings import Recordings

COLUMNS = ["representation", "id", "split", "speaker", "vector"]


class Representation(Protocol):
    """A task's recordings to a vector, and how alike two tasks are by their vectors. Built without arguments."""

    label: str
    """What it is called in tables and figures."""

    of_model: bool
    """Whether it looks at the model, or at speech alone."""

    def vector(self, recordings: Recordings) -> np.ndarray:
        """(dimension,) float32, of the same dimension for all tasks of a model."""

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Of every vector of ``a`` to every one of ``b``: (n, dimension), (m, dimension) -> (n, m), at most 1, which is
        a vector's similarity to itself."""


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, dimension), (m, dimension) -> (n, m). A vector of zeros has the cosine 0 with every other."""
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None]
    return np.asarray((a @ b.T) / np.where(lengths == 0, 1, lengths))


@dataclass(frozen=True)
class TaskVectors:
    """Vectors of tasks by one representation.

    Attributes:
        table: a row a task: id (a training speaker, or the episode_id of a stored task), split, speaker, vector.
    """

    name: str
    representation: Representation
    table: pd.DataFrame

    def ids(self, split: str) -> list[str]:
        """Tasks of a split, in alphabetical order."""
        return sorted(self.table.loc[self.table["split"] == split, "id"])

    def of(self, task: str) -> np.ndarray:
        """The vector of a task. Raises UserError when it has none."""
        return np.asarray(self._matrix([task])[0])

    def similarity(self, rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
        """(rows, columns), see :meth:`Representation.similarity`."""
        return self.representation.similarity(self._matrix(rows), self._matrix(columns))

    def nearest(self, task: str, among: Sequence[str]) -> list[tuple[str, float]]:
        """The tasks of ``among`` with their similarity, the most similar first; equally similar ones by name."""
        similarity = self.similarity([task], among)[0]
        return sorted(zip(among, similarity.tolist(), strict=True), key=lambda one: (-one[1], one[0]))

    def _matrix(self, tasks: Sequence[str]) -> np.ndarray:
        try:
            return self._vectors[[self._rows[task] for task in tasks]]
        except KeyError as error:
            raise UserError(
                f"data/representation: no vector for {error}. Make them again: dvc repro -sf represent"
            ) from None

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {task: row for row, task in enumerate(self.table["id"])}

    @cached_property
    def _vectors(self) -> np.ndarray:
        return np.stack(list(self.table["vector"]))


def write_vectors(path: Path, table: pd.DataFrame) -> None:
    """Writes a table with :data:`COLUMNS`."""
    with replacing(path) as temporary:
        table[COLUMNS].to_parquet(temporary, index=False)


def read_vectors(path: Path, name: str) -> TaskVectors:
    """Vectors by one representation. Raises UserError when they cannot be read."""
    try:
        table = pd.read_parquet(path)[COLUMNS]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Make it: dvc repro represent") from None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not as expected ({error}). Make it again: dvc repro -sf represent") from None
    own = table[table["representation"] == name]
    if own.empty:
        raise UserError(f"{path}: has no vectors by '{name}'. Add it to represent.representations and run: dvc repro")
    vectors = own["vector"].map(lambda vector: np.asarray(vector, dtype=np.float32))
    return TaskVectors(name, resolve(REPRESENTATIONS, name)(), own.assign(vector=vectors).reset_index(drop=True))
