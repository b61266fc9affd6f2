"""Forced alignment: when the words of eSpeak NG's speech, whose place is known, begin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from metaspeech.audio.aligner import RATE, symbol_starts
from metaspeech.audio.features import resample
from metaspeech.config import Prepare
from metaspeech.corpora.espeak import say
from metaspeech.data.prepare import prepare_corpus
from metaspeech.data.store import Store
from metaspeech.text.frontend import Frontend
from tests.speech import save_corpus

FRONTEND = Frontend("phonemes")


def spoken(*texts: str) -> list[np.ndarray]:
    waveforms, rate = say("m3", 150, 50, list(texts))
    return [resample(torch.from_numpy(one / np.float32(32768)), rate, RATE).numpy() for one in waveforms]


def aligned(text: str, audio: np.ndarray) -> tuple[list[str], list[float]]:
    symbols = [FRONTEND.symbols[token] for token in FRONTEND.encode(text)]
    return symbols, symbol_starts(text, symbols, audio)


def test_words_begin_where_they_were_put():
    """A pause of known length between two halves: the second one's first phoneme begins behind it."""
    first, second = spoken("the young dog", "ran home with them")
    text, pause = "the young dog, ran home with them", 0.6
    audio = np.concatenate([first, np.zeros(round(pause * RATE), np.float32), second])
    symbols, starts = aligned(text, audio)
    assert len(starts) == len(symbols)
    assert starts[0] == 0
    assert np.all(np.diff(starts) >= 0)
    assert starts[-1] <= len(audio) / RATE
    comma = symbols.index(",")
    begins = (len(first) + pause * RATE) / RATE
    assert starts[comma + 2] == pytest.approx(begins, abs=0.15)  # after the comma and a space
    assert starts[comma] == pytest.approx(len(first) / RATE, abs=0.35)  # eSpeak ends a text with silence


def test_a_word_that_no_dictionary_has_is_aligned_by_its_pronunciation():
    text = "the blorfing dog ran home"
    symbols, starts = aligned(text, spoken(text)[0])
    assert len(starts) == len(symbols)


def test_characters_are_aligned_too():
    text = "the dog's home"
    frontend = Frontend("characters")
    symbols = [frontend.symbols[token] for token in frontend.encode(text)]
    starts = symbol_starts(text, symbols, spoken(text)[0])
    assert len(starts) == len(symbols)
    phonemes, others = aligned(text, spoken(text)[0])
    second = [starts[symbols.index(" ") + 1], others[phonemes.index(" ") + 1]]
    assert second[0] == second[1]


def test_what_does_not_say_the_text_has_no_alignment():
    assert aligned("the young dog ran home with all of them again", spoken("no")[0][: RATE // 10])[1] == []
    assert aligned("the young dog", np.zeros(0, np.float32))[1] == []


@pytest.mark.parametrize(("align", "rate"), [("pocketsphinx", 16000), ("pocketsphinx", 22050), ("none", 16000)])
def test_prepare_keeps_the_starts_in_frames(tmp_path: Path, align: str, rate: int):
    texts = ["the young dog ran home", "all of them were here"]
    rows = []
    for number, (text, audio) in enumerate(zip(texts, spoken(*texts), strict=True)):
        soundfile.write(tmp_path / f"{number}.wav", audio, RATE)
        rows.append((f"u{number}", "anna", f"{number}.wav", text))
    save_corpus(tmp_path, pd.DataFrame(rows, columns=["utt_id", "speaker", "path", "text"]))
    summary = prepare_corpus(
        tmp_path, tmp_path / "out", Prepare(workers=1, statistics="", align=align, sample_rate=rate), progress=False
    )
    assert summary.aligned == (2 if align == "pocketsphinx" else 0)
    store = Store(tmp_path / "out")
    batch = store.batch(["u0", "u1"])
    if align == "none":
        assert batch.starts is None
        return
    assert batch.starts is not None
    assert batch.starts.shape == batch.tokens.shape
    for row, name in enumerate(["u0", "u1"]):
        starts = store.starts(name)
        assert len(starts) == len(store.tokens(name))
        np.testing.assert_array_equal(batch.starts[row, : len(starts)].numpy(), starts)
        assert 0.5 * len(store.mel(name)) < starts[-1] <= len(store.mel(name))
