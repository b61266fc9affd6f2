"""A folder of voices: each a folder of its own, and beside them the meta-models that they were adapted from.

    voices/anna/{voice.json, tacotron.safetensors}      what adaptation changed, a few megabytes
    voices/.models/<id>/{model.json, ...}               once for all voices of one meta-model

A voice is written under a hidden name and then renamed: it is whole or absent, whatever interrupts.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from metaspeech.audio.bands import BandMap
from metaspeech.errors import UserError
from metaspeech.models.base import Parameters, parameters_of, with_parameters
from metaspeech.training import deltas
from metaspeech.training.checkpoint import file_digest
from metaspeech.voices.card import Card, Part, read_card
from metaspeech.voices.meta_model import MetaModel, read_meta_model
from metaspeech.voices.names import checked_name, shown

CARD = "voice.json"
_MODELS = ".models"
_BANDS = ("bands.matrix", "bands.offset")  # in the file of an acoustic model
_MOST_CARD = 1 << 20  # bytes


class VoiceStore:
    """Voices in a folder, which is made when the first is saved."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def names(self) -> list[str]:
        """Of the voices that are there."""
        if not self.folder.is_dir():
            return []
        self._recover()
        return sorted(path.name for path in self.folder.iterdir() if path.name[0] != "." and (path / CARD).is_file())

    def path(self, name: str) -> Path:
        """The folder of a voice. Raises UserError when there is none of that name."""
        name = checked_name(name)
        self._recover()
        folder = self.folder / name
        if not (folder / CARD).is_file():
            known = ", ".join(self.names()[:10]) or "none yet"
            raise UserError(f"voice '{name}': not in {self.folder}. There: {known}. Make one: metaspeech adapt")
        return folder

    def card(self, name: str) -> Card:
        """What is known of a voice. Raises UserError when there is none, or its voice.json is damaged."""
        path = self.path(name) / CARD
        return replace(read_card(_limited(path), str(path)), name=path.parent.name)

    def bytes(self, name: str) -> int:
        """That a voice takes on disk, its meta-models not counted."""
        return sum(path.stat().st_size for path in self.path(name).iterdir())

    def delete(self, name: str) -> None:
        """Removes a voice and the meta-models that no other voice needs. Raises UserError when there is none."""
        folder = self.path(name)
        doomed = folder.with_name(f".deleted-{os.getpid()}-{folder.name}")
        os.rename(folder, doomed)
        shutil.rmtree(doomed)
        try:
            used = {part.meta_model for other in self.names() for part in self.card(other).parts.values()}
        except UserError:  # a damaged voice does not say what it needs
            return
        for kept in (self.folder / _MODELS).glob("*"):
            if kept.name not in used:
                shutil.rmtree(kept)

    @contextmanager
    def saving(self, name: str, overwrite: bool = False) -> Iterator[Path]:
        """A folder to write a voice to, which becomes the voice when the block ends without an error.

        Raises:
            UserError: there is a voice of that name and ``overwrite`` is not set, or the folder cannot be written to.
        """
        name = checked_name(name)
        self.check_free(name, overwrite)
        folder, aside = self.folder / name, self.folder / f".replaced-{name}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written to: {error.strerror}") from None
        try:
            yield temporary
            temporary.chmod(0o755)
            if folder.exists():
                os.rename(folder, aside)
            os.rename(temporary, folder)
            shutil.rmtree(aside, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{self.folder}: the voice cannot be written: {error}. What was there before is as it was. Free some "
                "space, or name another folder: --store"
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            self._recover()

    def check_free(self, name: str, overwrite: bool = False) -> None:
        """Raises UserError when there is such a voice and it is not to be overwritten."""
        if (self.folder / checked_name(name)).exists() and not overwrite:
            raise UserError(
                f"voice '{name}': there is one already in {self.folder}. Choose another name, add --overwrite, or "
                f"delete it first: metaspeech voices delete {name}"
            )

    def keep(self, meta: MetaModel) -> MetaModel:
        """A copy of a meta-model for as long as a voice needs it: training again must not silence the voice."""
        kept = self.folder / _MODELS / meta.id
        if not kept.is_dir():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=self.folder) as temporary:
                meta.save(Path(temporary) / "model")
                try:
                    os.rename(Path(temporary) / "model", kept)
                except OSError:
                    if not kept.is_dir():  # else another process was faster
                        raise
        return read_meta_model(kept)

    def meta_model(self, part: Part) -> MetaModel:
        """The one that a part of a voice was adapted from. Raises UserError when it is not there."""
        folder = self.folder / _MODELS / part.meta_model
        if not folder.is_dir():
            raise UserError(
                f"meta-model {part.meta_model[:12]} ({part.algorithm}, it lay in {part.origin}) is not in "
                f"{self.folder / _MODELS}: the voice cannot speak without it. Import the voice again, where that "
                "meta-model is, or adapt again"
            )
        return read_meta_model(folder)

    def load_part(self, name: str, part: Part) -> tuple[MetaModel, nn.Module]:
        """An adapted model of a voice. Raises UserError when its files are damaged or do not fit."""
        meta = self.meta_model(part)
        model = meta.load()
        path = self.path(name) / part.file
        return meta, with_parameters(model, read_delta(path, part, parameters_of(model)))

    def load_bands(self, name: str, part: Part) -> BandMap | None:
        """What the mels of an acoustic part, once loaded, are mapped by."""
        return read_bands(self.path(name) / part.file, self.meta_model(part))

    def _recover(self) -> None:
        """Puts back what an interruption at the wrong moment left aside."""
        for aside in self.folder.glob(".replaced-*"):
            folder = self.folder / aside.name.removeprefix(".replaced-")
            if folder.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                os.rename(aside, folder)


