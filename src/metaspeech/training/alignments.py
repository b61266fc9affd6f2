"""What an acoustic model attends to while it is trained, as images over steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch

from metaspeech.data.batch import SpeechBatch

LogImage = Callable[[np.ndarray, str, int], None]


class AlignmentImages(pl.Callback):
    """After each validation, the attention over the first utterance of ``batch`` under teacher forcing.

    Training draws the same random numbers as without it.
    """

    def __init__(self, batch: SpeechBatch, log: LogImage) -> None:
        self._utterance, self._log = first_utterance(batch), log

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            voices = getattr(module, "voices", None)  # of training speakers: their mean speaks
            offset = None if voices is None else voices.mean(dim=0)[None]
            image = attention(module.model, self._utterance.to(module.device), offset)
            self._log(image, "alignment", trainer.global_step)


def attention(model: Any, utterance: SpeechBatch, voices: torch.Tensor | None = None) -> np.ndarray:
    """Of one utterance: (characters, decoder steps) in [0, 1], the first character at the bottom."""
    training = model.training
    on_gpu = [utterance.tokens.device] if utterance.tokens.is_cuda else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(on_gpu):
            torch.manual_seed(0)
            _, alignments = model.body(utterance, voices)
    finally:
        model.train(training)
    return cast(np.ndarray, alignments[0].float().cpu().numpy().T[::-1])


def first_utterance(batch: SpeechBatch) -> SpeechBatch:
    """Alone, and without padding."""
    one = SpeechBatch(
        **{name: value[:1] for name, value in vars(replace(batch, starts=None)).items() if value is not None}
    )
    return replace(
        one,
        tokens=one.tokens[:, : int(one.token_lengths)],
        mels=one.mels[:, : int(one.mel_lengths)],
        audio=one.audio[:, : int(one.audio_lengths)],
    )
