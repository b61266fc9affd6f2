"""Joint training over all training speakers: the common start of every algorithm."""

from __future__ import annotations

import math
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from metaspeech.config import Pretrain
from metaspeech.data.batch import SpeechBatch
from metaspeech.models.base import SynthesisModel
from metaspeech.seeds import mixed_seed

SPREAD = 0.1  # of the training speakers' offsets in a model that knows no voices yet


class JointLearner(pl.LightningModule):
    """Adam with warm-up and cosine decay on the model's own loss.

    Each training speaker has a voice vector, an offset from the model's own, unless ``settings.voices`` is off. They
    are left behind: what an algorithm starts from is the model with their mean (:meth:`common_start`). ``spread`` is
    the deviation of the offsets at the beginning; 0, for a model that is trained already, has it speak as itself.
    """

    def __init__(
        self, model: SynthesisModel, speakers: int, settings: Pretrain, seed: int, spread: float = SPREAD
    ) -> None:
        super().__init__()
        self.model, self.settings, self.seed = model, settings, seed
        offsets = spread * torch.randn(speakers, len(model.voice)) * settings.voices
        self.voices = nn.Parameter(offsets, requires_grad=settings.voices)

    def common_start(self) -> nn.Module:
        """The trained model, speaking as the mean of the training speakers. Call once, after training."""
        with torch.no_grad():
            self.model.voice.add_(self.voices.mean(dim=0))
        return cast(nn.Module, self.model)

    def training_step(self, batch: tuple[SpeechBatch, Tensor], index: int) -> Tensor:
        speech, speakers = batch
        torch.manual_seed(mixed_seed(self.seed, self.global_step))
        loss, terms = self.model.forward(speech, self.voices[speakers])
        self.log_dict({"loss": loss.detach(), **terms}, prog_bar=True, batch_size=len(speech))
        return loss

    def validation_step(self, batch: SpeechBatch, index: int) -> None:
        torch.manual_seed(mixed_seed(self.seed, f"validation-{index}"))
        loss, terms = self.model.forward(batch, self.voices.mean(dim=0).expand(len(batch), -1))
        values = {"validation_loss": loss, **{f"validation_{name}": value for name, value in terms.items()}}
        self.log_dict(values, batch_size=len(batch))

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.Adam(self.parameters(), lr=self.settings.rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate_factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate_factor(self, step: int) -> float:
        settings = self.settings
        if step < settings.warmup:
            return (step + 1) / settings.warmup
        progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
        floor = settings.final_rate / settings.rate
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
