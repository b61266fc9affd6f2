"""Names and colours of conditions and numbers, the same in figures, tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable

LABELS = {"maml": "MAML", "fomaml": "FOMAML", "reptile": "Reptile", "anil": "ANIL", "boil": "BOIL"}
LABELS |= {"meta_sgd": "Meta-SGD", "mamlpp": "MAML++", "imaml": "iMAML"}
LABELS |= {"transfer": "Transfer", "pretrained": "Pretrained", "scratch": "Scratch"}
LABELS |= {"conditioned": "Conditioned", "nearest": "Nearest task"}
LABELS |= {"real": "Real recording", "copy": "Copy, Griffin-Lim"}

# Okabe and Ito (2008), told apart with any colour vision; the baseline is grey.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
BASELINE_COLOUR = "#7d7d85"
MARKERS = ("o", "s", "^", "D", "v", "P")
PREFERRED = ("maml", "fomaml", "reptile")  # take the first colours wherever they occur, so that pages agree

INK, MUTED, RULE = "#1c1c22", "#6a6a73", "#dcdce2"  # text, secondary text, lines of figures


def label(algorithm: str) -> str:
    return LABELS.get(algorithm, algorithm)


def in_sentence(text: str) -> str:
    """A label as it stands inside a sentence; one that begins with an abbreviation stays as it is."""
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def colours(algorithms: Iterable[str], baseline: str = "transfer") -> dict[str, str]:
    """A colour for each algorithm."""
    return {name: _of(PALETTE, name, algorithms) if name != baseline else BASELINE_COLOUR for name in algorithms}


def markers(algorithms: Iterable[str], baseline: str = "transfer") -> dict[str, str]:
    """A marker for each algorithm, so that colour is not the only difference."""
    return {name: _of(MARKERS, name, algorithms) if name != baseline else "X" for name in algorithms}


def number(value: float | None, signed: bool = False) -> str:
    """Two or three significant digits as a person would write them; a dash for what was not measured."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", "−")


def p_value(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def _of(choices: tuple[str, ...], name: str, algorithms: Iterable[str]) -> str:
    others = [one for one in algorithms if one not in PREFERRED and one != "transfer"]
    place = PREFERRED.index(name) if name in PREFERRED else len(PREFERRED) + others.index(name)
    return choices[place % len(choices)]
