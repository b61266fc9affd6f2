"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None)  # how long an example takes says more about the machine
settings.load_profile("default")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def corpora() -> Path:
    """A folder of real corpora, each with metadata.csv: METASPEECH_CORPORA, else ../shared/corpora."""
    named = os.environ.get("METASPEECH_CORPORA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "corpora"
    if not folder.is_dir():
        pytest.skip(f"no real recordings in {folder}: set METASPEECH_CORPORA to a folder of corpora to run this test")
    return folder
