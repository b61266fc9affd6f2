"""Which split a text belongs to."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import pandas as pd

from metaspeech.errors import UserError
from metaspeech.text.normalise import normalise, words

_LEAST_WEIGHT = 0.2  # of a split in the draw for a shared text, so that few unseen speakers still get texts


@lru_cache(maxsize=200_000)
def phrase(text: str) -> str:
    """Normalised text without punctuation: what makes two texts the same."""
    return " ".join(words(text))


def hashed(*parts: object) -> float:
    """A number in [0, 1) that follows from the parts, the same on every machine."""
    digest = blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def read_texts(path: Path) -> list[str]:
    """The phrases of a file of texts, one a line. Raises UserError when it cannot be read or has none."""
    try:
        texts = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). episodes.held_out_texts must be a file of texts") from None
    phrases = [phrase(normalise(text)) for text in texts if text.strip()]
    if not phrases:
        raise UserError(f"{path}: holds no text. Expected one a line, or episodes.held_out_texts empty")
    return phrases


def disjoint_texts(rows: pd.DataFrame, how: str, needed: int, seed: int) -> pd.DataFrame:
    """The rows whose text is of their speaker's split.

    Args:
        rows: utt_id, speaker, phrase, split.
        how: "phrases", or "words": besides, each text of val and test has a word that no text of train has.
        needed: texts that each val and test speaker should keep; as few words as that takes are withheld from train.
        seed: of the draws.
    """
    rows = rows[rows["split"] == rows["phrase"].map(_owners(rows, seed))]
    if how == "phrases":
        return rows
    withheld = _withheld_words(rows, needed, seed)
    training = rows["split"] == "train"
    has_withheld = rows["phrase"].map(lambda text: not withheld.isdisjoint(text.split())).astype(bool)
    kept = rows[training & ~has_withheld]
    known = {word for text in kept["phrase"].unique() for word in text.split()}
    has_unknown = rows["phrase"].map(lambda text: not known.issuperset(text.split())).astype(bool)
    return rows[(training & ~has_withheld) | (~training & has_unknown)]


def _owners(rows: pd.DataFrame, seed: int) -> dict[str, str]:
    """Phrase -> split: the one whose speakers say it, or a draw among several, weighted by their speakers."""
    pairs = rows[["phrase", "split", "speaker"]].drop_duplicates()
    counts = pairs.groupby(["phrase", "split"]).size().unstack(fill_value=0)
    shares = counts.div(counts.sum(axis=1), axis=0)
    weights = shares.clip(lower=_LEAST_WEIGHT).where(counts > 0, 0.0)
    limits = weights.cumsum(axis=1)
    draws = limits.iloc[:, -1] * [hashed(seed, "text", text) for text in limits.index]
    owners = limits.gt(draws, axis=0).idxmax(axis=1)
    return {str(text): str(split) for text, split in owners.items()}


def _withheld_words(rows: pd.DataFrame, needed: int, seed: int) -> set[str]:
    """Words to keep from train, those in the fewest of its texts first, until each unseen speaker has enough texts with
    a word that train lacks."""
    texts = {split: set(group) for split, group in rows.groupby("split")["phrase"]}
    in_train = Counter(word for text in texts.get("train", ()) for word in set(text.split()))
    unseen = rows[rows["split"] != "train"]
    missing: dict[str, set[str]] = {}  # speaker -> texts of which train knows every word
    short: dict[str, int] = {}  # speaker -> texts still wanted
    for speaker, group in unseen.groupby("speaker")["phrase"]:
        own = set(group)
        missing[str(speaker)] = {text for text in own if all(word in in_train for word in text.split())}
        short[str(speaker)] = needed - (len(own) - len(missing[str(speaker)]))
    candidates = {word for own in missing.values() for text in own for word in text.split()}
    withheld: set[str] = set()
    for word in sorted(candidates, key=lambda word: (in_train[word], hashed(seed, "word", word))):
        wanting = [speaker for speaker, count in short.items() if count > 0]
        gained = {speaker: {t for t in missing[speaker] if word in t.split()} for speaker in wanting}
        if not any(gained.values()):
            continue
        withheld.add(word)
        for speaker, own in missing.items():
            found = gained.get(speaker) or {text for text in own if word in text.split()}
            own -= found
            short[speaker] -= len(found)
        if all(count <= 0 for count in short.values()):
            break
    return withheld
