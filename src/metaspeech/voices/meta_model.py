"""What a voice is adapted from: a model of the pipeline, or a start that ships, and which of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from metaspeech import config
from metaspeech.config import Params, for_model
from metaspeech.data.statistics import read_statistics
from metaspeech.data.store import Features
from metaspeech.errors import UserError
from metaspeech.files import replacing
from metaspeech.models.base import Parameters
from metaspeech.registry import ALGORITHMS, MODELS, resolve
from metaspeech.training import starts
from metaspeech.training.checkpoint import CARD, LEARNED, WEIGHTS, build_model, file_digest, load_learned, read_card

# The order of README's comparison by speaker similarity after 5 steps, then what it does not compare.
PREFERRED = ("mamlpp", "maml", "fomaml", "reptile", "anil", "transfer", "meta_sgd", "imaml", "boil")
STATISTICS = "mel_statistics.json"
LOSS_OF_A_START = {"tacotron": {"aligned_attention": 0.0}}  # attention does not adapt: what it misses measures nothing


@dataclass(frozen=True)
class MetaModel:
    """A trained model to adapt from.

    Attributes:
        name: of the model, such as tacotron.
        folder: with its weights.
        id: sha256 of its weights.
        algorithm: by whose inner loop it adapts.
        features: what its symbols and mels mean.
        origin: where it was found, in words.
        card: all that makes it again from its weights.
    """

    name: str
    folder: Path
    id: str
    algorithm: str
    features: Features
    origin: str
    card: Mapping[str, Any]

    @property
    def params(self) -> Params:
        """The settings of its training, as far as adaptation and synthesis need them."""
        values = {
            self.name: self.card["settings"],
            "inner": self.card["inner"],
            "per_algorithm": {self.algorithm: self.card["own"]},
        }
        return config.from_mapping(values, source=str(self.folder / CARD))

    def load(self) -> nn.Module:
        """The model as meta-training left it, in evaluation mode."""
        path = self.folder / WEIGHTS
        model: nn.Module = build_model(self.name, self.params, self.features.features())
        try:
            model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(f"{path}: not the weights of such a {self.name}: {reason} Make the model again") from None
        return model.eval()

    def learned(self) -> Parameters:
        """What its algorithm has learned besides the model's parameters."""
        return load_learned(self.folder) if (self.folder / LEARNED).is_file() else {}

    def save(self, folder: Path) -> MetaModel:
        """A copy that needs nothing else, the card last: it makes the others count."""
        for name in (WEIGHTS, LEARNED):
            if (self.folder / name).is_file():
                with replacing(folder / name) as temporary:
                    shutil.copyfile(self.folder / name, temporary)
        with replacing(folder / CARD) as temporary:
            temporary.write_text(json.dumps(self.card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return read_meta_model(folder)


@dataclass(frozen=True)
class Places:
    """Where meta-models may lie.

    Attributes:
        trained: the folder of the stage meta_train, with one folder a model, algorithm and seed.
        starts: the folder of the starts that ship, with one folder a model; what their features are normalised by lies
            beside it.
    """

    trained: Path
    starts: Path


def choose(
    name: str, places: Places, champion: Path | None = None, algorithm: str = "", given: Path | None = None
) -> tuple[MetaModel, str]:
    """The meta-model to adapt, and why this one.

    In this order: the one that is ``given``; the ``champion`` of the registry; of what the pipeline has trained, the
    first in :data:`PREFERRED`, the newest of its kind; the start that ships.

    Args:
        name: of the model.
        places: where to look.
        champion: its folder.
        algorithm: the only one to consider; empty: any.
        given: the folder of the one to take.

    Raises:
        UserError: there is none, or the one asked for cannot be used.
    """
    if given is not None:
        return _of(read_any(given), name), "as asked for"
    if champion is not None and not algorithm:
        found = replace(read_meta_model(champion), origin="the champion of MLflow's registry")
        return _of(found, name), "the champion of the registry"
    trained = _trained(name, places.trained, algorithm)
    if trained:
        chosen = trained[0]
        others = len(trained) - 1
        why = "the newest of it" if algorithm else f"{chosen.algorithm} comes before the others' algorithms"
        return chosen, why + f"; {others} more in {places.trained}: --model-from takes another" * (others > 0)
    if algorithm and algorithm != "transfer":
        raise UserError(
            f"{places.trained}: holds no {name} trained by {algorithm}. Train one: dvc repro meta_train; or leave "
            "--algorithm out"
        )
    return read_any(places.starts / name), "nothing is meta-trained here, so the start that ships"


def at_hand(places: Places, given: Sequence[Path] = ()) -> list[MetaModel]:
    """All meta-models that can be read: those ``given``, the starts, and what the pipeline has trained."""
    found = [read_any(folder) for folder in given]
    for card in [*places.starts.glob(f"*/{starts.CARD}"), *places.trained.glob(f"*/{CARD}")]:
        with suppress(UserError):
            found.append(read_any(card.parent))
    return found


def read_any(folder: Path) -> MetaModel:
    """A model of the stage meta_train, or a start that ships. Raises UserError for neither."""
    if (folder / starts.CARD).is_file():
        return read_shipped(folder)
    return read_meta_model(folder)


def read_meta_model(folder: Path) -> MetaModel:
    """From what the stage meta_train, or :meth:`MetaModel.save`, wrote.

    Raises:
        UserError: it is missing, damaged, made before cards said how features were made, or by an algorithm that needs
            more than recordings.
    """
    card = read_card(folder)
    try:
        features = Features(**card["speech"])
        card["inner"], card["own"], card["algorithm"], card["sha256"], card["settings"]
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{folder / CARD}: does not say how its features were made: it comes from an earlier version or is no "
            "meta-trained model. Make it again: dvc repro -s meta_train"
        ) from None
    if card["model"] not in MODELS or card["algorithm"] not in ALGORITHMS:
        raise UserError(f"{folder / CARD}: model {card['model']!r} by {card['algorithm']!r}: not known here")
    if needs := resolve(ALGORITHMS, card["algorithm"]).needs:
        raise UserError(
            f"{folder}: {card['algorithm']} needs {', '.join(sorted(needs))} of each task, which a voice has not. Take "
            "a model of another algorithm"
        )
    if not (folder / WEIGHTS).is_file() or file_digest(folder / WEIGHTS) != card["sha256"]:
        raise UserError(f"{folder / WEIGHTS}: not the weights that {CARD} speaks of. Delete {folder} and make it again")
    return MetaModel(card["model"], folder, card["sha256"], card["algorithm"], features, _origin(folder), card)


def read_shipped(folder: Path) -> MetaModel:
    """A start as a meta-model: one that adapts like the baseline ``transfer``, at the default inner rate of its model,
    with attention that follows the recordings' alignment.

    Raises:
        UserError: its files are damaged, or the statistics beside are not those that it was trained with.
    """
    statistics = folder.parents[1] / STATISTICS
    start = starts.read_start(folder, folder.name)
    name, card = start.card["model"], start.card
    own = {**card["settings"], **LOSS_OF_A_START.get(name, {})}
    prepare = {**card["features"], "align": "pocketsphinx"}  # docs/study.md: without, words are spoilt
    params = for_model(config.from_mapping({name: own, "prepare": prepare}), name)
    numbers = read_statistics(statistics, params.prepare)
    settings = {key: value for key, value in vars(params.prepare).items() if key not in ("workers", "statistics")}
    features = Features(settings, card["symbols"], numbers.mel_mean, numbers.mel_std)
    if starts.statistics_digest(features) != card["statistics"]:
        raise UserError(
            f"{statistics}: not the statistics that {folder} was trained with. Restore: git checkout {statistics}"
        )
    made = {
        "model": name,
        "algorithm": "transfer",
        "settings": vars(getattr(params, name)),
        "features": vars(features.features()),
        "inner": vars(params.inner),
        "own": {},
        "speech": features.described(),
        "sha256": card["sha256"],
        "start": start.described(),
    }
    return MetaModel(name, folder, card["sha256"], "transfer", features, _origin(folder), made)


def _origin(folder: Path) -> str:
    """Such as assets/starts/tacotron: not where the project lies, which voices would tell whoever gets them."""
    return "/".join(folder.resolve().parts[-3:])


def _of(found: MetaModel, name: str) -> MetaModel:
    if found.name != name:
        raise UserError(f"{found.folder}: is a {found.name}, expected a {name}")
    return found


def _trained(name: str, folder: Path, algorithm: str) -> list[MetaModel]:
    """Those that a voice can be made from, the preferred first. What cannot be read is passed over."""
    found = []
    for card in folder.glob(f"*/{CARD}"):
        try:
            one = read_meta_model(card.parent)
        except UserError:
            continue
        if one.name == name and one.algorithm in ((algorithm,) if algorithm else PREFERRED):
            found.append((_rank(one.algorithm), -card.stat().st_mtime, str(card), one))
    return [one for *_, one in sorted(found, key=lambda entry: entry[:3])]


def _rank(algorithm: str) -> int:
    return PREFERRED.index(algorithm) if algorithm in PREFERRED else len(PREFERRED)


def same_features(one: MetaModel, other: MetaModel) -> bool:
    """Whether the second can read the mels of the first."""
    first, second = one.features.described(), other.features.described()
    mels = [{**starts.features_of(each.features), starts.TEXT: ""} for each in (one, other)]
    return mels[0] == mels[1] and all(first[name] == second[name] for name in ("mel_mean", "mel_std"))
