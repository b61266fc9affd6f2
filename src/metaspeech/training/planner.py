"""What a meta-training will cost, before it runs: measured on one task, by the algorithm's own code."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from time import perf_counter
from typing import TypeVar

import torch
from torch import Tensor

from metaspeech.config import MetaTrain
from metaspeech.data.batch import Episode
from metaspeech.errors import UserError
from metaspeech.meta.base import MetaAlgorithm, OuterStep
from metaspeech.models.base import LossFn
from metaspeech.training.adaptation import adaptation_curve
from metaspeech.training.memory import available_bytes, peak_bytes

MOST = 3  # inner steps up to which the training's own number is measured
TIMED = (1, 3)  # else these; apart by an even number, since Reptile's steps go over support and query by turns
COUNTED = (3, 4)  # with fewer, not all copies of the parameters that a loop may hold are there
KEPT = 3  # of the parameters' size, from one outer step to the next: the gradient and Adam's two moments
HELD = {"cpu": 2.2, "cuda": 1.0}  # what a process may hold for a byte of tensors: 2.2 was seen with WaveNet
LESS = (
    "set meta_train.recompute: true (maml, boil, meta_sgd), or lower inner.steps, episodes.shots, episodes.queries or "
    "wavenet.window"
)
DAY = 86400.0
ONLY = OuterStep()  # the moment for algorithms that are the same throughout

Algorithm = TypeVar("Algorithm", bound=MetaAlgorithm)
Figure = TypeVar("Figure", int, float)


@dataclass(frozen=True)
class Cost:
    """Of one task's outer gradient: seconds, and the bytes of its tensors at the highest."""

    seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Plan:
    """What a meta-training is expected to take.

    Attributes:
        outer_steps: of the whole training.
        tasks: an outer step.
        gradient_evaluations: of the whole training.
        seconds: of the whole training.
        memory_bytes: of tensors at the highest, beside the model and the data; of all processes on a CPU.
        available_bytes: what there was when it was planned; None: not known.
        held: how many bytes a process may hold for one of tensors, since the C library keeps what is freed.
    """

    outer_steps: int
    tasks: int
    gradient_evaluations: int
    seconds: float
    memory_bytes: int
    available_bytes: int | None
    held: float = 1.0

    def sentence(self) -> str:
        if not self.outer_steps:
            return "no outer step: nothing is trained"
        return (
            f"{self.outer_steps} outer steps of {self.tasks} tasks: about {duration(self.seconds)}, "
            f"{size(self.memory_bytes)} of tensors beside the model"
        )

    def warnings(self) -> list[str]:
        """What may go wrong, and which keys of params.yaml to change."""
        found, needed = [], self.held * self.memory_bytes
        if self.available_bytes is not None and needed > self.available_bytes:
            holds = f", for which a process may hold {size(needed)}" if self.held > 1 else ""
            found.append(
                f"memory: tensors of {size(self.memory_bytes)} are expected beside the model{holds}, and "
                f"{size(self.available_bytes)} are available. To need less, {LESS}"
            )
        if self.seconds > DAY:
            found.append(
                f"time: {duration(self.seconds)} are expected, more than a day. To need less, lower "
                "meta_train.gradient_evaluations, episodes.shots, episodes.queries or wavenet.window"
            )
        return found


