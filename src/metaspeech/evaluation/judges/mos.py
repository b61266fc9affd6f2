"""How good does it sound: the mean opinion that people would give, as a network predicts it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, ClassVar

import numpy as np
import torch

from metaspeech.evaluation.judges.base import Candidate, Column, Query, Scores, Setting

WINDOW = 122_880  # samples that the network sees at once; what is shorter is filled with silence
FRAME = 320  # samples an output frame of its convolutions
MARGIN = 4  # output frames: its convolutions reach 6 frames of 160 samples and half a window of 160 to either side


class PredictedMos:
    """Distill-MOS (Stahl and Gamper 2025). Its weights lie in the package.

    Trained on speech over networks and on older synthesis, mostly English: compare systems with it, and with the real
    recordings, but do not take it for a listening test.
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "mos",
            "Predicted MOS",
            "higher",
            "Mean opinion score from 1 to 5 as Distill-MOS predicts it; no person listened.",
        ),
    )
    # The data of the deep noise suppression challenge has LibriVox and VCTK; VoiceMOS has syntheses of LJ Speech
    trained_on: ClassVar[tuple[str, ...]] = ("librivox", "ljspeech", "nisqa", "pstn", "vctk", "voicemos")
    dear: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("distillmos", "torch")

    def __init__(self, setting: Setting) -> None:
        del setting
        from distillmos import ConvTransformerSQAModel

        with torch.random.fork_rng(devices=[]), redirect_stdout(StringIO()):  # it draws weights first, and says so
            self._model: Any = ConvTransformerSQAModel().eval()
        with torch.inference_mode():
            self._silence = self._model.cnn(torch.zeros(1, WINDOW))  # (1, channels, frames)

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> list[Scores]:
        del query
        return [{"mos": self.rate(one.audio)} for one in candidates]

    def rate(self, audio: np.ndarray) -> float:
        """From 1 to 5, of (samples,) at 16 kHz.

        As the package does it, which fills up with silence to 7.68 s: only that the convolutions, most of the work, see
        no more silence than what reaches into the speech; their answer to the rest is known.
        """
        waveform = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))[None]
        frames = -(-waveform.shape[1] // FRAME) + 2 * MARGIN
        with torch.inference_mode():
            if frames * FRAME > WINDOW:
                return float(self._model(waveform))
            speech = torch.nn.functional.pad(waveform, (0, frames * FRAME - waveform.shape[1]))
            speech = speech / (speech.abs().max() + 1e-8)
            heard = self._model.cnn(speech)[..., : frames - MARGIN]
            features = torch.cat([heard, self._silence[..., frames - MARGIN :]], dim=-1)
            return float(1 + 4 * self._model.transformer_pool_attn(features.transpose(1, 2)))
