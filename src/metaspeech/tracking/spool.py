"""What a run has logged, on disk until the tracking server has it.

A stage only appends here, which takes microseconds whatever the server does; ``delivery.py`` reads, sends and, once the
server has everything, removes. Of each run there is a folder ``.metaspeech/spool/<execution>/<time>-<stage>-<id>``:

| file | what |
|---|---|
| run.json | :class:`Header`: what the run is |
| log.jsonl | metrics, tags, the end, an entry a line, in order |
| artifacts.jsonl | files to upload; apart from the log, so that a full artifact store does not hold up metrics |
| files/ | those files, as they were when they were logged |
| state.json | how far delivery has got |
| lock | held by the process that logs, or else by one that delivers what it left |
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from metaspeech.files import replacing
from metaspeech.tracking.execution import Execution
from metaspeech.tracking.record import Record

FOLDER = Path(".metaspeech")
LONGEST = 2**20  # bytes of an entry
Stream = Literal["log", "artifacts"]
Entry = dict[str, Any]


@dataclass(frozen=True)
class Header:
    """What the server must know before the first entry."""

    id: str  # by which the run is found again when an answer of the server was lost
    uri: str  # without user and password
    experiment: str
    execution: Execution
    parent_name: str
    parent_params: Mapping[str, Any]
    parent_tags: Mapping[str, str]
    parent_inputs: Mapping[str, str]  # path -> digest of the data that all is about
    record: Record  # as it was at the start


@dataclass
class State:
    """What has been delivered."""

    run_id: str | None = None
    parent_id: str | None = None
    log: int = 0  # bytes of log.jsonl
    artifacts: int = 0  # bytes of artifacts.jsonl
    tables: list[str] = field(default_factory=list)  # that the run's tag names
    ended: bool = False


class Spool:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._held: int | None = None
        self._owner = os.getpid()
        self._files: dict[Stream, int] = {}
        self._unwritten: dict[Stream, bytes] = {"log": b"", "artifacts": b""}

    @property
    def base(self) -> Path:
        """The folder that has ``.metaspeech``."""
        return self.folder.parents[3]

    @classmethod
    def create(cls, base: Path, header: Header) -> Spool:
        """Makes the folder of a new run, and holds it. Raises OSError when it cannot be written."""
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        name = _plain(f"{now}-{header.record.name}-{header.id[:8]}")
        folder = base / FOLDER / "spool" / _plain(header.execution.key) / name
        (folder / "files").mkdir(parents=True)
        spool = cls(folder)
        spool.hold()
        with replacing(folder / "run.json") as path:
            path.write_text(json.dumps(asdict(header)) + "\n", encoding="utf-8")
        return spool

    def header(self) -> Header:
        """Raises OSError, ValueError, TypeError or KeyError where the folder holds no run."""
        content = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        execution = content["execution"]
        content["execution"] = Execution(**{**execution, "overrides": tuple(execution["overrides"])})
        return Header(**{**content, "record": Record(**content["record"])})

    def readable_header(self) -> Header | None:
        """None where it was removed meanwhile, or is not of this version."""
        try:
            return self.header()
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def hold(self) -> bool:
        """Takes the folder for this process; False where another one has it. Freed by :meth:`let_go`, or by death."""
        try:
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except FileNotFoundError:
            return False  # delivered and removed meanwhile
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._held = handle
        return True

    def let_go(self) -> None:
        with self._lock:
            for handle in (*self._files.values(), self._held):
                if handle is not None:
                    os.close(handle)
            self._files, self._held = {}, None

    def append(self, stream: Stream, entry: Entry) -> bool:
        """Adds an entry. False when the disk did not take it: it is kept in memory, and written before the next."""
        line = (json.dumps(entry) + "\n").encode()
        if os.getpid() != self._owner:  # forked: the lock may have been held by a thread that is not here
            return os.write(self._file(stream), line) == len(line)
        with self._lock:
            line = self._unwritten[stream] + line
            try:
                written = os.write(self._file(stream), line)
            except OSError:
                written = 0
            self._unwritten[stream] = line[written:]
            return written == len(line)

    def keep(self, name: str, write: Callable[[Path], Any], to: str, **more: Any) -> None:
        """An artifact that ``write`` writes, to be uploaded as ``<to>/<name>``. Raises OSError when it cannot."""
        path = self.folder / "files" / new_id()[:12] / name  # forked processes keep files too
        try:
            path.parent.mkdir(parents=True)
            write(path)
        except OSError:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise
        self.append("artifacts", {"file": str(path.relative_to(self.folder)), "to": to, **more})

    def keep_copy(self, source: Path, to: str) -> None:
        """A file that exists. Where there is no room for a copy, what it holds at delivery is uploaded."""
        try:
            self.keep(source.name, partial(shutil.copyfile, source), to)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.append("artifacts", {"file": str(source.resolve()), "to": to})

    def entries(self, stream: Stream, start: int) -> Iterator[tuple[Entry, int]]:
        """Whole entries from byte ``start`` on, each with the byte after it."""
        try:
            with (self.folder / f"{stream}.jsonl").open("rb") as file:
                file.seek(start)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    start += len(line)
                    yield json.loads(line), start
        except FileNotFoundError:
            return

    def size(self, stream: Stream) -> int:
        """Bytes that have been logged, whether the disk took them or not; without a line that was never finished."""
        unwritten = len(self._unwritten[stream])
        try:
            with (self.folder / f"{stream}.jsonl").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                start = max(0, size - LONGEST)
                file.seek(start)
                return start + file.read().rfind(b"\n") + 1 + unwritten
        except FileNotFoundError:
            return unwritten

    def last_entry(self) -> int:
        """When, in milliseconds since 1970; of a run that was killed."""
        path = self.folder / "log.jsonl"
        return int((path if path.exists() else self.folder / "run.json").stat().st_mtime * 1000)

    def state(self) -> State:
        try:
            return State(**json.loads((self.folder / "state.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return State()

    def save(self, state: State) -> None:
        with replacing(self.folder / "state.json") as path:
            path.write_text(json.dumps(asdict(state)) + "\n", encoding="utf-8")

    def remove(self) -> None:
        """Everything has been delivered."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()  # where it is empty

    def _file(self, stream: Stream) -> int:
        if stream not in self._files:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._files[stream] = os.open(self.folder / f"{stream}.jsonl", flags, 0o600)
        return self._files[stream]


def waiting(base: Path) -> list[Spool]:
    """The runs of which something has not been delivered, oldest first; also those that are still being logged."""
    folders = (base / FOLDER / "spool").glob("*/*/run.json")
    return [Spool(path.parent) for path in sorted(folders, key=lambda path: path.parent.name)]


def refuse(base: Path, run: str, entry: Entry, reason: str) -> Path:
    """Puts aside what the server will never take, so that it is not lost. Returns the file that it is in."""
    path = base / FOLDER / "refused.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"run": run, "reason": reason, "entry": entry}) + "\n")
    return path


def new_id() -> str:
    return uuid.uuid4().hex


def _plain(name: str) -> str:
    """Fit for the name of a folder."""
    return re.sub(r"[^\w.@+-]", "_", name)[:120].lstrip(".") or "_"
