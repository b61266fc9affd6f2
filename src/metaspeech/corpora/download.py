"""``python -m metaspeech.corpora.download vctk DIR``: fetches a published corpus where its publisher allows it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from metaspeech import registry
from metaspeech.corpora.published import Published
from metaspeech.errors import UserError

Parts = Annotated[list[str] | None, typer.Option("--part", help="A part of the corpus; may be repeated.")]


def download(name: str, folder: Path, part: Parts = None) -> None:
    """Downloads corpus NAME into FOLDER. Interrupted, it goes on where it stopped."""
    try:
        published(name).download(folder, tuple(part or ()))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    print(f"{name} is in {folder}. In params.yaml: corpus.source: {name}, corpus.path: {folder}")


def published(name: str) -> Published:
    """The loader of a corpus that can be downloaded. Raises UserError for any other name."""
    known = [key for key in registry.CORPORA if _published(key) is not None]
    corpus = _published(name) if name in registry.CORPORA else None
    if corpus is None:
        raise UserError(f"'{name}' cannot be downloaded. These can: {', '.join(known)}")
    return corpus


def _published(name: str) -> Published | None:
    corpus = registry.resolve(registry.CORPORA, name)()
    return corpus if isinstance(corpus, Published) and corpus.archives else None


if __name__ == "__main__":
    typer.run(download)
