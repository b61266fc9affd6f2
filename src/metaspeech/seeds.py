"""Seeds for the items of a run."""

from __future__ import annotations

import hashlib


def mixed_seed(seed: int, item: int | str) -> int:
    """A seed for one item, the same on every machine and unrelated to its neighbours'."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{item}".encode()).digest()[:6], "big")
