"""Tiny episodes, and what trains tiny models on them."""

from __future__ import annotations

import torch

from metaspeech.config import Params, from_mapping
from metaspeech.data.batch import Episode, SpeechBatch, collate
from metaspeech.data.module import StepModule
from metaspeech.models.base import FeatureSpec
from metaspeech.registry import ALGORITHMS, resolve
from metaspeech.seeds import mixed_seed
from metaspeech.training.checkpoint import build_model
from metaspeech.training.meta_learner import MetaLearner

FEATURES = FeatureSpec(symbols=9, n_mels=6, hop=16, sample_rate=16000)
STEPS = 4
NOT_META_TRAINED = ("pretrained", "scratch")  # algorithms that take no outer step


def params(meta_batch: int = 2) -> Params:
    return from_mapping(
        {
            "device": "cpu",
            "threads": 1,
            "tacotron": {"preset": "tiny", "reduction_factor": 2},
            "wavenet": {"preset": "tiny", "window": 128},
            "inner": {"steps": 2, "rate": 0.1, "adapt_modules": ["*"]},
            "meta_train": {"meta_batch": meta_batch, "checkpoint_every": 2, "rate": 1e-3},
        }
    )


def batch(seed: int, characters: int = 5) -> SpeechBatch:
    generator = torch.Generator().manual_seed(seed)
    lengths = (characters, characters - 1)
    return collate(
        [
            (
                torch.randint(1, FEATURES.symbols, (n,), generator=generator).tolist(),
                torch.randn(2 * n, FEATURES.n_mels, generator=generator).numpy(),
                0.1 * torch.randn((2 * n - 1) * FEATURES.hop, generator=generator).numpy(),
            )
            for n in lengths
        ]
    )


def episode(index: int, characters: int = 5) -> Episode:
    """With all that any algorithm asks for. Of ``characters`` letters an utterance, and two frames each."""
    vector = torch.randn(256, generator=torch.Generator().manual_seed(index)) / 16
    support, query, neighbour = (batch(part + index, characters) for part in (0, 1000, 2000))
    return Episode(f"speaker-{index}", support, query, mixed_seed(1, index), vector, neighbour)


def learner(model: str, algorithm: str, values: Params, steps: int = STEPS) -> MetaLearner:
    """For ``steps`` outer steps from a seeded start, whose last layer is not 0 and so passes gradients on."""
    torch.set_num_threads(1)
    torch.manual_seed(values.seed)
    chosen = resolve(ALGORITHMS, algorithm).from_params(values)
    network = build_model(model, values, FEATURES)
    last = network.postnet.last if model == "tacotron" else network.stack.last
    torch.nn.init.normal_(last.weight, std=0.1)
    return MetaLearner(network, chosen, values.meta_train, steps)


def module(values: Params, steps: int = STEPS, validation: int = 1) -> StepModule:
    """Episodes of two lengths: the first of each outer step is as long as the next three together."""

    def outer_step(step: int) -> list[Episode]:
        size = values.meta_train.meta_batch
        return [episode(step * size + place, 4 if place else 12) for place in range(size)]

    held_out = [episode(100 + index) for index in range(validation)]
    return StepModule(outer_step, steps, values.meta_train.checkpoint_every, held_out)
