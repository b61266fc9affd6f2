"""One run on its way from the spool to the server.

Entries are sent in order, and acknowledged in ``state.json``. One that was sent and not acknowledged is sent again:
metrics, params and tags are the same entry then, artifacts the same file, and runs are found by an id of ours.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from metaspeech.tracking.reasons import is_final, reason
from metaspeech.tracking.record import Record
from metaspeech.tracking.server import Row, Server
from metaspeech.tracking.spool import Entry, Spool, refuse

BATCH = 1000  # metrics in a request, the most that MLflow takes


class Parcel:
    """``left``: the process that logged has ended, whether it said so or not."""

    def __init__(self, spool: Spool, left: bool = False) -> None:
        """Raises as :meth:`~metaspeech.tracking.spool.Spool.header` does."""
        self.spool, self.header, self.state, self._left = spool, spool.header(), spool.state(), left

    @property
    def delivered(self) -> bool:
        """Whether the server has everything that was logged up to now."""
        state, spool = self.state, self.spool
        sent = state.log == spool.size("log") and state.artifacts == spool.size("artifacts")
        return sent and state.run_id is not None and (state.ended or not self._left)

    def close(self) -> None:
        """Removes the spool if everything has been delivered; frees it for others if not."""
        if self.delivered:
            self.spool.remove()
        self.spool.let_go()

    def send_log(self, server: Server, answered: Callable[[], None]) -> None:
        """Raises what the server raises, unless it is about a single entry, which is put aside then."""
        if self.state.run_id is None:
            self.state.parent_id, self.state.run_id = server.open(self.header)
            self._acknowledge(answered)
        for entries, end in batches(self.spool.entries("log", self.state.log)):
            try:
                self._send(server, entries)
            except Exception as error:
                if not is_final(error):
                    raise
                for entry in entries:
                    self._send_or_refuse(server, entry)
            self.state.log = end
            self._acknowledge(answered)
        if self._left and not self.state.ended:
            self._end(server, "KILLED", self.spool.last_entry())
            self._acknowledge(answered)

    def send_artifacts(self, server: Server, answered: Callable[[], None]) -> None:
        """After :meth:`send_log`; raises what the server raises, unless it is about a single file."""
        for entry, end in self.spool.entries("artifacts", self.state.artifacts):
            path = self.spool.folder / entry["file"]
            try:
                self._upload(server, entry, path)
            except Exception as error:
                if path.exists() and not is_final(error):
                    raise
                self._refuse(entry, error)
            if path.is_relative_to(self.spool.folder):
                shutil.rmtree(path.parent, ignore_errors=True)
            self.state.artifacts = end
            self._acknowledge(answered)

    def _upload(self, server: Server, entry: Entry, path: Path) -> None:
        run_id = str(self.state.run_id)
        server.upload(run_id, path, entry["to"])
        if entry.get("table"):
            name = f"{entry['to']}/{path.name}"
            tables = [*(one for one in self.state.tables if one != name), name]
            shown = json.dumps([{"path": one, "type": "table"} for one in tables])
            server.set_tags(run_id, {"mlflow.loggedArtifacts": shown})
            self.state.tables = tables
        if entry.get("image"):
            server.set_tags(run_id, {"mlflow.loggedImages": "True"})

    def _send(self, server: Server, entries: list[Entry]) -> None:
        """Entries of metrics alone, or one of another kind."""
        run_id, parent_id = str(self.state.run_id), str(self.state.parent_id)
        kind, content = next(iter(entries[0].items()))
        if kind == "metrics":
            server.log_rows(run_id, _rows(one for entry in entries for one in entry["metrics"]))
        elif kind == "tags":
            server.set_tags(run_id, content)
        elif kind == "parent":
            if content["metrics"]:
                server.log_rows(parent_id, _rows(content["metrics"]))
            server.set_tags(parent_id, content["tags"])
        elif kind == "mirror":
            server.mirror(self.header, parent_id, [Record(**one) for one in content])
        elif kind == "end":
            self._end(server, content["status"], content["when"])

    def _end(self, server: Server, status: str, when: int) -> None:
        server.end(self.header, str(self.state.parent_id), str(self.state.run_id), status, when)
        self.state.ended = True

    def _send_or_refuse(self, server: Server, entry: Entry) -> None:
        """Metrics one by one, so that one that the server does not take is alone put aside."""
        singles = [{"metrics": [row]} for row in entry["metrics"]] if "metrics" in entry else [entry]
        for single in singles:
            try:
                self._send(server, [single])
            except Exception as error:
                if not is_final(error):
                    raise
                self._refuse(single, error)

    def _refuse(self, entry: Entry, error: Exception) -> None:
        refuse(self.spool.base, self.header.record.name, entry, reason(error))

    def _acknowledge(self, answered: Callable[[], None]) -> None:
        self.spool.save(self.state)
        answered()


def batches(entries: Iterator[tuple[Entry, int]]) -> Iterator[tuple[list[Entry], int]]:
    """Successive entries of metrics together, as many as go into a request; each other entry alone. With their end."""
    together: list[Entry] = []
    count, end = 0, 0
    for entry, after in entries:
        rows = len(entry.get("metrics", ()))
        if together and (not rows or count + rows > BATCH):
            yield together, end
            together, count = [], 0
        if rows:
            together.append(entry)
            count += rows
            end = after
        else:
            yield [entry], after
    if together:
        yield together, end


def _rows(rows: Any) -> list[Row]:
    return [(name, value, when, step) for name, value, when, step in rows]
