"""Routes that speak."""

# Annotations are evaluated where they stand, since they hold the limits: no "from __future__ import annotations" here.

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from metaspeech.serve.problems import Problem, refusals
from metaspeech.serve.service import Service, version_of
from metaspeech.serve.tasks import Say
from metaspeech.voices.voice import FASTEST, SLOWEST

_TAG = "speech"
_REFUSALS = refusals(
    _400="The request is no text in UTF-8.",
    _404="There is no such voice.",
    _409="The voice is damaged.",
    _413="The request is too large.",
    _422="The text cannot be spoken, or a value is out of its range.",
    _429="Too many requests wait for a worker.",
    _503="It took too long, no worker was free in time, or the service is ending.",
)


class Picture(BaseModel):
    """Values in time, as bytes."""

    times: int = Field(ge=0)
    rows: int = Field(ge=1)
    values: str = Field(description="Base64 of times x rows bytes, time by time.")


class Sentence(BaseModel):
    """One sentence, or a part of a long one."""

    text: str = Field(description="As it was read: numbers and abbreviations are words.")
    start: float = Field(ge=0, description="Second at which it begins.")
    seconds: float = Field(ge=0, description="With the pause after it.")
    came_to_an_end: bool = Field(description="False: it was cut, the voice does not know such sentences.")
    mel: Picture = Field(description="Log-mel spectrogram: the upper 80 dB, one row a band, the lowest first.")
    alignment: Picture = Field(description="Attention: decoder steps x symbols.")
    symbols: list[str] = Field(description="What the model read: phonemes or characters, and a mark of the end.")


class Spoken(BaseModel):
    """Speech with what can be seen of it."""

    voice: str
    wav: str = Field(description="Base64 of a wav file, 16 bit, mono.")
    rate: int = Field(ge=1, description="Samples a second.")
    seconds: float = Field(ge=0)
    provenance: str = Field(description="What the file says of itself.")
    left_out: list[str] = Field(description="Symbols of the text that nobody can hear, such as emoji.")
    frame_seconds: float = Field(gt=0, description="From one time of a mel to the next.")
    highest_hz: float = Field(gt=0, description="Of the highest band of a mel.")
    sentences: list[Sentence]


def router(service: Service) -> APIRouter:
    limits = service.limits
    routes = APIRouter(prefix="/api/voices/{name}", tags=[_TAG])

    class Speech(BaseModel):
        """What to say, and how."""

        model_config = ConfigDict(extra="forbid")

        text: Annotated[str, Field(min_length=1, max_length=limits.text, description="English.")]
        seed: Annotated[int, Field(ge=0, lt=2**31, description="The same seed says it the same way again.")] = 1
        speed: Annotated[float, Field(ge=SLOWEST, le=FASTEST, description="The pitch stays.")] = 1.0
        vocoder: Annotated[str | None, Field(max_length=20, description="By default the voice's own.")] = None

    async def spoken(request: Request, name: str, speech: Speech, pictures: bool) -> bytes:
        voice = service.find(name)
        task = Say(
            service.store.folder, voice, version_of(service.card(voice)), speech.text, speech.seed, speech.speed,
            speech.vocoder, pictures,
        )  # fmt: skip
        return await _unless_gone(request, asyncio.create_task(service.pool.run(task, limits.time)))

    @routes.post(
        "/speech",
        summary="A text to a wav",
        response_class=Response,
        responses={200: {"content": {"audio/wav": {"schema": {"type": "string", "format": "binary"}}}}, **_REFUSALS},
    )
    async def speech(request: Request, name: str, body: Speech) -> Response:
        """16 bit, mono. The file says in its ICMT chunk that it is synthesised, by which voice and from which text."""
        content = await spoken(request, name, body, pictures=False)
        return Response(content, media_type="audio/wav")

    @routes.post(
        "/spoken",
        summary="A text to a wav with spectrogram and alignment",
        response_class=Response,
        responses={200: {"model": Spoken, "content": {"application/json": {}}}, **_REFUSALS},
    )
    async def speech_with_pictures(request: Request, name: str, body: Speech) -> Response:
        """The same in JSON, for the page."""
        content = await spoken(request, name, body, pictures=True)
        return Response(content, media_type="application/json")

    return routes


async def _unless_gone(request: Request, work: asyncio.Task[bytes]) -> bytes:
    """The result of ``work``, which is cancelled when the client goes."""
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Problem(503, "The client has gone.")  # nobody reads it
        return await work
    finally:
        for task in (work, gone):
            task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
