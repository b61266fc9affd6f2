"""Every query of an episode under every condition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from metaspeech.audio.bands import BandMap
from metaspeech.audio.features import LogMel
from metaspeech.config import Params
from metaspeech.data.episodes import EpisodeSpec
from metaspeech.data.store import Store
from metaspeech.evaluation.rendering import Rendered, griffin_lim, matching_bands, speak, utterance_seed, vocode
from metaspeech.evaluation.systems import COPY, REAL, Role, System, condition
from metaspeech.models.base import Parameters, parameters_of, with_parameters
from metaspeech.training import deltas
from metaspeech.training.checkpoint import load_model


@dataclass(frozen=True)
class Voice:
    """What adaptation of a model started from, and what it left for each episode."""

    model: str
    algorithm: str
    seed: int  # of meta-training and adaptation
    checkpoint: Path  # folder
    adapted: Path  # folder with deltas


Shots = tuple[int, ...]


@dataclass(frozen=True)
class Take:
    """One query under one condition, or under several that sound the same.

    Attributes:
        model: name of a system; empty for a reference.
        algorithm: of a reference REAL or COPY.
        shots: numbers of support recordings that it stands for: before the first step a voice is the same for all of
            them, so it is rendered and judged once. Of a reference (0,).
    """

    utt_id: str
    model: str
    algorithm: str
    shots: Shots
    step: int
    audio: np.ndarray | None  # at the store's rate; None: nothing to listen to
    mel: np.ndarray  # what the audio was made from; of a vocoder's: what it sounds like
    alignment: np.ndarray | None
    stopped: bool

    @property
    def conditions(self) -> list[str]:
        return [condition(self.model, self.algorithm, shots, self.step) for shots in self.shots]


class TakeMaker:
    """Renders queries. Keeps the models of one algorithm loaded."""

    def __init__(self, params: Params, store: Store, systems: Sequence[System], voices: Sequence[Voice]) -> None:
        self.params, self.settings, self.store, self.systems = params, params.evaluate, store, systems
        self.shots: Shots = tuple(sorted(set(self.settings.shots)))
        self._voices = {(voice.model, voice.algorithm, voice.seed): voice for voice in voices}
        self._model = lru_cache(maxsize=len(params.models))(self._load)
        self._log_mel = LogMel.from_settings(store.settings)

    def references(self, episode: EpisodeSpec) -> list[Take]:
        takes = []
        for utt_id in episode.query[: self.settings.queries]:
            real = Rendered(self.store.mel(utt_id))
            takes.append(self._take(utt_id, "", REAL, (0,), 0, real, self.store.audio(utt_id)))
            takes.append(self._take(utt_id, "", COPY, (0,), 0, real, self._griffin_lim(utt_id, real)))
        return takes

    def adapted(self, algorithm: str, seed: int, episode: EpisodeSpec) -> list[Take]:
        """The queries by every system, trained with ``seed`` and adapted by ``algorithm`` on the episode's support."""
        queries = episode.query[: self.settings.queries]
        recorded = [Rendered(self.store.mel(utt_id)) for utt_id in queries]
        mels: dict[tuple[str | None, int], list[tuple[Shots, list[Rendered]]]] = {
            (None, step): [(self.shots, recorded)] for step in self.params.adapt.steps
        }
        takes = []
        for system, shots, step, model in self._models("acoustic", algorithm, seed, episode):
            ratio = self.settings.max_seconds_ratio
            matched = self._matched(model, episode.support[: shots[0]]) if step else None
            spoken = speak(model, self.store, queries, max_seconds_ratio=ratio, seed=self.params.seed, band_map=matched)
            mels.setdefault((system.acoustic, step), []).append((shots, spoken))
            for utt_id, mel in zip(queries, spoken, strict=True):
                audio = self._griffin_lim(utt_id, mel)
                takes.append(self._take(utt_id, system.name, algorithm, shots, step, mel, audio))
        heard = queries[: self.settings.vocoder_queries]
        for system, shots, step, model in self._models("vocoder", algorithm, seed, episode):
            inputs = [
                (one.name, both, utt_id, mel)
                for one in self.systems
                if one.vocoder == system.vocoder
                for of_mels, spoken in mels[one.acoustic, step]
                if (both := tuple(count for count in shots if count in of_mels))
                for utt_id, mel in zip(heard, spoken, strict=False)
            ]
            for (name, both, utt_id, mel), audio in zip(inputs, self._vocoded(model, inputs), strict=True):
                takes.append(self._take(utt_id, name, algorithm, both, step, self._seen(audio, mel), audio))
        return takes

    def _models(
        self, role: Role, algorithm: str, seed: int, episode: EpisodeSpec
    ) -> Iterator[tuple[System, Shots, int, nn.Module]]:
        """Every system of one model, shots, steps, and that model, which the next one overwrites."""
        for system in self.systems:
            if system.role != role:
                continue
            voice = self._voices[system.name, algorithm, seed]
            model, start = self._model(voice.checkpoint)
            folder = voice.adapted / "deltas"
            for step in system.steps:
                read = {
                    count: deltas.read(folder / f"{episode.episode_id}-{count}.safetensors", start, step)
                    for count in self.shots
                }
                apart = step and role == "acoustic" and self.settings.match_bands  # the recordings differ
                groups = [((count,), one) for count, one in read.items()] if apart else _distinct(read)
                for shots, adapted in groups:
                    yield system, shots, step, with_parameters(model, adapted)

    def _matched(self, model: nn.Module, support: Sequence[str]) -> BandMap | None:
        if not self.settings.match_bands:
            return None
        seeds = [utterance_seed(self.params.seed, utt_id) for utt_id in support]
        ratio = self.settings.max_seconds_ratio
        return matching_bands(model, self.store, self.store.batch(support), max_seconds_ratio=ratio, seeds=seeds)

    def _take(
        self, utt_id: str, model: str, algorithm: str, shots: Shots, step: int, mel: Rendered, audio: np.ndarray | None
    ) -> Take:
        return Take(utt_id, model, algorithm, shots, step, audio, mel.mel, mel.alignment, mel.stopped)

    def _griffin_lim(self, utt_id: str, mel: Rendered) -> np.ndarray | None:
        seed = utterance_seed(self.params.seed, utt_id)
        return griffin_lim(self.store, mel.mel, iterations=self.settings.griffin_lim_iterations, seed=seed)

    def _vocoded(self, model: nn.Module, inputs: Sequence[tuple[str, Shots, str, Rendered]]) -> list[np.ndarray | None]:
        seeds = [utterance_seed(self.params.seed, utt_id) for _, _, utt_id, _ in inputs]
        return vocode(model, self.store, [mel.mel for *_, mel in inputs], seeds=seeds)

    def _seen(self, audio: np.ndarray | None, mel: Rendered) -> Rendered:
        """With the mel of the sound itself, since a vocoder may make something else of the one that it was given."""
        if audio is None:
            return mel
        return replace(mel, mel=self._log_mel(torch.from_numpy(audio)).numpy()[: len(mel.mel)])

    def _load(self, checkpoint: Path) -> tuple[nn.Module, Parameters]:
        model = load_model(checkpoint, self.params, self.store.features())
        return model, {name: value.clone() for name, value in parameters_of(model).items()}


def _distinct(parameters: Mapping[int, Parameters]) -> list[tuple[Shots, Parameters]]:
    """Parameters by number of shots, those that are equal together."""
    groups: list[tuple[Shots, Parameters]] = []
    for count, own in parameters.items():
        for place, (shots, other) in enumerate(groups):
            if all(torch.equal(value, other[name]) for name, value in own.items()):
                groups[place] = ((*shots, count), other)
                break
        else:
            groups.append(((count,), own))
    return groups