def write_delta(
    folder: Path, name: str, step: int, base: Mapping[str, Tensor], adapted: Parameters, band_map: BandMap | None
) -> dict[str, object]:
    """Stores an adapted model. Returns ``file``, ``bytes`` and ``sha256`` for the card."""
    path = folder / f"{name}.safetensors"
    mapped = (band_map.matrix, band_map.offset) if band_map else ()
    tensors = {key: torch.from_numpy(value) for key, value in zip(_BANDS, mapped, strict=False)}
    deltas.write(path, base, {step: adapted}, tensors)
    path.chmod(0o644)
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": file_digest(path)}


def read_delta(path: Path, part: Part, base: Mapping[str, Tensor]) -> Parameters:
    """The parameters of an adapted model.

    Raises:
        UserError: the file is missing, no safetensors, not the one that voice.json speaks of, or of another model.
    """
    if not path.is_file() or file_digest(path) != part.sha256:
        raise UserError(f"{path}: missing, or not the file that voice.json speaks of. Import or adapt the voice again")
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("steps") != str(part.step):
                raise UserError(f"{path}: not of the step that voice.json speaks of")
            for key in set(file.keys()) - set(_BANDS):
                step, _, name = key.partition("/")
                found = file.get_tensor(key)
                fits = step == str(part.step) and name in base and found.shape == base[name].shape
                if not fits or found.dtype != torch.float16 or not bool(torch.isfinite(found).all()):
                    raise UserError(f"{path}: {shown(key)}: not a finite difference of the model's own parameters")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: no safetensors file: {str(error)[:200]}. Import or adapt the voice again") from None
    return deltas.read(path, base, part.step)


def read_bands(path: Path, meta: MetaModel) -> BandMap | None:
    """The map of mel bands of an adapted model whose file :func:`read_delta` has checked; None where it has none.

    Raises:
        UserError: it is not of as many bands as the mels of ``meta``, or not finite.
    """
    bands = len(meta.features.mel_mean)
    with safe_open(path, framework="pt") as file:
        found = [file.get_tensor(key) for key in _BANDS if key in file.keys()]  # noqa: SIM118 - not a mapping
    if not found:
        return None
    shapes = [tuple(one.shape) for one in found]
    if shapes != [(bands, bands), (bands,)] or not all(bool(torch.isfinite(one).all()) for one in found):
        raise UserError(f"{path}: {' and '.join(_BANDS)}: expected finite numbers for {bands} bands. Adapt again")
    matrix, offset = (one.float().numpy() for one in found)
    return BandMap(matrix, offset)


def _limited(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_MOST_CARD + 1)
    if len(content) > _MOST_CARD:
        raise UserError(f"{path}: larger than {_MOST_CARD >> 20} MiB: not the voice.json of a voice")
    return content