def plan(
    algorithm: MetaAlgorithm,
    loss_fn: LossFn,
    meta_parameters: Mapping[str, Tensor],
    episode: Episode,
    settings: MetaTrain,
    outer_steps: int,
    devices: int = 1,
    held_out: int = 0,
    available: int | None = None,
) -> Plan:
    """Measures one task and multiplies. No bit of a training that follows changes.

    Args:
        algorithm, loss_fn, meta_parameters: those of the training, where it will be: on the CPU or on a GPU.
        episode: one of its tasks, on the same device. Longer recordings than its cost more.
        settings: of the outer loop.
        outer_steps: that will be taken; with 0 nothing is measured.
        devices: processes that share the tasks of an outer step and of a validation.
        held_out: tasks of a validation; 0 leaves the time of validation out.
        available: bytes of memory; by default what the device has to give.

    Raises:
        UserError: the task's loss is not finite, or a GPU has not the memory for the measurement itself.
    """
    device = _device(meta_parameters)
    available = available_bytes(device) if available is None else available
    held = HELD.get(device.type, 1.0)
    if not outer_steps:
        return Plan(0, settings.meta_batch, 0, 0.0, 0, available, held)
    seconds, memory = 0.0, 0
    for at, share in _moments(algorithm, outer_steps):
        cost = task_cost(algorithm, loss_fn, meta_parameters, episode, at)
        seconds, memory = seconds + share * cost.seconds, max(memory, cost.memory_bytes)
    shared = ceil(settings.meta_batch / devices)  # tasks of an outer step that one process takes
    seconds *= outer_steps * shared
    validations = ceil(outer_steps / settings.checkpoint_every) // max(
        1, settings.validate_every // settings.checkpoint_every
    )
    if held_out and validations:
        seconds += validations * ceil(held_out / devices) * _validation(algorithm, loss_fn, meta_parameters, episode)

    parameters = sum(value.nbytes for value in meta_parameters.values())
    memory += (KEPT + (shared > 1)) * parameters  # the last task's gradient stays until the next one's is there
    evaluations = algorithm.gradient_evaluations(outer_steps, settings.meta_batch)
    processes = 1 if device.type == "cuda" else devices
    return Plan(outer_steps, settings.meta_batch, evaluations, seconds, processes * memory, available, held)


def affordable_steps(algorithm: MetaAlgorithm, name: str, settings: MetaTrain, devices: int) -> int:
    """Outer steps that the budget of gradient evaluations pays for.

    Raises:
        UserError: not even for one, or there are more processes than tasks for them.
    """
    steps = algorithm.outer_steps(settings)
    if steps < 1 and algorithm.meta_trained:
        raise UserError(
            f"meta_train.gradient_evaluations: {settings.gradient_evaluations} does not pay for one outer step of "
            f"'{name}', which takes {algorithm.gradient_evaluations(1, settings.meta_batch)}"
        )
    if devices > settings.meta_batch:
        raise UserError(
            f"devices: {devices} processes cannot share meta_train.meta_batch {settings.meta_batch} tasks. Lower "
            "devices or raise meta_train.meta_batch"
        )
    return steps


def task_cost(
    algorithm: MetaAlgorithm, loss_fn: LossFn, params: Mapping[str, Tensor], episode: Episode, at: OuterStep = ONLY
) -> Cost:
    """Of one task's outer gradient at moment ``at``: measured where there are few inner steps, else on the line through
    the costs at two numbers of steps. Raises like :func:`plan`."""
    steps = algorithm.inner.steps
    without_loop = algorithm.evaluations(at) == with_steps(algorithm, steps + 1).evaluations(at)
    counted, timed = (COUNTED, TIMED) if steps > MOST and not without_loop else ((steps,), (steps,))

    def each(measure: Callable[..., float], probes: Sequence[int]) -> dict[int, float]:
        return {number: measure(with_steps(algorithm, number), loss_fn, params, episode, at) for number in probes}

    memory = each(gradient_bytes, counted)  # before time is measured, since the first of all gradients is slow
    return Cost(on_line(each(gradient_seconds, timed), steps), round(on_line(memory, steps)))


def on_line(values: Mapping[int, float], steps: int) -> float:
    """What the line through one or two values, by inner steps, has at ``steps``. It never falls."""
    (few, low), (more, high) = min(values.items()), max(values.items())
    return high + (steps - more) * max(0.0, high - low) / max(1, more - few)


