"""What a voice may be called: its name is that of a folder."""

from __future__ import annotations

import re
import unicodedata

from metaspeech.errors import UserError

_NAME = re.compile(r"[^\W_][\w-]{0,39}")


def checked_name(name: str) -> str:
    """The name as it is stored (Unicode NFC). Raises UserError for one that could leave the folder, or is no name."""
    name = unicodedata.normalize("NFC", name)
    if not _NAME.fullmatch(name):
        raise UserError(
            f"voice {shown(name)}: expected 1 to 40 letters, digits, '-' or '_', with a letter or digit first"
        )
    return name


def shown(text: str, most: int = 60) -> str:
    """Text from outside for a message: quoted, control characters and what reverses the line escaped, cut short."""
    cut = text[:most] + ("..." if len(text) > most else "")
    return "'" + "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in cut) + "'"
