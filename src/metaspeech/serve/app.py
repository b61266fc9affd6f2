"""The application: routes, guard, workers, put together."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from metaspeech.serve import adaptations, page, problems, speech, state, voices
from metaspeech.serve.guard import Guard
from metaspeech.serve.jobs import Jobs
from metaspeech.serve.limits import Limits
from metaspeech.serve.pool import Pool
from metaspeech.serve.service import Service
from metaspeech.voices.making import package_version
from metaspeech.voices.store import VoiceStore


def create(store: Path, limits: Limits, model_from: Path | None = None) -> FastAPI:
    """The application with its own workers, which live from its start-up to its shutdown. ``app.state.service`` is what
    the routes share.

    Args:
        store: the folder of voices.
        limits: what one may ask.
        model_from: the folder of the meta-model that voices are adapted from; None: it is chosen for each.
    """
    pool = Pool(limits.workers, limits.queue, limits.wait)
    scratch = tempfile.TemporaryDirectory(prefix="metaspeech-serve-")
    jobs = Jobs(pool, limits.adaptations, limits.adapt_time)
    service = Service(VoiceStore(store), limits, pool, jobs, scratch, model_from)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        pool.start()
        try:
            yield
        finally:
            pool.refuse()
            await jobs.close()
            await pool.close()
            scratch.cleanup()

    app = FastAPI(
        title="MetaSpeech",
        description="Voices from a handful of recordings. What it speaks says of itself that it is synthesised.",
        version=package_version(),
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    for part in (speech, voices, adaptations, state):
        app.include_router(part.router(service))
    app.include_router(page.router())
    problems.install(app)
    app.add_middleware(Guard, limits=limits, most_bytes=lambda path: _most_bytes(path, limits))
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


def _most_bytes(path: str, limits: Limits) -> int:
    return limits.upload_bytes if path == "/api/adaptations" else limits.json_bytes


def _described(app: FastAPI) -> dict[str, Any]:
    """OpenAPI, with the form of refusals."""
    if not app.openapi_schema:
        described = FastAPI.openapi(app)
        schemas = described["components"]["schemas"]
        schemas["Problem"] = problems.SCHEMA
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = described
    return app.openapi_schema
