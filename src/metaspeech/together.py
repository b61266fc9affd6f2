"""Commands that run at the same time in one terminal: a line of what each is doing, everything else to log files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from metaspeech import guard

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_BAR = re.compile(r"\d+%\|")  # as tqdm draws it
KEPT = 4096  # bytes of an unfinished line: a bar is shorter


@dataclass
class Lane:
    """One command. ``now`` is the last thing it said, ``said`` its lines without progress bars."""

    name: str
    command: Sequence[str]
    log: Path
    now: str = ""
    status: int | None = None
    said: list[str] = field(default_factory=list)

    def hear(self, text: str, finished: bool) -> str:
        """Takes a line, or the state of one; gives what is worth a line of its own, or nothing."""
        plain = _ESCAPES.sub("", text).strip()
        if not plain:
            return ""
        self.now = plain
        if not finished or _BAR.search(plain):
            return ""
        self.said.append(plain)
        return plain


def run_together(
    lanes: Sequence[Lane], environment: Mapping[str, str], shown: Callable[[str], bool], console: Console
) -> bool:
    """Runs every lane's command to its end, also when another has failed; whether all ended with status 0.

    Of their lines those are printed that ``shown`` wants; all are in ``lane.log``. Interrupted, it interrupts the
    commands, waits for them and raises KeyboardInterrupt.
    """
    threads = []
    processes = []
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        for lane in lanes:
            lane.log.parent.mkdir(parents=True, exist_ok=True)
            process = subprocess.Popen(
                [sys.executable, "-I", guard.__file__, *lane.command],
                env=dict(environment),
                stdin=subprocess.PIPE,  # when it closes, the guard ends all of it, so also when this process is killed
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            processes.append(process)
            thread = threading.Thread(target=_follow, args=(lane, process, lanes, shown, live), daemon=True)
            thread.start()
            threads.append(thread)
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            for process in processes:
                if process.stdin:
                    process.stdin.close()
            for thread in threads:
                thread.join()
            raise
    return not any(lane.status for lane in lanes)


def _follow(
    lane: Lane, process: subprocess.Popen[bytes], lanes: Sequence[Lane], shown: Callable[[str], bool], live: Live
) -> None:
    assert process.stdout is not None
    with lane.log.open("wb") as log:
        for text, finished in _lines(process.stdout, log):
            line = lane.hear(text, finished)
            if line and shown(line):
                live.console.print(Text(f"{lane.name}  {line}"))
            live.update(Group(*(_state(one) for one in lanes)))
    lane.status = process.wait()
    lane.now = "done" if lane.status == 0 else f"failed (status {lane.status})"
    live.update(Group(*(_state(one) for one in lanes)))


def _state(lane: Lane) -> Text:
    return Text(f"{lane.name}  {lane.now}", no_wrap=True, overflow="ellipsis", style="dim")


def _lines(stream: IO[bytes], log: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """Lines of a stream (True), and the states of unfinished ones, since bars go back to the beginning of theirs."""
    rest = b""
    while chunk := os.read(stream.fileno(), 65536):
        log.write(chunk)
        log.flush()
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace"), True
        rest = rest[-KEPT:]
        if state := next((one for one in reversed(rest.split(b"\r")) if one.strip()), b""):
            yield state.decode(errors="replace"), False
    if rest.strip():
        yield rest.decode(errors="replace"), True
