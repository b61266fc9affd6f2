"""Real tracking servers that benchmarks and tests start, stop, kill and start again."""

from __future__ import annotations

import base64
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


class Missing(RuntimeError):
    """What would be needed is not on this machine."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class MlflowServer:
    """``mlflow server`` on loopback, with one worker."""

    def __init__(self, folder: Path, backend: str, options: tuple[str, ...] = (), env: dict[str, str] | None = None):
        self.folder, self.backend, self.options, self.env = folder, backend, options, env or {}
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        store = ["--backend-store-uri", self.backend, "--artifacts-destination", str(self.folder / "served")]
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", *self.options]
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *where, *store],
            cwd=self.folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **QUIET, **self.env},
        )
        for _ in range(360):
            assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=1):
                    return
            except urllib.error.HTTPError:
                return  # it answers, if only that it wants a password
            except OSError:
                time.sleep(0.5)
        raise TimeoutError("the server did not start in three minutes")

    def signal(self, number: signal.Signals) -> None:
        """To the server and its workers."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """As when the machine loses power; nothing is tidied up."""
        self.signal(signal.SIGKILL)
        self.process.wait(timeout=30)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.kill()


class PasswordProxy:
    """In front of a server, as a team would put one: asks for a user and a password (HTTP basic)."""

    def __init__(self, server: MlflowServer, user: str, password: str) -> None:
        expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Authorization") != expected:
                    return self.answer(401, b"who are you?")
                request = urllib.request.Request(server.address + self.path, body or None, method=self.command)
                for name in ("Content-Type", "Accept"):
                    if self.headers.get(name):
                        request.add_header(name, self.headers[name])
                try:
                    with urllib.request.urlopen(request, timeout=30) as answer:
                        return self.answer(answer.status, answer.read())
                except urllib.error.HTTPError as error:
                    return self.answer(error.code, error.read())

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._proxy.server_address[1]
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._proxy.shutdown()
        self._proxy.server_close()


class Postgres:
    """A PostgreSQL cluster on loopback; runs as another user where this one is root."""

    def __init__(self) -> None:
        """Raises Missing where it cannot run."""
        self.binaries = _postgres_folder()
        if self.binaries is None:
            raise Missing("no PostgreSQL here")
        if importlib.util.find_spec("psycopg2") is None:
            raise Missing("no psycopg2 here, by which MLflow talks to PostgreSQL: pip install psycopg2-binary")
        self.user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
        if self.user and not shutil.which("runuser"):
            raise Missing("PostgreSQL does not run as root, and there is no runuser")
        self.port = free_port()
        self.data = Path(tempfile.mkdtemp(prefix="metaspeech-postgres-"))  # where that user may go
        if self.user:
            shutil.chown(self.data, "nobody")
        self._run("initdb", "-D", self.data, "-U", "mlflow", "--auth=trust", "-E", "UTF8")

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg2://mlflow@127.0.0.1:{self.port}/mlflow"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "60", "-o", options, "-l", self.data / "log", "start")

    def create_database(self) -> None:
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", "mlflow")

    def kill(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")

    def stop(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self.kill()
        shutil.rmtree(self.data)

    def _run(self, program: str, *arguments: object) -> None:
        command = [*self.user, str(self.binaries / program), *map(str, arguments)]
        done = subprocess.run(
            command, cwd="/", check=False, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if program != "pg_ctl" else subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{program}: {done.stdout}"


def _postgres_folder() -> Path | None:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb")
    return installed[-1].parent if installed else Path(found).resolve().parent if found else None


class VoiceServer:
    """``metaspeech serve`` in a folder, on a port that is free."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options = folder, options
        self.port = free_port()
        self.log = folder / f"serve-{self.port}.log"
        self.temporary = folder / f"tmp-{self.port}"  # of its own: what is left there can be seen
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> VoiceServer:
        source = str(Path(__file__).resolve().parents[1] / "src")
        self.temporary.mkdir()
        own = {"PYTHONPATH": source, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "TMPDIR": str(self.temporary)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "metaspeech.cli", "serve", "--port", str(self.port), *self.options],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={**os.environ, **own},
            )
        for _ in range(600):
            assert self.process.poll() is None, self.log.read_text()
            try:
                with urllib.request.urlopen(f"{self.address}/ready", timeout=5):
                    return self
            except OSError:
                time.sleep(0.2)
        raise TimeoutError(f"the service did not start in two minutes: {self.log.read_text()}")

    def stop(self, seconds: float = 30) -> int:
        """By SIGTERM. Returns its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
