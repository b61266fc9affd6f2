"""Before the application: who may ask, how much at a time; and headers for every answer. Plain ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metaspeech.serve.limits import Limits
from metaspeech.serve.problems import Problem
from metaspeech.voices.names import shown

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:; "
        "img-src 'self' data:; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses what comes for another host (DNS rebinding), from another site, is too large, too slow or too much."""

    def __init__(self, app: ASGIApp, limits: Limits, most_bytes: Callable[[str], int]) -> None:
        self._app, self._limits, self._most_bytes = app, limits, most_bytes
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        self._open += 1
        try:
            limit = self._most_bytes(scope["path"])
            self._check(Headers(scope=scope), limit)
            await self._app(scope, _Bounded(receive, limit, self._limits.receive), answer)
        except Problem as refused:
            await refused.response()(scope, receive, answer)
        finally:
            self._open -= 1

    def _check(self, headers: Headers, limit: int) -> None:
        host = headers.get("host", "")
        if _without_port(host) not in LOOPBACK:
            raise Problem(421, f"This service answers for {', '.join(sorted(LOOPBACK))}, not for {shown(host)}.")
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        navigated = headers.get("sec-fetch-mode") == "navigate" and origin is None
        if (origin is not None and origin != f"http://{host}") or (
            site not in ("same-origin", "none") and not navigated
        ):
            raise Problem(403, "This service is for its own page and for programs, not for pages of other sites.")
        if self._open > self._limits.requests:
            detail = f"{self._limits.requests} requests are open. Ask again when some of them are answered."
            raise Problem(429, detail, retry_after=1)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise _too_large(limit)


class _Bounded:
    """A ``receive`` that ends with a problem when the body is too large, whatever it says of itself, or too slow."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive, self._limit, self._received, self._whole = receive, limit, 0, False
        self._end = asyncio.get_running_loop().time() + seconds

    async def __call__(self) -> Message:
        if self._whole:  # what is awaited now is that the client goes
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "The request did not arrive in time. Send it again, in smaller parts.") from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._received > self._limit:
                raise _too_large(self._limit)
        return message


def _too_large(limit: int) -> Problem:
    size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit:,} bytes"
    return Problem(413, f"The request is larger than {size}. Send less: a shorter text, or fewer recordings.")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()
