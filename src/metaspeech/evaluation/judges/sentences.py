"""Is it intelligible: which of the sentences of this evaluation does a recogniser hear? English only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import ClassVar

import numpy as np
from pocketsphinx import Decoder

from metaspeech.evaluation.judges.base import RATE, UNKNOWN, Candidate, Column, Query, Scores, Setting
from metaspeech.evaluation.judges.phonemes import PAD, WORD

CHOICES = 40  # sentences at most
DITHER_DB = 40.0  # below the speech: the recogniser does not stand the digital silence of synthetic speech


class SentenceAccuracy:
    """Closed-set identification by PocketSphinx: a grammar of whole sentences, its acoustic model for US English.

    The set are the texts of the evaluation; beyond 40, the right one and 39 others that depend on the right one alone.
    A text with a word that the recogniser's dictionary (CMUdict) does not have is not in the set and is not measured.
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "sentence_accuracy",
            "Sentence accuracy",
            "higher",
            "Share of utterances that a recogniser (PocketSphinx) takes for their own sentence, among the at most "
            f"{CHOICES} different texts of this evaluation; noise 40 dB below the speech is added. For English only. "
            "Chance is one in the number of texts.",
        ),
    )
    trained_on: ClassVar[tuple[str, ...]] = (UNKNOWN,)
    dear: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("pocketsphinx",)

    def __init__(self, setting: Setting) -> None:
        # Batch normalisation of cepstra: an answer must not depend on what was heard before
        self._decoder = Decoder(lm=None, samprate=RATE, cmn="batch", loglevel="FATAL")
        self.sentences = sorted({words(text) for text in setting.texts if self.knows(words(text))})
        self._grammar = lru_cache(maxsize=None)(self._add_grammar)

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> list[Scores]:
        right = words(query.text)
        if not self.knows(right) or len(self.choices(right)) < 2:
            return [{"sentence_accuracy": float("nan")} for _ in candidates]
        self._decoder.activate_search(self._grammar(self.choices(right)))
        return [{"sentence_accuracy": float(self._hear(one.audio) == right)} for one in candidates]

    def knows(self, sentence: str) -> bool:
        """Whether every word is in the dictionary; not of a text without words."""
        found = [self._decoder.lookup_word(word) is not None for word in sentence.split()]
        return bool(found) and all(found)

    def choices(self, right: str) -> tuple[str, ...]:
        """The set in which ``right`` is to be found."""
        others = [sentence for sentence in self.sentences if sentence != right]
        if len(others) >= CHOICES:
            others = sorted(others, key=lambda other: sha256(f"{right} / {other}".encode()).digest())[: CHOICES - 1]
        return tuple(sorted([right, *others]))

    def _hear(self, audio: np.ndarray) -> str:
        padded = np.pad(np.asarray(audio, dtype=np.float32), PAD)
        level = np.sqrt(np.mean(np.square(audio, dtype=np.float64))) * 10 ** (-DITHER_DB / 20)
        padded = padded + level * np.random.default_rng(0).normal(size=len(padded))
        self._decoder.start_utt()
        self._decoder.process_raw((np.clip(padded, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
        self._decoder.end_utt()
        heard = self._decoder.hyp()
        return str(heard.hypstr) if heard else ""

    def _add_grammar(self, choices: tuple[str, ...]) -> str:
        name = f"grammar {sha256(repr(choices).encode()).hexdigest()}"
        alternatives = " | ".join(f"( {sentence} )" for sentence in choices)
        self._decoder.add_jsgf_string(name, f"#JSGF V1.0; grammar choices; public <sentence> = {alternatives};")
        return name


def words(text: str) -> str:
    """In small letters, without marks and digits."""
    return " ".join(WORD.findall(text.lower()))
