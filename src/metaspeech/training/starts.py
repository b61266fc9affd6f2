"""Trained weights that ship with the project, for pretraining to go on from.

A start is a folder: ``model.safetensors`` in half precision and ``card.json``, which says what it was trained on. It is
taken only where it fits, and only where nobody and nothing that a run holds out was part of its training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from metaspeech.audio.features import SETTINGS
from metaspeech.config import Params, weight_settings
from metaspeech.data.episodes import EpisodeSpec
from metaspeech.data.store import Features
from metaspeech.data.texts import phrase
from metaspeech.errors import UserError
from metaspeech.registry import MODELS, resolve

TEXT = "text"  # of the features, the one that says nothing of the mel
WEIGHTS, CARD = "model.safetensors", "card.json"
_WAY_OUT = "Set pretrain.init to none, and pretrain.steps to what training from nothing needs"


@dataclass(frozen=True)
class Start:
    """A start on disk.

    Attributes:
        folder: with weights and card.
        card: the content of card.json, see :func:`metaspeech.training.start_card.make_card`.
    """

    folder: Path
    card: Mapping[str, Any]

    @property
    def steps(self) -> int:
        """That it was trained for."""
        return int(self.card["training"]["steps"])

    def described(self) -> dict[str, Any]:
        """Which one it is, in a few values."""
        training, corpus = self.card["training"], self.card["corpus"]
        return {
            "name": self.folder.as_posix(),
            "sha256": self.card["sha256"],
            "steps": self.steps,
            "corpus": corpus["source"],
            "speakers": len(self.card["speakers"]),
            "hours": training["hours"],
            "date": training["started"][:10],
            "commit": training["commit"],
            "licence": corpus["licence"],
        }


def read_start(folder: Path, model: str) -> Start:
    """A start's card, once its weights are the ones that the card speaks of.

    Raises:
        UserError: no start ships for ``model``, or its files are damaged.
    """
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        found = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        expected, start = card["sha256"], Start(folder, card)
        start.described()
    except FileNotFoundError:
        raise UserError(
            f"pretrain.init: 'shipped', but no start ships for {model}: {folder} has no {CARD} and {WEIGHTS}. "
            f"{_WAY_OUT} (for this model alone: per_model.{model}.pretrain)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / CARD}: damaged ({error!r}). Restore it: git checkout {folder}") from None
    if found != expected:
        raise UserError(f"{folder / WEIGHTS}: not the weights that {CARD} speaks of. Restore it: git checkout {folder}")
    return start


def check_fit(start: Start, params: Params, store: Features) -> None:
    """Raises UserError for the first in which model or features differ from those of the start."""
    card, model = start.card, start.card["model"]
    reads_text = resolve(MODELS, model).role == "acoustic"
    passed_over = set() if reads_text else {TEXT}
    kinds = (
        (f"{model}.", card["settings"], weight_settings(params, model)),
        ("prepare.", card["features"], features_of(store)),
    )
    for prefix, then, now in kinds:
        for key in sorted({*then, *now} - passed_over):
            if then.get(key) != now.get(key):
                raise UserError(
                    f"{prefix}{key}: {now.get(key)!r}, but {start.folder} was trained with {then.get(key)!r}. "
                    f"Set it back. Or: {_WAY_OUT}"
                )
    if reads_text and card["symbols"] != store.symbols:
        raise UserError(f"the symbol table is not the one that {start.folder} was trained with. {_WAY_OUT}")
    if card["statistics"] != statistics_digest(store):
        raise UserError(
            f"prepare.statistics: features are not normalised by the statistics that {start.folder} was trained with. "
            f"Set it to assets/mel_statistics.json. Or: {_WAY_OUT}"
        )


def check_unseen(
    start: Start, source: str, tasks: Iterable[EpisodeSpec], texts: Mapping[str, str], texts_are_shared: bool
) -> None:
    """Raises UserError when a speaker or a text of the held-out ``tasks`` was part of the start's training.

    Args:
        start: with the speakers and texts of its training.
        source: of this run's corpus. Speakers of the same name in another corpus are other people.
        tasks: the validation and test tasks.
        texts: utt_id -> text.
        texts_are_shared: training and held-out speakers may say the same (``episodes.text_split: none``).
    """
    speakers = set(start.card["speakers"]) if start.card["corpus"]["source"] == source else set()
    phrases = set() if texts_are_shared else set(start.card["texts"])
    for task in tasks:
        if task.speaker in speakers:
            raise UserError(
                f"{task.split} speaker '{task.speaker}' is not unseen: {start.folder} was trained on this speaker. "
                f"Give corpus, episodes and data_seed the values that it was made with. Or: {_WAY_OUT}"
            )
        for utt_id in (*task.support, *task.query):
            if phrase(texts[utt_id]) in phrases:
                raise UserError(
                    f"{task.split} text '{phrase(texts[utt_id])}' is not unseen: {start.folder} was trained on it. "
                    f"Give corpus, episodes and data_seed the values that it was made with. Or: {_WAY_OUT}"
                )


def load_start(model: nn.Module, start: Start) -> None:
    """Puts the start's weights into a model, in the model's precision. Raises UserError when they do not fit."""
    path = start.folder / WEIGHTS
    try:
        weights = {name: _single(value) for name, value in load_file(path).items()}
        model.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path}: weights do not fit the model: {reason} {_WAY_OUT}") from None


def half(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as a start keeps them. Raises UserError for values that half precision cannot hold."""
    halved = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    for name, value in halved.items():
        if not torch.isfinite(value).all():
            raise UserError(f"weights '{name}': not finite in half precision")
    return halved


def features_of(store: Features) -> dict[str, Any]:
    """What log-mels and symbols were made with."""
    return {name: store.settings[name] for name in (*SETTINGS, TEXT)}


def statistics_digest(store: Features) -> str:
    """Of what features are normalised by."""
    numbers = [*store.mel_mean.tolist(), *store.mel_std.tolist()]
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
