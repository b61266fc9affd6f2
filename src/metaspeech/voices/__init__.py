"""Own recordings to a voice that speaks.

A voice is the id of a meta-model, what adaptation changed in it, and where it comes from::

    from metaspeech.voices import adapt, load

    adapt("recordings", "anna", "voices", "assets/starts/tacotron", consent="My own voice. Anna")
    voice = load("anna", "voices")
    samples, rate = voice.say("Good morning.")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metaspeech.voices.adaptation import Report, Settings
    from metaspeech.voices.voice import Voice

__all__ = ["adapt", "load"]


def adapt(
    recordings: Path | str,
    name: str,
    store: Path | str,
    start: Path | str,
    *,
    consent: str,
    vocoder_start: Path | str | None = None,
    speaker: str = "",
    keep_doubtful: bool = False,
    overwrite: bool = False,
    settings: Settings | None = None,
    report: Report | None = None,
) -> Voice:
    """Makes a voice from a folder of recordings. The command ``metaspeech adapt`` does the same and explains more.

    Args:
        recordings: a folder: metadata.csv (path, text), or audio files each with a .txt of the same name.
        name: of the voice.
        store: the folder of voices.
        start: the folder of the Tacotron to adapt: a start that ships, or one of the stage meta_train.
        consent: a statement that the speaker agrees; it is kept with the voice.
        vocoder_start: a WaveNet to adapt too, through which the voice then speaks; None: Griffin-Lim.
        speaker: whose recordings, where metadata.csv has several.
        keep_doubtful: use recordings that the checks doubt.
        overwrite: whether the voice may take the place of one of the same name.
        settings: how long to adapt.
        report: called after every step.

    Raises:
        UserError: the recordings, the start, the name or the statement are not usable; says what to do.
    """
    from metaspeech.voices.adaptation import Settings
    from metaspeech.voices.checks import check_recordings, phoneme_listener
    from metaspeech.voices.making import make_voice
    from metaspeech.voices.meta_model import read_any
    from metaspeech.voices.names import checked_name
    from metaspeech.voices.recordings import read_folder
    from metaspeech.voices.store import VoiceStore

    voices = VoiceStore(store)
    name = checked_name(name)
    voices.check_free(name, overwrite)
    metas = [read_any(Path(folder)) for folder in (start, vocoder_start) if folder is not None]
    entries = read_folder(Path(recordings), speaker)
    checked = check_recordings(Path(recordings), entries, metas[0].features, phoneme_listener())
    make_voice(voices, name, checked, metas, consent, settings or Settings(), keep_doubtful, overwrite, report)
    return load(name, voices.folder)


def load(name: str, store: Path | str) -> Voice:
    """A voice that speaks. Raises UserError when there is none of that name, or it is damaged."""
    from metaspeech.voices.store import VoiceStore
    from metaspeech.voices.voice import Voice

    voices = VoiceStore(store)
    return Voice(voices.card(name), voices)
