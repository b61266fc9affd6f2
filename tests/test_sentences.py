"""Sentences of the generated corpus."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaspeech import config
from metaspeech.corpora.espeak import deal_texts
from metaspeech.errors import UserError
from metaspeech.text.phrases import phrases
from metaspeech.text.sentences import FUNCTION, LEAST, sentences
from metaspeech.text.words import word_list


@given(seed=st.integers(0, 1000), most=st.integers(4, 12), vocabulary=st.integers(60, 800))
def test_sentences_are_distinct_of_known_words_and_as_long_as_they_may_be(seed, most, vocabulary):
    made = sentences(40, vocabulary, most, seed)
    assert made == sentences(40, vocabulary, most, seed)
    assert len(set(made)) == 40
    known = {word for word, _ in word_list()[:vocabulary]}.union(*FUNCTION.values())
    for text in made:
        words = text.split()
        assert LEAST <= len(words) <= most
        assert set(words) <= known


def test_no_content_word_is_rare():
    """Dealt like cards. Drawn independently, the rarest of 16 on average would come 4 times, the most frequent 29."""
    made = " ".join(sentences(3000, 800, 9, 1)).split()
    nouns = [word for word, kind in word_list() if kind == "noun" and word not in set().union(*FUNCTION.values())]
    counts = [made.count(word) for word in nouns]
    mean = sum(counts) / len(counts)
    assert 0.4 * mean < min(counts) <= max(counts) < 1.7 * mean


def test_no_sentence_is_a_phrase_of_the_default_corpus():
    assert not set(sentences(2000, 30, 9, 1)) & set(phrases(1500, 30, 3, 1))


def test_speakers_share_no_sentence():
    texts = deal_texts(5, config.Corpus(texts="sentences", vocabulary=800, words_per_phrase=9, utterances=30), seed=1)
    assert [len(one) for one in texts] == [30] * 5
    assert len({text for one in texts for text in one}) == 150


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((5, 800, 3, 1), "words_per_phrase: 3: sentences have 4 words and more"),
        ((5, 10_000, 9, 1), "vocabulary: 10000 is more than the 800 words"),
        ((5, 1, 9, 1), "the first 1 words have no verb"),
    ],
)
def test_what_cannot_be_made_is_explained(arguments, said):
    with pytest.raises(UserError, match=said):
        sentences(*arguments)
