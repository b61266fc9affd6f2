"""Adaptations from the queue to the voice, whoever looks at them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from metaspeech.errors import UserError
from metaspeech.serve.pool import Pool
from metaspeech.serve.problems import Failed, Problem
from metaspeech.serve.tasks import Adapt

LOG = logging.getLogger("metaspeech.serve")
KEPT = 50  # finished ones that can still be asked about
UNFINISHED = ("queued", "checking", "adapting")


@dataclass
class Job:
    """One adaptation, as its address shows it."""

    id: str
    voice: str
    state: str = "queued"
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    message: str = ""
    model: str = ""
    step: int = 0
    steps: int = 0
    best: int = 0
    losses: list[float] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return self.state not in UNFINISHED

    def update(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, value)


class Jobs:
    """All of them, the oldest first. So many run at once that a worker stays free to speak, where there are several."""

    def __init__(self, pool: Pool, most: int, seconds: float) -> None:
        self._pool, self._most, self._seconds = pool, most, seconds
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore(max(1, pool.workers - 1))

    def all(self) -> list[Job]:
        return list(self._jobs.values())

    def find(self, name: str) -> Job:
        """Raises Problem when there is none of this id."""
        if name not in self._jobs:
            raise Problem(404, "There is no such adaptation, or it ended long ago.")
        return self._jobs[name]

    def check_room(self) -> None:
        """Raises Problem when too many are unfinished."""
        if sum(not job.finished for job in self._jobs.values()) >= self._most:
            raise Problem(429, f"{self._most} adaptations are waiting or running. Ask again later.", 30)

    def check_name(self, voice: str) -> None:
        """Raises Problem when one is making a voice of this name."""
        if any(job.voice == voice and not job.finished for job in self._jobs.values()):
            raise Problem(409, f"Voice '{voice}' is being made. Wait, or choose another name.")

    def start(self, task: Adapt) -> Job:
        """Takes over the folder of recordings, which is removed at the end whatever it is."""
        job = Job(secrets.token_urlsafe(12), task.name)
        self._jobs[job.id] = job
        self._tasks[job.id] = asyncio.create_task(self._run(job, task))
        finished = [one.id for one in self._jobs.values() if one.finished]
        for old in finished[: max(0, len(finished) - KEPT)]:
            del self._jobs[old]
        return job

    async def cancel(self, job: Job) -> None:
        """Ends it, where it has not ended."""
        if task := self._tasks.get(job.id):
            task.cancel()
            await asyncio.wait([task])

    async def close(self) -> None:
        for job in self.all():
            await self.cancel(job)

    async def _run(self, job: Job, task: Adapt) -> None:
        def progress(values: dict[str, Any]) -> None:
            if not job.finished:
                job.update(values)

        try:
            async with self._turn:
                result = await self._pool.run(task, self._seconds, progress, patient=True)
            job.update(result)
        except asyncio.CancelledError:
            job.update({"state": "cancelled", "message": "Cancelled. Nothing was kept."})
        except (UserError, Problem) as error:
            job.update({"state": "failed", "message": str(error)})
        except Failed:
            job.update({"state": "failed", "message": "Something unexpected went wrong; the service's log says what."})
        finally:
            self._tasks.pop(job.id, None)
            await asyncio.to_thread(shutil.rmtree, task.recordings, True)
