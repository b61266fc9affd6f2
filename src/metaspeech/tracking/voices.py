"""Voices and meta-models in MLflow's registry."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import metaspeech
from metaspeech.errors import UserError
from metaspeech.tracking.server import base_folder, connect, find_experiment, locked

EXPERIMENT = "voices"
CHAMPION = "champion"
_NEEDED = (
    "torch",
    "torchaudio",
    "numpy",
    "scipy",
    "safetensors",
    "soundfile",
    "omegaconf",
    "num2words",
    "hama",
    "librosa",
)


def meta_model_name(model: str) -> str:
    """Under which a meta-model of this kind is registered."""
    return f"metaspeech-{model}"


def champion(model: str, uri: str, into: Path) -> Path | None:
    """The registry's champion among the meta-models of a kind, downloaded to a folder in ``into``; None without one.

    Raises:
        UserError: there is one, but it cannot be fetched.
    """
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return None
    client = connect(uri)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    name = meta_model_name(model)
    try:
        found = client.get_model_version_by_alias(name, CHAMPION)
    except (MlflowException, OSError):
        return None
    folder = into / name
    folder.mkdir()
    try:
        fetched = download_artifacts(
            artifact_uri=f"models:/{name}/{found.version}", dst_path=str(folder), tracking_uri=uri
        )
    except (MlflowException, OSError) as error:
        raise UserError(
            f"models:/{name}@{CHAMPION}: cannot be fetched from {uri}: {str(error)[:200]}. Name another: --model-from"
        ) from None
    card = next(Path(fetched).rglob("model.json"), None)
    return card.parent if card else None


def register_voice(store: Path, name: str, uri: str, root: Path, alias: str = CHAMPION) -> str:
    """Logs a voice as a model from text to samples, and registers it as a new version with ``alias``.

    The model holds the voice, its meta-models and this package's sources, and so needs nothing of this project.

    Args:
        store: the folder of voices.
        name: of the voice.
        uri: of the tracking server.
        root: the project's root, where a local server keeps its artifacts.
        alias: that points to this version from now on.

    Returns:
        The name in the registry.
    """
    from metaspeech.voices.store import VoiceStore

    card = VoiceStore(store).card(name)
    client = connect(uri)
    import mlflow
    import pandas as pd
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    registered = f"voice-{name}"
    speed, seed = ParamSpec("speed", DataType.double, 1.0), ParamSpec("seed", DataType.long, 1)
    signature = ModelSignature(Schema([ColSpec(DataType.string, "text")]), params=ParamSchema([speed, seed]))
    try:
        with tempfile.TemporaryDirectory() as temporary, _fluent(mlflow, uri):
            alone = _alone(store, name, Path(temporary) / "voices")
            with locked(uri):
                experiment = find_experiment(client, EXPERIMENT, uri, base_folder(root))
            with mlflow.start_run(experiment_id=experiment, run_name=name):
                logged = mlflow.pyfunc.log_model(
                    name="voice",
                    python_model=str(Path(__file__).with_name("voice_model.py")),
                    artifacts={"voices": str(alone)},
                    code_paths=[metaspeech.__path__[0]],
                    pip_requirements=[f"{package}=={version(package)}" for package in _NEEDED],
                    signature=signature,
                    input_example=pd.DataFrame({"text": ["young dog ran home"]}),
                    registered_model_name=registered,
                    metadata={
                        "consent": card.consent,
                        "meta_models": [part.meta_model for part in card.parts.values()],
                    },
                )
            client.set_registered_model_alias(registered, alias, logged.registered_model_version)
    except MlflowException as error:
        raise UserError(f"MLflow at {uri}: {str(error)[:300]}") from None
    return registered


def _alone(store: Path, name: str, target: Path) -> Path:
    """A store with one voice, and the meta-models that it needs."""
    from metaspeech.voices.store import VoiceStore

    kept = VoiceStore(store)
    shutil.copytree(kept.path(name), target / name)
    for part in kept.card(name).parts.values():
        VoiceStore(target).keep(kept.meta_model(part))
    return target


@contextmanager
def _fluent(mlflow: Any, uri: str) -> Iterator[None]:
    """mlflow's calls without a client go to ``uri``."""
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])
