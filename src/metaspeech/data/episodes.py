"""Tasks: who is for training and who is unseen, which texts are whose, and what an episode consists of.

Pure functions of a manifest. Choices are made by rank of a hash of (seed, what, name), so they depend neither on the
order of the manifest nor, for a stored episode, on any other speaker.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from metaspeech.config import Episodes
from metaspeech.data.texts import disjoint_texts, hashed, phrase
from metaspeech.errors import UserError
from metaspeech.files import replacing

SPLITS = ("train", "val", "test")
_MIN_TRAIN_SPEAKERS = 2

Pool = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Splits:
    """For each of train, val and test: its speakers in alphabetical order, and the utterances of each that may be used.

    Attributes:
        pools: split -> speaker -> utt_ids, both sorted.
        texts: utt_id -> phrase (normalised text without punctuation), of the utterances in ``pools``.
        dropped: speakers left out, with the number of their usable texts.
    """

    pools: Mapping[str, Pool]
    texts: Mapping[str, str]
    dropped: Mapping[str, int]

    def speakers(self, split: str) -> list[str]:
        return list(self.pools[split])


@dataclass(frozen=True)
class EpisodeSpec:
    """A task by name; ``episode_id`` can be part of a file name.

    No utterance is in both sets, nor a text while the speaker has enough of them.
    """

    episode_id: str
    split: str
    speaker: str
    support: tuple[str, ...]
    query: tuple[str, ...]


def split_corpus(manifest: pd.DataFrame, config: Episodes, seed: int, held_out_texts: Collection[str] = ()) -> Splits:
    """Divides speakers, then texts.

    ``text_split``: with "phrases" a text belongs to one split; spoken by speakers of several, it is given to one of
    them by a draw from (seed, text) and left out of the others. With "words", besides, each val and test text has a
    word that no train text has. With "none" texts are shared.

    A speaker with fewer usable texts (recordings with "none") than a stored task has is left out, and another takes
    the place.

    Args:
        manifest: columns speaker and text, with utt_id as the index or as a column.
        config: the section ``episodes`` of the params.
        seed: decides every draw.
        held_out_texts: phrases; where there are any, val and test speakers keep only these, train speakers none.

    Raises:
        UserError: too few speakers with enough recordings remain.
    """
    table = manifest.reset_index() if "utt_id" not in manifest else manifest
    rows = pd.DataFrame({name: table[name].astype(str) for name in ("utt_id", "speaker", "text")})
    rows = rows.assign(phrase=rows["text"].map(phrase)).sort_values("utt_id", ignore_index=True)
    needed = config.most_shots + config.queries
    dropped: dict[str, int] = {}
    counts = _usable(rows, config)
    while True:
        dropped |= {str(speaker): int(count) for speaker, count in counts.items() if count < needed}
        candidates = sorted(set(rows["speaker"]) - set(dropped))
        _check_speakers(candidates, dropped, config)
        roles = _roles(candidates, config, seed)
        kept = rows[rows["speaker"].isin(candidates)]
        kept = kept.assign(split=kept["speaker"].map(roles))
        if held_out_texts:
            held_out = kept["phrase"].isin(set(held_out_texts))
            kept = kept[held_out != (kept["split"] == "train")]
        if config.text_split != "none":
            kept = disjoint_texts(kept, config.text_split, needed, seed)
        counts = _usable(kept, config).reindex(candidates, fill_value=0)
        if (counts >= needed).all():
            break
    pools: dict[str, Pool] = {split: {} for split in SPLITS}
    for (split, speaker), group in kept.groupby(["split", "speaker"], sort=True):
        pools[str(split)][str(speaker)] = tuple(group["utt_id"])
    return Splits(pools, dict(zip(kept["utt_id"], kept["phrase"], strict=True)), dropped)


def stored_episodes(splits: Splits, split: str, config: Episodes, seed: int) -> list[EpisodeSpec]:
    """``tasks_per_speaker`` episodes for each speaker of the split, drawn from (seed, split, speaker)."""
    episodes = []
    for speaker, utterances in splits.pools[split].items():
        for task in range(config.tasks_per_speaker):
            ranked = _ranked(utterances, seed, split, speaker, task)
            support, query = _draw(ranked, splits.texts, config.most_shots, config.queries)
            episodes.append(EpisodeSpec(f"{quote(speaker, safe='')}-{task}", split, speaker, support, query))
    return episodes


def representative_utterances(pool: Mapping[str, Sequence[str]], speaker: str, count: int, seed: int) -> list[str]:
    """At most ``count`` utterances of a speaker, drawn from (seed, speaker)."""
    return _ranked(pool[speaker], seed, "representation", speaker)[:count]


def turn_speaker(speakers: Sequence[str], seed: int, index: int) -> str:
    """Speaker ``index`` of an endless stream: every run of as many as there are has each once, in an order of its own.

    Args:
        speakers: in alphabetical order.
        seed, index: 0 or above.
    """
    turn, place = divmod(index, len(speakers))
    return speakers[int(np.random.default_rng([seed, 0, turn]).permutation(len(speakers))[place])]


def train_episode(
    pool: Mapping[str, Sequence[str]],
    texts: Mapping[str, str],
    speaker: str,
    shots: int,
    queries: int,
    seed: int,
    index: int,
) -> EpisodeSpec:
    """Training episode ``index``: it follows from (seed, index), the speaker and the pool, whoever asks and when.

    Args:
        pool: speaker -> utt_ids.
        texts: utt_id -> text.
        speaker: whose episode it is.
        shots, queries: sizes of the two sets.
        seed, index: 0 or above.

    Raises:
        UserError: the speaker has fewer utterances than shots + queries.
    """
    utterances = sorted(pool[speaker])
    order = np.random.default_rng([seed, 1, index]).permutation(len(utterances))
    phrases = {utt_id: phrase(texts[utt_id]) for utt_id in utterances}
    support, query = _draw([utterances[k] for k in order], phrases, shots, queries)
    return EpisodeSpec(f"train-{index}", "train", speaker, support, query)


def pooled(pool: Mapping[str, Sequence[str]]) -> list[str]:
    """The utterances of all speakers, whose order depends on nothing but their names."""
    return [utt_id for speaker in sorted(pool) for utt_id in pool[speaker]]


def joint_batch(utterances: Sequence[str], size: int, seed: int, index: int) -> list[str]:
    """The utt_ids of pretraining batch ``index``: slice ``index`` of an endless stream in which every run of as many
    ``utterances`` as there are has each of them once, in an order drawn anew."""
    batch = []
    for position in range(index * size, (index + 1) * size):
        turn, place = divmod(position, len(utterances))
        batch.append(utterances[_order(len(utterances), seed, turn)[place]])
    return batch


def write_pool(path: Path, pool: Mapping[str, Sequence[str]]) -> None:
    """Writes the training speakers and their utterances."""
    table = pd.DataFrame({"speaker": list(pool), "utterances": [list(utterances) for utterances in pool.values()]})
    _write(path, table)


def write_episodes(path: Path, episodes: Sequence[EpisodeSpec]) -> None:
    """Writes stored episodes."""
    columns = ["episode_id", "split", "speaker", "support", "query"]
    rows = [(e.episode_id, e.split, e.speaker, list(e.support), list(e.query)) for e in episodes]
    _write(path, pd.DataFrame(rows, columns=columns))


def read_pool(path: Path) -> Pool:
    """Speaker -> utt_ids, as :func:`write_pool` wrote them. Raises UserError when it cannot be read."""
    speakers, utterances = _read(path, ["speaker", "utterances"])
    return {speaker: tuple(names) for speaker, names in zip(speakers, utterances, strict=True)}


def read_episodes(path: Path) -> list[EpisodeSpec]:
    """Stored episodes. Raises UserError when they cannot be read."""
    columns = _read(path, ["episode_id", "split", "speaker", "support", "query"])
    return [
        EpisodeSpec(episode_id, split, speaker, tuple(support), tuple(query))
        for episode_id, split, speaker, support, query in zip(*columns, strict=True)
    ]


def _usable(rows: pd.DataFrame, config: Episodes) -> pd.Series:
    """Speaker -> how many utterances an episode can hold."""
    by_speaker = rows.groupby("speaker")["utt_id" if config.text_split == "none" else "phrase"]
    return by_speaker.nunique()


def _roles(speakers: Sequence[str], config: Episodes, seed: int) -> dict[str, str]:
    ranked = _ranked(speakers, seed, "speakers")
    test, held_out = config.test_speakers, config.test_speakers + config.val_speakers
    return {s: "test" if k < test else "val" if k < held_out else "train" for k, s in enumerate(ranked)}


def _check_speakers(candidates: Sequence[str], dropped: Mapping[str, int], config: Episodes) -> None:
    needed = config.test_speakers + config.val_speakers + _MIN_TRAIN_SPEAKERS
    if len(candidates) >= needed:
        return
    unit = "recordings" if config.text_split == "none" else "recordings of different texts that are theirs to use"
    message = (
        f"episodes: {len(candidates)} speakers are left, but {needed} are needed: episodes.test_speakers "
        f"{config.test_speakers} + episodes.val_speakers {config.val_speakers} + {_MIN_TRAIN_SPEAKERS} to train on."
    )
    if dropped:
        few = ", ".join(f"{speaker} ({count})" for speaker, count in sorted(dropped.items())[:5])
        message += (
            f" {len(dropped)} were left out because they have fewer {unit} than {_shots(config)} + "
            f"episodes.queries {config.queries}: {few}{', ...' if len(dropped) > 5 else ''}."
        )
        advice = "Lower shots, queries or the numbers of speakers"
        if config.text_split != "none":
            advice += "; or, where speakers say the same few texts, set episodes.text_split to none"
    else:
        advice = "Lower the numbers of speakers, or add speakers to the corpus"
    raise UserError(f"{message} {advice}.")


def _shots(config: Episodes) -> str:
    name = "shots" if config.most_shots == config.shots else "stored_shots"
    return f"episodes.{name} {config.most_shots}"


def _ranked(names: Iterable[str], *key: object) -> list[str]:
    return sorted(names, key=lambda name: (hashed(*key, name), name))


def _draw(
    ranked: Sequence[str], phrases: Mapping[str, str], shots: int, queries: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Support and query from utterances in random order: one a text, and second ones only where texts are too few."""
    needed = shots + queries
    if len(ranked) < needed:
        raise UserError(
            f"episodes: {len(ranked)} utterances are fewer than shots {shots} + queries {queries}. Were the "
            "episodes made with other values? Make them again: dvc repro episodes"
        )
    first: dict[str, str] = {}
    for utt_id in ranked:
        first.setdefault(phrases[utt_id], utt_id)
    chosen = list(first.values())[:needed]
    taken = set(chosen)
    chosen += [utt_id for utt_id in ranked if utt_id not in taken][: needed - len(chosen)]
    return tuple(chosen[:shots]), tuple(chosen[shots:])


@lru_cache(maxsize=4)
def _order(length: int, seed: int, turn: int) -> np.ndarray:
    return np.random.default_rng([seed, 2, turn]).permutation(length)


def _write(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


def _read(path: Path, columns: list[str]) -> list[list[Any]]:
    try:
        table = pd.read_parquet(path)
        return [table[name].tolist() for name in columns]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Make it: dvc repro episodes") from None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not as expected ({error}). Make it again: dvc repro -sf episodes") from None
