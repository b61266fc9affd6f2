"""Processes that work, one a core: a queue of bounded length before them, time limits, cancellation.

Each worker is a process of its own, so that the event loop never waits for a model, a synthesis that does not end can
be ended, and one that takes the process down takes no other request with it. All here is of the event loop's thread
but :meth:`_Worker.exchange`.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Generic, Protocol, TypeVar

from metaspeech.errors import UserError
from metaspeech.parallel import end_with_parent, single_threaded, worker_count
from metaspeech.serve.problems import Failed, Problem

LOG = logging.getLogger("metaspeech.serve")
Result = TypeVar("Result", covariant=True)
PATIENCE = 3.0  # seconds after which a worker that was asked to stop is killed
_LOOK = 0.05  # seconds between two looks at whether to stop


class Stopped(Exception):
    """The work is not wanted any more."""


class Control:
    """A task's way to whoever waits for it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def check(self) -> None:
        """Raises Stopped when the work is not wanted any more. Tasks call it between sentences and steps."""
        if self._connection.poll(0):
            self._connection.recv()
            raise Stopped

    def progress(self, value: Any) -> None:
        self.check()
        self._connection.send(("progress", value))


class Task(Protocol, Generic[Result]):
    """What a worker does. Travels to the worker, as its result travels back."""

    def run(self, control: Control) -> Result: ...


