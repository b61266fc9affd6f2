"""What is wrong with each recording, and what to do about it; what is right is prepared as the pipeline does it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Literal

import numpy as np
import torch

from metaspeech.audio.features import resample
from metaspeech.audio.io import Reader
from metaspeech.config import Prepare
from metaspeech.data.store import AUDIO_SCALE, Features
from metaspeech.data.utterance import Utterance, prepare_utterance
from metaspeech.errors import UserError
from metaspeech.text.normalise import normalise
from metaspeech.voices.recordings import Entry

NOISY_DB, TOO_NOISY_DB = 15.0, 4.0  # signal to noise below which a recording is doubtful, and refused
WRONG_MARGIN, WRONG_LEAST = 0.3, 0.8  # phoneme error above the others' median, and at least, of a wrong text
_FRAME_SECONDS = 0.02
_QUIET, _LOUD = 5, 90  # percentiles of the frames' power

State = Literal["good", "doubtful", "refused"]

ADVICE = {
    "missing file": "Put the file there, or take the line out of metadata.csv.",
    "no path": "Fill in the column path, or take the line out.",
    "path outside the folder": "Copy the recording into the folder; links and '..' are not followed.",
    "unreadable audio": "Save it again as wav, flac or ogg.",
    "segment outside the file": "Save it again as wav, flac or ogg.",
    "empty text": "Write down the words that are said.",
    "unknown symbols": "Write the words with the letters a to z; other scripts cannot be spoken.",
    "too short": "Record a whole sentence.",
    "too long": "Cut it at pauses into sentences, each with its own text.",
    "silence": "Nothing is heard: was the microphone on?",
    "clipping": "Record it again at a lower level.",
    "same recording": "It counts once; take the copy out.",
    "noisy": "Record in a quieter place, nearer to the microphone.",
    "wrong text": "Listen to it: does it say these words? If so, keep it with --keep-doubtful.",
}


@dataclass(frozen=True)
class Checked:
    """One recording after all checks.

    Attributes:
        path: relative to the folder.
        text: as written.
        state: good; doubtful: it could be used, but may do harm; refused: it cannot be used.
        reason: what is wrong; what stands before its colon is a key of :data:`ADVICE`. Empty for a good one.
        sha256: of the file; empty where it could not be read.
        seconds: of speech with its margins; 0 where it could not be read.
        snr_db: estimated ratio of speech to background; NaN where it could not be read.
        phoneme_error: of what is heard against the text (0 is perfect); NaN where it was not measured.
        utterance: what the models read; None for a refused one.
    """

    path: str
    text: str
    state: State
    reason: str = ""
    sha256: str = ""
    seconds: float = 0.0
    snr_db: float = float("nan")
    phoneme_error: float = float("nan")
    utterance: Utterance | None = None

    @property
    def advice(self) -> str:
        """What to do about it."""
        return ADVICE.get(self.reason.partition(":")[0], "")


Listen = Callable[[np.ndarray, str], float]
"""(samples at 16 kHz, normalised text) -> phoneme error."""


def check_recordings(
    folder: Path, entries: Sequence[Entry], features: Features, listen: Listen | None = None
) -> list[Checked]:
    """Reads and prepares each recording.

    Args:
        folder: of the recordings.
        entries: as :func:`metaspeech.voices.recordings.read_folder` lists them.
        features: of the meta-model: with what settings to prepare.
        listen: the judge of wrong texts; None: texts are believed.
    """
    config = prepare_settings(features)
    checked: list[Checked] = []
    with Reader() as reader:
        for entry in entries:
            one = _prepared(reader, folder, entry, config)
            if one.sha256 and any(one.sha256 == other.sha256 for other in checked):
                one = replace(one, state="refused", reason="same recording: as one before it", utterance=None)
            checked.append(one)
    return _with_texts_judged(checked, config.sample_rate, listen) if listen else checked


def prepare_settings(features: Features) -> Prepare:
    """The section ``prepare`` that features were made with."""
    known = {item.name for item in fields(Prepare)}
    return Prepare(**{name: value for name, value in features.settings.items() if name in known})


def _prepared(reader: Reader, folder: Path, entry: Entry, config: Prepare) -> Checked:
    if entry.refused:
        return Checked(entry.path, entry.text, "refused", entry.refused)
    row = SimpleNamespace(path=entry.path, text=entry.text, start=float("nan"), stop=float("nan"))
    snr = float("nan")
    try:
        utterance = prepare_utterance(reader, row, folder, config)
        samples, rate = reader.read(folder / entry.path)
        snr = snr_db(samples, rate)
        digest = hashlib.sha256((folder / entry.path).read_bytes()).hexdigest()
    except UserError as error:
        return Checked(entry.path, entry.text, "refused", _reason(str(error)))
    except (OSError, ValueError):
        return Checked(entry.path, entry.text, "refused", "unreadable audio: the file cannot be opened")
    seconds = len(utterance.audio) / config.sample_rate
    found = Checked(entry.path, entry.text, "good", "", digest, seconds, snr, utterance=utterance)
    if snr >= NOISY_DB:
        return found
    reason = f"noisy: speech lies about {max(snr, 0):.0f} dB above the background, expected {NOISY_DB:.0f} or more"
    if snr < TOO_NOISY_DB:
        return replace(found, state="refused", reason=reason, utterance=None)
    return replace(found, state="doubtful", reason=reason)


def _reason(message: str) -> str:
    """The reason of ``prepare`` without the key of params.yaml, which is not what the owner of a voice changes."""
    kind, _, detail = message.partition(":")
    before, _, limit = detail.partition(", prepare.")
    if kind == "missing file":
        return f"{kind}: there is none of this name"
    if kind in ("unreadable audio", "segment outside the file"):
        return kind + ":" + detail.rpartition(":")[2]
    return f"{kind}:{before}" + (f", the limit is {limit.partition(' is ')[2]}" if limit else "")


def snr_db(samples: np.ndarray, rate: int) -> float:
    """Speech to background in dB: the loud frames' power (90th percentile of 20 ms frames) to the quiet ones' (5th).

    An estimate from below: a recording without any pause has no frame of background alone.
    """
    frame = max(1, round(_FRAME_SECONDS * rate))
    count = len(samples) // frame
    if count < 2:
        return float("nan")
    power = np.square(samples[: count * frame].reshape(count, frame), dtype=np.float64).mean(axis=1)
    quiet, loud = np.percentile(power, [_QUIET, _LOUD])
    return float(10 * np.log10((loud + 1e-12) / (quiet + 1e-12)))


def _with_texts_judged(checked: Sequence[Checked], rate: int, listen: Listen) -> list[Checked]:
    """A text is held to be wrong when its phoneme error lies far above that of the speaker's other recordings.

    One recording alone has no others: there only an error of 0.9 and more, which is that of other words, counts.
    """
    measured = []
    for one in checked:
        if one.utterance is not None:
            audio = torch.from_numpy(one.utterance.audio / np.float32(AUDIO_SCALE))
            heard = listen(resample(audio, rate, 16000).numpy(), normalise(one.text))
            one = replace(one, phoneme_error=heard)
        measured.append(one)
    judged = []
    for index, one in enumerate(measured):
        others = [
            other.phoneme_error
            for place, other in enumerate(measured)
            if place != index and other.phoneme_error == other.phoneme_error
        ]
        limit = max(WRONG_LEAST, median(others) + WRONG_MARGIN) if others else 0.9
        if one.phoneme_error > limit:
            usual = f", against {median(others):.2f} for the others" if others else ""
            reason = f"wrong text: what is heard has a phoneme error of {one.phoneme_error:.2f}{usual}"
            one = replace(one, state="doubtful", reason=reason)
        judged.append(one)
    return judged


def phoneme_listener() -> Listen:
    """The judge of the pipeline (English only), which takes some seconds to load."""
    from metaspeech.evaluation.judges.base import Setting
    from metaspeech.evaluation.judges.phonemes import PhonemeError, error_rate, pronunciation

    judge = PhonemeError(Setting(enrolment={}, texts=()))
    return lambda audio, text: error_rate(pronunciation(text), judge.recognise(audio))
