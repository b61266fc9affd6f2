"""A voice that speaks: texts to samples, sentence by sentence."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import cast

import numpy as np
import torch
from torch import nn

from metaspeech.errors import UserError
from metaspeech.evaluation.rendering import griffin_lim, vocode
from metaspeech.models.base import AcousticModel
from metaspeech.seeds import mixed_seed
from metaspeech.text.frontend import Frontend
from metaspeech.voices.adaptation import text_batch
from metaspeech.voices.card import GRIFFIN_LIM, Card
from metaspeech.voices.meta_model import MetaModel, same_features
from metaspeech.voices.sentences import Piece, pieces
from metaspeech.voices.store import VoiceStore

LOG = logging.getLogger("metaspeech")
SLOWEST, FASTEST = 0.5, 2.0
ITERATIONS = 32  # of Griffin-Lim
_SECONDS_A_CHARACTER, _SECONDS_MORE = 0.25, 1.5  # the limit of a synthesis: three times what slow speech takes


@dataclass(frozen=True)
class Spoken:
    """One sentence, or a part of a long one.

    Attributes:
        text: as it was read, normalised.
        samples: (samples,) float32 in [-1, 1], with the pause after it.
        mel: (frames, bands) natural log-mel, at the speed asked for.
        alignment: (decoder steps, symbols) attention weights.
        symbols: what the model reads, phonemes or characters; the last one marks the end.
        stopped: False: the model did not come to an end, and was cut at the limit.
    """

    text: str
    samples: np.ndarray
    mel: np.ndarray
    alignment: np.ndarray
    symbols: list[str]
    stopped: bool


class Voice:
    """Made by :func:`metaspeech.voices.load`. One thread at a time may let it speak.

    Attributes:
        card: where it comes from.
        rate: of its samples, Hz.
    """

    def __init__(self, card: Card, store: VoiceStore) -> None:
        """Loads the acoustic model; a vocoder waits until it is asked for.

        Raises:
            UserError: the voice is damaged, or its meta-model is not in the store.
        """
        self.card = card
        self._store = store
        self._meta, self._model = store.load_part(card.name, card.parts["tacotron"])
        self._band_map = store.load_bands(card.name, card.parts["tacotron"])
        self._features = self._meta.features
        self._frontend = Frontend(str(self._features.settings["text"]))
        self._vocoder = lru_cache(maxsize=1)(self._load_vocoder)
        self.rate = int(self._features.settings["sample_rate"])

    @property
    def provenance(self) -> str:
        """What every file that it speaks says of itself. See :meth:`note`."""
        parts = ", ".join(f"{name} {part.meta_model[:16]}" for name, part in self.card.parts.items())
        return (
            f"Synthesised speech, not a recording: voice '{self.card.name}', adapted {self.card.created[:10]} from "
            f"meta-model {parts}; metaspeech {self.card.version}"
        )

    def note(self, text: str, *, seed: int = 1, speed: float = 1.0) -> str:
        """What a file with this text says of itself: :attr:`provenance`, the text by its digest, seed and speed."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return f"{self.provenance}; text sha256 {digest}, seed {seed}, speed {speed:g}"

    @property
    def frame_seconds(self) -> float:
        """From one frame of a mel to the next, at speed 1."""
        return self._features.frame_seconds

    @property
    def highest_hz(self) -> float:
        """Of the highest band of a mel."""
        return float(self._features.settings["fmax"])

    def say(
        self, text: str, *, speed: float = 1.0, seed: int = 1, vocoder: str | None = None
    ) -> tuple[np.ndarray, int]:
        """The whole text: (samples,) float32 in [-1, 1], and their rate in Hz. See :meth:`stream`."""
        spoken = [one.samples for one in self.stream(text, speed=speed, seed=seed, vocoder=vocoder)]
        return np.concatenate(spoken), self.rate

    def stream(self, text: str, *, speed: float = 1.0, seed: int = 1, vocoder: str | None = None) -> Iterator[Spoken]:
        """The text, sentence by sentence, as each is ready.

        A sentence that the model does not end is cut at three times the length of slow speech, and warned of.

        Args:
            text: English; numbers and abbreviations are read as words.
            speed: 0.5 to 2; the mel is stretched in time before it is made audible, so that the pitch stays.
            seed: of the prenet's dropout, the phases and a vocoder's draws. The same seed gives the same samples.
            vocoder: griffin-lim or wavenet; None: the voice's own.

        Raises:
            UserError: before anything is said: an argument is out of range, the voice has no such vocoder, or the text
                cannot be spoken.
        """
        if not SLOWEST <= speed <= FASTEST:
            raise UserError(f"speed: {speed:g}, expected {SLOWEST:g} to {FASTEST:g}")
        chosen = vocoder or self.card.vocoder
        if chosen != GRIFFIN_LIM and chosen not in self.card.parts:
            raise UserError(
                f"vocoder: voice '{self.card.name}' has no '{chosen}'. Expected {GRIFFIN_LIM}, or adapt with "
                f"--vocoder wavenet"
            )
        return self._spoken(pieces(text, self._frontend), speed, seed, chosen)

    def _spoken(self, found: list[Piece], speed: float, seed: int, vocoder: str) -> Iterator[Spoken]:
        for index, piece in enumerate(found):
            own = mixed_seed(seed, index) % 2**31
            mel, alignment, stopped = self._mel(piece, own)
            if not stopped:
                LOG.warning(
                    "'%s' did not come to an end and was cut: the voice does not know such sentences", piece.text
                )
            mel = stretched(mel, speed)
            audio = self._audible(mel, own, vocoder)
            pause = np.zeros(round(piece.pause * self.rate / speed), dtype=np.float32)
            symbols = [self._frontend.symbols[token] for token in piece.tokens]
            yield Spoken(piece.text, np.concatenate([audio, pause]), mel, alignment, symbols, stopped)

    def _mel(self, piece: Piece, seed: int) -> tuple[np.ndarray, np.ndarray, bool]:
        seconds = _SECONDS_MORE + _SECONDS_A_CHARACTER * len(piece.text)
        limit = ceil(seconds / self._features.frame_seconds)
        synthesis = cast(AcousticModel, self._model).synthesize(
            text_batch(piece.tokens, self._features), seeds=[seed], max_frames=torch.tensor([limit])
        )
        length = int(synthesis.mel_lengths[0])
        mel = self._features.denormalise(synthesis.mels[0, :length].numpy())
        if self._band_map:
            mel = self._band_map(mel)
        return mel, synthesis.alignments[0].numpy(), bool(synthesis.stopped[0])

    def _audible(self, mel: np.ndarray, seed: int, vocoder: str) -> np.ndarray:
        if vocoder == GRIFFIN_LIM:
            audio = griffin_lim(self._features, mel, iterations=ITERATIONS, seed=seed)
        else:
            meta, model = self._vocoder(vocoder)
            (audio,) = vocode(model, meta.features, [mel], seeds=[seed])
        if audio is None:
            raise UserError(
                f"voice '{self.card.name}': its synthesis is not finite. Adapt it again with a lower --rate"
            )
        return audio

    def _load_vocoder(self, name: str) -> tuple[MetaModel, nn.Module]:
        meta, model = self._store.load_part(self.card.name, self.card.parts[name])
        if not same_features(self._meta, meta):
            raise UserError(
                f"voice '{self.card.name}': its {name} reads other mels than its Tacotron makes. Adapt it again"
            )
        return meta, model


def stretched(mel: np.ndarray, speed: float) -> np.ndarray:
    """(frames, bands) -> (about frames / speed, bands): linear interpolation in time. The pitch lies within a frame."""
    if speed == 1:
        return mel
    frames = max(1, round(len(mel) / speed))
    places = np.linspace(0, len(mel) - 1, frames)
    before = np.floor(places).astype(int)
    after = np.minimum(before + 1, len(mel) - 1)
    share = (places - before)[:, None]
    return np.asarray((1 - share) * mel[before] + share * mel[after], dtype=mel.dtype)
