"""The one LightningModule that knows a model and an algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from metaspeech.config import MetaTrain
from metaspeech.data.batch import Episode
from metaspeech.errors import UserError
from metaspeech.meta.base import MEANS, MetaAlgorithm, OuterStep
from metaspeech.models.base import Parameters, SynthesisModel, loss_function, parameters_of
from metaspeech.training.adaptation import adaptation_curve

Item = TypeVar("Item")


class MetaLearner(pl.LightningModule):
    """The outer loop: gradients from the algorithm, each task's clipped, reduced over processes once, stepped.

    Inner loops use ``torch.autograd.grad``, which fires none of the hooks that distributed wrappers rely on: hence
    manual optimisation and the explicit reduction. Of several processes each takes its share of an outer step's tasks,
    and of the validation tasks.
    """

    def __init__(self, model: nn.Module, algorithm: MetaAlgorithm, settings: MetaTrain, total_steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.algorithm, self.settings, self.total_steps = model, algorithm, settings, total_steps
        learned = algorithm.learned(loss_function(model), parameters_of(model))
        self._learned_names = list(learned)
        self._learned = nn.ParameterList(learned.values())
        self.register_buffer("tasks_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("tasks_skipped", torch.zeros((), dtype=torch.int64))

    @property
    def meta_parameters(self) -> dict[str, Tensor]:
        """All that meta-training moves: the model's parameters and what the algorithm learns besides, by name."""
        return dict(self.model.named_parameters()) | dict(zip(self._learned_names, self._learned, strict=True))

    @property
    def learned(self) -> Parameters:
        """What the algorithm has learned besides the model's parameters."""
        return {name: value.detach() for name, value in zip(self._learned_names, self._learned, strict=True)}

    def training_step(self, episodes: list[Episode], index: int) -> None:
        parameters = self.meta_parameters
        at = OuterStep(self.global_step, self.total_steps)
        own = shares(episodes, [self._length(one) for one in episodes], self.trainer.world_size)[self.global_rank]
        loss_fn, clip = loss_function(self.model), self.settings.clip
        gradients, metrics = self.algorithm.outer_gradient(loss_fn, parameters, own, at, clip)
        if self.trainer.world_size > 1:
            gradients, metrics = reduced(gradients, metrics)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        optimiser: Any = self.optimizers()
        optimiser.step()
        self.lr_schedulers().step()  # type: ignore[union-attr]
        self._count(metrics)
        self.log_dict(metrics, prog_bar=True, batch_size=1)

    def on_validation_epoch_start(self) -> None:
        self._validation = torch.zeros(3, dtype=torch.float64, device=self.device)

    def validation_step(self, episode: Episode, index: int) -> None:
        """Query loss of a held-out speaker before and after as many steps as training takes."""
        if index % self.trainer.world_size != self.global_rank:
            return
        inner = self.algorithm.inner
        loss_fn, steps = loss_function(self.model), [0, inner.steps]
        curve = adaptation_curve(loss_fn, self.algorithm, self.meta_parameters, episode, steps, inner.rate)
        before, after = (losses["loss"] for _, losses, _ in curve)
        self._validation += self._validation.new_tensor([before, after, 1.0])

    def on_validation_epoch_end(self) -> None:
        """Means over the episodes of all processes. Lightning's own would divide by a count rounded down."""
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(self._validation)
        before, after, episodes = self._validation
        self.log_dict({"validation_before": before / episodes, "validation_after": after / episodes})

    def configure_optimizers(self) -> Any:
        optimiser, schedule = self.algorithm.optimiser(self.meta_parameters, self.settings, self.total_steps)
        return [optimiser], [schedule]

    def _length(self, episode: Episode) -> int:
        model = cast(SynthesisModel, self.model)
        return model.length(episode.support) + model.length(episode.query)

    def _count(self, metrics: dict[str, float]) -> None:
        """Stops when so many tasks were skipped that what is trained is no longer what was asked for."""
        seen, skipped = cast(Tensor, self.tasks_seen), cast(Tensor, self.tasks_skipped)
        seen += int(metrics["tasks"] + metrics["skipped"])
        skipped += int(metrics["skipped"])
        if int(seen) >= 10 and int(skipped) > self.settings.max_skipped * int(seen):
            raise UserError(
                f"meta_train: {int(skipped)} of {int(seen)} tasks had an infinite or NaN loss, more than "
                f"meta_train.max_skipped = {self.settings.max_skipped} allows. Lower inner.rate or meta_train.rate, "
                "or set inner.clip"
            )


def shares(items: Sequence[Item], lengths: Sequence[int], processes: int) -> list[list[Item]]:
    """What each process works on: the longest first, each to the process with the least so far (Graham 1969).

    Where two are equal, the first has it.
    """
    taken: list[list[Item]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for index in sorted(range(len(items)), key=lambda one: -lengths[one]):
        least = loads.index(min(loads))
        taken[least].append(items[index])
        loads[least] += lengths[index]
    return taken


def reduced(gradients: Parameters, metrics: dict[str, float]) -> tuple[Parameters, dict[str, float]]:
    """The mean over the tasks of all processes, from each one's mean over its own: one reduction for everything."""
    done = metrics["tasks"]
    counts = [done, metrics["skipped"], *(done * metrics.get(name, 0.0) for name in MEANS)]
    some = next(iter(gradients.values()))
    flat = torch.cat([*(done * value.flatten() for value in gradients.values()), some.new_tensor(counts)])
    torch.distributed.all_reduce(flat)
    total, (done, skipped, *sums) = flat[: -len(counts)], flat[-len(counts) :].tolist()
    sizes = [value.numel() for value in gradients.values()]
    parts = (total / max(1.0, done)).split(sizes)
    means = {name: part.view_as(value) for (name, value), part in zip(gradients.items(), parts, strict=True)}
    found = dict(zip(MEANS, (value / done for value in sums), strict=True)) if done else {}
    return means, {"tasks": done, "skipped": skipped, **found}
