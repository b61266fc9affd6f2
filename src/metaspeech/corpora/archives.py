"""Downloads that can be interrupted, and archives that cannot write where they should not."""

from __future__ import annotations

import hashlib
import os
import tarfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from tqdm import tqdm

from metaspeech.errors import UserError

_BLOCK = 1 << 20
_TIMEOUT = 60  # seconds without an answer


@dataclass(frozen=True)
class Archive:
    """Something to download."""

    url: str
    sha256: str  # "": none is published; the archive's own checksums are all there is
    into: str = ""  # the folder that its members go to, where they bring none of their own


def fetch(archive: Archive, folder: Path) -> Path:
    """Downloads into ``folder`` through a ``.part`` file, from which an interrupted download goes on.

    Raises:
        UserError: the server does not answer or refuses, or the checksum differs (the file is then removed).
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / PurePosixPath(urlparse(archive.url).path).name
    part = file.with_name(file.name + ".part")
    if not file.exists():
        try:
            _download(archive.url, part)
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
            raise UserError(f"{archive.url}: {error}. Start again: what has arrived is kept in {part}.") from None
        os.replace(part, file)
    if archive.sha256 and (found := _sha256(file)) != archive.sha256:
        file.unlink()
        raise UserError(
            f"{archive.url}: the checksum is {found}, expected {archive.sha256}. The file was removed; download again."
        )
    return file


def unpack(file: Path, folder: Path) -> None:
    """Unpacks a tar or zip archive into ``folder``.

    Raises:
        UserError: a member would leave the folder (nothing is unpacked then), or the archive is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    path = PurePosixPath(name.replace("\\", "/"))
                    if path.is_absolute() or ".." in path.parts:
                        raise UserError(f"{file}: member {name!r} leads out of the folder. Nothing was unpacked.")
                archive.extractall(folder)
        else:
            with tarfile.open(file) as archive:
                archive.extractall(folder, members=_checked(archive, file, folder), filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the archive
            raise
        raise UserError(f"{file}: is not a whole tar or zip archive ({error}). Remove it and download again.") from None


def _checked(archive: tarfile.TarFile, file: Path, folder: Path) -> list[tarfile.TarInfo]:
    """All members, after the filter for data has passed each: no absolute path, no link or name out of the folder."""
    members = archive.getmembers()
    for member in members:
        try:
            tarfile.data_filter(member, os.fspath(folder))
        except tarfile.FilterError as error:
            raise UserError(f"{file}: member {member.name!r} is refused: {error}. Nothing was unpacked.") from None
    return members


def _download(url: str, part: Path) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing is left to send
            return
        raise
    with response:
        resumed = response.status == 206
        total = int(response.headers.get("Content-Length") or 0) + (done if resumed else 0)
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(total=total, initial=done if resumed else 0, unit="B", unit_scale=True, disable=None) as bar,
        ):
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
    size = part.stat().st_size
    if total and size < total:
        raise ConnectionError(f"the connection ended after {size} of {total} bytes")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
