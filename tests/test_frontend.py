"""Text: normalisation and symbol ids."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaspeech.errors import UserError
from metaspeech.text.frontend import END, PADDING, Frontend
from metaspeech.text.normalise import PUNCTUATION, normalise, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IT WAS GOOD FOR ME", "it was good for me"),
        ("Dr. Smith paid $5.50 on the 21st of May 1984.",
         "doctor smith paid five dollars and fifty cents on the twenty first of may nineteen eighty four."),
        ("1,234 & 50% of 3.5", "one thousand two hundred and thirty four and fifty percent of three point five"),
        ("Room no. 5, #6", "room number five, number six"),
        ("call 007 at 10:30", "call zero zero seven at ten thirty"),
        ("the 1990s", "the nineteen nineties"),
        ("\u201cJohn\u2019s\u201d well-known caf\u00e9 \u2014 'fine' \u2026", "john's well known cafe, fine."),
        ("e.g. this, i.e. that", "for example this, that is that"),
        ("  a \t b\n", "a b"),
        ("wait... what?!", "wait. what?"),
        ("?!...", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_text_is_written_as_it_is_read_aloud(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_normalised_text_is_clean_and_stays_as_it_is(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert "  " not in once
    assert once == once.strip()
    assert all(char.isalpha() or char in " '" + PUNCTUATION for char in once)
    assert bool(once) == any(char.isalpha() for char in once)


@given(st.text("abc xyz,.?!'1$%&", max_size=40))
@settings(max_examples=200, deadline=None)
def test_english_text_can_be_encoded_and_decoded(text: str) -> None:
    once, frontend = normalise(text), Frontend("characters")
    if not once:
        with pytest.raises(UserError, match="empty text"):
            frontend.encode(once)
        return
    ids = frontend.encode(once)
    assert "".join(frontend.symbols[index] for index in ids[:-1]) == once
    assert frontend.symbols[ids[-1]] == END
    assert 0 not in ids


def test_the_table_does_not_depend_on_texts() -> None:
    symbols = Frontend("characters").symbols
    assert symbols[0] == PADDING
    assert symbols[-1] == END
    assert len(set(symbols)) == len(symbols) == 36


def test_letters_of_other_alphabets_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="unknown symbols: \u0430 \u0431 \u0436"):
        Frontend("characters").encode(normalise("\u0436\u0430\u0431\u0430 frog"))


def test_words_leave_punctuation_out() -> None:
    assert words("it's here, now.") == ["it's", "here", "now"]


def test_phonemes_by_the_bundled_model() -> None:
    frontend = Frontend("phonemes")
    ids = frontend.encode("hello, world.")
    spelled = [frontend.symbols[index] for index in ids]
    assert spelled == ["h", "\u025b", "l", "o\u028a", ",", " ", "w", "\u025d", "l", "d", ".", END]
    assert frontend.symbols[0] == PADDING
    assert len(set(frontend.symbols)) == len(frontend.symbols)
    with pytest.raises(UserError, match="unknown symbols"):
        frontend.encode("\u0436\u0430\u0431\u0430")
