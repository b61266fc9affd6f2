"""What every backend of the sampler is given: plain arrays, checked once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaspeech.errors import UserError

Floats = NDArray[np.float32]

CLASSES = 256  # of mu-law
LEAST_LOG_SCALE = -9.0  # of logistics and Gaussians, in the loss as in drawing; native/kernel.cpp has it too
SILENCE = 128  # the class of the value 0.0
OUTPUTS = ("mulaw", "logistics", "gaussian")

MAX_LAYERS = 256
MAX_WIDTH = 4096  # of any channel count
MAX_KERNEL = 32
MAX_HOLD = 2**16
MAX_REACH = 2**22  # samples that the queues of one layer hold
MAX_STATE = 2**26  # floats in the queues of one stream


@dataclass(frozen=True)
class SamplerWeights:
    """A WaveNet as the sampler sees it; all float32, biases of the gates are part of the conditioning.

    Letters: L layers, k kernel size, R residual, G gate (tanh half, then sigmoid half), S skip, H head channels, O
    outputs.
    """

    output: str  # mulaw | logistics | gaussian
    dilations: tuple[int, ...]  # (L,)
    hold: int  # samples that one row of conditioning stands for
    inputs: Floats  # mulaw: (256, R), a row a class; otherwise (2, R): weight and bias of the scalar
    gates: Floats  # (L, k, R, G), the tap of the newest sample last
    mixes: Floats  # (L, G/2, R + S)
    mix_biases: Floats  # (L, R + S)
    head1: Floats  # (S, H)
    head1_bias: Floats  # (H,)
    head2: Floats  # (H, O)
    head2_bias: Floats  # (O,)

    def __post_init__(self) -> None:
        self._check_settings()
        shapes = self._expected_shapes()
        for name, shape in shapes.items():
            value = np.ascontiguousarray(getattr(self, name), dtype=np.float32)
            if value.shape != shape:
                raise UserError(f"WaveNet sampler: {name} has the shape {value.shape}, expected {shape}")
            if not np.isfinite(value).all():
                raise UserError(f"WaveNet sampler: {name} has values that are not finite (NaN or infinity)")
            object.__setattr__(self, name, value)

    @property
    def layers(self) -> int:
        return len(self.dilations)

    @property
    def kernel(self) -> int:
        return int(self.gates.shape[1])

    @property
    def residual(self) -> int:
        return int(self.gates.shape[2])

    @property
    def gate(self) -> int:
        return int(self.gates.shape[3])

    @property
    def skip(self) -> int:
        return int(self.head1.shape[0])

    @property
    def head(self) -> int:
        return int(self.head1.shape[1])

    @property
    def outputs(self) -> int:
        return int(self.head2.shape[1])

    @property
    def silence(self) -> float:
        """What is fed back before the first sample."""
        return float(SILENCE) if self.output == "mulaw" else 0.0

    def check_conditioning(self, conditioning: Floats, samples: int, name: str) -> Floats:
        """A copy in C order where it has to be one. Raises UserError.

        Args:
            conditioning: (blocks, L, G).
            samples: that are to be made from it.
            name: of the utterance, for the message.
        """
        value = np.ascontiguousarray(conditioning, dtype=np.float32)
        if value.ndim != 3 or value.shape[1:] != (self.layers, self.gate):
            raise UserError(
                f"WaveNet sampler: conditioning of {name} has the shape {value.shape}, "
                f"expected (blocks, {self.layers}, {self.gate})"
            )
        if len(value) == 0:
            raise UserError(f"WaveNet sampler: conditioning of {name} is empty")
        if len(value) * self.hold < samples:
            raise UserError(
                f"WaveNet sampler: conditioning of {name} covers {len(value) * self.hold} samples, {samples} are asked "
                "for"
            )
        if not np.isfinite(value).all():
            raise UserError(f"WaveNet sampler: conditioning of {name} has values that are not finite")
        return value

    def _check_settings(self) -> None:
        if self.output not in OUTPUTS:
            raise UserError(f"WaveNet sampler: output is {self.output!r}, expected one of {', '.join(OUTPUTS)}")
        if not 1 <= len(self.dilations) <= MAX_LAYERS:
            raise UserError(f"WaveNet sampler: {len(self.dilations)} layers, expected 1 to {MAX_LAYERS}")
        if not all(isinstance(d, int) and d >= 1 for d in self.dilations):
            raise UserError(f"WaveNet sampler: dilations are {self.dilations}, expected whole numbers from 1")
        if not 1 <= self.hold <= MAX_HOLD:
            raise UserError(f"WaveNet sampler: hold is {self.hold} samples, expected 1 to {MAX_HOLD}")

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """From the axes that name a size; whatever does not fit them is at fault."""
        for name, axes in (("gates", 4), ("head1", 2), ("head2", 2)):
            if getattr(self, name).ndim != axes:
                raise UserError(f"WaveNet sampler: {name} has {getattr(self, name).ndim} axes, expected {axes}")
        layers, kernel, residual, gate = self.layers, self.kernel, self.residual, self.gate
        sizes = {"residual": residual, "gate": gate, "skip": self.skip, "head": self.head, "output": self.outputs}
        for name, size in sizes.items():
            if not 1 <= size <= MAX_WIDTH:
                raise UserError(f"WaveNet sampler: {size} {name} channels, expected 1 to {MAX_WIDTH}")
        if gate % 2:
            raise UserError(f"WaveNet sampler: {gate} gate channels, expected an even number (two halves)")
        if not 1 <= kernel <= MAX_KERNEL:
            raise UserError(f"WaveNet sampler: kernel size {kernel}, expected 1 to {MAX_KERNEL}")
        reaches = [(kernel - 1) * dilation for dilation in self.dilations]
        if max(reaches) > MAX_REACH or sum(reaches) * residual > MAX_STATE:
            raise UserError(
                f"WaveNet sampler: dilations up to {max(self.dilations)} need queues of {sum(reaches) * residual} "
                f"floats, at most {MAX_REACH} samples a layer and {MAX_STATE} floats in all are supported"
            )
        wanted = {"mulaw": self.outputs == CLASSES, "logistics": self.outputs % 3 == 0, "gaussian": self.outputs == 2}
        if not wanted[self.output]:
            expected = {"mulaw": str(CLASSES), "logistics": "a multiple of 3", "gaussian": "2"}[self.output]
            raise UserError(f"WaveNet sampler: {self.outputs} {self.output} output channels, expected {expected}")
        rows = CLASSES if self.output == "mulaw" else 2
        return {
            "inputs": (rows, residual),
            "gates": (layers, kernel, residual, gate),
            "mixes": (layers, gate // 2, residual + self.skip),
            "mix_biases": (layers, residual + self.skip),
            "head1": (self.skip, self.head),
            "head1_bias": (self.head,),
            "head2": (self.head, self.outputs),
            "head2_bias": (self.outputs,),
        }


def decode(values: Floats, output: str) -> Floats:
    """What is fed back -> waveform: mu-law classes become values in [-1, 1], scalars stay."""
    if output != "mulaw":
        return values.astype(np.float32)
    companded = 2 * np.arange(CLASSES) / (CLASSES - 1) - 1
    table = np.sign(companded) * ((1.0 + (CLASSES - 1)) ** np.abs(companded) - 1) / (CLASSES - 1)
    return table.astype(np.float32)[values.astype(np.int64)]
