"""The whole WaveNet vocoder: normalised log-mel to waveform."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from metaspeech.config import Params, Wavenet
from metaspeech.data.batch import SpeechBatch
from metaspeech.models.base import FeatureSpec, Hidden, Terms
from metaspeech.models.wavenet.conditioning import Conditioning
from metaspeech.models.wavenet.distributions import OUTPUTS
from metaspeech.models.wavenet.sizes import PRESETS
from metaspeech.models.wavenet.stack import Stack
from metaspeech.models.wavenet.vocoding import vocode

VOICE_WIDTH = 32


class WaveNetModel(nn.Module):
    """Predicts each sample of a (pre-emphasised) waveform from those before it and the mel around it.

    Who speaks is added to the conditioning, and so reaches every layer (global conditioning, van den Oord et al. 2016,
    section 2.5, with a vector that is learned rather than given).
    """

    role = "vocoder"
    loss_label = "Bits per sample"
    loss_explanation = (
        "Cross-entropy of each sample of the query recordings' (pre-emphasised) waveforms, given those before it and "
        "the mel, in bits; over one window of each recording, the same at every step."
    )

    head_modules = ("stack.skip.*", "stack.head.*", "stack.last.*")

    def __init__(self, config: Wavenet, features: FeatureSpec) -> None:
        super().__init__()
        self.config, self.features = config, features
        self.sizes = PRESETS[config.preset]
        self.output = OUTPUTS[config.output]()
        self.input = self.output.input_layer(self.sizes.residual)
        self.conditioning = Conditioning(features.n_mels, self.sizes.frames, self.sizes.conditioning, features.hop)
        self.voice = nn.Parameter(torch.zeros(VOICE_WIDTH))
        self.voice_projection = nn.Linear(VOICE_WIDTH, self.sizes.conditioning, bias=False)
        self.stack = Stack(self.sizes, self.output.start())
        self.window = -(-config.window // features.hop)  # frames

    @classmethod
    def from_params(cls, params: Params, features: FeatureSpec) -> WaveNetModel:
        return cls(params.wavenet, features)

    def forward(self, batch: SpeechBatch, voices: Tensor | None = None) -> tuple[Tensor, Terms]:
        """Bits per sample of a window of each utterance, drawn with torch's generator; no other terms.

        A window that does not begin with the utterance has its first receptive field left out of the loss: those
        samples depend on what the window cut off.
        """
        return self.head(self.body(batch, voices), batch)

    def length(self, batch: SpeechBatch) -> int:
        """A window of each utterance."""
        return len(batch) * self.window

    def body(self, batch: SpeechBatch, voices: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """All layers' outputs (batch, samples, layers * gate) over a window of each utterance, that window of the
        (pre-emphasised) waveform (batch, samples), and the frame that it begins with (batch,)."""
        starts = self._starts(batch.audio_lengths)
        samples = _windows(
            _preemphasised(batch.audio, self.config.preemphasis), starts * self.features.hop, self._length
        )
        frames = _windows(self.conditioning(batch.mels), starts, self.window + 1)
        conditioning = self.conditioning.upsampled(frames) + self._voice(voices)
        return self.stack.gated(self._input(samples), conditioning), samples, starts

    def head(self, hidden: Hidden, batch: SpeechBatch) -> tuple[Tensor, Terms]:
        """See :meth:`forward`."""
        gated, samples, starts = hidden
        bits = self.output.bits(self.stack.described(gated), self.output.encode(samples))
        place = torch.arange(self._length, device=starts.device)[None]
        inside = place < (batch.audio_lengths - starts * self.features.hop)[:, None]
        counted = inside & ((place >= self.sizes.receptive_field - 1) | (starts == 0)[:, None])
        return (bits * counted).sum() / counted.sum(), {}

    def describe(self, samples: Tensor, conditioning: Tensor) -> Tensor:
        """The distribution of every sample, given those before it.

        Args:
            samples: (batch, samples) of the pre-emphasised waveform.
            conditioning: (batch, blocks, conditioning), a block for every ``self.conditioning.hold`` samples.

        Returns:
            (batch, samples, channels of the output)
        """
        described: Tensor = self.stack(self._input(samples), conditioning)
        return described

    def vocode(self, mels: Sequence[Tensor], *, seeds: Sequence[int]) -> list[Tensor]:
        """See :meth:`metaspeech.models.base.Vocoder.vocode`."""
        return vocode(self, mels, seeds)

    def _input(self, samples: Tensor) -> Tensor:
        """(batch, samples) -> (batch, samples, residual): of each sample, the one before it."""
        embedded: Tensor = self.input(self.output.encode(functional.pad(samples, (1, 0))[:, :-1]))
        return embedded

    @property
    def _length(self) -> int:
        return self.window * self.features.hop

    def _starts(self, lengths: Tensor) -> Tensor:
        """(batch,) the frame that each utterance's window begins with."""
        last = ((lengths - self._length).clamp(min=0) + self.features.hop - 1) // self.features.hop
        return (torch.rand(len(lengths)).to(lengths.device) * (last + 1)).long().clamp(max=last)

    def _voice(self, voices: Tensor | None) -> Tensor:
        voice = self.voice if voices is None else (self.voice + voices)[:, None]
        projected: Tensor = self.voice_projection(voice)
        return projected


def _preemphasised(audio: Tensor, factor: float) -> Tensor:
    """x[t] - factor * x[t - 1]: a flatter spectrum, whose high end the coarse classes do not drown."""
    return audio - factor * functional.pad(audio, (1, 0))[:, :-1]


def _windows(x: Tensor, starts: Tensor, length: int) -> Tensor:
    """Rows ``starts[b]`` to ``starts[b] + length`` of each ``x[b]``; zeros beyond the end."""
    short = int(starts.max()) + length - x.shape[1]
    if short > 0:
        x = functional.pad(x, (0,) * (2 * (x.dim() - 2)) + (0, short))
    index = starts[:, None] + torch.arange(length, device=starts.device)
    return x[torch.arange(len(x), device=x.device)[:, None], index]
