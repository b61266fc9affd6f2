"""The whole Tacotron 2, with layer instead of batch normalisation and a reduction factor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from metaspeech.config import Params, Tacotron
from metaspeech.data.batch import SpeechBatch
from metaspeech.models.base import FeatureSpec, Hidden, Synthesis, Terms
from metaspeech.models.layers import length_mask
from metaspeech.models.tacotron.decoder import Decoder
from metaspeech.models.tacotron.encoder import Encoder
from metaspeech.models.tacotron.loss import aligned_attention_loss, guided_attention_loss, mel_loss, stop_loss
from metaspeech.models.tacotron.postnet import Postnet
from metaspeech.models.tacotron.sizes import PRESETS

VOICE_WIDTH = 32


class TacotronModel(nn.Module):
    """Characters to normalised log-mel frames.

    Who speaks is added to the encoder's output, and so is part of every attention context, as in multi-speaker
    Tacotrons (Jia et al. 2018, section 2.2) but with a vector that is learned rather than given.
    """

    role = "acoustic"
    loss_label = "Query loss"
    loss_explanation = "Teacher-forced training loss on the query recordings."

    head_modules = ("decoder.projection.*", "decoder.stop.*", "postnet.*")

    def __init__(self, config: Tacotron, features: FeatureSpec) -> None:
        super().__init__()
        self.config = config
        sizes = PRESETS[config.preset]
        self.encoder = Encoder(features.symbols, sizes, config.dropout)
        self.voice = nn.Parameter(torch.zeros(VOICE_WIDTH))
        self.voice_projection = nn.Linear(VOICE_WIDTH, sizes.encoder, bias=False)
        self.decoder = Decoder(features.n_mels, config.reduction_factor, sizes, config.prenet_dropout, config.dropout)
        self.postnet = Postnet(features.n_mels, sizes, config.dropout)

    @classmethod
    def from_params(cls, params: Params, features: FeatureSpec) -> TacotronModel:
        return cls(params.tacotron, features)

    def forward(self, batch: SpeechBatch, voices: Tensor | None = None) -> tuple[Tensor, Terms]:
        """Teacher-forced training loss and its parts: mel, stop, guided (weighted), focus (mean peak of attention).

        And aligned, for a batch that says when symbols begin.
        """
        return self.head(self.body(batch, voices), batch)

    def length(self, batch: SpeechBatch) -> int:
        """All frames of the longest utterance, for each utterance."""
        return len(batch) * batch.mels.shape[1]

    def body(self, batch: SpeechBatch, voices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The decoder's states (batch, steps, decoder_rnn + encoder) and alignments (batch, steps, characters)."""
        memory, target = self._memory(batch, voices), self._target(batch)
        states, alignments = self.decoder(memory, batch.token_lengths, target, self._spoken(batch))
        return states, alignments

    def head(self, hidden: Hidden, batch: SpeechBatch) -> tuple[Tensor, Terms]:
        """See :meth:`forward`."""
        config, reduction = self.config, self.config.reduction_factor
        states, alignments = hidden
        steps = (batch.mel_lengths + reduction - 1) // reduction
        target = self._target(batch)
        before, stop_logits = self.decoder.project(states)
        mask = length_mask(batch.mel_lengths, target.shape[1])
        after = before + self.postnet(before, mask)

        mel = mel_loss(before, target, mask) + mel_loss(after, target, mask)
        stop = stop_loss(stop_logits, steps, config.stop_weight)
        guided = config.guided_attention * guided_attention_loss(
            alignments, batch.token_lengths, steps, config.guided_sigma
        )
        loss = mel + stop + guided
        step_mask = length_mask(steps, alignments.shape[1])
        focus = (alignments.amax(dim=-1) * step_mask).sum() / step_mask.sum()
        terms = {"mel": mel, "stop": stop, "guided": guided, "focus": focus}
        spoken = self._spoken(batch)
        if spoken is not None:
            terms["aligned"] = aligned_attention_loss(alignments, spoken, steps)
            loss = loss + config.aligned_attention * terms["aligned"]
        return loss, {name: term.detach() for name, term in terms.items()}

    def _target(self, batch: SpeechBatch) -> Tensor:
        """The mels, padded to whole decoder steps."""
        return functional.pad(batch.mels, (0, 0, 0, -batch.mels.shape[1] % self.config.reduction_factor))

    def _spoken(self, batch: SpeechBatch) -> Tensor | None:
        """(batch, steps, characters) the share of each symbol in the frames of each decoder step, where it is known.

        After the last symbol has begun it lasts, so the shares of a step add up to 1.
        """
        if batch.starts is None:
            return None
        reduction = self.config.reduction_factor
        steps = -(-batch.mels.shape[1] // reduction)
        inside = length_mask(batch.token_lengths, batch.starts.shape[1])
        begins = batch.starts.masked_fill(~inside, torch.inf)
        ends = functional.pad(begins[:, 1:], (0, 1), value=torch.inf)
        first = torch.arange(steps, device=begins.device, dtype=begins.dtype)[:, None] * reduction
        spoken = torch.minimum(ends[:, None], first + reduction) - torch.maximum(begins[:, None], first)
        return (spoken.clamp(min=0) / reduction).to(batch.mels)

    def _memory(self, batch: SpeechBatch, voices: Tensor | None = None) -> Tensor:
        """(batch, characters, encoder): what is said, and by whom."""
        voice = self.voice if voices is None else (self.voice + voices)[:, None]
        spoken: Tensor = self.encoder(batch.tokens, batch.token_lengths) + self.voice_projection(voice)
        return spoken

    @torch.no_grad()
    def synthesize(self, batch: SpeechBatch, *, seeds: list[int], max_frames: Tensor) -> Synthesis:
        """See :meth:`metaspeech.models.base.SynthesisModel.synthesize`. Dropout is off except in the prenet."""
        training = self.training
        self.eval()
        try:
            memory = self._memory(batch)
            mels, lengths, alignments, stopped = self.decoder.generate(memory, batch.token_lengths, seeds, max_frames)
            mask = length_mask(lengths, mels.shape[1])
            mels = (mels + self.postnet(mels, mask)) * mask[..., None]
        finally:
            self.train(training)
        return Synthesis(mels, lengths, alignments, stopped)
