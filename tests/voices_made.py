"""Recordings, tiny meta-models and voices for tests."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import torch

from metaspeech import config
from metaspeech.corpora.espeak import say
from metaspeech.data.store import Features
from metaspeech.registry import MODELS
from metaspeech.text.frontend import Frontend
from metaspeech.training.checkpoint import build_model, save_learned, save_model

REPO = Path(__file__).resolve().parents[1]
STARTS = REPO / "assets" / "starts"
CONSENT = "A machine's voice; it has nothing against it."
TEXTS = ("boy watched now", "king pushed house", "goat found house", "boy made bath")


@cache
def spoken(variant: str = "f1", texts: tuple[str, ...] = TEXTS) -> tuple[list[np.ndarray], int]:
    """By eSpeak NG: int16 waveforms and their rate."""
    return say(variant, 160, 40, list(texts))


def write_recordings(folder: Path, count: int = len(TEXTS), variant: str = "f1") -> Path:
    """A wav and a .txt for each text."""
    folder.mkdir(parents=True, exist_ok=True)
    waveforms, rate = spoken(variant)
    for number in range(count):
        soundfile.write(folder / f"{number}.wav", waveforms[number], rate)
        (folder / f"{number}.txt").write_text(TEXTS[number], encoding="utf-8")
    return folder


def features() -> Features:
    """Those of the default params, and of the starts that ship."""
    numbers = json.loads((REPO / "assets" / "mel_statistics.json").read_text())
    settings = {key: value for key, value in vars(config.Prepare()).items() if key not in ("workers", "statistics")}
    return Features(settings, Frontend(config.Prepare().text).symbols, numbers["mel_mean"], numbers["mel_std"])


def write_meta_model(
    folder: Path, model: str = "tacotron", algorithm: str = "maml", seed: int = 1, **card: object
) -> Path:
    """What the stage meta_train leaves, with tiny weights that nobody has trained."""
    assert model in MODELS
    values = {"tacotron": {"preset": "tiny"}, "wavenet": {"preset": "tiny", "window": 256}, "inner": {"rate": 0.1}}
    params = config.from_mapping(values)
    torch.manual_seed(seed)
    network = build_model(model, params, features().features())
    if model == "wavenet":
        torch.nn.init.normal_(network.stack.last.weight, std=0.1)  # 0 at first: nothing would adapt but that layer
    own = asdict(getattr(params.per_algorithm, algorithm))
    made = {"algorithm": algorithm, "speech": features().described(), "inner": asdict(params.inner), "own": own, **card}
    save_learned(folder, {})
    save_model(folder, network, model, params, features().features(), **made)
    return folder
