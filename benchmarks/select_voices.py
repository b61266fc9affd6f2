"""Chooses the voices of the generated corpus: ``python -m benchmarks.select_voices`` writes assets/espeak_voices.csv.

Every candidate (eSpeak NG variant x pitch; the rate is drawn) says the same phrases. It is heard by a speaker encoder
and by a phoneme recogniser. Candidates that the recogniser misunderstands too often are out. Of the others, women first
since they are fewer, 48 are chosen so that the largest cosine between the speaker vectors of two of them is as small as
the search finds. Measuring takes about 15 minutes of CPU and is kept in build/voices.parquet (remove it to measure
anew).

``--check`` measures the stored list alone, in a minute or two, and fails if it breaks the limits below.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import espeakng_loader
import numpy as np
import pandas as pd

from metaspeech.corpora.espeak import read_voices, say
from metaspeech.files import replacing
from metaspeech.parallel import ordered_map, worker_count
from metaspeech.text.phrases import phrases

LIST = Path("assets/espeak_voices.csv")
MEASURED = Path("build/voices.parquet")
COUNT = 48
MAX_COSINE = 0.825
MAX_PHONEME_ERROR = 0.46
MARGIN = 0.02  # what other versions of the measuring packages may add in a check
PITCHES = range(10, 100, 10)
RATES = range(140, 191, 10)  # words a minute
PHRASES = 12
SWAPS = 20_000  # of the search at each threshold
NOVELTY = re.compile(  # robots, whispers, croaks, monsters, echoes, and voices whose file changes the language's sounds
    "robo|whisper|croak|demonic|fast|announcer|storm|tweaky|anxious|ricishay|kaukovalta|marco| ", re.IGNORECASE
)
WOMEN = {"steph", "steph2", "steph3"}  # named so, without a gender in their file


@dataclass(frozen=True)
class Measured:
    """One candidate and what the judges heard."""

    variant: str
    pitch: int
    rate: int
    gender: str
    phoneme_error: float
    vector: np.ndarray  # (256,), length 1


def candidates() -> list[tuple[str, int, int]]:
    """All (variant, pitch, rate)."""
    folder = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    names = [path.name for path in sorted(folder.iterdir()) if not NOVELTY.search(path.name)]
    return [(name, pitch, random.Random(f"{name} {pitch}").choice(RATES)) for name in names for pitch in PITCHES]


def gender(variant: str) -> str:
    """From the variant's file: f if it says female, else m, eSpeak NG's default."""
    text = (Path(espeakng_loader.get_data_path()) / "voices" / "!v" / variant).read_text("utf-8", "replace")
    return "f" if re.search(r"^gender\s+female", text, re.MULTILINE) or variant in WOMEN else "m"


def measure(candidate: tuple[str, int, int]) -> Measured:
    """Lets a candidate speak and be judged."""
    import soxr
    from rapidfuzz.distance import Levenshtein

    from metaspeech.evaluation.speaker_encoder import embed

    recogniser, pronounce = _hama()
    variant, pitch, rate = candidate
    texts = phrases(PHRASES, vocabulary=40, words_per_phrase=3, seed=7)
    spoken, sample_rate = say(variant, rate, pitch, texts)
    resampled = [soxr.resample(samples.astype(np.float32), sample_rate, 16000) for samples in spoken]
    waveforms = [samples / (2 * np.abs(samples).max()) for samples in resampled]
    halves = embed([np.concatenate(waveforms[: PHRASES // 2]), np.concatenate(waveforms[PHRASES // 2 :])])
    centroid = halves.mean(axis=0)
    errors = length = 0
    for text, waveform in zip(texts, waveforms, strict=True):
        reference = [item.phoneme for item in pronounce(text).alignments]
        errors += Levenshtein.distance(recogniser(waveform, 16000).phonemes, reference)
        length += len(reference)
    return Measured(variant, pitch, rate, gender(variant), errors / length, centroid / np.linalg.norm(centroid))


@cache
def _hama() -> tuple[Any, Any]:
    from hama import ASRModel, G2PModel

    return ASRModel(), G2PModel()


def measure_all(wanted: list[tuple[str, int, int]]) -> list[Measured]:
    from tqdm import tqdm

    return list(tqdm(ordered_map(measure, wanted, worker_count(0)), total=len(wanted), disable=None))


def cosines(measured: list[Measured]) -> np.ndarray:
    """(voices, voices), with -1 on the diagonal."""
    vectors = np.stack([one.vector for one in measured])
    result = vectors @ vectors.T
    np.fill_diagonal(result, -1)
    return result


def measured_candidates() -> list[Measured]:
    """From build/voices.parquet if it is there."""
    if not MEASURED.exists():
        table = pd.DataFrame([{**vars(one), "vector": one.vector.tolist()} for one in measure_all(candidates())])
        with replacing(MEASURED) as path:
            table.to_parquet(path)
    rows = pd.read_parquet(MEASURED).to_dict("records")
    return [Measured(**{**row, "vector": np.asarray(row["vector"])}) for row in rows]


def select(measured: list[Measured], count: int) -> list[Measured]:
    """``count`` voices, any two of which are no closer than a threshold that is lowered until the search fails."""
    similar = cosines(measured)
    women = np.array([one.gender == "f" for one in measured])
    best: list[int] = []
    for threshold in np.arange(0.95, 0.60, -0.0025):
        close, draw = similar > threshold, np.random.default_rng(0)
        found = independent(close, np.flatnonzero(women), draw)
        found += independent(close, np.flatnonzero(~women & ~close[:, found].any(axis=1)), draw)
        if len(found) < count:
            break
        best = found
    return [measured[index] for index in best[:count]]


def independent(close: np.ndarray, among: np.ndarray, draw: np.random.Generator) -> list[int]:
    """A large set of nodes of a graph of which no two are linked.

    Local search: add a free node if there is one, else swap one in for its only neighbour in the set, rarely for two. A
    node that was swapped out stays out for a few rounds.
    """
    close = close[np.ix_(among, among)]
    inside, links = np.zeros(len(among), dtype=bool), np.zeros(len(among), dtype=int)  # links into the set
    barred = np.zeros(len(among), dtype=int)
    best = inside.copy()
    for step in range(SWAPS):
        allowed = 0 if (~inside & (links == 0)).any() else 2 if draw.random() < 0.02 else 1
        options = np.flatnonzero(~inside & (links == allowed) & ((barred < step) | (allowed == 0)))
        if not len(options):
            continue
        node = draw.choice(options)
        for neighbour in np.flatnonzero(inside & close[node]):
            inside[neighbour] = False
            links -= close[neighbour]
            barred[neighbour] = step + draw.integers(7, 12)
        inside[node] = True
        links += close[node]
        if inside.sum() > best.sum():
            best = inside.copy()
    return [int(index) for index in among[best]]


def write(chosen: list[Measured]) -> None:
    nearest = cosines(chosen).max(axis=1)
    table = pd.DataFrame(
        {
            "speaker": [f"{one.variant.lower()}-r{one.rate}-p{one.pitch}" for one in chosen],
            "variant": [one.variant for one in chosen],
            "rate": [one.rate for one in chosen],
            "pitch": [one.pitch for one in chosen],
            "gender": [one.gender for one in chosen],
            "phoneme_error": [round(one.phoneme_error, 3) for one in chosen],
            "nearest_cosine": nearest.round(3),
        }
    )
    shuffled = table.sort_values("speaker").sample(frac=1, random_state=1)  # the first n rows are a fair sample
    shuffled.to_csv(LIST, index=False, lineterminator="\n")


def report(voices: list[Measured]) -> tuple[float, float]:
    """Prints and returns the largest cosine of two voices and the largest phoneme error."""
    similar, error = cosines(voices).max(), [one.phoneme_error for one in voices]
    women = sum(one.gender == "f" for one in voices)
    print(f"{len(voices)} voices, {women} f; largest cosine {similar:.3f}; ", end="")
    print(f"phoneme error {min(error):.2f} to {max(error):.2f}, median {np.median(error):.2f}")
    return float(similar), max(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="measure the stored list only")
    if parser.parse_args().check:
        stored = [(voice.variant, voice.pitch, voice.rate) for voice in read_voices(LIST)]
        similar, error = report(measure_all(stored))
        return int(similar > MAX_COSINE + MARGIN or error > MAX_PHONEME_ERROR + MARGIN)
    measured = measured_candidates()
    clear = [one for one in measured if one.phoneme_error <= MAX_PHONEME_ERROR]
    print(f"{len(measured)} candidates, {len(clear)} clear enough")
    chosen = select(clear, COUNT)
    write(chosen)
    report(chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
