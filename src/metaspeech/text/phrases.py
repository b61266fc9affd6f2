"""Short phrases over a vocabulary of chosen size: what the generated corpus says.

A phrase follows a template of word classes ("young dog ran"). Words are dealt like cards, class by class, so that all
occur about equally often.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from math import perm

from metaspeech.errors import UserError
from metaspeech.text.words import word_list

# By the last words of a phrase; longer phrases put "modifier noun verb" in front as often as it takes.
ENDINGS: dict[int, list[list[str]]] = {
    1: [["noun"], ["verb"]],
    2: [["modifier", "noun"], ["noun", "verb"]],
    3: [["modifier", "noun", "verb"], ["noun", "verb", "adverb"], ["noun", "verb", "noun"]],
}
CLAUSE = ["modifier", "noun", "verb"]


def phrases(count: int, vocabulary: int, words_per_phrase: int, seed: int) -> list[str]:
    """``count`` distinct phrases over the first ``vocabulary`` words, in an order that only the arguments decide.

    No word occurs twice in a phrase.

    Raises:
        UserError: the word list is shorter than ``vocabulary``, or that many words make fewer phrases.
    """
    classes = word_classes(vocabulary)
    templates = _templates(words_per_phrase, classes)
    most = _capacity(templates, classes)
    if count > most:
        raise UserError(
            f"corpus.vocabulary: {vocabulary} words make {most} phrases of {words_per_phrase} "
            f"(corpus.words_per_phrase), but {count} are needed. Raise one of the two, or lower corpus.utterances."
        )
    draw = random.Random(f"phrases {seed}")
    if 2 * count > most:
        every = [phrase for template in templates for phrase in _all(template, classes)]
        return draw.sample(every, count)
    return _deal(count, templates, classes, draw)


def capacity(vocabulary: int, words_per_phrase: int) -> int:
    """How many distinct phrases there are."""
    classes = word_classes(vocabulary)
    return _capacity(_templates(words_per_phrase, classes), classes)


def word_classes(vocabulary: int) -> dict[str, list[str]]:
    """The first ``vocabulary`` words by their class. Raises UserError when there are fewer."""
    words = word_list()
    if vocabulary > len(words):
        raise UserError(f"corpus.vocabulary: {vocabulary} is more than the {len(words)} words that there are")
    classes: dict[str, list[str]] = defaultdict(list)
    for word, kind in words[:vocabulary]:
        classes[kind].append(word)
    return classes


def _templates(length: int, classes: dict[str, list[str]]) -> list[list[str]]:
    """The templates of ``length`` words that the vocabulary can fill without using a word twice."""
    clauses, rest = divmod(length - 1, 3)
    templates = [CLAUSE * clauses + ending for ending in ENDINGS[rest + 1]]
    fitting = [t for t in templates if all(t.count(kind) <= len(classes[kind]) for kind in t)]
    if not fitting:
        raise UserError(
            f"corpus.words_per_phrase: {length} words need a larger corpus.vocabulary than "
            f"{sum(map(len, classes.values()))}. Raise it, or lower corpus.words_per_phrase."
        )
    return fitting


def _capacity(templates: list[list[str]], classes: dict[str, list[str]]) -> int:
    total = 0
    for template in templates:
        ways = 1
        for kind in set(template):
            ways *= perm(len(classes[kind]), template.count(kind))
        total += ways
    return total


def _all(template: list[str], classes: dict[str, list[str]]) -> Iterator[str]:
    for words in product(*(classes[kind] for kind in template)):
        if len(set(words)) == len(words):
            yield " ".join(words)


def _deal(count: int, templates: list[list[str]], classes: dict[str, list[str]], draw: random.Random) -> list[str]:
    """Deals from one shuffled deck a class; a phrase that was dealt before is dealt anew."""
    decks: dict[str, list[str]] = {kind: [] for kind in classes}
    dealt: dict[str, None] = {}
    while len(dealt) < count:
        template = draw.choice(templates)
        words = [_next(kind, decks, classes, draw) for kind in template]
        if len(set(words)) == len(words):
            dealt.setdefault(" ".join(words))
    return list(dealt)


def _next(kind: str, decks: dict[str, list[str]], classes: dict[str, list[str]], draw: random.Random) -> str:
    if not decks[kind]:
        decks[kind] = draw.sample(classes[kind], len(classes[kind]))
    return decks[kind].pop()
