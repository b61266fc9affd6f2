"""The exceptions that a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can put right.

    The message names the file, key or value at fault, says what was expected and what to do. Stages print it without
    a traceback and exit with status 2 (see ``pipelines/_stage.py``).
    """


class Stopped(UserError):
    """An end that was asked for and is no failure: the run counts as killed."""