def gradient_bytes(
    algorithm: MetaAlgorithm, loss_fn: LossFn, params: Mapping[str, Tensor], episode: Episode, at: OuterStep = ONLY
) -> int:
    """Of the tensors of a task's outer gradient, at the highest. Raises like :func:`plan`."""
    return _undisturbed(_gradient(algorithm, loss_fn, params, episode, at), peak_bytes, _device(params))


def gradient_seconds(
    algorithm: MetaAlgorithm,
    loss_fn: LossFn,
    params: Mapping[str, Tensor],
    episode: Episode,
    at: OuterStep = ONLY,
    clock: Callable[[], float] = perf_counter,
) -> float:
    """That a task's outer gradient takes. Raises like :func:`plan`."""
    return _undisturbed(
        _gradient(algorithm, loss_fn, params, episode, at), partial(_seconds, clock=clock), _device(params)
    )


def with_steps(algorithm: Algorithm, steps: int) -> Algorithm:
    """The same algorithm with another number of inner steps."""
    other = copy.copy(algorithm)
    other.inner = replace(algorithm.inner, steps=steps)
    return other


def duration(seconds: float) -> str:
    """For people: 40 s, 1.6 min, 3.2 h, 2.5 days."""
    for most, unit, name in ((90, 1, "s"), (5400, 60, "min"), (2 * DAY, 3600, "h")):
        if seconds < most:
            return f"{seconds / unit:.{0 if seconds >= 10 * unit else 1}f} {name}"
    return f"{seconds / DAY:.1f} days"


def size(number: float) -> str:
    """Bytes for people: 410 MB, 1.25 GB."""
    return f"{number / 1e6:.0f} MB" if number < 1e9 else f"{number / 1e9:.2f} GB"


def _moments(algorithm: MetaAlgorithm, outer_steps: int) -> list[tuple[OuterStep, float]]:
    """Moments of training to measure, each with the share of training that it stands for: the last one with the most
    gradient evaluations and, where that is not the end (MAML++), the end."""
    evaluations = [algorithm.evaluations(OuterStep(index, outer_steps)) for index in range(outer_steps)]
    most = max(evaluations)
    dear = [index for index, number in enumerate(evaluations) if number == most]
    moments = [(OuterStep(dear[-1], outer_steps), len(dear) / outer_steps)]
    if dear[-1] < outer_steps - 1:
        moments.append((OuterStep(outer_steps - 1, outer_steps), 1 - len(dear) / outer_steps))
    return moments


def _validation(algorithm: MetaAlgorithm, loss_fn: LossFn, params: Mapping[str, Tensor], episode: Episode) -> float:
    """Seconds that a held-out task takes."""
    steps, rate = [0, algorithm.inner.steps], algorithm.inner.rate
    return _undisturbed(
        lambda: list(adaptation_curve(loss_fn, algorithm, params, episode, steps, rate)), _seconds, _device(params)
    )


def _gradient(
    algorithm: MetaAlgorithm, loss_fn: LossFn, params: Mapping[str, Tensor], episode: Episode, at: OuterStep
) -> Callable[[], None]:
    def work() -> None:
        _, metrics = algorithm.outer_gradient(loss_fn, params, [episode], at)
        if not metrics["tasks"]:
            raise UserError(f"task of {episode.speaker}: its loss is not finite, so its cost cannot be measured")

    return work


def _undisturbed(
    work: Callable[[], object], measure: Callable[[Callable[[], object], torch.device], Figure], device: torch.device
) -> Figure:
    """A measure of ``work``, after which torch draws the numbers that it would have drawn before."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            return measure(work, device)
        except torch.OutOfMemoryError:
            raise UserError(f"not enough memory to measure one task: {LESS}") from None


def _seconds(work: Callable[[], object], device: torch.device, clock: Callable[[], float] = perf_counter) -> float:
    """The less of two: whatever else the machine does only adds."""
    times = []
    for _ in range(2):
        began = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - began)
    return min(times)


def _device(params: Mapping[str, Tensor]) -> torch.device:
    return next(iter(params.values())).device
