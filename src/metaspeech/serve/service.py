"""What the routes share: the store, the workers, the jobs, the limits."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaspeech.errors import UserError
from metaspeech.serve.jobs import Jobs
from metaspeech.serve.limits import Limits
from metaspeech.serve.pool import Pool
from metaspeech.serve.problems import Problem
from metaspeech.voices.card import Card
from metaspeech.voices.names import checked_name, shown
from metaspeech.voices.store import VoiceStore


@dataclass(frozen=True)
class Service:
    """Made by :func:`metaspeech.serve.app.create`.

    Attributes:
        store: the voices.
        model_from: the folder of the meta-model that voices are adapted from; None: it is chosen for each.
        scratch: where recordings lie until a voice is made from them.
    """

    store: VoiceStore
    limits: Limits
    pool: Pool
    jobs: Jobs
    scratch: tempfile.TemporaryDirectory[str]
    model_from: Path | None = None

    def find(self, name: str) -> str:
        """The name of a voice that is there. What a client sends is only compared: it never becomes a path.

        Raises:
            Problem: there is none.
        """
        try:
            wanted = checked_name(name)
        except UserError:
            wanted = ""
        known = self.store.names()
        if wanted not in known:
            there = ", ".join(known[:10]) or "none yet"
            raise Problem(404, f"There is no voice {shown(name)}. There: {there}.")
        return known[known.index(wanted)]

    def card(self, name: str) -> Card:
        """Raises Problem when the voice is damaged."""
        try:
            return self.store.card(name)
        except UserError as error:
            if name not in self.store.names():
                raise Problem(404, f"There is no voice {shown(name)} any more.") from None
            raise Problem(409, f"The voice is damaged: {error}. Delete it, and make it again.") from None

    def described(self, name: str) -> dict[str, Any]:
        """For a list."""
        card = self.card(name)
        part = card.parts["tacotron"]
        return {
            "name": name,
            "created": card.created,
            "consent": card.consent,
            "recordings": len(card.recordings),
            "steps": part.step,
            "algorithm": part.algorithm,
            "meta_model": part.meta_model,
            "vocoders": sorted({card.vocoder, "griffin-lim"}, key=lambda one: one != card.vocoder),
            "bytes": self.store.bytes(name),
        }


def version_of(card: Card) -> str:
    """Changes when a voice is made anew under its name."""
    return hashlib.sha256(card.text().encode()).hexdigest()
