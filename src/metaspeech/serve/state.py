"""Routes about the service itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from metaspeech.serve.problems import Problem, refusals
from metaspeech.serve.service import Service

PHRASES = ("young dog ran home", "boy watched now", "king pushed house", "goat found house", "boy made bath")


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Ready(BaseModel):
    """It can speak."""

    status: Literal["ready"]
    workers: int = Field(ge=1)
    working: int = Field(ge=0, description="Workers that are busy.")
    waiting: int = Field(ge=0, description="Requests that wait for one.")
    adaptations: int = Field(ge=0, description="That wait or run.")


class About(BaseModel):
    """What one may ask of the service."""

    limits: dict[str, Any]
    phrases: list[str] = Field(description="Sentences to read aloud for a voice.")


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["service"])

    @routes.get("/health", summary="Whether the process answers", responses=refusals())
    async def health() -> Health:
        return Health(status="ok")

    @routes.get(
        "/ready",
        summary="Whether it can speak",
        responses=refusals(_503="No worker has started yet, or the service is ending."),
    )
    async def ready() -> Ready:
        pool = service.pool
        if not pool.ready or pool.ending:
            detail = "The service is ending." if pool.ending else "The workers are starting, which takes some seconds."
            raise Problem(503, detail, 2)
        unfinished = sum(not job.finished for job in service.jobs.all())
        return Ready(
            status="ready", workers=pool.workers, working=pool.working, waiting=pool.waiting, adaptations=unfinished
        )

    @routes.get("/api/about", summary="Limits, and sentences to read aloud", responses=refusals())
    async def about() -> About:
        return About(limits=asdict(service.limits), phrases=list(PHRASES))

    return routes
