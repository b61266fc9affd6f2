"""What a stage leaves behind about its own run: a small JSON file that is an out of the stage.

DVC restores it with the stage's other outs, so that a cached stage can still be shown in MLflow.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from metaspeech.errors import UserError


@dataclass
class Record:
    """One execution of one stage."""

    stage: str
    item: str
    execution: str  # key of the pipeline execution that made it
    status: str  # FINISHED, FAILED or KILLED
    started: str  # ISO 8601, UTC
    seconds: float
    run_id: str | None  # of MLflow; None when the tracking server could not be reached
    memory_mib: float | None = None  # the most that the process held, children not counted
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)  # last values; None: not finite
    tags: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)  # path of an upstream out -> digest

    @property
    def name(self) -> str:
        """As DVC writes it: ``stage`` or ``stage@item``."""
        return f"{self.stage}@{self.item}" if self.item else self.stage

    def write(self, path: Path) -> None:
        """Writes the file atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        values = asdict(self)
        values["metrics"] = {key: value if _finite(value) else None for key, value in self.metrics.items()}
        temporary.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(temporary, path)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Raises UserError when the file is no record."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: not the record of a stage ({error}). Make it again: dvc repro --force") from None


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
