"""``metaspeech serve``."""

from __future__ import annotations

import ipaddress
import signal
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from metaspeech.errors import UserError
from metaspeech.serve.limits import Limits
from metaspeech.voices.commands import StoreOption, voice_store

_DEFAULT = Limits()


def serve(
    host: Annotated[str, typer.Option(help="An address of loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    store: StoreOption = None,
    model_from: Annotated[
        Path | None, typer.Option(help="Folder of the Tacotron to adapt. By default it is chosen, as adapt does.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes; 0: one a core.")] = _DEFAULT.workers,
    queue: Annotated[int, typer.Option(min=0, help="Requests to speak that may wait.")] = _DEFAULT.queue,
    wait: Annotated[float, typer.Option(min=0.1, help="Seconds that they may wait.")] = _DEFAULT.wait,
    time: Annotated[float, typer.Option(min=0.1, help="Seconds of one synthesis.")] = _DEFAULT.time,
    text: Annotated[int, typer.Option(min=1, max=20_000, help="Characters of a text.")] = _DEFAULT.text,
    upload: Annotated[int, typer.Option(min=1, max=4096, help="MiB of one request.")] = _DEFAULT.upload,
    recordings: Annotated[int, typer.Option(min=1, max=500, help="In one request.")] = _DEFAULT.recordings,
    recording_seconds: Annotated[
        float, typer.Option(min=0.1, max=600, help="Of one recording.")
    ] = _DEFAULT.recording_seconds,
    adaptations: Annotated[int, typer.Option(min=1, help="That may wait or run.")] = _DEFAULT.adaptations,
    adapt_time: Annotated[float, typer.Option(min=1, help="Seconds of one adaptation.")] = _DEFAULT.adapt_time,
    requests: Annotated[int, typer.Option(min=1, help="Open at the same time.")] = _DEFAULT.requests,
    receive: Annotated[float, typer.Option(min=1, help="Seconds in which a request must arrive.")] = _DEFAULT.receive,
    grace: Annotated[float, typer.Option(min=0, help="Seconds for running requests at the end.")] = _DEFAULT.grace,
) -> None:
    """Voices behind HTTP, with a page to make them and to listen. On loopback alone; end it with Ctrl-C."""
    limits = Limits(
        workers, queue, wait, time, text, upload, recordings, recording_seconds, adaptations, adapt_time, requests,
        receive, grace,
    )  # fmt: skip
    listening = _listen(host, port)
    try:
        import python_multipart  # noqa: F401 - FastAPI asks for it only when a form comes
        import uvicorn

        from metaspeech.serve.app import create
        from metaspeech.serve.pool import PATIENCE
    except ModuleNotFoundError as error:
        raise UserError(
            f"serve needs the package {error.name}, which is not installed: pip install 'metaspeech[serve]'"
        ) from None

    app = create(voice_store(store).folder, limits, model_from)

    pool = app.state.service.pool

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            pool.end(grace)
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, ws="none", http="h11",
        timeout_graceful_shutdown=round(grace + PATIENCE) + 2, timeout_keep_alive=30,
    )  # fmt: skip
    for number in (signal.SIGINT, signal.SIGTERM):  # which uvicorn raises again when it has ended: status 0
        signal.signal(number, lambda *_: None)
    name = f"[{host}]" if ":" in host else host
    typer.echo(f"http://{name}:{listening.getsockname()[1]}/ (Ctrl-C ends it). Voices: {voice_store(store).folder}")
    Server(config).run(sockets=[listening])
    typer.echo("ended")


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises UserError for addresses that are not loopback, and ports that are taken."""
    name = "127.0.0.1" if host == "localhost" else host
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        raise UserError(f"--host {host}: no address. Expected 127.0.0.1, localhost or ::1") from None
    if str(address) not in ("127.0.0.1", "::1"):
        raise UserError(
            f"--host {host}: the service has no passwords, so it listens on loopback alone: 127.0.0.1 or ::1. From "
            f"another machine: ssh -L {port or 8000}:127.0.0.1:{port or 8000} this-machine"
        )
    listening = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((str(address), port))
    except OSError as error:
        listening.close()
        raise UserError(f"--port {port}: {error.strerror}. Choose another; --port 0 takes any that is free") from None
    return listening
