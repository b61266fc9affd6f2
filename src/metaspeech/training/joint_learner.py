"""Joint training over all training speakers: the common start of every algorithm."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from metaspeech.config import Pretrain
from metaspeech.data.batch import SpeechBatch
from metaspeech.seeds import mixed_seed


class JointLearner(pl.LightningModule):
    """Adam with warm-up and cosine decay on the model's own loss."""

    def __init__(self, model: nn.Module, settings: Pretrain, seed: int) -> None:
        super().__init__()
        self.model, self.settings, self.seed = model, settings, seed

    def training_step(self, batch: SpeechBatch, index: int) -> Tensor:
        torch.manual_seed(mixed_seed(self.seed, self.global_step))
        loss, terms = self.model(batch)
        self.log_dict({"loss": loss.detach(), **terms}, prog_bar=True, batch_size=len(batch))
        return loss  # type: ignore[no-any-return]

    def validation_step(self, batch: SpeechBatch, index: int) -> None:
        torch.manual_seed(mixed_seed(self.seed, f"validation-{index}"))
        loss, terms = self.model(batch)
        values = {"validation_loss": loss, **{f"validation_{name}": value for name, value in terms.items()}}
        self.log_dict(values, batch_size=len(batch))

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.Adam(self.model.parameters(), lr=self.settings.rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate_factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate_factor(self, step: int) -> float:
        settings = self.settings
        if step < settings.warmup:
            return (step + 1) / settings.warmup
        progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
        floor = settings.final_rate / settings.rate
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
