"""The making of a start from a finished pretraining: half precision, a card for programs, a page for people."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from metaspeech.config import Params, for_model, weight_settings
from metaspeech.data.batch import SpeechBatch
from metaspeech.data.episodes import Pool
from metaspeech.data.module import StepModule
from metaspeech.data.store import Store
from metaspeech.data.texts import phrase
from metaspeech.files import replacing
from metaspeech.tracking import Record
from metaspeech.training.checkpoint import build_model, file_digest
from metaspeech.training.compute import set_up_torch
from metaspeech.training.joint_learner import JointLearner
from metaspeech.training.starts import CARD, WEIGHTS, Start, features_of, half, load_start, statistics_digest
from metaspeech.training.trainer import make_trainer

README = "README.md"
_PACKAGES = ("torch", "pytorch-lightning", "numpy")


def export_start(
    folder: Path,
    weights: Path,
    model: str,
    params: Params,
    store: Store,
    pool: Pool,
    held_out: Sequence[SpeechBatch],
    corpus: Mapping[str, Any],
    record: Record,
) -> Start:
    """Writes weights, card and page of a start; the card last but one, since it makes the weights count.

    Args:
        folder: where the start belongs; made when absent.
        weights: of the pretrained model, in single precision.
        model: its name.
        params: of the run that made it.
        store, pool: what it was trained on.
        held_out: batches for the loss before and after rounding.
        corpus: the content of corpus.json.
        record: of its pretrain stage.

    Raises:
        UserError: weights do not fit the model, or are not finite in half precision.
    """
    params = for_model(params, model)
    set_up_torch(params)
    built = build_model(model, params, store.features())
    single = load_file(weights)
    built.load_state_dict(single)
    losses = {"float32": validation(built, held_out, params)}
    with replacing(folder / WEIGHTS) as temporary:
        save_file(half(single), temporary)
    card = make_card(model, params, store, pool, corpus, record)
    card["parameters"] = sum(value.numel() for value in single.values())
    card["sha256"] = file_digest(folder / WEIGHTS)
    start = Start(folder, card)
    load_start(built, start)
    losses["float16"] = validation(built, held_out, params)
    card["validation"] = losses
    with replacing(folder / CARD) as temporary:
        temporary.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with replacing(folder / README) as temporary:
        temporary.write_text(page(card), encoding="utf-8")
    return start


def make_card(
    model: str, params: Params, store: Store, pool: Pool, corpus: Mapping[str, Any], record: Record
) -> dict[str, Any]:
    """All of card.json that follows from what the model was trained on. ``params`` are this model's own."""
    used = store.manifest.loc[[utt_id for utterances in pool.values() for utt_id in utterances]]
    return {
        "model": model,
        "settings": weight_settings(params, model),
        "features": features_of(store),
        "symbols": store.symbols,
        "statistics": statistics_digest(store),
        "corpus": {key: corpus[key] for key in ("source", "language", "licence", "note")},
        "training": {
            **asdict(params.pretrain),
            "seed": params.seed,
            "data_seed": params.data_seed,
            "utterances": len(used),
            "hours": round(float(used["seconds"].sum()) / 3600, 4),
            "wall_seconds": round(record.seconds),
            "started": record.started,
            "commit": record.tags.get("commit", ""),
            "commit_was_changed": record.tags.get("dirty") == "true",
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "speakers": sorted(pool),
        "texts": sorted({phrase(text) for text in used["text"]}),
    }


def validation(model: nn.Module, held_out: Sequence[SpeechBatch], params: Params) -> dict[str, float]:
    """The model's loss and its parts on held-out batches, as the pretrain stage measures them."""
    learner = JointLearner(model, 1, params.pretrain, params.seed, spread=0.0)  # type: ignore[arg-type]
    trainer = make_trainer(params, 1, lambda values, step: None, partial=None)
    (values,) = trainer.validate(learner, datamodule=StepModule(lambda step: None, 0, 1, held_out), verbose=False)
    return {name.removeprefix("validation_"): float(f"{value:.6g}") for name, value in values.items()}


def page(card: Mapping[str, Any]) -> str:
    """README.md of a start."""
    training, corpus, losses = card["training"], card["corpus"], card["validation"]
    changed = " (with changes)" if training["commit_was_changed"] else ""
    facts = {
        "model": f"{card['model']}: {_named(card['settings'])}; {card['parameters']:,} parameters, half precision",
        "features": _named(card["features"]),
        "trained on": f"{len(card['speakers'])} speakers of {corpus['source']}, {training['utterances']} utterances, "
        f"{training['hours']:.2f} h, {len(card['texts'])} texts{_speeds(training.get('speeds', [1.0]))}",
        "training": f"{training['steps']} steps of {training['batch_size']} utterances, rate {training['rate']:g} to "
        f"{training['final_rate']:g}, seed {training['seed']}; {training['wall_seconds'] / 60:.0f} minutes",
        "made": f"{training['started'][:10]}, commit {training['commit'][:10] or 'unknown'}{changed}",
        "with": _named(card["versions"]),
        "licence of the data": corpus["licence"],
    }
    table = "\n".join(f"| {name} | {fact} |" for name, fact in facts.items())
    parts = "\n".join(
        f"| {name} | {losses['float32'][name]} | {losses['float16'][name]} |" for name in losses["float32"]
    )
    return f"""# A start for {card["model"]}

Weights that pretraining goes on from (`pretrain.init: shipped`). Made by `make pretrained MODEL={card["model"]}`; this
page is written from `card.json`.

| | |
|---|---|
{table}

Loss on the held-out speakers and texts, before and after rounding to half precision:

| | float32 | float16 |
|---|---|---|
{parts}

{corpus["note"]}

`card.json` lists the speakers and texts of the training. A run that holds one of them out refuses this start.
"""


def _speeds(speeds: Sequence[float]) -> str:
    return "" if list(speeds) == [1.0] else f", at speeds {', '.join(f'{speed:g}' for speed in speeds)}"


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
