"""The workers of the service: order, time, cancellation, and workers that come to grief. With tasks that only wait."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass

import pytest

from metaspeech.errors import UserError
from metaspeech.serve import pool as module
from metaspeech.serve.pool import Pool
from metaspeech.serve.problems import Failed, Problem


@dataclass(frozen=True)
class Nap:
    """Looks whether to stop as long as it waits; a deep one does not."""

    seconds: float
    deep: bool = False

    def run(self, control):
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            if not self.deep:
                control.progress(os.getpid())
            time.sleep(0.02)
        return os.getpid()


@dataclass(frozen=True)
class Raise:
    error: Exception | None

    def run(self, control):
        if self.error is None:
            os._exit(3)
        raise self.error


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def pool(runner):
    """One worker, one that may wait."""

    async def started():
        pool = Pool(1, queue=1, wait=60)
        pool.start()
        return pool

    pool = runner.run(started())
    yield pool
    runner.run(pool.close())
    assert not pool._all


def test_results_come_in_order_and_what_does_not_fit_is_refused(runner, pool):
    async def trial():
        told = []
        first = asyncio.create_task(pool.run(Nap(1), 60, told.append))
        while not told:
            await asyncio.sleep(0.02)
        second = asyncio.create_task(pool.run(Nap(0), 60))
        await asyncio.sleep(0.05)
        with pytest.raises(Problem) as refused:
            await pool.run(Nap(0), 60)
        assert refused.value.status_code == 429
        assert refused.value.headers["Retry-After"]
        assert not second.done()
        assert await first == await second == told[0]
        assert pool.working == 0

    runner.run(trial())


def test_what_is_cancelled_frees_its_worker(runner, pool):
    async def trial():
        worker = await pool.run(Nap(0), 60)
        told = []
        task = asyncio.create_task(pool.run(Nap(600), 600, told.append))
        while not told:
            await asyncio.sleep(0.02)
        waiting = asyncio.create_task(pool.run(Nap(600), 600))
        await asyncio.sleep(0.05)
        waiting.cancel()
        task.cancel()
        assert await pool.run(Nap(0), 60) == worker

    runner.run(trial())


def test_time_is_limited(runner, pool):
    async def trial():
        with pytest.raises(Problem, match=r"longer than 0\.2 s"):
            await pool.run(Nap(600), 0.2)

    runner.run(trial())


def test_one_that_does_not_stop_is_replaced(runner, pool, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.2)

    async def trial():
        worker = await pool.run(Nap(0), 60)
        with pytest.raises(Problem, match=r"longer than 0\.2 s"):
            await pool.run(Nap(600, deep=True), 0.2)
        assert await pool.run(Nap(0), 60) != worker

    runner.run(trial())


def test_errors_of_users_are_theirs_and_others_are_not_shown(runner, pool, caplog):
    async def trial():
        with pytest.raises(UserError, match="a comma"):
            await pool.run(Raise(UserError("a comma is missing")), 60)
        with pytest.raises(Failed):
            await pool.run(Raise(ZeroDivisionError()), 60)
        assert "ZeroDivisionError" in caplog.text
        with pytest.raises(Failed, match="ended with status 3"):
            await pool.run(Raise(None), 60)
        assert await pool.run(Nap(0), 60)

    runner.run(trial())


def test_one_that_waits_too_long_is_told(runner, pool, monkeypatch):
    monkeypatch.setattr(pool, "wait", 0.1)

    async def trial():
        told = []
        task = asyncio.create_task(pool.run(Nap(600), 600, told.append))
        while not told:
            await asyncio.sleep(0.02)
        with pytest.raises(Problem, match=r"within 0\.1 s") as refused:
            await pool.run(Nap(0), 60)
        assert refused.value.status_code == 503
        task.cancel()

    runner.run(trial())
