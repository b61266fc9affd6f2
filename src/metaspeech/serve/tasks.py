"""What the workers do. The classes travel to them; packages that take time to import are imported there."""

from __future__ import annotations

import base64
import json
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaspeech.serve.pool import Control

if TYPE_CHECKING:
    import numpy as np

    from metaspeech.voices.checks import Checked
    from metaspeech.voices.meta_model import MetaModel
    from metaspeech.voices.voice import Spoken, Voice

KEPT = 4  # voices that a worker keeps in memory
_loaded: OrderedDict[tuple[str, str], Voice] = OrderedDict()


@dataclass(frozen=True)
class Say:
    """A text to a wav, or to JSON with the wav and what can be seen of it.

    Attributes:
        store: the folder of voices.
        voice: its name.
        version: of the voice: the digest of its voice.json.
        text, seed, speed, vocoder: see :meth:`metaspeech.voices.voice.Voice.stream`.
        pictures: whether as JSON.
    """

    store: Path
    voice: str
    version: str
    text: str
    seed: int
    speed: float
    vocoder: str | None
    pictures: bool

    def run(self, control: Control) -> bytes:
        import numpy as np

        from metaspeech.voices import wav

        voice = self._voice()
        spoken: list[Spoken] = []
        for one in voice.stream(self.text, speed=self.speed, seed=self.seed, vocoder=self.vocoder):
            control.check()
            spoken.append(one)
        samples = np.concatenate([one.samples for one in spoken])
        note = voice.note(self.text, seed=self.seed, speed=self.speed)
        sound = wav.encoded(samples, voice.rate, note)
        return json.dumps(self._described(voice, spoken, sound, note)).encode() if self.pictures else sound

    def _voice(self) -> Voice:
        from metaspeech.voices import load

        key = (self.voice, self.version)
        if key not in _loaded:
            for old in [other for other in _loaded if other[0] == self.voice]:
                del _loaded[old]
            _loaded[key] = load(self.voice, self.store)
        _loaded.move_to_end(key)
        while len(_loaded) > KEPT:
            _loaded.popitem(last=False)
        return _loaded[key]

    def _described(self, voice: Voice, spoken: Sequence[Spoken], sound: bytes, note: str) -> dict[str, Any]:
        from metaspeech.voices.sentences import left_out

        sentences, start = [], 0
        for one in spoken:
            sentences.append(
                {
                    "text": one.text,
                    "start": start / voice.rate,
                    "seconds": len(one.samples) / voice.rate,
                    "came_to_an_end": one.stopped,
                    "mel": _picture(one.mel, *_range(one.mel)),
                    "alignment": _picture(one.alignment, 0.0, 1.0),
                    "symbols": one.symbols,
                }
            )
            start += len(one.samples)
        return {
            "voice": self.voice,
            "wav": base64.b64encode(sound).decode(),
            "rate": voice.rate,
            "seconds": start / voice.rate,
            "provenance": note,
            "left_out": left_out(self.text),
            "frame_seconds": voice.frame_seconds,
            "highest_hz": voice.highest_hz,
            "sentences": sentences,
        }


@dataclass(frozen=True)
class Adapt:
    """Recordings to a voice.

    Attributes:
        store: the folder of voices.
        recordings: the folder of the recordings, each with its text beside it.
        name: of the voice.
        consent: the statement.
        model_from: the folder of the meta-model; None: it is chosen as ``metaspeech adapt`` does.
        seconds: that a recording may last.
        check_texts, keep_doubtful, overwrite: as the options of ``metaspeech adapt``.
    """

    store: Path
    recordings: Path
    name: str
    consent: str
    model_from: Path | None
    seconds: float
    check_texts: bool
    keep_doubtful: bool
    overwrite: bool

    def run(self, control: Control) -> dict[str, Any]:
        """Reports dicts that become attributes of the job; returns the last of them."""
        from metaspeech.voices.adaptation import Progress, Settings
        from metaspeech.voices.checks import check_recordings, phoneme_listener
        from metaspeech.voices.making import make_voice
        from metaspeech.voices.recordings import read_folder
        from metaspeech.voices.store import VoiceStore

        losses: list[float] = []

        def report(progress: Progress) -> None:
            losses.append(float(f"{progress.loss:.4g}"))
            control.progress(
                {"state": "adapting", "step": progress.step, "steps": progress.steps, "best": progress.best}
                | {"losses": list(losses)}
            )

        control.progress({"state": "checking"})
        entries = self._not_too_long(read_folder(self.recordings))
        with tempfile.TemporaryDirectory() as fetched:
            meta, why = self._meta_model(Path(fetched))
            control.progress({"model": f"{meta.origin} ({meta.algorithm}, {meta.id[:12]}): {why}"})
            listen = phoneme_listener() if self.check_texts else None
            checked = check_recordings(self.recordings, entries, meta.features, listen)
            control.progress({"checks": [_described(one) for one in checked]})
            store = VoiceStore(self.store)
            settings = Settings()
            card = make_voice(
                store, self.name, checked, [meta], self.consent, settings, self.keep_doubtful, self.overwrite, report
            )
        part = card.parts["tacotron"]
        return {"state": "done", "best": part.step, "losses": part.losses, "message": f"Stopped: {part.stopped}."}

    def _meta_model(self, fetched: Path) -> tuple[MetaModel, str]:
        from metaspeech.voices.commands import champion_folder, places
        from metaspeech.voices.meta_model import choose

        champion = champion_folder("tacotron", fetched) if self.model_from is None else None
        return choose("tacotron", places(), champion, given=self.model_from)

    def _not_too_long(self, entries: Sequence[Any]) -> list[Any]:
        """Refuses by what the header says, before anything is decoded: a small file may hold hours."""
        from dataclasses import replace

        import soundfile

        found = []
        for entry in entries:
            try:
                info = soundfile.info(self.recordings / entry.path)
                seconds = info.frames / info.samplerate
            except (soundfile.LibsndfileError, OSError, ZeroDivisionError):
                seconds = 0.0  # the checks say what is wrong with it
            if seconds > self.seconds:
                entry = replace(entry, refused=f"too long: {seconds:.0f} s, the limit is {self.seconds:g} s")
            found.append(entry)
        return found


def _described(one: Checked) -> dict[str, Any]:
    """A recording's check. Its name is its place among those that were sent."""
    return {
        "recording": int(Path(one.path).stem),
        "state": one.state,
        "reason": one.reason,
        "advice": one.advice,
        "seconds": round(one.seconds, 2),
    }


def _picture(values: np.ndarray, low: float, high: float) -> dict[str, Any]:
    """(time, rows) as bytes, 0 for ``low`` and 255 for ``high``, time by time, in base64."""
    scaled = (values - low) / max(high - low, 1e-9) * 255
    return {
        "times": values.shape[0],
        "rows": values.shape[1],
        "values": base64.b64encode(scaled.clip(0, 255).astype("uint8").tobytes()).decode(),
    }


def _range(mel: np.ndarray) -> tuple[float, float]:
    """The upper 80 dB of a log-mel."""
    highest = float(mel.max())
    return highest - 9.2, highest
