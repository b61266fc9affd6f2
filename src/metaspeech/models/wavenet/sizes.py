"""Layer sizes.

``paper`` has the 30 layers in three cycles of Shen et al. 2018 (section 2.3); that paper names no channels, so they are
those of public implementations. ``small`` is made for two cores.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Channels, and how the layers' dilations grow."""

    cycles: int  # of dilations 1, 2, 4, ...
    layers: int  # in a cycle
    kernel: int  # taps of a dilated convolution
    residual: int
    gate: int  # of the gated unit's output; its convolution has twice as many
    skip: int
    head: int  # between the two last layers
    frames: int  # width of the network that reads the mel, at the rate of frames
    conditioning: int  # of what it hands to every layer

    @property
    def dilations(self) -> tuple[int, ...]:
        return tuple(2**layer for _ in range(self.cycles) for layer in range(self.layers))

    @property
    def receptive_field(self) -> int:
        """Samples before the one that is predicted that have a say in it."""
        return 1 + (self.kernel - 1) * sum(self.dilations)


PRESETS = {
    "paper": Sizes(
        cycles=3, layers=10, kernel=2, residual=512, gate=256, skip=256, head=256, frames=256, conditioning=80
    ),
    "small": Sizes(cycles=2, layers=7, kernel=2, residual=32, gate=32, skip=64, head=64, frames=192, conditioning=64),
    "tiny": Sizes(cycles=2, layers=2, kernel=2, residual=8, gate=6, skip=10, head=8, frames=6, conditioning=4),
}
