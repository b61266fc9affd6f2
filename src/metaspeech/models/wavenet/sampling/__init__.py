"""Sample by sample: the network's weights and hoisted conditioning in, waveforms out."""

from metaspeech.models.wavenet.sampling.sampler import backends, generate
from metaspeech.models.wavenet.sampling.weights import SamplerWeights

__all__ = ["SamplerWeights", "backends", "generate"]
