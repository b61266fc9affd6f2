"""What the loaders of published corpora share: finding the folder, building, downloading."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import pandas as pd

from metaspeech import config
from metaspeech.corpora import metadata
from metaspeech.corpora.archives import Archive, fetch, unpack
from metaspeech.corpora.base import CorpusInfo
from metaspeech.errors import UserError


class Published(ABC):
    """A corpus in the layout of its publisher, in the folder ``corpus.path``."""

    name: ClassVar[str]  # in registry.CORPORA
    folders: ClassVar[tuple[str, ...]]  # what the corpus folder is called inside of the one it was unpacked in
    marker: ClassVar[str]  # a glob pattern that matches in the corpus folder and in no other
    licence: ClassVar[str]
    note: ClassVar[str]
    archives: ClassVar[dict[str, Archive]] = {}  # by part; empty: the publisher wants it fetched in another way
    parts: ClassVar[tuple[str, ...]] = ()  # of archives, downloaded unless others are named
    least_speakers: ClassVar[int] = 2

    @abstractmethod
    def entries(self, root: Path) -> pd.DataFrame:
        """All utterances in the corpus folder, as :func:`metaspeech.corpora.metadata.build` takes them."""

    def build(self, config: config.Corpus, out: Path, seed: int, workers: int) -> CorpusInfo:
        """See :class:`metaspeech.corpora.base.Corpus`. ``workers`` is not used: no audio is decoded here."""
        root = self.locate(Path(config.path))
        return metadata.build(
            self.entries(root),
            root,
            config,
            out,
            seed,
            licence=self.licence,
            language="en",
            note=self.note,
            least_speakers=self.least_speakers,
        )

    def locate(self, path: Path) -> Path:
        """The corpus folder: ``path``, or the folder of the corpus in it.

        Raises:
            UserError: it is neither.
        """
        for root in (path, *(path / folder for folder in self.folders)):
            if next(root.glob(self.marker), None) is not None:
                return root
        found = "no such folder" if not path.is_dir() else f"nothing matches {self.marker} in it"
        how = f" To download it: python -m metaspeech.corpora.download {self.name} {path}" if self.archives else ""
        raise UserError(
            f"corpus.path: {path}: {found}. Expected the corpus {self.name}, in the folder itself or in "
            f"{' or '.join(self.folders)} in it.{how}"
        )

    def download(self, path: Path, parts: tuple[str, ...] = ()) -> None:
        """Downloads and unpacks into the folder ``path``. Interrupted, it goes on where it stopped.

        Raises:
            UserError: an unknown part, a download that fails or is not what was published, an archive that writes
                outside of the folder.
        """
        for part in parts or self.parts:
            if part not in self.archives:
                raise UserError(f"{self.name} has no part '{part}'. Known: {', '.join(self.archives)}")
            archive = self.archives[part]
            file = fetch(archive, path)
            unpack(file, path / archive.into)
            file.unlink()
