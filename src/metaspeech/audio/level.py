"""Where the speech lies in a recording, and how loud it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MARGIN_SECONDS = 0.05  # of silence kept at both ends: attention and stop token need an end to see
SILENCE = 1e-3  # RMS (-60 dB full scale) below which nothing counts as speech
PEAK = 0.99  # full scale that levelling does not exceed
CLIPPED = 0.999  # full scale from which a sample counts as clipped
_FRAME_SECONDS = 0.02
_STEP_SECONDS = 0.005


@dataclass(frozen=True)
class Speech:
    """The part of a recording between its leading and trailing silence."""

    start: int  # samples
    stop: int
    rms: float  # over the frames within the threshold, pauses left out


def find_speech(waveform: np.ndarray, rate: int, trim_db: float) -> Speech | None:
    """The first to the last frame (20 ms) whose RMS lies at most ``trim_db`` below that of the loudest.

    Returns:
        None when the loudest frame is silent (below -60 dB full scale).
    """
    frame, step = round(_FRAME_SECONDS * rate), round(_STEP_SECONDS * rate)
    if len(waveform) < frame:
        return None
    energy = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
    starts = np.arange(0, len(waveform) - frame + 1, step)
    power = np.maximum(energy[starts + frame] - energy[starts], 0) / frame
    if power.max() < SILENCE**2:
        return None
    active = power >= power.max() * 10 ** (-trim_db / 10)
    first, last = starts[active][[0, -1]]
    return Speech(int(first), int(last) + frame, float(np.sqrt(power[active].mean())))


def trim(waveform: np.ndarray, rate: int, speech: Speech) -> np.ndarray:
    """The speech with 50 ms of what surrounds it at either end, or zeros where the recording has no more."""
    margin = round(MARGIN_SECONDS * rate)
    start, stop = speech.start - margin, speech.stop + margin
    padding = (max(0, -start), max(0, stop - len(waveform)))
    return np.pad(waveform[max(0, start) : stop], padding)


def gain(waveform: np.ndarray, speech: Speech, loudness_db: float) -> float:
    """The factor that brings the speech to ``loudness_db`` (RMS, dB full scale), less where a peak would clip."""
    wanted = 10 ** (loudness_db / 20) / speech.rms
    return float(min(wanted, PEAK / np.abs(waveform).max()))


def clipped_share(waveform: np.ndarray) -> float:
    """The share of samples at full scale."""
    return float(np.mean(np.abs(waveform) >= CLIPPED)) if len(waveform) else 0.0
