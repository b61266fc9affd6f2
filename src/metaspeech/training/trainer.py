"""One way to set Lightning up: deterministic, resumable at epoch boundaries, metrics to the tracker."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from threading import Thread
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy
from torch.multiprocessing.spawn import ProcessRaisedException

from metaspeech.config import Params
from metaspeech.data.module import StepModule
from metaspeech.errors import UserError
from metaspeech.parallel import end_with_parent
from metaspeech.training.compute import chosen_device

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {"float32": "32-true", "bfloat16": "bf16-mixed"}

LogMetrics = Callable[[dict[str, float], int], None]


class ForkedProcesses(DDPStrategy):
    """Training in forked processes, none of which outlives the one that started them."""

    def __init__(self) -> None:
        super().__init__(start_method="fork", broadcast_buffers=False)  # they are the same everywhere

    def setup_environment(self) -> None:
        """The first thing that a new process is asked to do."""
        end_with_parent()
        super().setup_environment()


class TrackerLogger(Logger):
    """Hands Lightning's metrics to the tracker.

    ``relayed``: training is in forked processes, of which the first sends its metrics to this one.
    """

    def __init__(self, log: LogMetrics, relayed: bool = False) -> None:
        super().__init__()
        self._log = log
        self._relay: SimpleQueue[Any] | None = multiprocessing.get_context("fork").SimpleQueue() if relayed else None

    @property
    def name(self) -> str:
        return "tracker"

    @property
    def version(self) -> None:
        return None

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        if self._relay:
            self._relay.put((values, step or 0))
        else:
            self._log(values, step or 0)

    @contextmanager
    def relaying(self) -> Iterator[None]:
        """Around training in other processes: what they send is logged here."""
        relay = self._relay
        if relay is None:
            yield
            return
        listener = Thread(target=lambda: [self._log(*message) for message in iter(relay.get, None)])
        listener.start()
        try:
            yield
        finally:
            relay.put(None)
            listener.join()

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Parameters reach the tracker through the stage, not through Lightning."""


def make_trainer(
    params: Params,
    epochs: int,
    log: LogMetrics,
    partial: Path | None,
    devices: int = 1,
    further: Sequence[pl.Callback] = (),
    **options: Any,
) -> pl.Trainer:
    """A Trainer that keeps its last checkpoint in ``partial``.

    With several ``devices`` it trains in as many forked processes. On CPUs they have a thread each: threads of OpenMP
    do not survive a fork.
    """
    if devices > 1:
        torch.set_num_threads(1)
        options["strategy"] = ForkedProcesses()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # tips and lists of absent devices
    warnings.filterwarnings(
        "ignore", message=".*(does not have many workers|LeafSpec|exists and is not empty|sync_dist=True).*"
    )
    callbacks: list[pl.Callback] = [TQDMProgressBar(refresh_rate=1), *further]
    if partial:
        callbacks.append(ModelCheckpoint(dirpath=partial, filename="last", enable_version_counter=False))
    return pl.Trainer(
        accelerator="gpu" if chosen_device(params).type == "cuda" else "cpu",
        devices=devices,
        precision=PRECISIONS[params.precision],
        max_epochs=epochs,
        logger=TrackerLogger(log, relayed=devices > 1),
        callbacks=callbacks,
        enable_checkpointing=partial is not None,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        inference_mode=False,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        **options,
    )


def fit(trainer: pl.Trainer, learner: pl.LightningModule, module: StepModule, partial: Path) -> None:
    """Trains from the start, or from where an interrupted run of the same configuration left off."""
    forget_other_partials(partial)
    checkpoint = partial / "last.ckpt"
    resumed = checkpoint if checkpoint.exists() else None
    if resumed:
        print(f"Resuming from {resumed}", flush=True)
    logger = cast(TrackerLogger, trainer.logger)
    try:
        with logger.relaying():
            trainer.fit(learner, datamodule=module, ckpt_path=resumed, weights_only=True if resumed else None)
    except ProcessRaisedException as error:
        raise _of_process(error) from None
    if trainer.interrupted:
        raise KeyboardInterrupt


def _of_process(error: ProcessRaisedException) -> Exception:
    """What a process raised, of which only the text arrives."""
    _, found, message = str(error).rpartition(f"{UserError.__module__}.{UserError.__name__}: ")
    return UserError(message.strip()) if found else error


def forget_other_partials(partial: Path) -> None:
    """Removes what interrupted runs of other configurations left beside ``partial``."""
    for other in partial.parent.glob("partial-*"):
        if other != partial:
            print(f"Removing {other}: it belongs to another configuration", flush=True)
            shutil.rmtree(other)


def finish(partial: Path) -> None:
    """Training is complete and its result saved: the partial checkpoint is no longer needed."""
    shutil.rmtree(partial, ignore_errors=True)
