"""From checked recordings to a voice: the inner loop of the project, stopped by a recording that it does not see."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from metaspeech.audio.bands import BandMap
from metaspeech.data.batch import Episode, SpeechBatch, collate
from metaspeech.data.store import AUDIO_SCALE, Features
from metaspeech.data.utterance import Utterance
from metaspeech.errors import UserError
from metaspeech.evaluation.rendering import matching_bands
from metaspeech.meta.base import MetaAlgorithm
from metaspeech.models.base import Parameters, loss_function, parameters_of, with_parameters
from metaspeech.registry import ALGORITHMS, resolve
from metaspeech.seeds import mixed_seed
from metaspeech.training.adaptation import adaptation_curve
from metaspeech.voices.meta_model import MetaModel

_LONGEST_RATIO = 3.0  # of a text as the adapted model speaks it to the recording
LEAST_TO_HOLD_BACK = 3  # recordings, from which on the last one is held back


@dataclass(frozen=True)
class Progress:
    """After a step: the model's name, the step, the most steps, the loss on what is held back, the best step so far."""

    model: str
    step: int
    steps: int
    loss: float
    best: int


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Settings:
    """How long to adapt.

    Attributes:
        steps: at most.
        notable: the share by which the loss on the held-back recordings must fall to count. The loss goes on falling
            by a little for long, while what the voice says is understood less and less (docs/voices.md).
        patience: steps without such a fall after which to stop; those that came after the last one are not kept.
        blind_steps: where no recording can be held back.
        shots: recordings that are adapted on, at most; the first ones. As many again at most are held back.
        rate: of a step; None: the meta-model's own.
        seed: of dropout.
    """

    steps: int = 60
    notable: float = 0.05
    patience: int = 5
    blind_steps: int = 5
    shots: int = 20
    rate: float | None = None
    seed: int = 1


@dataclass(frozen=True)
class Adapted:
    """What came of one model."""

    base: Parameters
    params: Parameters
    step: int
    rate: float
    losses: list[float]
    stopped: str
    seconds: float
    band_map: BandMap | None  # of an acoustic model that has taken a step


def divided(recordings: int, shots: int) -> tuple[range, range]:
    """Which recordings are adapted on and which are held back: the last one, or all beyond ``shots``."""
    if recordings < LEAST_TO_HOLD_BACK:
        return range(recordings), range(0)
    support = min(recordings - 1, shots)
    return range(support), range(support, min(recordings, support + shots))


def adapt_model(
    meta: MetaModel, utterances: Sequence[Utterance], settings: Settings, report: Report | None = None
) -> Adapted:
    """The adapted parameters at the last step that notably lowered the loss on the held-back recordings.

    Args:
        meta: what to start from.
        utterances: prepared as ``meta.features`` says, at least one.
        settings: how long.
        report: called after every step; what it raises ends the adaptation.

    Raises:
        UserError: the loss is not finite before the first step: the recordings do not fit the model.
    """
    began = time.monotonic()
    support, held = divided(len(utterances), settings.shots)
    batch = as_batch([utterances[index] for index in support], meta.features)
    query = as_batch([utterances[index] for index in held], meta.features) if held else None
    algorithm: MetaAlgorithm = resolve(ALGORITHMS, meta.algorithm).from_params(meta.params)
    model = meta.load()
    loss_fn, base = loss_function(model), parameters_of(model)
    episode = Episode("voice", batch, query or batch, mixed_seed(settings.seed, "voice"))
    rate = settings.rate or meta.params.inner.rate
    most = settings.steps if query else min(settings.blind_steps, settings.steps)

    losses: list[float] = []
    best, kept, stopped = 0, base, "the most steps were taken"
    steps = range(most + 1)
    for step, terms, params in adaptation_curve(loss_fn, algorithm, base | meta.learned(), episode, steps, rate):
        loss = terms["loss"]
        if not math.isfinite(loss):
            if step == 0:
                raise UserError(f"{meta.name}: the loss on these recordings is not finite: they do not fit the model")
            stopped = "the loss was no longer finite"
            break
        losses.append(loss)
        if query is None or step == 0 or loss < losses[best] * (1 - settings.notable):
            best, kept = step, {name: params[name].clone() for name in base}
        if report:
            report(Progress(meta.name, step, most, loss, best))
        if query is not None and step - best >= settings.patience:
            stopped = f"not {settings.notable:.0%} lower in {settings.patience} steps"
            break
    own = losses if query is not None else []
    if query is None:
        stopped = "too few recordings to hold one back: a fixed number of steps"
    matched = None
    if best and model.role == "acoustic":
        seeds = [mixed_seed(settings.seed, index) % 2**31 for index in support]
        adapted = with_parameters(meta.load(), kept)  # not model: base is made of its tensors
        matched = matching_bands(adapted, meta.features, batch, max_seconds_ratio=_LONGEST_RATIO, seeds=seeds)
    return Adapted(base, kept, best, rate, own, stopped, time.monotonic() - began, matched)


def as_batch(utterances: Sequence[Utterance], features: Features) -> SpeechBatch:
    """Prepared recordings as a model reads them."""
    return collate(
        [
            (
                one.tokens,
                features.normalise(one.mel.astype(np.float32)).astype(np.float32),
                np.asarray(one.audio / np.float32(AUDIO_SCALE), dtype=np.float32),
            )
            for one in utterances
        ],
        [np.array(one.starts, dtype=np.float32) / np.float32(features.frame_seconds) for one in utterances],
    )


def text_batch(tokens: Sequence[int], features: Features) -> SpeechBatch:
    """A text to be spoken, as a model reads it: there is no recording of it."""
    nothing = np.zeros((1, len(features.mel_mean)), dtype=np.float32)
    return collate([(tokens, nothing, np.zeros(1, dtype=np.float32))])
