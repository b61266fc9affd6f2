"""Several processes: one function over many items, and processes that end when their parent does."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def worker_count(workers: int) -> int:
    """The number of processes that a params value stands for: 0 is one a core."""
    if workers:
        return workers
    if hasattr(os, "sched_getaffinity"):  # Linux: the cores that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int = 2
) -> Iterator[Result]:
    """``map`` over spawned processes of one thread each; results in the order of ``items``.

    At most ``ahead`` items a process wait to be taken, so memory does not grow with their number. With one worker
    everything runs in this process. ``function`` must be importable, and a script that calls this needs the
    ``if __name__ == "__main__"`` guard.
    """
    with Workers(workers, ahead) as pool:
        yield from pool.map(function, items)


class Workers:
    """The processes of :func:`ordered_map`, for several maps one after the other."""

    def __init__(self, workers: int, ahead: int = 2) -> None:
        self.workers, self.ahead = workers, ahead
        self._stack = ExitStack()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        if self.workers > 1:
            self._stack.enter_context(single_threaded())
            context = multiprocessing.get_context("spawn")
            executor = ProcessPoolExecutor(self.workers, context, initializer=end_with_parent)
            self._pool = self._stack.enter_context(executor)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of ``items``."""
        if self._pool is None:
            yield from map(function, items)
            return
        waiting: list[Future[Result]] = []
        try:
            for item in items:
                waiting.append(self._pool.submit(function, item))
                if len(waiting) >= self.workers * self.ahead:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Two busy processes of two OpenMP threads each run many times slower than two of one: their threads spin."""
    before = {name: os.environ.get(name) for name in _THREAD_LIMITS}
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def end_with_parent() -> None:
    """From now on this process, which multiprocessing started, ends with its parent, even if that is killed.

    Linux itself kills it when the thread that started it has ended, whatever it is doing; elsewhere a thread of it
    watches the parent.
    """
    parent = multiprocessing.parent_process()
    if sys.platform != "linux" or ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL):
        _watch_parent()
    elif parent and os.getppid() != parent.pid:  # it ended before the call
        os.kill(os.getpid(), signal.SIGKILL)


def _watch_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
