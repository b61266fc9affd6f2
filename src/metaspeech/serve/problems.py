"""Refusals: one form of JSON (RFC 9457, application/problem+json) that says what is wrong and what to do."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from metaspeech.errors import UserError
from metaspeech.voices.names import shown

LOG = logging.getLogger("metaspeech.serve")
MEDIA_TYPE = "application/problem+json"
SCHEMA = {
    "title": "Problem",
    "description": "Why a request was refused, and what to do.",
    "type": "object",
    "required": ["status", "title", "detail"],
    "properties": {
        "status": {"type": "integer", "description": "The HTTP status."},
        "title": {"type": "string", "description": "The status in words."},
        "detail": {"type": "string", "description": "What was wrong, and what to do."},
    },
}
EVERYWHERE = {
    403: "The request comes from another site.",
    408: "The request did not arrive in time.",
    421: "The request is for another host.",
    429: "Too many requests at the same time.",
}
_OWN_WORDS = {413: "Content Too Large", 422: "Unprocessable Content"}


class Problem(HTTPException):
    """Ends a request with a status and a message."""

    def __init__(self, status: int, detail: str, retry_after: float | None = None) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(max(1, round(retry_after)))}
        super().__init__(status, detail, headers)

    def __str__(self) -> str:
        return str(self.detail)

    def response(self) -> Response:
        return problem(self.status_code, self.detail, self.headers)


class Failed(Exception):
    """A worker ended, or a task raised what nobody expected; the log says more."""


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    title = _OWN_WORDS.get(status) or HTTPStatus(status).phrase
    content = json.dumps({"status": status, "title": title, "detail": detail})
    return Response(content, status, dict(headers or {}), MEDIA_TYPE)


def refusals(**described: str) -> dict[int | str, dict[str, Any]]:
    """For a route's ``responses``: ``refusals(_404="There is no such voice.")`` and those of every route."""
    own = {int(name.removeprefix("_")): text for name, text in described.items()}
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: dict[int | str, dict[str, Any]] = {}
    for status, text in sorted((EVERYWHERE | own).items()):
        found[status] = {"description": text, "content": content}
        if status in (429, 503):
            header = {"description": "Seconds after which to ask again.", "schema": {"type": "integer", "minimum": 1}}
            found[status]["headers"] = {"Retry-After": header}
    return found


def install(app: FastAPI) -> None:
    """Every error of the application becomes a problem."""

    async def own(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def user(_: Request, error: Exception) -> Response:
        return problem(422, str(error))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem(422, "; ".join(map(_sentence, error.errors()[:5])))

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, _http_detail(error), error.headers)

    async def failed(_: Request, error: Exception) -> Response:
        return problem(500, "Something unexpected went wrong; the service's log says what. Ask again.")

    async def any_other(_: Request, error: Exception) -> Response:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return problem(503, "The disk is full: free some space, then ask again.", {"Retry-After": "60"})
        LOG.error("unexpected", exc_info=error)
        return problem(500, "Something unexpected went wrong; the service's log says what.")

    app.add_exception_handler(Problem, own)
    app.add_exception_handler(Failed, failed)
    app.add_exception_handler(UserError, user)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(OSError, any_other)
    app.add_exception_handler(Exception, any_other)


def _sentence(error: Mapping[str, Any]) -> str:
    """Without the value that was sent: it may be long, or no text at all."""
    place = ".".join(shown(str(part)).strip("'") for part in error["loc"])
    return f"{place}: {shown(str(error['msg']), 200).strip(chr(39))}"


def _http_detail(error: HTTPException) -> str:
    if error.status_code == 404:
        return "There is nothing at this address. /openapi.json lists what there is."
    if error.status_code == 405:
        return f"This address does not know that method. It knows {(error.headers or {}).get('Allow', 'others')}."
    return str(error.detail)
