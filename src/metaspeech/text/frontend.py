"""Text to the symbol ids that a model reads."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from metaspeech.errors import UserError
from metaspeech.text.normalise import PUNCTUATION, normalise

PADDING = "<pad>"
END = "<end>"
_MARKS = [" ", *PUNCTUATION]
_CHARACTERS = [*"abcdefghijklmnopqrstuvwxyz", "'"]

__all__ = ["END", "PADDING", "Frontend", "is_mark", "normalise", "pronounce"]


def is_mark(symbol: str) -> bool:
    """Whether it stands between words: a space or punctuation."""
    return symbol in _MARKS


class Frontend:
    """Normalised text to ids.

    The symbol table depends on ``kind`` alone, not on a corpus, so that a model can read any text of its language.

    Attributes:
        kind: "characters", or "phonemes" by hama's grapheme-to-phoneme model, whose weights lie in its package (about
            40 ms for each new word).
        symbols: the table. Index 0 is padding, the last one marks the end of the text.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        units = _CHARACTERS if kind == "characters" else _phoneme_table()
        self.symbols = [PADDING, *_MARKS, *units, END]
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols)}

    def encode(self, text: str) -> list[int]:
        """Ids of text as :func:`normalise` returns it, closed by the end symbol.

        Raises:
            UserError: nothing but punctuation, or letters other than a to z.
        """
        if not any(char.isalpha() for char in text):
            raise UserError("empty text: no words")
        unknown = sorted({char for char in text if char not in _CHARACTERS and char not in _MARKS})
        if unknown:
            raise UserError(f"unknown symbols: {' '.join(unknown[:8])}")
        units = list(text) if self.kind == "characters" else _phonemes_of(text)
        return [self._ids[unit] for unit in units] + [self._ids[END]]


def _phonemes_of(text: str) -> list[str]:
    """The words' phonemes with the spaces and punctuation between them."""
    units: list[str] = []
    word = ""
    for char in [*text, ""]:
        if char and char not in _MARKS:
            word += char
            continue
        units += pronounce(word) if word else ()
        word = ""
        units += [char] if char else []
    return units


@cache
def _grapheme_to_phoneme() -> Any:
    from hama import G2PModel

    return G2PModel()


@cache
def _phoneme_table() -> list[str]:
    table = _grapheme_to_phoneme().vocab.decoder
    return [phoneme for phoneme in table if phoneme not in _MARKS and not phoneme.startswith("<")]


@lru_cache(maxsize=100_000)
def pronounce(word: str) -> tuple[str, ...]:
    """The phonemes of an English word, by hama's grapheme-to-phoneme model."""
    found = [alignment.phoneme for alignment in _grapheme_to_phoneme()(word).alignments]
    return tuple(phoneme for phoneme in found if phoneme.strip() and phoneme not in PUNCTUATION)
