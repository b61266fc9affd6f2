"""Sentences with function words, of changing length: what a model hears that is to read any text.

They are all but grammatical and mean nothing. Content words are dealt like cards, class by class, so that none is rare;
function words are frequent, as they are.
"""

from __future__ import annotations

import random
from collections import defaultdict

from metaspeech.errors import UserError
from metaspeech.text.phrases import word_classes

LEAST = 4  # words: no sentence is one of the phrases of three words
TRIES = 200  # for one more sentence that is new
_FUNCTION = {
    "determiner": "the the the the a a my your his her our their this that some every no another",
    "subject": "i you he she we they it who everyone nobody someone",
    "object": "me you him her us them it everything something",
    "preposition": "in on under near with from to by about over after before into of for at without between",
    "joint": "and but or because when if while so before since although that",
    "auxiliary": "had have would could should might must never always also just",
    "opening": "now then here there today yes well perhaps sometimes once",
}
FUNCTION = {kind: words.split() for kind, words in _FUNCTION.items()}


def sentences(count: int, vocabulary: int, most: int, seed: int) -> list[str]:
    """``count`` distinct sentences of 4 to ``most`` words, in an order that only the arguments decide.

    Args:
        count: how many.
        vocabulary: the first so many words of the word list, beside function words.
        most: words of the longest.
        seed: of all draws.

    Raises:
        UserError: the list is shorter than ``vocabulary`` or lacks a class of words in it, ``most`` is below 4, or that
            many words do not make so many sentences.
    """
    if most < LEAST:
        raise UserError(f"corpus.words_per_phrase: {most}: sentences have {LEAST} words and more. Raise it")
    deal = _Deal(vocabulary, random.Random(f"sentences {seed}"))
    found: dict[str, None] = {}
    tries = 0
    while len(found) < count:
        words = deal.sentence()
        text = " ".join(words)
        if LEAST <= len(words) <= most and text not in found:
            found[text], tries = None, 0
        tries += 1
        if tries > TRIES:
            raise UserError(
                f"corpus.vocabulary: {vocabulary} words make few sentences of at most {most} words more than "
                f"{len(found)}, but {count} are needed. Raise it, corpus.words_per_phrase, or lower corpus.utterances."
            )
    return list(found)


class _Deal:
    """Draws parts of sentences."""

    def __init__(self, vocabulary: int, draw: random.Random) -> None:
        self._classes = word_classes(vocabulary)
        lacking = [kind for kind in ("noun", "verb", "modifier", "adverb") if kind not in self._classes]
        if lacking:
            raise UserError(f"corpus.vocabulary: the first {vocabulary} words have no {lacking[0]}. Raise it")
        self._stacks: dict[str, list[str]] = defaultdict(list)
        self._draw = draw

    def sentence(self) -> list[str]:
        opening = [self._function("opening")] if self._often(0.12) else []
        words = opening + self._clause()
        return [*words, self._function("joint"), *self._clause()] if self._often(0.3) else words

    def _clause(self) -> list[str]:
        subject = [self._function("subject")] if self._often(0.4) else self._thing()
        auxiliary = [self._function("auxiliary")] if self._often(0.3) else []
        words = [*subject, *auxiliary, self._content("verb")]
        if self._often(0.6):
            words += [self._function("object")] if self._often(0.25) else self._thing()
        if self._often(0.45):
            words += [self._function("preposition"), *self._thing()]
        return [*words, self._content("adverb")] if self._often(0.25) else words

    def _thing(self) -> list[str]:
        determiner = [self._function("determiner")] if self._often(0.8) else []
        modifier = [self._content("modifier")] if self._often(0.4) else []
        return [*determiner, *modifier, self._content("noun")]

    def _often(self, share: float) -> bool:
        return self._draw.random() < share

    def _function(self, kind: str) -> str:
        return self._draw.choice(FUNCTION[kind])

    def _content(self, kind: str) -> str:
        if not self._stacks[kind]:
            self._stacks[kind] = self._draw.sample(self._classes[kind], len(self._classes[kind]))
        return self._stacks[kind].pop()
