"""A trained model on disk: weights as safetensors, and beside them what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from metaspeech.config import Params
from metaspeech.errors import UserError
from metaspeech.files import replacing
from metaspeech.models.base import FeatureSpec
from metaspeech.registry import MODELS, resolve

WEIGHTS, CARD, LEARNED = "model.safetensors", "model.json", "algorithm.safetensors"


def build_model(name: str, params: Params, features: FeatureSpec) -> Any:
    """An untrained model: an ``nn.Module`` that follows ``SynthesisModel``. Seed before the call."""
    model: nn.Module = resolve(MODELS, name).from_params(params, features)
    return model


def save_model(folder: Path, model: nn.Module, name: str, params: Params, features: FeatureSpec, **card: Any) -> None:
    """Writes weights, then the card that makes them count as complete."""
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file(weights, temporary)
    described = {
        "model": name,
        "settings": asdict(getattr(params, name)),
        "features": asdict(features),
        "parameters": sum(value.numel() for value in weights.values()),
        "sha256": file_digest(folder / WEIGHTS),
        **card,
    }
    with replacing(folder / CARD) as temporary:
        temporary.write_text(json.dumps(described, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load_model(folder: Path, params: Params, features: FeatureSpec) -> nn.Module:
    """The model of a folder, in evaluation mode.

    Raises:
        UserError: files are missing or damaged, or were made with other settings than ``params`` has.
    """
    card = read_card(folder)
    _check_settings(folder / CARD, f"{card['model']}.", card["settings"], asdict(getattr(params, card["model"])))
    _check_settings(folder / CARD, "features.", card["features"], asdict(features))
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS}: cannot be read: {error}. Delete {folder} and run: dvc repro") from None
    model: nn.Module = build_model(card["model"], params, features)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{folder / WEIGHTS}: weights do not fit the model '{card['model']}': {str(error).splitlines()[-1].strip()}"
            f" Delete {folder} and run: dvc repro"
        ) from None
    return model.eval()


def save_learned(folder: Path, learned: Mapping[str, Tensor]) -> None:
    """What an algorithm has learned besides the model's parameters. Call before :func:`save_model`."""
    with replacing(folder / LEARNED) as temporary:
        save_file({name: value.cpu().contiguous() for name, value in learned.items()}, temporary)


def load_learned(folder: Path) -> dict[str, Tensor]:
    """What :func:`save_learned` wrote. Raises UserError when it cannot be read."""
    try:
        return load_file(folder / LEARNED)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / LEARNED}: cannot be read: {error}. Delete {folder} and run: dvc repro") from None


def read_card(folder: Path) -> dict[str, Any]:
    """The card beside a model's weights. Raises UserError where it is missing or damaged."""
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text())
        card["model"], card["settings"], card["features"]
    except FileNotFoundError:
        raise UserError(f"{folder / CARD}: no such file: {folder} holds no finished model. Run: dvc repro") from None
    except (ValueError, KeyError, TypeError):  # no JSON, no text, not a card
        raise UserError(f"{folder / CARD}: damaged. Delete {folder} and run: dvc repro") from None
    return card


def fingerprint(*parts: Any) -> str:
    """A short hash of nested plain values: what a partial checkpoint belongs to."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_settings(path: Path, prefix: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for key in sorted({*found, *expected}):
        if found.get(key) != expected.get(key):
            raise UserError(
                f"{path}: made with {prefix}{key} = {found.get(key)!r}, but now {prefix}{key} = {expected.get(key)!r}. "
                "Run: dvc repro, or set the value back"
            )
