"""Joint training over the training speakers, one model: the common start of every algorithm."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from metaspeech.data.episodes import EpisodeSpec, read_episodes, read_pool
from metaspeech.data.module import StepModule
from metaspeech.data.store import Store
from metaspeech.data.tensors import EpisodeMaker
from metaspeech.files import replacing
from metaspeech.training.alignments import AlignmentImages
from metaspeech.training.checkpoint import build_model, file_digest, fingerprint, save_model
from metaspeech.training.compute import set_up_torch
from metaspeech.training.joint_learner import SPREAD, JointLearner
from metaspeech.training.starts import Start, check_fit, check_unseen, load_start, read_start
from metaspeech.training.trainer import finish, fit, make_trainer
from pipelines._stage import Stage, run_stage

STARTS = Path("assets/starts")
EPISODES = Path("data/episodes")


def pretrain(stage: Stage) -> None:
    params, (name,) = stage.params, stage.item
    settings = params.pretrain
    folder = Path("models/pretrain") / name
    store = Store(Path("data/prepared"))
    episodes = EpisodeMaker(store, params.seed)
    pool = read_pool(EPISODES / "train.parquet")
    validation, test = (read_episodes(EPISODES / f"{split}.parquet") for split in ("val", "test"))
    held_out = [store.batch(spec.query) for spec in validation]
    start = shipped_start(stage, store, validation + test) if settings.init == "shipped" else None

    set_up_torch(params)
    model = build_model(name, params, store.features())
    if start:
        load_start(model, start)
    learner = JointLearner(
        model, len(pool) * len(settings.speeds), settings, params.seed, spread=0.0 if start else SPREAD
    )
    batches = episodes.joint(pool, settings.batch_size, settings.speeds)
    module = StepModule(batches, settings.steps, settings.checkpoint_every, held_out)
    made_from = [file_digest(Path("data/prepared/store.json")), file_digest(EPISODES / "train.parquet")]
    made_from += [start.card["sha256"]] if start else []
    configuration = fingerprint(
        asdict(settings), asdict(getattr(params, name)), params.precision, params.seed, made_from
    )
    partial = folder / f"partial-{configuration}"
    trainer = make_trainer(
        params, module.epochs, stage.track.log_metrics, partial,
        further=[AlignmentImages(held_out[0], stage.track.log_image)] if model.role == "acoustic" else [],
        gradient_clip_val=settings.clip or None,
    )  # fmt: skip
    if settings.steps:
        fit(trainer, learner, module, partial)
    else:
        trainer.validate(learner, datamodule=module, verbose=False)

    described = start.described() if start else None
    save_model(
        folder, learner.common_start(), name, params, store.features(),
        steps=settings.steps, configuration=configuration, start=described, speakers=sorted(pool),
    )  # fmt: skip
    with replacing(stage.folder / "start.json") as path:
        path.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    finish(partial)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    stage.metrics({"start_steps": start.steps, **metrics} if start else metrics)


def shipped_start(stage: Stage, store: Store, held_out: list[EpisodeSpec]) -> Start:
    """The start of this model, once it is certain that it fits and that it knows nothing of what is held out."""
    params, (name,) = stage.params, stage.item
    start = read_start(STARTS / name, name)
    check_fit(start, params, store)
    manifest = store.manifest
    texts = dict(zip(manifest.index, manifest["text"], strict=True))
    check_unseen(start, params.corpus.source, held_out, texts, params.episodes.text_split == "none")
    return start


if __name__ == "__main__":
    run_stage("pretrain", pretrain)
