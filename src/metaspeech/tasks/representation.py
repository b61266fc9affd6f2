"""A vector for each task: what the nearest tasks are found by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from metaspeech.data.episodes import EpisodeSpec, Splits, representative_utterances
from metaspeech.data.store import Store
from metaspeech.errors import UserError
from metaspeech.files import replacing

COLUMNS = ["id", "split", "speaker", "vector"]


class Representation(Protocol):
    """Recordings of one speaker to a vector of fixed length. Built without arguments."""

    def vector(self, waveforms: Sequence[np.ndarray], rate: int) -> np.ndarray:
        """
        Args:
            waveforms: at least one, each (samples,) float in [-1, 1].
            rate: Hz.

        Returns:
            (dimension,) float32.
        """


def represent(
    representation: Representation,
    store: Store,
    splits: Splits,
    episodes: Iterable[EpisodeSpec],
    utterances: int,
    seed: int,
) -> pd.DataFrame:
    """A row for each training speaker (over ``utterances`` of theirs) and each stored episode (over its support).

    Returns:
        id (the speaker, or the episode_id), split, speaker, vector.
    """
    rate = int(store.settings["sample_rate"])
    recordings = [
        (speaker, "train", speaker, representative_utterances(splits, "train", speaker, utterances, seed))
        for speaker in splits.speakers("train")
    ]
    recordings += [(spec.episode_id, spec.split, spec.speaker, spec.support) for spec in episodes]
    rows = [
        (name, split, speaker, representation.vector([store.audio(utt_id) for utt_id in utt_ids], rate).tolist())
        for name, split, speaker, utt_ids in recordings
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def write_representation(path: Path, table: pd.DataFrame) -> None:
    """Writes what :func:`represent` made."""
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


def read_representation(path: Path) -> pd.DataFrame:
    """The table; its vectors are float32 arrays. Raises UserError when it cannot be read."""
    try:
        table = pd.read_parquet(path)[COLUMNS]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Make it: dvc repro episodes") from None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not as expected ({error}). Make it again: dvc repro -sf episodes") from None
    return table.assign(vector=table["vector"].map(lambda vector: np.asarray(vector, dtype=np.float32)))
