"""What a training tells the sweep that started it: lines of a file whose name is in the environment.

A line says how far the training is and what validation has found. The sweep asks it to stop by making a second file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "METASPEECH_PROGRESS"  # path of the file; outside of a sweep not set


@dataclass(frozen=True)
class Progress:
    """One validation of one training."""

    item: tuple[str, ...]  # model, algorithm, seed
    done: float  # share of the training, 0 to 1
    values: dict[str, float]


def file_of_this_process() -> Path | None:
    """None outside of a sweep."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def append(path: Path, item: tuple[str, ...], done: float, values: Mapping[str, float]) -> None:
    """One line in one write: a reader never sees half of it as a line."""
    line = json.dumps(asdict(Progress(item, done, dict(values))))
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def read(path: Path) -> list[Progress]:
    """What was written so far; without a last line that is not complete."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [Progress(tuple(one["item"]), one["done"], one["values"]) for one in map(json.loads, lines)]


def stop_file(path: Path) -> Path:
    """Where it exists, the training is to end."""
    return path.with_suffix(".stop")
