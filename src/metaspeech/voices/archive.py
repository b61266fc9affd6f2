"""A voice as one file: a zip of voice.json and the differences, without pickles. What comes from outside is checked."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from metaspeech.errors import UserError
from metaspeech.files import replacing
from metaspeech.models.base import parameters_of
from metaspeech.registry import MODELS
from metaspeech.voices.card import Card, read_card
from metaspeech.voices.meta_model import MetaModel
from metaspeech.voices.names import checked_name, shown
from metaspeech.voices.store import CARD, VoiceStore, read_bands, read_delta

SUFFIX = ".voice"
MOST_BYTES = 256 << 20  # of a member, unpacked: a difference for the largest model is smaller
_MOST_CARD = 1 << 20
_BLOCK = 1 << 20


def export_voice(store: VoiceStore, name: str, out: Path) -> Path:
    """Writes a voice to the file ``out``. Returns the path. Raises UserError when there is no such voice."""
    folder, card = store.path(name), store.card(name)
    members = [CARD, *(part.file for part in card.parts.values())]
    try:
        with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for member in members:
                archive.write(folder / member, member)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from None
    return out


def import_voice(
    store: VoiceStore, file: Path, metas: Sequence[MetaModel], name: str = "", overwrite: bool = False
) -> Card:
    """Adds the voice in a file to the store.

    Args:
        store: where it goes.
        file: as :func:`export_voice` writes it.
        metas: meta-models that are at hand besides those in the store.
        name: to give it; empty: its own.
        overwrite: whether it may take the place of another.

    Raises:
        UserError: the file is no archive of a voice, has members that do not belong or leave the folder, is too large
            or damaged, is of a meta-model that is not at hand, or its name is taken. The store stays as it was.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = _checked_members(archive, file)
            card = read_card(_read(archive, members[CARD], file, _MOST_CARD), f"{file}: {CARD}")
            name = checked_name(name or card.name)
            store.check_free(name, overwrite)
            expected = {CARD, *(part.file for part in card.parts.values())}
            if set(members) != expected:
                raise UserError(f"{file}: holds {', '.join(sorted(members))}, but voice.json speaks of other files")
            bases = {model: _needed(store, card, model, metas, file) for model in card.parts}
            with store.saving(name, overwrite) as folder:
                for member, info in members.items():
                    _unpack(archive, info, folder / member, file)
                for model, part in card.parts.items():
                    try:
                        read_delta(folder / part.file, part, parameters_of(bases[model].load()))
                        read_bands(folder / part.file, bases[model])
                    except UserError as error:
                        raise UserError(str(error).replace(str(folder), str(file))) from None
                for meta in bases.values():
                    store.keep(meta)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}. Expected a file that export made") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{file}: no archive of a voice ({str(error)[:200]}). Expected a file that export made"
        ) from None
    return store.card(name)


def _checked_members(archive: zipfile.ZipFile, file: Path) -> dict[str, zipfile.ZipInfo]:
    allowed = {CARD, *(f"{model}.safetensors" for model in MODELS)}
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.filename not in allowed or info.filename in found:
            raise UserError(
                f"{file}: {shown(info.filename)}: does not belong into the archive of a voice. Expected, once each: "
                f"{', '.join(sorted(allowed))}"
            )
        limit = _MOST_CARD if info.filename == CARD else MOST_BYTES
        if info.file_size > limit:
            raise UserError(f"{file}: {info.filename}: {info.file_size:,} bytes, expected at most {limit:,}")
        found[info.filename] = info
    if CARD not in found:
        raise UserError(f"{file}: has no {CARD}: not the archive of a voice")
    return found


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: Path, most: int) -> bytes:
    with archive.open(info) as member:
        content = member.read(most + 1)
    if len(content) > most:
        raise UserError(f"{file}: {info.filename}: larger than it says")
    return content


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, file: Path) -> None:
    written = 0
    with archive.open(info) as member, target.open("wb") as out:
        while block := member.read(_BLOCK):
            written += len(block)
            if written > info.file_size:
                raise UserError(f"{file}: {info.filename}: larger than it says")
            out.write(block)
    os.chmod(target, 0o644)


def _needed(store: VoiceStore, card: Card, model: str, metas: Sequence[MetaModel], file: Path) -> MetaModel:
    part = card.parts[model]
    for meta in metas:
        if meta.id == part.meta_model and meta.name == model:
            return meta
    try:
        found = store.meta_model(part)
    except UserError:
        raise UserError(
            f"{file}: the voice was adapted from the {model} {part.meta_model} ({part.algorithm}, it lay in "
            f"{shown(part.origin)}), which is not here. Put that model's folder in place and name it: --model-from"
        ) from None
    if found.name != model:
        raise UserError(f"{file}: {CARD}: says {model} of a meta-model that is a {found.name}")
    return found
