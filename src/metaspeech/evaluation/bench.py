"""Renders and judges every test episode, spread over processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from metaspeech.audio import io
from metaspeech.audio.features import resample
from metaspeech.config import Params
from metaspeech.data.episodes import EpisodeSpec
from metaspeech.data.store import Store
from metaspeech.evaluation import selfcheck
from metaspeech.evaluation.judges.base import RATE, Candidate, Column, Query, Setting
from metaspeech.evaluation.judges.remembered import Memory, Remembered
from metaspeech.evaluation.systems import System, headline_step
from metaspeech.evaluation.takes import Take, TakeMaker, Voice
from metaspeech.evaluation.verification import EER
from metaspeech.registry import JUDGES, resolve

ENROLMENT = 10  # recordings a speaker's centroid is made of, at most


@dataclass(frozen=True)
class Bench:
    """What every job shares."""

    params: Params = field(hash=False)
    store: Path  # folder
    episodes: tuple[EpisodeSpec, ...]
    systems: tuple[System, ...]
    voices: tuple[Voice, ...]  # of every model and algorithm
    audible: frozenset[str]  # episodes whose first query is kept as audio, mel and alignment
    audio: Path  # folder for that audio
    remembered: Path | None = None  # file with what judges have said; None: every one is asked


@dataclass(frozen=True)
class Job:
    """One episode under one algorithm, by every system; without an algorithm: the references."""

    bench: Bench
    episode: EpisodeSpec
    algorithm: str | None
    seed: int  # of the algorithm's training


@dataclass(frozen=True)
class Outcome:
    """Rows of the utterance table, arrays for panels by ``<episode>/<condition>/<mel or alignment>``, and, of some
    references, rows of :func:`metaspeech.evaluation.selfcheck.probe`."""

    rows: list[dict[str, Any]]
    panels: dict[str, np.ndarray]
    probes: list[dict[str, Any]]


def columns(judges: Sequence[str]) -> list[Column]:
    """The columns that these judges add to the utterance table."""
    return [column for name in judges for column in resolve(JUDGES, name).columns]


def doubted(checks: pd.DataFrame) -> set[str]:
    """The columns of judges that failed one of their checks."""
    names = selfcheck.failed(checks)
    found = {column.name for column in columns(sorted(names))}
    return found | {EER.name} if "similarity" in names else found


def systems(models: Mapping[str, Any], params: Params) -> list[System]:
    """Acoustic models, then chains, which put a vocoder in the place of Griffin-Lim, then vocoders.

    The first is what a report begins with.

    Args:
        models: name -> class, a :class:`~metaspeech.models.base.SynthesisModel`.
    """
    acoustic = [name for name, model in models.items() if model.role == "acoustic"]
    vocoders = [name for name, model in models.items() if model.role == "vocoder"]
    steps, rendered = (tuple(sorted(set(given))) for given in (params.adapt.steps, params.evaluate.vocoder_steps))
    tuned = params.adapt.tune_steps
    headline, of_rendered = headline_step(steps, tuned), headline_step(rendered, tuned)

    def loss(name: str) -> tuple[str, str]:
        return models[name].loss_label, models[name].loss_explanation

    return [
        *(System(name, None, steps, headline, *loss(name)) for name in acoustic),
        *(System(one, other, rendered, of_rendered) for one in acoustic for other in vocoders),
        *(System(None, name, rendered, of_rendered, *loss(name)) for name in vocoders),
    ]


def jobs(bench: Bench) -> Iterator[Job]:
    """References first, then algorithm by algorithm, so that a process loads few models."""
    trained = [(algorithm, seed) for seed in bench.params.seeds for algorithm in bench.params.algorithms]
    for algorithm, seed in [(None, bench.params.seeds[0]), *trained]:
        for episode in bench.episodes:
            yield Job(bench, episode, algorithm, seed)


def run(job: Job) -> Outcome:
    """Renders and judges one job. Processes keep what the bench needs loaded between jobs."""
    room, episode = _room(job.bench), job.episode
    takes = room.maker.adapted(job.algorithm, job.seed, episode) if job.algorithm else room.maker.references(episode)
    base = {"seed": job.seed, "episode_id": episode.episode_id, "speaker": episode.speaker}
    utt_ids = list(dict.fromkeys(take.utt_id for take in takes))
    rows = []
    for utt_id in utt_ids:
        of_query = [take for take in takes if take.utt_id == utt_id]
        for take, scores in zip(of_query, room.judge(utt_id, of_query), strict=True):
            rows += [{**room.describe(take, shots), **base, **scores} for shots in take.shots]
    panels: dict[str, np.ndarray] = {}
    if episode.episode_id in job.bench.audible and job.seed == job.bench.params.seeds[0]:
        shown = [take for take in takes if take.utt_id == utt_ids[0]]
        panels = room.keep(job.bench.audio, episode.episode_id, shown)
    probed = not job.algorithm and episode.episode_id in audible_episodes(job.bench.episodes, selfcheck.SPEAKERS)
    return Outcome(rows, panels, room.probe(utt_ids[0]) if probed else [])


class _Room:
    """Store, judges and models of one process."""

    def __init__(self, bench: Bench) -> None:
        self.settings, self.seed = bench.params.evaluate, bench.params.seed
        self.store = Store(bench.store)
        self.rate = int(self.store.settings["sample_rate"])
        self.maker = TakeMaker(bench.params, self.store, bench.systems, bench.voices)
        enrolment = {
            speaker: [self._at_judge_rate(self.store.audio(utt_id)) for utt_id in utt_ids]
            for speaker, utt_ids in enrolment_of(self.store, bench.episodes).items()
        }
        queries = [utt_id for episode in bench.episodes for utt_id in episode.query[: self.settings.queries]]
        self.texts = sorted({str(self.store.manifest.loc[utt_id, "text"]) for utt_id in queries})
        setting, memory = Setting(enrolment, self.texts), Memory(bench.remembered)
        self.judges = {name: Remembered(name, setting, memory) for name in self.settings.judges}
        self.dear = {utt_id for one in bench.episodes for utt_id in one.query[: self.settings.dear_queries]}

    def judge(self, utt_id: str, takes: Sequence[Take]) -> list[dict[str, Any]]:
        """Scores of each take; NaN for those that cannot be heard, or that a dear judge is not asked for."""
        query = self.query(utt_id)
        nothing = {column.name: float("nan") for column in columns(self.settings.judges)}
        scores: list[dict[str, Any]] = [dict(nothing) for _ in takes]
        heard = [(row, take, take.audio) for row, take in enumerate(takes) if take.audio is not None]
        candidates = [Candidate(self._at_judge_rate(audio), take.alignment) for _, take, audio in heard]
        for name, judge in self.judges.items():
            if heard and (utt_id in self.dear or not resolve(JUDGES, name).dear):
                for (row, _, _), given in zip(heard, judge(query, candidates), strict=True):
                    scores[row].update(given)
        return scores

    def probe(self, utt_id: str) -> list[dict[str, Any]]:
        return selfcheck.probe(self.judges, self.query(utt_id), self.texts, self.seed)

    def query(self, utt_id: str) -> Query:
        entry = self.store.manifest.loc[utt_id]
        return Query(utt_id, str(entry["speaker"]), str(entry["text"]), self._at_judge_rate(self.store.audio(utt_id)))

    def describe(self, take: Take, shots: int) -> dict[str, Any]:
        return {
            "model": take.model,
            "algorithm": take.algorithm,
            "shots": shots,
            "step": take.step,
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
            for name in take.conditions:
                io.write(folder / episode_id / f"{name}.flac", take.audio, self.rate)
                panels[f"{episode_id}/{name}/mel"] = take.mel.astype(np.float16)
                if take.alignment is not None:
                    panels[f"{episode_id}/{name}/alignment"] = take.alignment.astype(np.float16)
        return panels

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
