"""Log-mel spectrograms, resampling and Griffin-Lim. The one importer of torchaudio."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torchaudio.functional import griffinlim, melscale_fbanks
from torchaudio.transforms import MelSpectrogram, Resample

FLOOR = 1e-5  # of mel magnitudes, before the logarithm
_UNMEL_STEPS = 20
_LEAST = 1e-8
SETTINGS = ("sample_rate", "n_fft", "win", "hop", "n_mels", "fmin", "fmax")


class LogMel:
    """Waveform to log-mel: the natural logarithm of mel-weighted STFT magnitudes (Slaney's scale and norm).

    Frame t is centred on sample ``t * hop``; beyond the ends lie zeros.

    Args:
        sample_rate: Hz.
        n_fft, win, hop: samples.
        n_mels: bands.
        fmin, fmax: Hz.
    """

    def __init__(self, sample_rate: int, n_fft: int, win: int, hop: int, n_mels: int, fmin: float, fmax: float) -> None:
        self._mel = MelSpectrogram(
            sample_rate=sample_rate,
            n_fft=n_fft,
            win_length=win,
            hop_length=hop,
            n_mels=n_mels,
            f_min=fmin,
            f_max=fmax,
            power=1.0,
            norm="slaney",
            mel_scale="slaney",
            pad_mode="constant",
        )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> LogMel:
        """From a mapping that has the arguments among its keys, such as ``Store.settings``."""
        return cls(**{name: settings[name] for name in SETTINGS})

    def __call__(self, waveform: Tensor) -> Tensor:
        """(samples,) -> (samples // hop + 1, n_mels)"""
        with torch.no_grad():
            mel: Tensor = self._mel(waveform)
        return mel.clamp_(min=FLOOR).log_().T


def resample(waveform: Tensor, rate: int, target: int) -> Tensor:
    """(samples at ``rate``,) -> (samples at ``target``,), band-limited."""
    if rate == target:
        return waveform
    resampled: Tensor = _resampler(rate, target)(waveform)
    return resampled


def mel_to_audio(log_mel: Tensor, settings: Mapping[str, Any], iterations: int = 32, seed: int = 0) -> Tensor:
    """Griffin-Lim (fast variant, momentum 0.99): the vocoder that needs no training.

    Args:
        log_mel: (frames, n_mels) as :class:`LogMel` makes it, not normalised.
        settings: what the log-mel was made with, such as ``Store.settings``.
        iterations: 32 is enough for speech.
        seed: of the initial phases.

    Returns:
        ((frames - 1) * hop,) samples, float32.
    """
    filters, inverse = _filters(*(settings[name] for name in ("sample_rate", "n_fft", "n_mels", "fmin", "fmax")))
    magnitudes = _unmel(log_mel.detach().float().exp(), filters, inverse)
    window = torch.hann_window(settings["win"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        waveform: Tensor = griffinlim(
            magnitudes.T,
            window=window,
            n_fft=settings["n_fft"],
            hop_length=settings["hop"],
            win_length=settings["win"],
            power=1.0,
            n_iter=iterations,
            momentum=0.99,
            length=None,
            rand_init=True,
        )
    return waveform


@lru_cache(maxsize=8)
def _resampler(rate: int, target: int) -> Resample:
    return Resample(rate, target)


@lru_cache(maxsize=2)
def _filters(sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> tuple[Tensor, Tensor]:
    """The mel filters (n_fft // 2 + 1, n_mels) and their pseudo-inverse."""
    filters = melscale_fbanks(n_fft // 2 + 1, fmin, fmax, n_mels, sample_rate, norm="slaney", mel_scale="slaney")
    return filters, torch.linalg.pinv(filters)


def _unmel(mel: Tensor, filters: Tensor, inverse: Tensor) -> Tensor:
    """(frames, n_mels) -> (frames, n_fft // 2 + 1): the non-negative magnitudes that the filters turn into ``mel``.

    Least squares, then multiplicative updates (Lee and Seung 2001): the pseudo-inverse alone gives negative magnitudes,
    and cutting them off is heard.
    """
    magnitudes = (mel @ inverse).clamp_(min=_LEAST)
    wanted = mel @ filters.T
    for _ in range(_UNMEL_STEPS):
        magnitudes *= wanted / ((magnitudes @ filters) @ filters.T).clamp_(min=_LEAST)
    return magnitudes
