"""Runs a command and ends it, with all that it has started, when whoever started this has gone.

``python -I guard.py COMMAND...`` with a pipe as standard input: it closes when its other end is closed, or the process
that holds it is killed, also with SIGKILL and also by a node of a cluster that dies. Nothing of ours is imported, so
that it starts at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 10.0  # from asking a command to end to ending it


def main(command: list[str]) -> int:
    """Status of the command; 128 and the signal's number when a signal has ended it, as shells have it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # some that start this ignore it, and children would inherit that
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=watch, args=(process,), daemon=True).start()
    status = process.wait()
    return status if status >= 0 else 128 - status


def watch(process: subprocess.Popen[bytes]) -> None:
    os.read(0, 1)  # not sys.stdin, whose lock a thread must not hold when Python ends
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(GRACE_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
