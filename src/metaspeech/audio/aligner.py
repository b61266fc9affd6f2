"""When each symbol of a text is spoken: forced alignment by PocketSphinx (English).

A Tacotron that has only heard synthetic speech knows when a phoneme comes by counting. On people, who speed up, slow
down and pause, its attention is a quarter of a second off, and what it learns there are means over neighbouring
phonemes. So training tells it where to look (docs/study.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from pocketsphinx import Decoder

from metaspeech.text.frontend import is_mark, pronounce

RATE = 16000  # Hz, of its acoustic model
_PAD = RATE // 10  # samples of silence at both ends
_FRAME = 0.01  # seconds
_NOT_WORDS = {"<s>", "</s>", "<sil>", "(NULL)", "[NOISE]", "[SPEECH]"}
_PHONES = {  # of CMUdict, for words that it does not have
    "a": "AA", "ɑ": "AA", "ɒ": "AA", "æ": "AE", "ʌ": "AH", "ə": "AH", "ɐ": "AH", "ɔ": "AO", "aʊ": "AW", "aɪ": "AY",
    "b": "B", "t͡ʃ": "CH", "d": "D", "ð": "DH", "e": "EH", "ɛ": "EH", "ɝ": "ER", "ɚ": "ER", "ɜ": "ER", "eɪ": "EY",
    "f": "F", "ɡ": "G", "g": "G", "h": "HH", "ɪ": "IH", "ɨ": "IH", "i": "IY", "d͡ʒ": "JH", "k": "K", "l": "L", "ɫ": "L",
    "m": "M", "n": "N", "ŋ": "NG", "o": "OW", "oʊ": "OW", "ɔɪ": "OY", "p": "P", "ɹ": "R", "r": "R", "s": "S", "ʃ": "SH",
    "t": "T", "ɾ": "T", "θ": "TH", "ʊ": "UH", "u": "UW", "v": "V", "w": "W", "j": "Y", "z": "Z", "ʒ": "ZH",
}  # fmt: skip

Spoken = list[np.ndarray]  # for each word the ends of its phones in seconds, its own beginning first


def symbol_starts(text: str, symbols: Sequence[str], audio: np.ndarray) -> list[float]:
    """When each symbol of a text begins.

    Within a word the recogniser's phones are spread evenly over the word's symbols; a mark between words lasts from the
    end of one to the beginning of the next.

    Args:
        text: normalised.
        symbols: of the text, as the frontend reads it: words apart by spaces or punctuation, the end symbol last.
        audio: (samples,) in [-1, 1] at 16 kHz.

    Returns:
        seconds, one a symbol, from 0 and never decreasing; none at all where the recording does not say the text.
    """
    words = "".join(" " if is_mark(char) else char for char in text).split()
    groups = _words_of(symbols)
    spoken = _align(words, audio)
    if len(spoken) != len(groups):
        return []
    starts = np.full(len(symbols), np.nan)
    for group, ends in zip(groups, spoken, strict=True):
        places = np.linspace(0, len(ends) - 1, len(group) + 1)
        edges = np.interp(places, np.arange(len(ends)), ends)
        starts[group] = edges[:-1]
        starts[group[-1] + 1] = edges[-1]  # a mark, or the end symbol
    for place in np.flatnonzero(np.isnan(starts)):  # further marks one after another; marks before the first word
        starts[place] = starts[place - 1] if place else 0.0
    starts[0] = 0.0
    return [float(f"{max(0.0, start):.3f}") for start in np.maximum.accumulate(starts)]


def _words_of(symbols: Sequence[str]) -> list[list[int]]:
    """Places of the symbols of each word. The last symbol is the end of the text."""
    words: list[list[int]] = [[]]
    for place, symbol in enumerate(symbols[:-1]):
        if is_mark(symbol):
            words.append([])
        else:
            words[-1].append(place)
    return [word for word in words if word]


def _align(words: Sequence[str], audio: np.ndarray) -> Spoken:
    """Nothing where the words cannot be aligned."""
    decoder = _decoder()
    for word in words:
        if decoder.lookup_word(word) is None:
            phones = [_PHONES.get(phoneme) for phoneme in pronounce(word)]
            if None in phones or not phones:
                return []
            decoder.add_word(word, " ".join(map(str, phones)), True)
    heard = (np.clip(np.pad(audio, _PAD), -1, 1) * 32767).astype(np.int16).tobytes()
    decoder.set_align_text(" ".join(words))
    try:
        _hear(decoder, heard)
        if decoder.hyp() is None:
            return []
        decoder.set_alignment()  # of phones, within the words just found
        _hear(decoder, heard)
    except RuntimeError:  # it has lost every path
        return []
    spoken = []
    for word in decoder.get_alignment() or ():  # whose entries do not outlive their turn
        if word.name not in _NOT_WORDS:
            frames = [word.start, *(phone.start + phone.duration for phone in word)]
            spoken.append(np.array(frames) * _FRAME - _PAD / RATE)
    return spoken if len(spoken) == len(words) else []


def _hear(decoder: Decoder, samples: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()


@cache
def _decoder() -> Decoder:
    # Wide beams and the first pass alone: the words are known, and a best path through a lattice may leave some out.
    return Decoder(
        lm=None, samprate=RATE, cmn="batch", loglevel="FATAL", beam=1e-100, pbeam=1e-100, wbeam=1e-80, bestpath=False
    )
