"""Prepared speech on disk: a few shards, and any utterance of them at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from metaspeech.data.manifest import read_manifest
from metaspeech.errors import UserError

if TYPE_CHECKING:
    from metaspeech.data.batch import SpeechBatch
    from metaspeech.models.base import FeatureSpec

AUDIO_SCALE = 32767.0
_AGAIN = "Make it again: dvc repro -sf prepare"


class Features:
    """What symbols and mels mean: how they were made, and what they are normalised by.

    Attributes:
        symbols: the symbol table; index 0 is padding.
        settings: sample_rate (Hz), n_fft, win, hop (samples), n_mels, fmin, fmax (Hz), text and
            whatever else of the section ``prepare`` shaped the features.
        mel_mean, mel_std: (n_mels,) float32, what features are normalised by.
    """

    def __init__(
        self, settings: dict[str, Any], symbols: list[str], mel_mean: Sequence[float], mel_std: Sequence[float]
    ) -> None:
        self.settings, self.symbols = settings, symbols
        self.mel_mean = np.array(mel_mean, dtype=np.float32)
        self.mel_std = np.array(mel_std, dtype=np.float32)

    def described(self) -> dict[str, Any]:
        """The arguments that make it again, as JSON can say them."""
        return {
            "settings": self.settings,
            "symbols": self.symbols,
            "mel_mean": [float(f"{value:.9g}") for value in self.mel_mean],
            "mel_std": [float(f"{value:.9g}") for value in self.mel_std],
        }

    def normalise(self, mel: np.ndarray) -> np.ndarray:
        """(..., n_mels) log-mel -> as models read it."""
        return np.asarray((mel - self.mel_mean) / self.mel_std)

    def denormalise(self, mel: np.ndarray) -> np.ndarray:
        """(..., n_mels) as models give it -> log-mel."""
        return np.asarray(mel * self.mel_std + self.mel_mean)

    def features(self) -> FeatureSpec:
        """What a model must know of these features."""
        from metaspeech.models.base import FeatureSpec

        return FeatureSpec(
            symbols=len(self.symbols),
            n_mels=len(self.mel_mean),
            hop=int(self.settings["hop"]),
            sample_rate=int(self.settings["sample_rate"]),
        )

    @cached_property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return float(self.settings["hop"] / self.settings["sample_rate"])


class Store(Features):
    """What the prepare stage wrote, memory-mapped.

    Attributes:
        folder: with store.json, manifest.parquet and the shards.
        manifest: a row an utterance, indexed by utt_id.
    """

    def __init__(self, folder: Path | str) -> None:
        """Opens a store and checks that its shards have the sizes that were written.

        Raises:
            UserError: something is absent, cut off or of another run.
        """
        self.folder = Path(folder)
        index = self._read_index()
        try:
            super().__init__(index["settings"], index["symbols"], index["mel_mean"], index["mel_std"])
            self._shards: list[dict[str, dict[str, Any]]] = index["shards"]
            self._files = [index["manifest"], *(entry for shard in self._shards for entry in shard.values())]
            self._check_sizes()
        except (KeyError, TypeError) as error:
            raise UserError(f"{self.folder / 'store.json'}: entry {error} is missing or malformed. {_AGAIN}") from None
        table = read_manifest(self.folder / "manifest.parquet")
        self.manifest: pd.DataFrame = table.set_index("utt_id")
        self._rows = {utt_id: row for row, utt_id in enumerate(table["utt_id"])}
        columns = ("shard", "frame_start", "frames", "sample_start", "samples")
        self._places = table[list(columns)].to_numpy(np.int64)
        self._tokens = table["tokens"].to_numpy()
        self._starts = table["starts"].to_numpy()
        self._opened: dict[tuple[int, str], np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the memory maps, which another process opens for itself."""
        return {**self.__dict__, "_opened": {}}

    def __len__(self) -> int:
        return len(self._rows)

    def mel(self, utt_id: str) -> np.ndarray:
        """(frames, n_mels) float32, the log-mel as :class:`~metaspeech.audio.features.LogMel` makes it."""
        shard, start, frames, _, _ = self._place(utt_id)
        return np.asarray(self._open(shard, "mel")[start : start + frames], dtype=np.float32)

    def normalised_mel(self, utt_id: str) -> np.ndarray:
        """(frames, n_mels) float32. By statistics of the corpus itself, each band has mean 0 and deviation 1."""
        return self.normalise(self.mel(utt_id))

    def audio(self, utt_id: str) -> np.ndarray:
        """(samples,) float32 in [-1, 1] at ``settings["sample_rate"]``."""
        shard, _, _, start, samples = self._place(utt_id)
        return np.asarray(self._open(shard, "audio")[start : start + samples] / np.float32(AUDIO_SCALE))

    def frames(self, utt_id: str) -> int:
        """Of its mel."""
        return self._place(utt_id)[2]

    def tokens(self, utt_id: str) -> list[int]:
        """Symbol ids of the text, closed by the end symbol."""
        return [int(token) for token in self._tokens[self._row(utt_id)]]

    def starts(self, utt_id: str) -> np.ndarray:
        """(symbols,) float32: the frame at which each begins. Empty where ``prepare.align`` did not find it."""
        return np.asarray(self._starts[self._row(utt_id)] / np.float32(self.frame_seconds), dtype=np.float32)

    def batch(self, utt_ids: Sequence[str]) -> SpeechBatch:
        """The utterances as a model reads them, in this order."""
        from metaspeech.data.batch import collate

        items = [(self.tokens(utt_id), self.normalised_mel(utt_id), self.audio(utt_id)) for utt_id in utt_ids]
        return collate(items, [self.starts(utt_id) for utt_id in utt_ids])

    def verify(self) -> None:
        """Reads every shard. Raises UserError when one has other bytes than were written."""
        for entry in self._files:
            path = self.folder / entry["file"]
            if _sha256(path) != entry["sha256"]:
                raise UserError(f"{path}: corrupt shard, its checksum is not the one in store.json. {_AGAIN}")

    def _read_index(self) -> dict[str, Any]:
        path = self.folder / "store.json"
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file. Make it: dvc repro prepare") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}). {_AGAIN}") from None
        if not isinstance(index, dict):
            raise UserError(f"{path}: expected an object. {_AGAIN}")
        return index

    def _check_sizes(self) -> None:
        for entry in self._files:
            path = self.folder / entry["file"]
            found = path.stat().st_size if path.is_file() else None
            if found != entry["bytes"]:
                state = "missing" if found is None else f"corrupt, {found} bytes"
                raise UserError(f"{path}: {state}, where store.json says {entry['bytes']} bytes. {_AGAIN}")

    def _row(self, utt_id: str) -> int:
        try:
            return self._rows[utt_id]
        except KeyError:
            raise UserError(
                f"{self.folder}: no utterance '{utt_id}'. Were the episodes made of another corpus? Make them again: "
                "dvc repro episodes"
            ) from None

    def _place(self, utt_id: str) -> tuple[int, int, int, int, int]:
        shard, start, frames, sample_start, samples = self._places[self._row(utt_id)]
        return int(shard), int(start), int(frames), int(sample_start), int(samples)

    def _open(self, shard: int, kind: str) -> np.ndarray:
        if (shard, kind) not in self._opened:
            path = self.folder / self._shards[shard][kind]["file"]
            try:
                self._opened[shard, kind] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise UserError(f"{path}: corrupt shard ({error}). {_AGAIN}") from None
        return self._opened[shard, kind]


def describe(path: Path) -> dict[str, str | int]:
    """How store.json knows a file: its name, bytes and sha256."""
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
