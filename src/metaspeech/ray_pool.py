"""One function over many items on the machines of a Ray cluster: what parallel.py is on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from metaspeech.cluster import Cluster, connected, first_line
from metaspeech.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def ray_pool(shared: Sequence[Path], read: Sequence[Path] = (), address: str = "") -> Iterator[RayPool]:
    """Tasks may be given to it inside of the block. Arguments and errors: :func:`metaspeech.cluster.connected`."""
    with connected(address, shared, read) as cluster:
        yield RayPool(cluster)


class RayPool:
    """Tasks of one CPU each. Ray runs those of a lost machine again on another, so a task must bear being run twice."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def worker_count(self, workers: int) -> int:
        """The number of tasks at a time that a params value stands for: 0 is one a CPU of the cluster."""
        return workers or self._cluster.cpus

    def ordered_map(
        self, function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int = 2
    ) -> Iterator[Result]:
        """``map`` over tasks, results in the order of ``items``; at most ``ahead`` items a worker wait to be taken.

        Raises:
            UserError: a task's process was killed again and again.
            Exception: what ``function`` raises.
        """
        import ray

        task = ray.remote(function).options(num_cpus=1)
        waiting: list[Any] = []
        try:
            for item in items:
                waiting.append(task.remote(item))
                if len(waiting) >= max(1, workers) * ahead:
                    yield ray.get(waiting.pop(0))
            while waiting:
                yield ray.get(waiting.pop(0))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise UserError(
                f"Ray: a task was lost with its process or machine, and again when repeated: {first_line(error)}. "
                "What is finished is kept: run it again"
            ) from None
        finally:
            for one in waiting:
                ray.cancel(one)
