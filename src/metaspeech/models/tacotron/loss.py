"""Masked losses: what lies in the padding has no say."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from metaspeech.models.layers import length_mask

LEAST_ATTENTION = 1e-4  # that counts: an alignment that is wrong in a place must not outweigh all others


def mel_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean of absolute and squared error over unpadded frames and bands.

    Tacotron 2 uses the squared error alone; the absolute one (Tacotron 1) keeps a small model's spectra from blurring.
    Shapes (batch, frames, mels); mask (batch, frames).
    """
    error = (predicted - target) * mask[..., None]
    cells = mask.sum() * target.shape[-1]
    return 0.5 * (error.abs().sum() + error.square().sum()) / cells


def stop_loss(logits: Tensor, steps: Tensor, positive_weight: float) -> Tensor:
    """Cross-entropy of the stop token, which is 1 at each utterance's last decoder step and 0 before it.

    Args:
        logits: (batch, steps).
        steps: (batch,) decoder steps of each utterance.
        positive_weight: one positive stands against dozens of negatives; without weight it never fires.
    """
    mask = length_mask(steps, logits.shape[1])
    target = functional.one_hot(steps - 1, logits.shape[1]).to(logits)
    weight = logits.new_tensor(positive_weight)
    losses = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
    return (losses * mask).sum() / mask.sum()


def guided_attention_loss(alignments: Tensor, token_lengths: Tensor, steps: Tensor, sigma: float) -> Tensor:
    """Mean over unpadded cells of A * (1 - exp(-(n/N - t/T)^2 / (2 sigma^2))) (Tachibana et al. 2017, section 4.1).

    Args:
        alignments: (batch, steps, characters).
    """
    t = torch.arange(alignments.shape[1], device=steps.device)[None, :, None] / steps[:, None, None]
    n = torch.arange(alignments.shape[2], device=steps.device)[None, None, :] / token_lengths[:, None, None]
    away = 1 - torch.exp(-((n - t) ** 2) / (2 * sigma**2))
    inside = (
        length_mask(steps, alignments.shape[1])[:, :, None] & length_mask(token_lengths, alignments.shape[2])[:, None]
    )
    return (alignments * away.to(alignments) * inside).sum() / inside.sum()


def aligned_attention_loss(alignments: Tensor, spoken: Tensor, steps: Tensor) -> Tensor:
    """Cross-entropy of the attention against what is spoken in each decoder step, mean over unpadded steps.

    After Zhu et al. 2019, "Pre-Alignment Guided Attention for Improving Training Efficiency and Model Stability in
    End-to-End Speech Synthesis".

    Args:
        alignments, spoken: (batch, steps, characters).
        steps: (batch,) decoder steps of each utterance.
    """
    mask = length_mask(steps, alignments.shape[1])
    missed = -(spoken * torch.log(alignments + LEAST_ATTENTION)).sum(dim=-1)
    return (missed * mask).sum() / mask.sum()
