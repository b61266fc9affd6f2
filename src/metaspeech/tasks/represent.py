"""Vectors for all tasks, by all representations at the starts of all models, spread over processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pandas as pd

from metaspeech.config import Params
from metaspeech.data.episodes import EpisodeSpec, representative_utterances
from metaspeech.data.store import Store
from metaspeech.models.base import loss_function, parameters_of
from metaspeech.registry import REPRESENTATIONS, resolve
from metaspeech.tasks.recordings import Recordings
from metaspeech.tasks.representation import COLUMNS, Representation
from metaspeech.training.checkpoint import load_model
from metaspeech.training.compute import chosen_device, deterministic


@dataclass(frozen=True)
class Setting:
    """What every job shares."""

    params: Params = field(hash=False)
    store: Path  # folder
    starts: tuple[tuple[str, Path], ...]  # models, each with the folder of the parameters that gradients are taken at


@dataclass(frozen=True)
class Job:
    """One task: a training speaker, or a stored episode by its support set."""

    setting: Setting
    id: str
    split: str
    speaker: str
    utt_ids: tuple[str, ...]


def jobs(setting: Setting, pool: Mapping[str, Sequence[str]], episodes: Sequence[EpisodeSpec]) -> Iterator[Job]:
    """Training speakers, ``represent.utterances`` recordings of each, then stored episodes by as many
    recordings as training has."""
    count, seed = setting.params.represent.utterances, setting.params.data_seed
    shots = setting.params.episodes.shots
    for speaker in sorted(pool):
        yield Job(setting, speaker, "train", speaker, tuple(representative_utterances(pool, speaker, count, seed)))
    for spec in episodes:
        yield Job(setting, spec.episode_id, spec.split, spec.speaker, spec.support[:shots])


def run(job: Job) -> pd.DataFrame:
    """A row a model and representation: model, and :data:`~metaspeech.tasks.representation.COLUMNS`."""
    room, rows = _room(job.setting), []
    of_speech: dict[str, list[float]] = {}
    for model, (loss_fn, start) in room.models.items():
        recordings = Recordings(room.store, job.utt_ids, loss_fn, start, job.setting.params.seed)
        for name, representation in room.representations.items():
            vector = of_speech.get(name) or representation.vector(recordings).tolist()
            if not representation.of_model:
                of_speech[name] = vector
            rows.append((model, name, job.id, job.split, job.speaker, vector))
    return pd.DataFrame(rows, columns=["model", *COLUMNS])


class _Room:
    """Store, models and representations of one process."""

    def __init__(self, setting: Setting) -> None:
        params = setting.params
        deterministic()
        self.store = Store(setting.store)
        self.models = {}
        for name, folder in setting.starts:
            model = load_model(folder, params, self.store.features()).to(chosen_device(params))
            self.models[name] = loss_function(model), parameters_of(model)
        self.representations: dict[str, Representation] = {
            name: resolve(REPRESENTATIONS, name)() for name in dict.fromkeys(params.represent.representations)
        }


@lru_cache(maxsize=1)
def _room(setting: Setting) -> _Room:
    return _Room(setting)
