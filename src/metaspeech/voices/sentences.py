"""A text of any length as pieces that a model can say in one breath."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from metaspeech.errors import UserError
from metaspeech.text.frontend import Frontend
from metaspeech.text.normalise import normalise
from metaspeech.voices.names import shown

MOST_CHARACTERS = 20_000  # of one text, as written or as read aloud: about 20 minutes of speech
LONGEST = 120  # characters of a piece: of longer ones a small Tacotron loses the thread
SENTENCE_PAUSE, PARAGRAPH_PAUSE, BREATH = 0.3, 0.7, 0.1  # seconds after a piece

_SENTENCES = re.compile(r"(?<=[.?!])\s+")
_PARAGRAPHS = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Piece:
    """What is said in one breath.

    Attributes:
        text: normalised.
        tokens: symbol ids.
        pause: seconds of silence after it.
    """

    text: str
    tokens: list[int]
    pause: float


def pieces(text: str, frontend: Frontend) -> list[Piece]:
    """Sentences, the long ones divided at commas or else between words.

    Raises:
        UserError: too long, nothing in it can be spoken, or it has letters that cannot be spoken; names them.
    """
    _check_length(len(text))
    paragraphs = [normalise(part) for part in _PARAGRAPHS.split(text)]
    spoken = [part for part in paragraphs if part]
    _check_length(sum(map(len, spoken)))
    if not spoken:
        raise UserError("nothing to say: the text has no letter and no digit")
    _check_letters("".join(spoken), text)
    found = []
    for paragraph in spoken:
        for sentence in _SENTENCES.split(paragraph):
            for breath in _breaths(sentence):
                if any(char.isalpha() for char in breath):
                    found.append(Piece(breath, frontend.encode(breath), BREATH))
            if found:
                found[-1] = Piece(found[-1].text, found[-1].tokens, SENTENCE_PAUSE)
        if found:
            found[-1] = Piece(found[-1].text, found[-1].tokens, PARAGRAPH_PAUSE)
    return found


def left_out(text: str) -> list[str]:
    """The symbols of a text that nobody hears, such as emoji and control characters, each once and named.

    White space, punctuation and accents are not among them: they are part of writing.
    """
    silent = {char for char in text if unicodedata.category(char) in ("So", "Sk", "Co", "Cn", "Cc", "Cf", "Cs")}
    silent -= set("\t\n\r\v\f\u00ad\u200b\u200d\u200e\u200f\ufe0f\ufeff")  # joiners, marks of direction and the like
    return [_named(char) for char in sorted(silent) if not normalise(f"a{char}a").replace("a", "").strip()]


def _check_length(characters: int) -> None:
    if characters > MOST_CHARACTERS:
        raise UserError(
            f"text: {characters:,} characters, expected at most {MOST_CHARACTERS:,} at a time. Divide it, and say the "
            "parts one after the other"
        )


def _check_letters(spoken: str, text: str) -> None:
    unknown = sorted({char for char in spoken if char.isalpha() and not ("a" <= char <= "z")})
    if unknown:
        some = ", ".join(_named(char) for char in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
        raise UserError(
            f"text {shown(text)}: cannot say {some}: the model reads English, in the letters a to z. Write these words "
            "with them"
        )


def _named(char: str) -> str:
    name = unicodedata.name(char, "")
    return f"{shown(char)} (U+{ord(char):04X}{' ' + name if name else ''})"


def _breaths(sentence: str) -> Iterator[str]:
    """Parts of at most :data:`LONGEST` characters: cut after a mark where there is one in the second half, else
    between words, else inside a word."""
    while len(sentence) > LONGEST:
        head = sentence[:LONGEST]
        cut = max(head.rfind(mark) + 1 for mark in (", ", "; ", ": "))
        if cut < LONGEST // 2:
            cut = head.rfind(" ") + 1 or LONGEST
        yield sentence[:cut].strip()
        sentence = sentence[cut:].strip()
    if sentence:
        yield sentence