class Pool:
    """The workers and who waits for them, in the order in which they came."""

    def __init__(self, workers: int, queue: int, wait: float) -> None:
        self.workers, self.queue, self.wait = worker_count(workers), queue, wait
        self.ready = False  # whether a worker has started
        self.ending = False
        self._threads = ThreadPoolExecutor(self.workers, "metaspeech-worker")
        self._idle: list[_Worker] = []
        self._waiters: deque[asyncio.Future[_Worker]] = deque()
        self._all: set[_Worker] = set()
        self._stops: set[threading.Event] = set()  # of the tasks that run
        self._taken = 1.0  # seconds that a task takes, of late

    def start(self) -> None:
        """Starts the processes; they answer when their packages are imported."""
        self._loop = asyncio.get_running_loop()
        for _ in range(self.workers):
            self._add()

    @property
    def waiting(self) -> int:
        return sum(not waiter.done() for waiter in self._waiters)

    @property
    def working(self) -> int:
        return len(self._all) - len(self._idle)

    def retry_after(self) -> float:
        """Seconds after which there is likely room."""
        return 1 + self._taken * self.waiting / self.workers

    async def run(
        self,
        task: Task[Result],
        seconds: float,
        progress: Callable[[Any], None] | None = None,
        patient: bool = False,
    ) -> Result:
        """The result of a task. Cancelling this cancels the task.

        Args:
            task: what to do.
            seconds: that it may take, once begun.
            progress: called in the event loop with what the task reports.
            patient: waits for a worker however long it takes and however many wait.

        Raises:
            Problem: too many wait, or it took too long.
            UserError: as the task raised it.
            Failed: the worker came to grief.
        """
        worker = await self._acquire(patient)
        stop, began = threading.Event(), time.monotonic()

        def report(value: Any) -> None:
            if progress is not None:
                self._loop.call_soon_threadsafe(progress, value)

        future = self._loop.run_in_executor(self._threads, worker.exchange, task, seconds, stop, report)
        future.add_done_callback(lambda _: self._release(worker))
        self._stops.add(stop)
        try:
            kind, value = await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            raise
        finally:
            self._stops.discard(stop)
        if kind == "done":
            self._taken += 0.2 * (time.monotonic() - began - self._taken)
            return value  # type: ignore[no-any-return]
        if kind == "refused":
            raise UserError(value)
        if kind == "stopped" and self.ending:
            raise _ending()
        if kind == "stopped":
            raise Problem(503, f"This took longer than {seconds:g} s and was given up. Ask for less at a time.", 1)
        LOG.error("%s: %s", type(task).__name__, value)
        raise Failed(str(value).strip().splitlines()[-1])

    def end(self, grace: float) -> None:
        """Refuses what comes and what waits, and stops after ``grace`` seconds what runs."""
        self.refuse()
        self._loop.call_later(grace, self._stop_all)

    def _stop_all(self) -> None:
        for stop in self._stops:
            stop.set()

    async def close(self) -> None:
        """Ends all processes, whatever they are doing."""
        self.refuse()
        workers, self._all = list(self._all), set()
        for worker in workers:
            worker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def refuse(self) -> None:
        """From now on nothing is begun; what waits is refused."""
        self.ending = True
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(_ending())

    async def _acquire(self, patient: bool) -> _Worker:
        if self.ending:
            raise _ending()
        if self._idle:
            return self._idle.pop()
        if not patient and self.waiting >= self.queue:
            detail = f"{self.waiting} requests are waiting already. Ask again later."
            raise Problem(429, detail, self.retry_after())
        waiter: asyncio.Future[_Worker] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(None if patient else self.wait):
                return await waiter
        except TimeoutError:
            self._forget(waiter)
            detail = f"No worker was free within {self.wait:g} s. Ask again later."
            raise Problem(503, detail, self.retry_after()) from None
        except asyncio.CancelledError:
            self._forget(waiter)
            raise

    def _forget(self, waiter: asyncio.Future[_Worker]) -> None:
        """One that gave up, perhaps in the very moment in which it was given a worker."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self._release(waiter.result())

    def _release(self, worker: _Worker) -> None:
        if worker not in self._all:  # closed
            return
        if not worker.alive:
            self._all.remove(worker)
            if not self.ending:
                self._add()
            return
        self._free(worker)

    def _free(self, worker: _Worker) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(worker)
                return
        self._idle.append(worker)

    def _add(self) -> None:
        worker = _Worker()
        self._all.add(worker)
        started = self._loop.run_in_executor(self._threads, worker.wait_until_ready)
        started.add_done_callback(lambda done: self._started(worker, done))

    def _started(self, worker: _Worker, done: asyncio.Future[bool]) -> None:
        if worker not in self._all or done.cancelled():
            return
        if done.exception() is None and done.result():
            self.ready = True
            self._free(worker)
            return
        LOG.error("a worker did not start; trying again in 5 s")
        self._all.remove(worker)
        worker.kill()
        if not self.ending:
            self._loop.call_later(5, self._add)


class _Worker:
    """A process and the connection to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), name="metaspeech-worker", daemon=True)
        with single_threaded():
            self._process.start()
        theirs.close()

    @property
    def alive(self) -> bool:
        return self._process.is_alive() and not self._connection.closed

    def wait_until_ready(self) -> bool:
        try:
            return self._connection.poll(300) and self._connection.recv() == "ready"
        except (EOFError, OSError):
            return False

    def exchange(
        self, task: Task[Any], seconds: float, stop: threading.Event, report: Callable[[Any], None]
    ) -> tuple[str, Any]:
        """Gives the task to the process; in a thread. Returns ("done", result), ("refused" or "failed", message), or
        ("stopped", None)."""
        end, asked = time.monotonic() + seconds, 0.0
        try:
            self._connection.send(task)
            while True:
                if self._connection.poll(_LOOK):
                    kind, value = self._connection.recv()
                    if kind != "progress":
                        return ("stopped", None) if kind == "done" and asked else (kind, value)
                    if not asked:
                        report(value)
                now = time.monotonic()
                if not asked and (stop.is_set() or now > end):
                    asked = now
                    self._connection.send("stop")
                if asked and now - asked > PATIENCE:
                    self.kill()
                    return "stopped", None
        except (EOFError, OSError):  # it has ended
            self.kill()
            if asked:
                return "stopped", None
            return "failed", f"the worker ended with status {self._process.exitcode}"

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _work(connection: Connection) -> None:
    """The life of a worker."""
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):  # a signal to the whole group is the parent's to answer
        signal.signal(number, signal.SIG_IGN)
    import torch

    import metaspeech.voices.voice  # noqa: F401 - ready means ready to speak

    torch.set_num_threads(1)
    logging.getLogger("metaspeech").setLevel(logging.ERROR)
    control = Control(connection)
    connection.send("ready")
    while True:
        try:
            task = connection.recv()
            if task == "stop":  # it came after the task's end
                continue
            connection.send(_outcome(task, control))
        except (EOFError, OSError):
            return


def _outcome(task: Task[Any], control: Control) -> tuple[str, Any]:
    try:
        return "done", task.run(control)
    except Stopped:
        return "stopped", None
    except UserError as error:
        return "refused", str(error)
    except Exception:
        return "failed", traceback.format_exc()


def _ending() -> Problem:
    return Problem(503, "The service is ending. Ask again when it has started anew.", 10)
