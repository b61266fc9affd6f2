"""Meta-training by processes on a Ray cluster: Ray Train's DDP around the trainer that one machine uses.

Each process gets the learner, the episodes and the settings, takes its share of the tasks as :class:`MetaLearner` says,
and keeps checkpoints in the folder that all nodes see. When a process is lost, Ray starts all of them again and they go
on from the last checkpoint, to the same parameters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch

from metaspeech.cluster import Cluster, connected, first_line
from metaspeech.config import Params
from metaspeech.data.module import StepModule
from metaspeech.errors import UserError
from metaspeech.files import replacing
from metaspeech.training.alignments import LogImage
from metaspeech.training.compute import set_up_torch
from metaspeech.training.meta_learner import MetaLearner
from metaspeech.training.trainer import LogMetrics, fit, forget_other_partials, make_trainer

if TYPE_CHECKING:
    from ray.util.queue import Queue

RESTARTS = 5  # of all processes, after one was lost
FINAL = "final"  # as the name of a message: Lightning's metrics at the end
QUIET = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "0", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120"}


@dataclass(frozen=True)
class Training:
    """What every process is given."""

    params: Params
    learner: MetaLearner
    module: StepModule
    partial: Path
    folder: Path  # that other paths are relative to
    processes: int
    callbacks: Sequence[pl.Callback]
    options: dict[str, Any]  # of Lightning's Trainer
    send: Send


@dataclass(frozen=True)
class Send:
    """Hands what the first process has to say to the process that started the training."""

    queue: Queue

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.queue.put(("metrics", (values, step)))

    def image(self, image: np.ndarray, key: str, step: int) -> None:
        self.queue.put(("image", (np.ascontiguousarray(image), key, step)))

    def final(self, values: dict[str, float]) -> None:
        self.queue.put((FINAL, (values,)))


def fit_on_ray(
    params: Params,
    learner: MetaLearner,
    module: StepModule,
    partial: Path,
    log: LogMetrics,
    log_image: LogImage,
    further: Callable[[LogImage], Sequence[pl.Callback]],
    address: str = "",
    **options: Any,
) -> dict[str, float]:
    """Trains with ``params.devices`` processes of the cluster, or goes on where an interrupted run left off.

    Args:
        learner: has the trained values afterwards.
        partial: for checkpoints; all nodes must see it.
        further: makes callbacks that hand images to the given function.
        address: as :func:`~metaspeech.cluster.connected` takes it.
        options: of Lightning's Trainer.

    Returns:
        The metrics at the end.

    Raises:
        UserError: of the cluster, or of the training itself; or processes were lost too often.
    """
    forget_other_partials(partial)
    with connected(address, [partial]) as cluster, _relay({"metrics": log, "image": log_image}) as (queue, final):
        gpus = _gpus(params, cluster)
        send = Send(queue)
        training = Training(
            params, learner.cpu(), module, partial.resolve(), Path.cwd(), params.devices,
            list(further(send.image)), options, send,
        )  # fmt: skip
        _stopped(partial).unlink(missing_ok=True)
        failure = _run(training, gpus)
    if _stopped(partial).exists():
        raise UserError(_stopped(partial).read_text(encoding="utf-8"))
    if failure:
        raise UserError(
            f"Ray: training processes were lost {RESTARTS + 1} times, the last time so: {failure}. The last checkpoint "
            f"is kept in {partial}: run it again"
        )
    saved = torch.load(partial / "last.ckpt", map_location="cpu", weights_only=True)
    learner.load_state_dict(saved["state_dict"])
    return final


def _gpus(params: Params, cluster: Cluster) -> bool:
    """Whether each process gets one. Raises UserError where the cluster can never run them."""
    gpus = params.device != "cpu" and cluster.gpus > 0
    offered, unit = (cluster.gpus, "GPUs") if gpus or params.device == "cuda" else (cluster.cpus, "CPUs")
    if params.devices > offered:
        raise UserError(
            f"params.yaml: devices: {params.devices} processes need as many {unit}, and the cluster has "
            f"{cluster.described()}. Lower devices, or add nodes"
        )
    return gpus


def _run(training: Training, gpus: bool) -> str:
    """Returns why it has failed; empty: it has not."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    os.environ.update(QUIET)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"training": training},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=training.processes, use_gpu=gpus, resources_per_worker={"CPU": 1} | ({"GPU": 1} if gpus else {})
        ),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(training.partial / "ray"),
            failure_config=ray.train.FailureConfig(max_failures=RESTARTS),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        return first_line(error)
    return ""


def _work(config: dict[str, Any]) -> None:
    """What a process does."""
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    training: Training = config["training"]
    stopped = _stopped(training.partial)
    if stopped.exists():  # Ray starts processes again whatever has ended them
        return
    os.chdir(training.folder)
    set_up_torch(training.params)
    if training.processes > 1:
        torch.set_num_threads(1)  # as without Ray
    ddp = RayDDPStrategy(broadcast_buffers=False)  # type: ignore[no-untyped-call]
    environment = RayLightningEnvironment()  # type: ignore[no-untyped-call]
    trainer = make_trainer(
        training.params, training.module.epochs, training.send.metrics, training.partial, 1, training.callbacks,
        strategy=ddp, plugins=[environment], **training.options,
    )  # fmt: skip
    try:
        fit(trainer, training.learner, training.module, training.partial)
    except UserError as error:
        with replacing(stopped) as path:
            path.write_text(str(error), encoding="utf-8")
        if training.processes > 1:  # the others may wait for this one, until Ray ends them
            raise
        return
    if trainer.is_global_zero:
        training.send.final({name: float(value) for name, value in trainer.callback_metrics.items()})


def _stopped(partial: Path) -> Path:
    """Holds what the training itself has objected to."""
    return partial / "stopped.txt"


@contextmanager
def _relay(sinks: dict[str, Callable[..., None]]) -> Iterator[tuple[Queue, dict[str, float]]]:
    """A queue on this machine whose messages are handed to the sinks here, and the metrics at the end."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    final: dict[str, float] = {}
    sinks = sinks | {FINAL: final.update}

    def listen() -> None:
        for name, arguments in iter(queue.get, None):
            sinks[name](*arguments)

    listener = Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield queue, final
    finally:
        queue.put(None)
        listener.join()
