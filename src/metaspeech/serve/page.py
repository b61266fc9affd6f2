"""The page: files of this package, at fixed addresses."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter, Response

SCRIPTS = ("page.js", "recorder.js", "pictures.js", "tap.js")


def router() -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    style = _text("metaspeech.report", "page.css") + _text("metaspeech.serve", "page.css")
    files = {"/": ("text/html", _text("metaspeech.serve", "page.html")), "/page.css": ("text/css", style)}
    files |= {f"/{name}": ("text/javascript", _text("metaspeech.serve", name)) for name in SCRIPTS}
    for address, (kind, content) in files.items():
        routes.add_api_route(address, _answer(content, kind), methods=["GET"])
    return routes


def _answer(content: str, kind: str):  # type: ignore[no-untyped-def]
    async def answer() -> Response:
        return Response(content, media_type=kind)

    return answer


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
