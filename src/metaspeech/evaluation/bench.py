"""Renders and judges every test episode, spread over processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from metaspeech.audio import io
from metaspeech.audio.features import resample
from metaspeech.config import Params
from metaspeech.data.episodes import EpisodeSpec
from metaspeech.data.store import Store
from metaspeech.evaluation.judges.base import RATE, Column, Judge, Query
from metaspeech.evaluation.rendering import Rendered, speak, utterance_seed, vocode
from metaspeech.models.base import Parameters, parameters_of, with_parameters
from metaspeech.registry import JUDGES, resolve
from metaspeech.training import deltas
from metaspeech.training.checkpoint import load_model

REAL, COPY = "real", "copy"  # the recording as stored; its own mel through Griffin-Lim
ENROLMENT = 10  # recordings a speaker's centroid is made of, at most


@dataclass(frozen=True)
class Voice:
    """What adaptation started from, and what it left for each episode."""

    model: str
    algorithm: str
    checkpoint: Path  # folder
    deltas: Path  # folder


@dataclass(frozen=True)
class Bench:
    """What every job shares."""

    params: Params = field(hash=False)
    store: Path  # folder
    episodes: tuple[EpisodeSpec, ...]
    audible: frozenset[str]  # episodes whose first query is kept as audio, mel and alignment
    audio: Path  # folder for that audio


@dataclass(frozen=True)
class Job:
    """One episode in one voice; without a voice: the references, real and copy synthesis."""

    bench: Bench
    episode: EpisodeSpec
    voice: Voice | None


@dataclass(frozen=True)
class Outcome:
    """Rows of the utterance table, and arrays for panels by ``<episode>/<condition>/<mel or alignment>``."""

    rows: list[dict[str, Any]]
    panels: dict[str, np.ndarray]


@dataclass(frozen=True)
class Take:
    """One query under one condition."""

    utt_id: str
    step: int
    condition: str
    audio: np.ndarray | None  # at the store's rate; None: nothing to listen to
    stopped: bool
    mel: np.ndarray
    alignment: np.ndarray


def columns(judges: Sequence[str]) -> list[Column]:
    """The columns that these judges add to the utterance table."""
    return [column for name in judges for column in resolve(JUDGES, name).columns]


def jobs(bench: Bench, voices: Sequence[Voice]) -> Iterator[Job]:
    """References first, then voice by voice, so that a process loads few models."""
    for voice in (None, *voices):
        for episode in bench.episodes:
            yield Job(bench, episode, voice)


def run(job: Job) -> Outcome:
    """Renders and judges one job. Processes keep what the bench needs loaded between jobs."""
    room = _room(job.bench)
    settings = job.bench.params.evaluate
    utt_ids = job.episode.query[: settings.queries]
    takes = room.references(utt_ids) if job.voice is None else room.takes(job.voice, job.episode, utt_ids)
    base: dict[str, Any] = {
        "model": job.voice.model if job.voice else "",
        "algorithm": "",
        "shots": settings.shots if job.voice else 0,
        "step": 0,
        "episode_id": job.episode.episode_id,
        "speaker": job.episode.speaker,
    }
    rows = []
    for utt_id in utt_ids:
        of_query = [take for take in takes if take.utt_id == utt_id]
        for take, scores in zip(of_query, room.judge(utt_id, of_query), strict=True):
            algorithm = job.voice.algorithm if job.voice else take.condition
            rows.append({**base, "algorithm": algorithm, "step": take.step, **room.describe(take), **scores})
    panels: dict[str, np.ndarray] = {}
    if job.episode.episode_id in job.bench.audible:
        shown = [take for take in takes if take.utt_id == utt_ids[0]]
        panels = room.keep(job.bench.audio, job.episode.episode_id, shown)
    return Outcome(rows, panels)


class _Room:
    """Store, judges and models of one process."""

    def __init__(self, bench: Bench) -> None:
        self.params, self.settings = bench.params, bench.params.evaluate
        self.store = Store(bench.store)
        self.rate = int(self.store.settings["sample_rate"])
        enrolment = {
            speaker: [self._at_judge_rate(self.store.audio(utt_id)) for utt_id in utt_ids]
            for speaker, utt_ids in enrolment_of(self.store, bench.episodes).items()
        }
        self.judges: list[Judge] = [resolve(JUDGES, name)(enrolment) for name in self.settings.judges]
        self._model = cache(self._load)

    def references(self, utt_ids: Sequence[str]) -> list[Take]:
        takes = []
        none = np.zeros((0, 0), dtype=np.float32)
        for utt_id in utt_ids:
            mel = self.store.mel(utt_id)
            takes.append(Take(utt_id, 0, REAL, self.store.audio(utt_id), True, mel, none))
            takes.append(Take(utt_id, 0, COPY, self._vocode(utt_id, mel), True, mel, none))
        return takes

    def takes(self, voice: Voice, episode: EpisodeSpec, utt_ids: Sequence[str]) -> list[Take]:
        model, start = self._model(voice.checkpoint)
        path = voice.deltas / f"{episode.episode_id}-{self.settings.shots}.safetensors"
        takes = []
        for step in sorted(set(self.params.adapt.steps)):
            with_parameters(model, deltas.read(path, start, step))
            spoken = speak(
                model, self.store, utt_ids, max_seconds_ratio=self.settings.max_seconds_ratio, seed=self.params.seed
            )
            for utt_id, one in zip(utt_ids, spoken, strict=True):
                takes.append(self._take(utt_id, step, f"{voice.model}-{voice.algorithm}-{step}", one))
        return takes

    def judge(self, utt_id: str, takes: Sequence[Take]) -> list[dict[str, float]]:
        """Scores of each take; NaN for those that cannot be heard."""
        entry = self.store.manifest.loc[utt_id]
        query = Query(utt_id, str(entry["speaker"]), str(entry["text"]), self._at_judge_rate(self.store.audio(utt_id)))
        nothing = {column.name: float("nan") for column in columns(self.settings.judges)}
        scores = [dict(nothing) for _ in takes]
        heard = [(row, take.audio) for row, take in enumerate(takes) if take.audio is not None]
        if heard:
            candidates = [self._at_judge_rate(audio) for _, audio in heard]
            for judge in self.judges:
                for (row, _), given in zip(heard, judge(query, candidates), strict=True):
                    scores[row].update(given)
        return scores

    def describe(self, take: Take) -> dict[str, Any]:
        return {
            "utt_id": take.utt_id,
            "text": str(self.store.manifest.loc[take.utt_id, "text"]),
            "stopped": take.stopped,
            "finite": take.audio is not None,
            "seconds": len(take.mel) * self.store.frame_seconds,
        }

    def keep(self, folder: Path, episode_id: str, takes: Sequence[Take]) -> dict[str, np.ndarray]:
        panels = {}
        for take in takes:
            if take.audio is None:
                continue
            io.write(folder / episode_id / f"{take.condition}.flac", take.audio, self.rate)
            panels[f"{episode_id}/{take.condition}/mel"] = take.mel.astype(np.float16)
            if take.alignment.size:
                panels[f"{episode_id}/{take.condition}/alignment"] = take.alignment.astype(np.float16)
        return panels

    def _take(self, utt_id: str, step: int, condition: str, one: Rendered) -> Take:
        audio = self._vocode(utt_id, one.mel) if one.finite else None
        if audio is not None and not np.isfinite(audio).all():  # a finite mel may still be too loud for a float
            audio = None
        return Take(utt_id, step, condition, audio, one.stopped, one.mel, one.alignment)

    def _vocode(self, utt_id: str, mel: np.ndarray) -> np.ndarray:
        seed = utterance_seed(self.params.seed, utt_id)
        return vocode(self.store, mel, iterations=self.settings.griffin_lim_iterations, seed=seed)

    def _load(self, checkpoint: Path) -> tuple[nn.Module, Parameters]:
        model = load_model(checkpoint, self.params, self.store.features())
        return model, {name: value.clone() for name, value in parameters_of(model).items()}

    def _at_judge_rate(self, audio: np.ndarray) -> np.ndarray:
        return resample(torch.from_numpy(np.ascontiguousarray(audio)), self.rate, RATE).numpy()


def enrolment_of(store: Store, episodes: Sequence[EpisodeSpec]) -> dict[str, list[str]]:
    """Recordings that tell who a test speaker is: none that is synthesised; those adapted on, for want of others."""
    chosen = {}
    for speaker in sorted({episode.speaker for episode in episodes}):
        own = [episode for episode in episodes if episode.speaker == speaker]
        support = {utt_id for episode in own for utt_id in episode.support}
        query = {utt_id for episode in own for utt_id in episode.query}
        recordings = [str(utt_id) for utt_id in store.manifest.index[store.manifest["speaker"] == speaker]]
        others = [utt_id for utt_id in recordings if utt_id not in support | query]
        chosen[speaker] = (others + sorted(support - query))[:ENROLMENT]
    return chosen


def audible_episodes(episodes: Sequence[EpisodeSpec], speakers: int) -> frozenset[str]:
    """The first episode of ``speakers`` speakers, spread evenly over their sorted names: nobody chose by ear."""
    first: dict[str, str] = {}
    for episode in episodes:
        first.setdefault(episode.speaker, episode.episode_id)
    names = sorted(first)
    picks = np.linspace(0, len(names) - 1, min(speakers, len(names))).round().astype(int)
    return frozenset(first[names[index]] for index in picks)


@lru_cache(maxsize=1)
def _room(bench: Bench) -> _Room:
    return _Room(bench)
