"""What judges say of real speech: what a synthesis can at best hope for, and what a wrong voice or text scores.

Measured by ``python -m benchmarks.judge_floors`` on public recordings, and kept in a file.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from metaspeech.errors import UserError

FLOORS = ["corpus", "judge", "metric", "of", "value", "low", "high", "speakers", "utterances"]


def floors(path: Path) -> pd.DataFrame:
    """A row a corpus, judge, metric and what was heard (``of``): value with a 95 % interval over speakers.

    Raises UserError when the file is absent or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return pd.DataFrame(content["floors"])[FLOORS]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Make it: python -m benchmarks.judge_floors --write") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no floors of judges ({error}). git restores it: git checkout -- {path}") from None
