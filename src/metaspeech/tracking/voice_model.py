"""A voice as an MLflow model. MLflow runs this file when the model is loaded (models from code): there is no pickle."""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from metaspeech.voices import load
from metaspeech.voices.store import VoiceStore


class VoiceModel(PythonModel):
    """Texts to samples. Its artifact ``voices`` is a folder of voices with one voice in it."""

    def load_context(self, context: Any) -> None:
        store = context.artifacts["voices"]
        self._voice = load(VoiceStore(store).names()[0], store)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """For each text ``{"samples": [float, ...] in [-1, 1], "rate": Hz}``.

        Args:
            context: of MLflow.
            model_input: a table with the column ``text``.
            params: speed and seed, see :meth:`metaspeech.voices.voice.Voice.stream`.
        """
        given = {"speed": 1.0, "seed": 1, **(params or {})}
        spoken = []
        for text in model_input["text"]:
            samples, rate = self._voice.say(str(text), speed=float(given["speed"]), seed=int(given["seed"]))
            spoken.append({"samples": samples.tolist(), "rate": rate})
        return spoken


set_model(VoiceModel())
