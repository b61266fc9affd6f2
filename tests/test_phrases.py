"""What the generated corpus says."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaspeech.errors import UserError
from metaspeech.text import words
from metaspeech.text.phrases import capacity, phrases

MOST = len(words.word_list())

# The consonants and vowels of American English, as hama writes them (its schwa counts as the vowel of "cup").
PHONEMES = "p b t d k g f v θ ð s z ʃ ʒ h m n ŋ l ɹ w j t͡ʃ d͡ʒ i ɪ eɪ ɛ æ ɑ ɔ oʊ ʊ u ʌ ɝ aɪ aʊ ɔɪ"


def test_the_word_list_is_a_few_hundred_distinct_plain_words() -> None:
    listed = [word for word, _ in words.word_list()]
    assert 600 <= len(listed) <= 1000
    assert len(set(listed)) == len(listed)
    assert all(word.isascii() and word.isalpha() and word.islower() for word in listed)
    assert sorted(listed) == sorted(words.MODIFIERS + words.NOUNS + words.VERBS + words.ADVERBS)


def test_forty_words_hold_every_phoneme() -> None:
    from hama import G2PModel

    pronounce = G2PModel()
    spoken = {item.phoneme for word, _ in words.word_list()[:40] for item in pronounce(word).alignments}
    missing = set(PHONEMES.split()) - spoken
    assert len(PHONEMES.split()) == 39
    assert not missing


@given(vocabulary=st.integers(6, MOST), length=st.integers(1, 4), seed=st.integers(0, 9), share=st.floats(0, 1))
def test_phrases_are_distinct_of_the_length_and_within_the_vocabulary(
    vocabulary: int, length: int, seed: int, share: float
) -> None:
    allowed = {word for word, _ in words.word_list()[:vocabulary]}
    try:
        count = min(1 + int(share * capacity(vocabulary, length)), capacity(vocabulary, length), 500)
    except UserError:  # six words cannot fill every template
        assert vocabulary < 8
        return
    drawn = phrases(count, vocabulary, length, seed)
    assert len(drawn) == len(set(drawn)) == count
    for phrase in drawn:
        said = phrase.split()
        assert len(said) == len(set(said)) == length
        assert set(said) <= allowed
    assert drawn == phrases(count, vocabulary, length, seed)


@pytest.mark.parametrize("length", range(1, 13))
def test_the_default_vocabulary_makes_phrases_of_every_allowed_length(length: int) -> None:
    assert all(len(phrase.split()) == length for phrase in phrases(20, 40, length, 1))


def test_capacity_counts_the_phrases_that_can_be_drawn() -> None:
    classes = {kind: [word for word, its in words.word_list()[:12] if its == kind] for _, kind in words.word_list()}
    templates = ("modifier noun verb", "noun verb adverb", "noun verb noun")
    every = {
        " ".join(said)
        for template in templates
        for said in product(*(classes[kind] for kind in template.split()))
        if len(set(said)) == 3
    }
    assert capacity(12, 3) == len(every)
    assert set(phrases(len(every), 12, 3, 1)) == every


def test_another_seed_gives_other_phrases() -> None:
    assert set(phrases(50, 40, 3, 1)) != set(phrases(50, 40, 3, 2))


@pytest.mark.parametrize("count", [400, 1920])
def test_every_word_of_the_vocabulary_occurs_often(count: int) -> None:
    drawn = phrases(count, 40, 3, 1)
    counts = Counter(word for phrase in drawn for word in phrase.split())
    assert set(counts) == {word for word, _ in words.word_list()[:40]}
    mean = 3 * count / 40
    assert min(counts.values()) > mean / 3


def test_too_large_a_vocabulary_names_the_most() -> None:
    with pytest.raises(UserError, match=rf"corpus.vocabulary: {MOST + 1} .* {MOST} words"):
        phrases(5, MOST + 1, 3, 1)


def test_too_many_phrases_say_how_many_there_are() -> None:
    most = capacity(6, 3)
    with pytest.raises(UserError, match=rf"make {most} phrases of 3 .* {most + 1} are needed.*corpus.utterances"):
        phrases(most + 1, 6, 3, 1)


def test_a_vocabulary_too_small_for_the_length_says_what_to_change() -> None:
    with pytest.raises(UserError, match=r"corpus\.words_per_phrase: 12 words"):
        phrases(1, 6, 12, 1)
