"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# Time for an example says more about the machine. In CI what passed once passes again; elsewhere new cases are tried
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def corpora() -> Path:
    """A folder of real corpora, each with metadata.csv: METASPEECH_CORPORA, else ../shared/corpora."""
    named = os.environ.get("METASPEECH_CORPORA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "corpora"
    if not folder.is_dir():
        pytest.skip(f"no real recordings in {folder}: set METASPEECH_CORPORA to a folder of corpora to run this test")
    return folder


@pytest.fixture(scope="session")
def migrated(tmp_path_factory) -> Path:
    """An empty database of MLflow, which takes seconds to make."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def root(tmp_path, migrated) -> Path:
    """A folder for a project with such a database."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return tmp_path


LONGEST_FIRST = [
    f"test_{name}.py"
    for name in ("pipeline", "ray", "experiments", "sweeps", "repro", "serve", "evaluate_report", "prepare")
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes go first, so that two processes end at about the same time."""
    items.sort(key=lambda item: LONGEST_FIRST.index(item.path.name) if item.path.name in LONGEST_FIRST else 99)
