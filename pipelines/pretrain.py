"""Joint training over the training speakers, one model: the common start of every algorithm."""

from dataclasses import asdict
from pathlib import Path

from metaspeech.data.episodes import read_episodes, read_pool
from metaspeech.data.module import StepModule
from metaspeech.data.store import Store
from metaspeech.data.tensors import EpisodeMaker
from metaspeech.training.checkpoint import build_model, file_digest, fingerprint, save_model
from metaspeech.training.joint_learner import JointLearner
from metaspeech.training.trainer import finish, fit, make_trainer, set_up_torch
from pipelines._stage import Stage, run_stage


def pretrain(stage: Stage) -> None:
    params, (name,) = stage.params, stage.item
    settings = params.pretrain
    folder = Path("models/pretrain") / name
    store = Store(Path("data/prepared"))
    episodes = EpisodeMaker(store, params.seed)
    pool = read_pool(Path("data/episodes/train.parquet"))
    held_out = [store.batch(spec.query) for spec in read_episodes(Path("data/episodes/val.parquet"))]

    set_up_torch(params)
    learner = JointLearner(build_model(name, params, store.features()), len(pool), settings, params.seed)
    module = StepModule(episodes.joint(pool, settings.batch_size), settings.steps, settings.checkpoint_every, held_out)
    made_from = [file_digest(Path("data/prepared/store.json")), file_digest(Path("data/episodes/train.parquet"))]
    configuration = fingerprint(asdict(settings), asdict(getattr(params, name)), params.seed, made_from)
    partial = folder / f"partial-{configuration}"
    trainer = make_trainer(
        params, module.epochs, stage.track.log_metrics, partial, gradient_clip_val=settings.clip or None
    )
    fit(trainer, learner, module, partial)

    save_model(
        folder,
        learner.common_start(),
        name,
        params,
        store.features(),
        steps=settings.steps,
        configuration=configuration,
    )
    finish(partial)
    stage.metrics({key: float(value) for key, value in trainer.callback_metrics.items()})


if __name__ == "__main__":
    run_stage("pretrain", pretrain)
