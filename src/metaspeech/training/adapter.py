"""The inner loop over stored tasks, several at a time in processes of one thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from metaspeech.config import Params
from metaspeech.data.episodes import EpisodeSpec
from metaspeech.meta.base import MetaAlgorithm
from metaspeech.models.base import Parameters, loss_function, parameters_of
from metaspeech.registry import ALGORITHMS, resolve
from metaspeech.tasks.files import TaskFiles
from metaspeech.training import deltas
from metaspeech.training.adaptation import adaptation_curve
from metaspeech.training.checkpoint import load_learned, load_model
from metaspeech.training.compute import chosen_device, deterministic


@dataclass(frozen=True)
class Setting:
    """What every job shares."""

    params: Params = field(hash=False)  # with what per_model says of this model
    algorithm: str
    trained: Path  # folder of the meta-trained model
    tasks: TaskFiles


@dataclass(frozen=True)
class Job:
    """One stored episode, adapted at one rate.

    Attributes:
        shots: support recordings that are used.
        steps: after which the query loss is measured.
        kept: those of the steps whose adapted parameters are kept, in ``folder``.
    """

    setting: Setting
    episode: EpisodeSpec
    shots: int
    rate: float
    steps: tuple[int, ...]
    kept: frozenset[int] = frozenset()
    folder: Path | None = None


def run(job: Job) -> list[dict[str, Any]]:
    """A row a step: episode_id, speaker, shots, rate, step, loss and its terms."""
    room, spec = _room(job.setting), job.episode
    episode = room.episodes.stored(spec, job.shots).to(room.device)
    owner = {"episode_id": spec.episode_id, "speaker": spec.speaker, "shots": job.shots, "rate": job.rate}
    rows, adapted = [], {}
    for step, losses, params in adaptation_curve(
        room.loss_fn, room.algorithm, room.start, episode, job.steps, job.rate
    ):
        rows.append({**owner, "step": step, **losses})
        if step in job.kept:
            adapted[step] = {name: params[name] for name in room.base}
    if job.folder:
        deltas.write(job.folder / f"{spec.episode_id}-{job.shots}.safetensors", room.base, adapted)
    return rows


class _Room:
    """Model, algorithm and recordings of one process."""

    def __init__(self, setting: Setting) -> None:
        params = setting.params
        deterministic()
        self.device = chosen_device(params)
        self.algorithm: MetaAlgorithm = resolve(ALGORITHMS, setting.algorithm).from_params(params)
        self.episodes = setting.tasks.episodes(params, self.algorithm.needs)
        model = load_model(setting.trained, params, self.episodes.store.features()).to(self.device)
        learned = {name: value.to(self.device) for name, value in load_learned(setting.trained).items()}
        self.loss_fn, self.base = loss_function(model), parameters_of(model)
        self.start: Parameters = self.base | learned


@lru_cache(maxsize=1)
def _room(setting: Setting) -> _Room:
    return _Room(setting)
