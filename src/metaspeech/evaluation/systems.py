"""What is evaluated: every model by itself, and every acoustic model followed by every vocoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["acoustic", "vocoder", "chain"]
REAL, COPY = "real", "copy"  # references: the recording as stored; its own mel through Griffin-Lim


@dataclass(frozen=True)
class System:
    """A way from a query to sound. Both parts of a chain are adapted by the same algorithm in the same steps.

    Attributes:
        acoustic: the model that makes the mel from the text; None: the mel of the real recording (copy synthesis).
        vocoder: the model that makes the waveform from the mel; None: Griffin-Lim.
        steps: adaptation steps after which it is heard, ascending.
        headline_step: the one that findings are about.
        loss_label, loss_explanation: what the loss of its adaptation curves is; empty for a chain, which has none.
    """

    acoustic: str | None
    vocoder: str | None
    steps: tuple[int, ...]
    headline_step: int
    loss_label: str = ""
    loss_explanation: str = ""

    @property
    def name(self) -> str:
        """As in the column ``model`` of the tables, such as "tacotron" or "tacotron+wavenet"."""
        return "+".join(part for part in (self.acoustic, self.vocoder) if part)

    @property
    def role(self) -> Role:
        if self.acoustic and self.vocoder:
            return "chain"
        return "acoustic" if self.acoustic else "vocoder"

    @property
    def title(self) -> str:
        """For a heading."""
        if self.role == "chain":
            return f"From text to sound: {self.acoustic}, then {self.vocoder}"
        if self.role == "acoustic":
            return f"Acoustic model: {self.acoustic}, then Griffin-Lim"
        return f"Vocoder: {self.vocoder}, on the mels of recordings"

    @property
    def route(self) -> str:
        """For a table: where the mel comes from, and what makes it audible."""
        return f"{self.acoustic or 'recorded mel'} + {self.vocoder or 'Griffin-Lim'}"


def headline_step(steps: Sequence[int], tuned: int) -> int:
    """The step that findings are about: the one at which rates were tuned, else the first after adaptation began."""
    later = sorted(step for step in set(steps) if step > 0)
    return tuned if tuned in later else (later[0] if later else 0)


def headline_shots(shots: Sequence[int], trained: int) -> int:
    """The number of support recordings that findings are about: that of training, else the largest that was heard."""
    return trained if trained in shots else max(shots)


def condition(model: str, algorithm: str, shots: int, step: int) -> str:
    """By which the audio and the panels of a condition are named. A reference has no model."""
    return f"{model}-{algorithm}-{shots}-{step}" if model else algorithm
