"""What the stages know of a model, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metaspeech.data.batch import SpeechBatch

if TYPE_CHECKING:
    from metaspeech.config import Params

Parameters = dict[str, Tensor]
Terms = dict[str, Tensor]
LossFn = Callable[[Mapping[str, Tensor], SpeechBatch], tuple[Tensor, Terms]]
Hidden = tuple[Tensor, ...]


@dataclass(frozen=True)
class FeatureSpec:
    """What prepare made, as far as a model must know it."""

    symbols: int  # size of the symbol table, padding included
    n_mels: int
    hop: int  # samples from one frame to the next
    sample_rate: int  # Hz


@dataclass(frozen=True)
class Synthesis:
    """Free-running output for a batch of texts.

    | field | shape | what |
    |---|---|---|
    | mels | (batch, frames, mels) | normalised log-mel, padded |
    | mel_lengths | (batch,) | frames up to and including the one at which the stop token fired |
    | alignments | (batch, decoder steps, characters) | attention weights; empty where a model has none |
    | stopped | (batch,) bool | False: the limit was hit, which is a failure to be reported |
    """

    mels: Tensor
    mel_lengths: Tensor
    alignments: Tensor
    stopped: Tensor


class SynthesisModel(Protocol):
    """What training and adaptation know of a model, be it text to mel or mel to waveform.

    A model is an ``nn.Module`` whose forward is a pure function of parameters and batch: nothing cached, no
    running statistics."""

    role: ClassVar[Literal["acoustic", "vocoder"]]
    """Which of the two protocols below it follows besides: :class:`AcousticModel` or :class:`Vocoder`."""

    loss_label: ClassVar[str]
    """What its loss is called in tables and figures."""

    loss_explanation: ClassVar[str]
    """A sentence on what that loss is, and in which unit."""

    head_modules: ClassVar[tuple[str, ...]]
    """Name patterns (fnmatch) of the parameters that only :meth:`head` reads; the others are the body's."""

    @classmethod
    def from_params(cls, params: Params, features: FeatureSpec) -> SynthesisModel:
        """Builds the model from its own section of params.yaml. Seed before the call."""

    voice: nn.Parameter
    """(width,) what the model speaks as; adapts like every other parameter. See ``forward``."""

    def forward(self, batch: SpeechBatch, voices: Tensor | None = None) -> tuple[Tensor, Terms]:
        """The training loss (a scalar) and its named parts, which are detached.

        Args:
            batch: utterances.
            voices: (batch, width) each utterance's offset from ``voice``. Joint training learns one for each training
                speaker, so that the model need not average over them and learns to be steered by this vector.
        """

    def length(self, batch: SpeechBatch) -> int:
        """Frames that ``forward`` computes for a batch, padding included: by this, work is shared out to processes."""

    def body(self, batch: SpeechBatch, voices: Tensor | None = None) -> Hidden:
        """The part of ``forward`` before the head: what an inner loop that moves only the head computes once."""

    def head(self, hidden: Hidden, batch: SpeechBatch) -> tuple[Tensor, Terms]:
        """What ``forward`` returns, from what ``body`` returned for the same batch."""


@runtime_checkable
class AcousticModel(SynthesisModel, Protocol):
    """Text to mel."""

    def synthesize(self, batch: SpeechBatch, *, seeds: list[int], max_frames: Tensor) -> Synthesis:
        """Free-running synthesis of the texts in ``batch``; its mels are not read.

        Args:
            batch: the texts.
            seeds: one an utterance, for whatever randomness the model has at inference. The result for an utterance
                does not depend on its neighbours in the batch.
            max_frames: (batch,) the limit for each utterance, in frames.
        """


@runtime_checkable
class Vocoder(SynthesisModel, Protocol):
    """Mel to waveform."""

    def vocode(self, mels: Sequence[Tensor], *, seeds: Sequence[int]) -> list[Tensor]:
        """A waveform for each mel.

        Args:
            mels: of shape (frames, mels), normalised as in a batch.
            seeds: one an utterance, for the draws of its samples.

        Returns:
            of shape (frames * hop,), float32 in [-1, 1]. The result for an utterance does not depend on the others.

        Raises:
            UserError: a mel has another number of bands than the model, no frame, or values that are not finite.
        """


_TWICE = ContextVar("differentiated twice", default=False)


@contextmanager
def second_order(wanted: bool = True) -> Iterator[None]:
    """Around losses whose gradients will be differentiated again: models then compute in ways that make this possible,
    or fast. cuDNN's recurrent networks have no second derivative."""
    before = _TWICE.set(wanted)
    try:
        with torch.backends.cudnn.flags(enabled=not wanted):
            yield
    finally:
        _TWICE.reset(before)


def differentiated_twice() -> bool:
    """Whether this is inside :func:`second_order`."""
    return _TWICE.get()


def parameters_of(model: nn.Module) -> Parameters:
    """The model's parameters by name, detached, sharing memory."""
    return {name: value.detach() for name, value in model.named_parameters()}


class ModelLoss:
    """``loss_fn(params, batch) -> (loss, terms)``: a model as a function of its parameters, whole or in two parts.

    ``params`` may hold other tensors too, such as what an algorithm has learned; those are not looked at.
    """

    def __init__(self, model: nn.Module) -> None:
        self._whole, self._body, self._head = model, _Method(model, "body"), _Method(model, "head")
        self._names = [name for name, _ in model.named_parameters()]
        self._patterns: tuple[str, ...] = cast(SynthesisModel, model).head_modules

    def __call__(self, params: Mapping[str, Tensor], batch: SpeechBatch) -> tuple[Tensor, Terms]:
        loss, terms = functional_call(self._whole, {name: params[name] for name in self._names}, (batch,))
        return loss, terms

    def in_head(self, name: str) -> bool:
        """Whether a parameter belongs to the head."""
        return any(fnmatch(name, pattern) for pattern in self._patterns)

    def body(self, params: Mapping[str, Tensor], batch: SpeechBatch) -> Hidden:
        """See :meth:`SynthesisModel.body`."""
        hidden: Hidden = functional_call(self._body, self._prefixed(params), (batch,))
        return hidden

    def head(self, params: Mapping[str, Tensor], hidden: Hidden, batch: SpeechBatch) -> tuple[Tensor, Terms]:
        """See :meth:`SynthesisModel.head`."""
        loss, terms = functional_call(self._head, self._prefixed(params), (hidden, batch))
        return loss, terms

    def _prefixed(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"model.{name}": params[name] for name in self._names}


class _Method(nn.Module):
    """A method of a model as a module of its own, which is what ``functional_call`` can call."""

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, *args: object) -> object:
        return getattr(self.model, self.method)(*args)


def loss_function(model: nn.Module) -> ModelLoss:
    """The model as a function of its parameters."""
    return ModelLoss(model)


def with_parameters(model: nn.Module, params: Mapping[str, Tensor]) -> nn.Module:
    """Copies ``params`` into ``model`` (all of its names must be there) and returns it."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(params[name])
    return model
