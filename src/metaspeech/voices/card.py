"""voice.json: what a voice was made from, how, and by whose leave. It comes from outside too, so all is checked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from metaspeech.errors import UserError
from metaspeech.registry import MODELS
from metaspeech.voices.names import checked_name

FORMAT = 1
GRIFFIN_LIM = "griffin-lim"
VOCODERS = (GRIFFIN_LIM, "wavenet")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST = 10_000  # characters of a text in it


@dataclass(frozen=True)
class Part:
    """One adapted model.

    Attributes:
        meta_model: sha256 of the weights that it was adapted from.
        algorithm: whose inner loop adapted it.
        origin: where those weights lay.
        step: steps that the voice has taken.
        rate: of these steps.
        stopped: why no more were tried.
        losses: on the held-back recordings after 0, 1, 2 ... steps; empty where none could be held back.
        seconds: that adaptation took.
        file, bytes, sha256: of the differences from the meta-model.
    """

    meta_model: str
    algorithm: str
    origin: str
    step: int
    rate: float
    stopped: str
    losses: list[float]
    seconds: float
    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Recording:
    """One that the voice was made from; the recording itself is not kept."""

    sha256: str
    seconds: float
    snr_db: float
    phoneme_error: float | None
    role: str  # adapted, or held back


@dataclass(frozen=True)
class Card:
    """The content of voice.json."""

    format: int
    name: str
    created: str  # ISO 8601, UTC
    consent: str  # the statement, in the words of who gave it
    vocoder: str  # that it speaks through unless told otherwise
    seed: int
    parts: dict[str, Part]  # by the model's name
    recordings: list[Recording]
    refused: dict[str, int]  # recordings that were not used, by reason
    commit: str
    version: str  # of metaspeech

    def text(self) -> str:
        """As a file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_card(text: str | bytes, where: str) -> Card:
    """Raises UserError when it is not as a voice.json must be. ``where`` is the file's name for the message."""
    try:
        values = json.loads(text)
        card: Card = _typed(Card, values, "")
        _check(card)
    except (ValueError, TypeError, RecursionError, UserError) as error:
        raise UserError(f"{where}: not the voice.json of a voice: {str(error)[:200]}") from None
    return card


def _check(card: Card) -> None:
    if card.format != FORMAT:
        raise ValueError(f"format {card.format}, this version reads {FORMAT}")
    checked_name(card.name)
    if "tacotron" not in card.parts:
        raise ValueError("parts: tacotron is missing")
    if card.vocoder not in VOCODERS or (card.vocoder != GRIFFIN_LIM and card.vocoder not in card.parts):
        raise ValueError(f"vocoder {card.vocoder[:40]!r}: not known, or not among the parts")
    for name, part in card.parts.items():
        if name not in MODELS:
            raise ValueError(f"parts: {name[:40]!r} is no model")
        if part.file != f"{name}.safetensors" or not (
            _SHA256.fullmatch(part.sha256) and _SHA256.fullmatch(part.meta_model)
        ):
            raise ValueError(f"parts.{name}: file, sha256 or meta_model are malformed")
        if part.step < 0 or part.bytes < 0:
            raise ValueError(f"parts.{name}: step or bytes below 0")


def _typed(kind: Any, value: Any, key: str) -> Any:
    """``value`` as ``kind``: a dataclass, list, dict of names, or plain type. Raises ValueError otherwise."""
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _section(kind, value, key)
    if origin is dict and isinstance(value, dict) and len(value) <= 100:
        return {str(name): _typed(get_args(kind)[1], one, f"{key}.{str(name)[:40]}") for name, one in value.items()}
    if origin is list and isinstance(value, list) and len(value) <= 10_000:
        return [_typed(get_args(kind)[0], one, key) for one in value]
    for plain in get_args(kind) or (kind,):
        if plain is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        if plain is int and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
            return value
        if plain is str and isinstance(value, str) and len(value) <= _LONGEST:
            return value
        if plain is type(None) and value is None:
            return None
    raise ValueError(f"{key}: not of its kind")


def _section(kind: Any, value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{key or 'the whole'}: expected keys and values")
    names = [item.name for item in fields(kind)]
    if differing := {str(name)[:40] for name in value} ^ set(names):
        raise ValueError(f"{key}: keys missing or unknown: {', '.join(sorted(differing))}")
    hints = get_type_hints(kind)
    return kind(**{name: _typed(hints[name], value[name], f"{key}.{name}".lstrip(".")) for name in names})
