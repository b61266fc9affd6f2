"""The embedded default corpus: phrases of our own, spoken by eSpeak NG in many voices.

Synthetic speech, and so no evidence about human voices. It is the default because it needs no download and no
recordings, has exact labels, any size, and no restriction on its use.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from tqdm import tqdm

from metaspeech import config
from metaspeech.corpora.base import CorpusInfo, no_rejected, write_corpus
from metaspeech.corpora.espeak_variants import is_drawn, variant_file
from metaspeech.errors import UserError
from metaspeech.parallel import worker_count
from metaspeech.text.phrases import capacity, phrases
from metaspeech.text.sentences import sentences

LANGUAGE = "en-us"
NOTE = (
    "Synthetic: texts from a word list, spoken by the formant synthesiser eSpeak NG in voices that differ in timbre, "
    "rate and pitch. The default because it needs no download, has exact labels and any size. "
    "Results on it say nothing about human voices."
)
LICENCE = "Generated here; free of rights. eSpeak NG itself (GPL-3.0-or-later) runs as a separate program."


@dataclass(frozen=True)
class Voice:
    """One row of the list of voices."""

    speaker: str
    variant: str  # the name of an eSpeak NG voice variant, or of a drawn one (espeak_variants.py)
    rate: int  # words a minute
    pitch: int  # 0 to 99
    gender: str


class Espeak:
    """``corpus.path`` is a list of voices (CSV: speaker, variant, rate, pitch, gender)."""

    def build(self, config: config.Corpus, out: Path, seed: int, workers: int) -> CorpusInfo:
        voices = read_voices(Path(config.path))
        if config.utterances == 0:
            raise UserError("corpus.utterances: 0 is not a number of phrases that espeak can say. Expected 1 or more.")
        voices = voices[: config.speakers or None]
        texts = deal_texts(len(voices), config, seed)

        out.mkdir(parents=True, exist_ok=True)
        audio, fresh = out / "audio", out / "audio.tmp"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        with ThreadPoolExecutor(worker_count(workers)) as pool:
            spoken = pool.map(_speak, voices, texts, repeat(fresh))
            tables = list(tqdm(spoken, total=len(voices), desc="voices", unit="voice", disable=None))
        shutil.rmtree(audio, ignore_errors=True)
        fresh.rename(audio)

        table = pd.concat([table for table, _ in tables], ignore_index=True)
        info = CorpusInfo(
            source="espeak",
            root=".",
            licence=LICENCE,
            language="en",
            note=NOTE,
            speakers=len(voices),
            utterances=len(table),
            rejected=0,
            hours=sum(seconds for _, seconds in tables) / 3600,
        )
        return write_corpus(out, info, table, no_rejected())


def deal_texts(speakers: int, config: config.Corpus, seed: int) -> list[list[str]]:
    """What each speaker says: no phrase twice by one speaker, and none by two while there are enough."""
    each = config.utterances
    if config.texts == "sentences":
        pool = sentences(speakers * each, config.vocabulary, config.words_per_phrase, seed)
        return [pool[row * each : (row + 1) * each] for row in range(speakers)]
    most = capacity(config.vocabulary, config.words_per_phrase)
    pool = phrases(max(each, min(speakers * each, most)), config.vocabulary, config.words_per_phrase, seed)
    return [[pool[(row * each + k) % len(pool)] for k in range(each)] for row in range(speakers)]


def say(variant: str, rate: int, pitch: int, texts: list[str]) -> tuple[list[np.ndarray], int]:
    """Speaks ``texts`` in one voice, in a process of its own.

    Returns:
        int16 waveforms of shape (samples,), and their sample rate.

    Raises:
        UserError: eSpeak NG is not installed or does not know the voice.
    """
    job = {"voice": f"{LANGUAGE}+{variant}", "rate": rate, "pitch": pitch, "texts": texts}
    job |= {"variant": variant_file(variant)} if is_drawn(variant) else {}
    command = [sys.executable, str(Path(__file__).with_name("espeak_worker.py"))]
    done = subprocess.run(command, input=json.dumps(job).encode() + b"\n", capture_output=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise UserError(f"espeak: {lines[-1]}. Check the list of voices and that espeakng-loader is installed.")
    head, _, body = done.stdout.partition(b"\n")
    header: dict[str, Any] = json.loads(head)
    samples = np.frombuffer(body, dtype="<i2")
    return np.split(samples, np.cumsum(header["samples"])[:-1]), header["sample_rate"]


def _speak(voice: Voice, texts: list[str], folder: Path) -> tuple[pd.DataFrame, float]:
    """Writes one file for a voice. Returns its rows of the corpus table, and its length in seconds."""
    waveforms, sample_rate = say(voice.variant, voice.rate, voice.pitch, texts)
    soundfile.write(folder / f"{voice.speaker}.flac", np.concatenate(waveforms), sample_rate, subtype="PCM_16")
    stops = np.cumsum([len(waveform) for waveform in waveforms])
    table = pd.DataFrame(
        {
            "utt_id": [f"{voice.speaker}-{k:04d}" for k in range(len(texts))],
            "speaker": voice.speaker,
            "path": f"audio/{voice.speaker}.flac",
            "text": texts,
            "start": np.concatenate([[0], stops[:-1]]),
            "stop": stops,
            "gender": voice.gender,
            "variant": voice.variant,
            "rate": voice.rate,
            "pitch": voice.pitch,
        }
    )
    return table, float(stops[-1]) / sample_rate


def read_voices(path: Path) -> list[Voice]:
    """Reads and checks a list of voices.

    Raises:
        UserError: it is missing, lacks a column, holds a value out of range, a speaker twice, or fewer than two.
    """
    columns = list(Voice.__annotations__)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. corpus.path must be a list of voices ({', '.join(columns)})") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from None
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"{path}: column {', '.join(missing)} is missing. Expected: {', '.join(columns)}")
    voices = []
    for number, row in enumerate(table[columns].to_dict("records"), start=2):
        rate, pitch = _number(path, number, "rate", row, 80, 450), _number(path, number, "pitch", row, 0, 99)
        voices.append(Voice(row["speaker"], row["variant"], rate, pitch, row["gender"]))
    names = [voice.speaker for voice in voices]
    repeated = sorted({name for name in names if names.count(name) > 1 or not name or "/" in name})
    if repeated:
        raise UserError(f"{path}: speaker {repeated[0]!r}: expected a name without '/' that occurs once")
    if len(voices) < 2:
        raise UserError(f"{path}: lists {len(voices)} voices, expected at least 2")
    return voices


def _number(path: Path, line: int, column: str, row: dict[Hashable, str], low: int, high: int) -> int:
    value = row[column]
    if not value.isdecimal() or not low <= int(value) <= high:
        raise UserError(f"{path}: line {line}: {column}: {value!r}, expected a whole number from {low} to {high}")
    return int(value)
