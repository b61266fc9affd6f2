"""The outer loop: one model with one algorithm, from the common start."""

import sys
from dataclasses import asdict
from pathlib import Path

from pytorch_lightning import Callback

from metaspeech.data.batch import Episode
from metaspeech.data.episodes import read_episodes
from metaspeech.data.module import StepModule
from metaspeech.errors import UserError
from metaspeech.meta.base import MetaAlgorithm
from metaspeech.models.base import loss_function
from metaspeech.registry import ALGORITHMS, resolve
from metaspeech.training.alignments import AlignmentImages, LogImage
from metaspeech.training.checkpoint import (
    build_model,
    file_digest,
    fingerprint,
    load_model,
    save_learned,
    save_model,
)
from metaspeech.training.compute import chosen_device, set_up_torch
from metaspeech.training.meta_learner import MetaLearner
from metaspeech.training.planner import affordable_steps, plan
from metaspeech.training.ray_trainer import fit_on_ray
from metaspeech.training.trainer import finish, fit, make_trainer
from metaspeech.training.trial import trial_callbacks
from pipelines._episodes import EPISODES, task_files
from pipelines._stage import Stage, run_stage


def meta_train(stage: Stage) -> None:
    params, (name, algorithm_name, _) = stage.params, stage.item
    settings = params.meta_train
    start, folder = Path("models/pretrain") / name, Path("models/meta_train") / "-".join(stage.item)
    files = task_files(name)
    algorithm: MetaAlgorithm = resolve(ALGORITHMS, algorithm_name).from_params(params)
    episodes = files.episodes(params, algorithm.needs)
    features = episodes.store.features()
    held_out = [episodes.stored(spec) for spec in read_episodes(EPISODES / "val.parquet")]
    steps = affordable_steps(algorithm, algorithm_name, settings, params.devices)
    set_up_torch(params)
    trained = load_model(start, params, features)
    model = build_model(name, params, features) if algorithm.untrained_start else trained
    learner = MetaLearner(model.train(), algorithm, settings, steps)
    module = StepModule(files.outer_step(params, episodes, steps), steps, settings.checkpoint_every, held_out)
    made_from = [file_digest(path) for path in (start / "model.safetensors", files.pool, files.vectors)]
    own = getattr(params.per_algorithm, algorithm_name)
    sections = [asdict(section) for section in (settings, params.inner, own)]
    configuration = fingerprint(
        algorithm_name, sections, params.represent.use, params.precision, params.seed, made_from
    )
    partial = folder / f"partial-{configuration}"
    every = max(1, settings.validate_every // settings.checkpoint_every)
    log, log_image = stage.track.log_metrics, stage.track.log_image

    def further(log_image: LogImage) -> list[Callback]:
        attention = [AlignmentImages(held_out[0].query, log_image)] if model.role == "acoustic" else []
        return [*trial_callbacks(stage.item, steps), *attention]

    options = {"check_val_every_n_epoch": every, "log_every_n_steps": 1}
    if steps:
        announce(stage, learner, module.make(0)[0], len(held_out))
    if steps and params.engine == "ray":
        final = fit_on_ray(params, learner, module, partial, log, log_image, further, **options)
    else:
        devices = params.devices if steps else 1
        trainer = make_trainer(params, module.epochs, log, partial, devices, further(log_image), **options)
        if steps:
            fit(trainer, learner, module, partial)
        else:
            trainer.validate(learner, datamodule=module, verbose=False)
        final = {key: float(value) for key, value in trainer.callback_metrics.items()}

    evaluations = algorithm.gradient_evaluations(steps, settings.meta_batch)
    save_learned(folder, learner.learned)
    save_model(
        folder, learner.model, name, params, features,
        algorithm=algorithm_name, outer_steps=steps, configuration=configuration, gradient_evaluations=evaluations,
        speakers=sorted(files.speakers()),
        speech=episodes.store.described(), inner=asdict(params.inner), own=asdict(own),
    )  # fmt: skip
    finish(partial)
    counts = {"outer_steps": steps, "gradient_evaluations": evaluations, "skipped": int(learner.tasks_skipped)}
    stage.metrics({**counts, **final})


def announce(stage: Stage, learner: MetaLearner, task: Episode, held_out: int) -> None:
    """Says what this training will take, and what may go wrong."""
    device, devices = chosen_device(stage.params), stage.params.devices
    if device.type == "cuda" and (devices > 1 or stage.params.engine == "ray"):
        return  # CUDA must not have been used before training forks, nor does it say anything of other machines
    learner.to(device)
    loss_fn, task = loss_function(learner.model), task.to(device)
    try:
        expected = plan(
            learner.algorithm, loss_fn, learner.meta_parameters, task,
            learner.settings, learner.total_steps, devices, held_out,
        )  # fmt: skip
    except UserError as error:  # training may go on: it leaves such tasks out
        print(f"plan: {error}", flush=True)
        return
    print(f"plan: {expected.sentence()}", flush=True)
    for warning in expected.warnings():
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    stage.track.log_metrics({"planned_seconds": expected.seconds, "planned_bytes": expected.memory_bytes})


if __name__ == "__main__":
    run_stage("meta_train", meta_train)
