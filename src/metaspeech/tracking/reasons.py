"""Why a tracking server did not take something: for a person to read, and whether to try again."""

from __future__ import annotations

import errno
import os
import re

KNOWN = (  # what an error says -> what it means
    ("connection refused", "it is not there (connection refused)"),
    ("no space left", "its disk is full"),
    ("quota exceeded", "its disk is full"),
    ("timed out", "no answer in time"),
    ("timeout", "no answer in time"),
    ("name resolution", "the name of its host is not known"),
    ("failed to resolve", "the name of its host is not known"),
    ("connection reset", "it ended the connection"),
    ("connection aborted", "it ended the connection"),
    ("remote end closed", "it ended the connection"),
)
CREDENTIALS = (
    "it does not accept user and password (set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, then: "
    "metaspeech deliver)"
)
AGAIN = {401, 403, 408, 409, 413, 425, 429}  # of the 4xx, those that say nothing about what was sent
LENGTH = 200


def public(uri: str) -> str:
    """Without user and password."""
    return re.sub(r"(?<=://)[^/\s]*@", "", uri)


def reason(error: BaseException) -> str:
    """One line, without passwords."""
    status = status_code(error)
    if status in (401, 403):
        return CREDENTIALS
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error.filename})" if error.filename else "the disk is full"
    text = str(error)
    for sign, meaning in KNOWN:
        if sign in text.lower():
            return meaning
    line = public((text.strip() or type(error).__name__).splitlines()[0])
    for secret in (os.environ.get("MLFLOW_TRACKING_PASSWORD"), os.environ.get("MLFLOW_TRACKING_TOKEN")):
        if secret:
            line = line.replace(secret, "***")
    return line if len(line) <= LENGTH else f"{line[:LENGTH]} ..."


def is_final(error: BaseException) -> bool:
    """Whether the server understood and refuses what it was sent: to send it again is of no use."""
    status = status_code(error)
    if status == 404:
        return "RESOURCE_DOES_NOT_EXIST" in (getattr(error, "error_code", "") or str(error))
    return status is not None and 400 <= status < 500 and status not in AGAIN


def status_code(error: BaseException) -> int | None:
    """Of HTTP, which MLflow's errors have with databases too; None for an error of another kind."""
    response = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code)
    of_mlflow = getattr(error, "get_http_status_code", None)
    return int(of_mlflow()) if of_mlflow else None
