"""Routes about the voices that there are."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from metaspeech.errors import UserError
from metaspeech.serve.problems import Problem, refusals
from metaspeech.serve.service import Service


class Summary(BaseModel):
    """One voice in the list."""

    name: str
    created: str = Field(description="ISO 8601, UTC.")
    consent: str = Field(description="The statement, in the words of who gave it.")
    recordings: int = Field(ge=0, description="That it was made from.")
    steps: int = Field(ge=0, description="Of adaptation.")
    algorithm: str
    meta_model: str = Field(description="sha256 of the weights that it was adapted from.")
    vocoders: list[str] = Field(description="That it can speak through, its own first.")
    bytes: int = Field(ge=0)


class Voices(BaseModel):
    """All voices."""

    voices: list[Summary]
    damaged: list[str] = Field(description="Names of voices that cannot be read.")


class Details(Summary):
    """One voice with its whole voice.json."""

    card: dict[str, Any]


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/api/voices", tags=["voices"])

    @routes.get("", summary="All voices", responses=refusals())
    async def list_voices() -> Voices:
        voices, damaged = await asyncio.to_thread(_listed, service)
        return Voices(voices=voices, damaged=damaged)

    @routes.get(
        "/{name}",
        summary="Where a voice comes from",
        responses=refusals(_404="There is no such voice.", _409="The voice is damaged."),
    )
    async def show_voice(name: str) -> Details:
        voice = service.find(name)
        return Details(**service.described(voice), card=asdict(service.card(voice)))

    @routes.delete(
        "/{name}",
        status_code=204,
        summary="Remove a voice for good",
        response_class=Response,
        responses=refusals(
            _404="There is no such voice.", _409="It cannot be removed now.", _422="It cannot be removed."
        ),
    )
    async def delete_voice(name: str) -> Response:
        voice = service.find(name)
        service.jobs.check_name(voice)
        try:
            await asyncio.to_thread(service.store.delete, voice)
        except (UserError, FileNotFoundError):  # another request was faster
            raise Problem(404, "The voice was removed by somebody else.") from None
        except OSError as error:
            raise Problem(409, f"The voice cannot be removed: {error.strerror}.") from None
        return Response(status_code=204)

    return routes


def _listed(service: Service) -> tuple[list[Summary], list[str]]:
    voices, damaged = [], []
    for name in service.store.names():
        try:
            voices.append(Summary(**service.described(name)))
        except (Problem, UserError, OSError) as error:
            if not (isinstance(error, Problem) and error.status_code == 404):
                damaged.append(name)
    return voices, damaged
