"""From a trained WaveNet to waveforms: what the sampler is given, and what is done to what it draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor

from metaspeech.errors import UserError
from metaspeech.models.wavenet.sampling.sampler import MAX_SAMPLES, generate
from metaspeech.models.wavenet.sampling.weights import Floats, SamplerWeights

if TYPE_CHECKING:
    from metaspeech.models.wavenet.model import WaveNetModel


def vocode(model: WaveNetModel, mels: Sequence[Tensor], seeds: Sequence[int]) -> list[Tensor]:
    """See :meth:`metaspeech.models.base.Vocoder.vocode`."""
    hop = model.features.hop
    for number, mel in enumerate(mels):
        _check(mel, number, model)
    drawn = generate(
        sampler_weights(model),
        [hoisted_conditioning(model, mel) for mel in mels],
        [len(mel) * hop for mel in mels],
        seeds,
        temperature=model.config.temperature,
        threads=torch.get_num_threads(),
        device=str(model.voice.device),
    )
    return [torch.from_numpy(_deemphasised(one, model.config.preemphasis)) for one in drawn]


def sampler_weights(model: WaveNetModel) -> SamplerWeights:
    """The weights as the sampler's backends want them. Raises UserError where one is not finite."""
    sizes, stack = model.sizes, model.stack
    convolutions = [layer.convolution.weight.T for layer in stack.each_layer]
    skips = torch.split(stack.skip.weight.T, sizes.gate)
    nothing = torch.zeros_like(stack.skip.bias)
    residuals = [*stack.each_residual, None]  # nothing comes after the last layer
    mixes, mix_biases = [], []
    for number, (residual, skip) in enumerate(zip(residuals, skips, strict=True)):
        weight = residual.weight.T if residual else torch.zeros(sizes.gate, sizes.residual).to(skip)
        bias = residual.bias if residual else torch.zeros(sizes.residual).to(skip)
        mixes.append(torch.cat([weight, skip], dim=1))
        mix_biases.append(torch.cat([bias, nothing if number else stack.skip.bias]))  # one bias for all skip paths
    return SamplerWeights(
        output=model.config.output,
        dilations=sizes.dilations,
        hold=model.conditioning.hold,
        inputs=_array(torch.stack(list(model.input.parameters())).squeeze(0)),
        gates=_array(torch.stack(convolutions).reshape(-1, sizes.kernel, sizes.residual, 2 * sizes.gate)),
        mixes=_array(torch.stack(mixes)),
        mix_biases=_array(torch.stack(mix_biases)),
        head1=_array(stack.head.weight.T),
        head1_bias=_array(stack.head.bias),
        head2=_array(stack.last.weight.T),
        head2_bias=_array(stack.last.bias),
    )


@torch.no_grad()
def hoisted_conditioning(model: WaveNetModel, mel: Tensor) -> Floats:
    """(frames, mels) -> (blocks, layers, 2 gate): what each layer adds for every block of ``hold`` samples."""
    encoded = model.conditioning(mel.to(model.voice)[None])
    blocks = model.conditioning.upsampled(torch.cat([encoded, encoded[:, -1:]], dim=1))
    steered = blocks + model.voice_projection(model.voice)
    layers = [layer.conditioning(steered[0]) + layer.convolution.bias for layer in model.stack.each_layer]
    return _array(torch.stack(layers, dim=1))


def _check(mel: Tensor, number: int, model: WaveNetModel) -> None:
    bands, hop = model.features.n_mels, model.features.hop
    name = f"WaveNet: mel {number}"
    if mel.dim() != 2 or mel.shape[1] != bands:
        raise UserError(f"{name} has the shape {tuple(mel.shape)}, but the model was made for (frames, {bands})")
    if not 0 < len(mel) <= MAX_SAMPLES // hop:
        raise UserError(f"{name} has {len(mel)} frames, expected 1 to {MAX_SAMPLES // hop}")
    if not bool(torch.isfinite(mel).all()):
        raise UserError(f"{name} has values that are not finite: nothing can be made of it")


def _deemphasised(waveform: Floats, factor: float) -> Floats:
    """The inverse of pre-emphasis: y[t] = x[t] + factor * y[t - 1]."""
    emphasised: Floats = lfilter([1.0], [1.0, -factor], waveform.astype(np.float64)).astype(np.float32)
    return np.clip(emphasised, -1, 1)


def _array(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float32)
