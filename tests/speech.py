"""Something like speech for tests: voiced syllables with pauses, made of harmonics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile


def syllables(seconds: float, rate: int = 16000, pitch: float = 120.0, seed: int = 0) -> np.ndarray:
    """(samples,) float32: harmonics of ``pitch`` under an envelope of four syllables a second, RMS about 0.1."""
    noise = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    harmonics = [np.sin(2 * np.pi * pitch * k * time + noise.uniform(0, 6)) / k for k in range(1, 20)]
    envelope = 0.2 + np.abs(np.sin(2 * np.pi * 2 * time))
    return np.asarray(0.1 * np.sum(harmonics, axis=0) * envelope, dtype=np.float32)


def with_silence(speech: np.ndarray, rate: int, before: float, after: float) -> np.ndarray:
    """Speech between stretches of nothing, in seconds."""
    return np.concatenate([np.zeros(round(before * rate)), speech, np.zeros(round(after * rate))]).astype(np.float32)


def write_corpus(
    folder: Path, speakers: int = 3, utterances: int = 4, rate: int = 16000, **columns: Any
) -> pd.DataFrame:
    """A corpus folder as the corpus stage leaves it: one wav an utterance, each with a text of its own."""
    rows = []
    for speaker in range(speakers):
        for number in range(utterances):
            path = f"audio/s{speaker}/{number}.wav"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            speech = syllables(0.4 + 0.05 * number, rate, pitch=100 + 30 * speaker, seed=number)
            soundfile.write(folder / path, with_silence(speech, rate, 0.3, 0.2), rate)
            word = "".join("abcdefghij"[int(digit)] for digit in str(100 * speaker + number))
            rows.append((f"s{speaker}_{number}", f"s{speaker}", path, f"Number {word}."))
    table = pd.DataFrame(rows, columns=["utt_id", "speaker", "path", "text"]).assign(**columns)
    save_corpus(folder, table)
    return table


def save_corpus(folder: Path, table: pd.DataFrame, root: str = ".") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(folder / "corpus.parquet", index=False)
    (folder / "corpus.json").write_text(json.dumps({"source": "folder", "root": root}), encoding="utf-8")
