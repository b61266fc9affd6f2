"""Routes that make voices: an adaptation is a job with an address of its own."""

# Annotations are evaluated where they stand, since they hold the limits: no "from __future__ import annotations" here.

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, Response, UploadFile
from pydantic import BaseModel, Field, StringConstraints

from metaspeech.errors import UserError
from metaspeech.serve.jobs import Job
from metaspeech.serve.limits import LONGEST_RECORDED_TEXT, LONGEST_STATEMENT
from metaspeech.serve.problems import Problem, refusals
from metaspeech.serve.service import Service
from metaspeech.serve.tasks import Adapt
from metaspeech.voices.making import LEAST_CONSENT, check_consent
from metaspeech.voices.names import checked_name

_ONE = refusals(_404="There is no such adaptation.")
_SUFFIXES = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}  # by how the content begins


class Check(BaseModel):
    """What was found of one recording."""

    recording: int = Field(ge=0, description="Its place among those that were sent.")
    state: Literal["good", "doubtful", "refused"]
    reason: str
    advice: str
    seconds: float = Field(ge=0)


class Adaptation(BaseModel):
    """A voice in the making."""

    id: str
    voice: str
    state: Literal["queued", "checking", "adapting", "done", "failed", "cancelled"]
    created: str = Field(description="ISO 8601, UTC.")
    message: str = Field(description="Why it failed or stopped, and what to do.")
    model: str = Field(description="What it is adapted from, and why.")
    step: int = Field(ge=0)
    steps: int = Field(ge=0, description="At most so many.")
    best: int = Field(ge=0, description="The step that the voice would be of.")
    losses: list[float] = Field(description="After 0, 1, 2 ... steps, on the recording that is held back.")
    checks: list[Check]


class Adaptations(BaseModel):
    """All that are not forgotten, the oldest first."""

    adaptations: list[Adaptation]


def router(service: Service) -> APIRouter:
    limits, jobs = service.limits, service.jobs
    routes = APIRouter(prefix="/api/adaptations", tags=["adaptations"])
    Text = Annotated[str, StringConstraints(max_length=LONGEST_RECORDED_TEXT)]

    @routes.post(
        "",
        status_code=202,
        summary="Make a voice from recordings",
        responses={
            **refusals(
                _400="The form cannot be read.",
                _409="There is such a voice, or one is being made.",
                _413="The request is too large.",
                _422="The name, statement, recordings or texts are not usable.",
                _429="Too many adaptations wait.",
                _503="The service is ending, or its disk is full.",
            ),
            202: {"headers": {"Location": {"description": "Of the job.", "schema": {"type": "string"}}}},
        },
    )
    async def adapt(
        response: Response,
        name: Annotated[str, Form(max_length=100, description="Of the voice: 1 to 40 letters, digits, '-' or '_'.")],
        consent: Annotated[
            str,
            Form(
                min_length=LEAST_CONSENT,
                max_length=LONGEST_STATEMENT,
                description="Whose voice it is, and that they agree. It is kept with the voice.",
            ),
        ],
        recordings: Annotated[list[UploadFile], File(description="wav, flac or ogg; any rate.")],
        texts: Annotated[list[Text], Form(description="What each of the recordings says, in their order.")],
        overwrite: Annotated[bool, Form(description="Take the place of a voice of the same name.")] = False,
        keep_doubtful: Annotated[bool, Form(description="Use recordings that the checks doubt.")] = False,
        check_texts: Annotated[bool, Form(description="Listen whether recordings say their texts.")] = True,
    ) -> Adaptation:
        """The recordings are removed when the job ends; the voice holds neither them nor their texts."""
        voice, statement = checked_name(name), check_consent(consent)
        if len(recordings) != len(texts):
            raise Problem(422, f"{len(recordings)} recordings and {len(texts)} texts: each recording needs its own.")
        if not recordings or len(recordings) > limits.recordings:
            raise Problem(422, f"{len(recordings)} recordings: expected 1 to {limits.recordings}. Choose the best.")
        _check_free(service, voice, overwrite)
        folder = Path(tempfile.mkdtemp(dir=service.scratch.name))
        try:
            for number, (recording, text) in enumerate(zip(recordings, texts, strict=True)):
                await asyncio.to_thread(_store, folder, number, recording, text)
            _check_free(service, voice, overwrite)  # others came meanwhile
            if service.pool.ending:
                raise Problem(503, "The service is ending. Ask again when it has started anew.", 10)
            task = Adapt(
                service.store.folder, folder, voice, statement, service.model_from, limits.recording_seconds,
                check_texts, keep_doubtful, overwrite,
            )  # fmt: skip
            job = jobs.start(task)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        response.headers["Location"] = f"/api/adaptations/{job.id}"
        return _shown(job)

    @routes.get("", summary="All adaptations", responses=refusals())
    async def list_adaptations() -> Adaptations:
        return Adaptations(adaptations=[_shown(job) for job in jobs.all()])

    @routes.get("/{id}", summary="How far an adaptation is", responses=_ONE)
    async def show_adaptation(id: str) -> Adaptation:
        return _shown(jobs.find(id))

    @routes.delete("/{id}", summary="Cancel an adaptation", responses=_ONE)
    async def cancel_adaptation(id: str) -> Adaptation:
        """Of one that has ended nothing changes."""
        job = jobs.find(id)
        await jobs.cancel(job)
        return _shown(job)

    return routes


def _check_free(service: Service, voice: str, overwrite: bool) -> None:
    service.jobs.check_room()
    service.jobs.check_name(voice)
    try:
        service.store.check_free(voice, overwrite)
    except UserError:
        raise Problem(409, f"There is a voice '{voice}' already. Choose another name, or overwrite it.") from None


def _store(folder: Path, number: int, recording: UploadFile, text: str) -> None:
    """Under a name of our own; the client's own is not looked at."""
    begin = recording.file.read(4)
    recording.file.seek(0)
    path = folder / f"{number:03d}{_SUFFIXES.get(begin, '.wav')}"
    with path.open("wb") as out:
        shutil.copyfileobj(recording.file, out)
    path.with_suffix(".txt").write_text(text, encoding="utf-8", errors="replace")


def _shown(job: Job) -> Adaptation:
    return Adaptation(**vars(job))
