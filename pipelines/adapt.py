"""The inner loop on every test task: curves over shots and steps, adapted parameters as deltas."""

from pathlib import Path

import pandas as pd

from metaspeech.data.episodes import read_episodes
from metaspeech.data.module import StepModule
from metaspeech.data.store import Store
from metaspeech.meta.base import MetaAlgorithm
from metaspeech.models.base import loss_function, parameters_of
from metaspeech.registry import ALGORITHMS, resolve
from metaspeech.training.adaptation import compare_rates
from metaspeech.training.adapter import AdaptationTask, Adapter
from metaspeech.training.checkpoint import load_learned, load_model
from metaspeech.training.trainer import chosen_device, make_trainer, set_up_torch
from pipelines._episodes import EPISODES, episode_maker
from pipelines._stage import Stage, run_stage


def adapt(stage: Stage) -> None:
    params, (name, algorithm_name) = stage.params, stage.item
    settings = params.adapt
    store = Store(Path("data/prepared"))
    algorithm: MetaAlgorithm = resolve(ALGORITHMS, algorithm_name).from_params(params)
    episodes = episode_maker(store, params, algorithm)
    set_up_torch(params)
    trained = Path("models/meta_train") / f"{name}-{algorithm_name}"
    model, learned = load_model(trained, params, store.features()), load_learned(trained)

    device = chosen_device(params)
    held_out = [episodes.stored(spec).to(device) for spec in read_episodes(EPISODES / "val.parquet")]
    start = parameters_of(model.to(device)) | {key: value.to(device) for key, value in learned.items()}
    rates = compare_rates(loss_function(model), algorithm, start, held_out, settings.rates, settings.tune_steps)
    rate = min(rates, key=lambda one: rates[one])

    tasks = [
        AdaptationTask(spec.episode_id, shots, episodes.stored(spec, shots))
        for spec in read_episodes(EPISODES / "test.parquet")
        for shots in settings.shots
    ]
    folder = stage.folder / "deltas"
    folder.mkdir(parents=True, exist_ok=True)
    adapter = Adapter(model, algorithm, settings.steps, rate, folder, learned)
    module = StepModule(tasks.__getitem__, len(tasks), len(tasks))
    make_trainer(params, 1, stage.track.log_metrics, partial=None).test(adapter, datamodule=module, verbose=False)

    curves = pd.DataFrame(adapter.rows)
    curves.insert(0, "model", name)
    curves.insert(1, "algorithm", algorithm_name)
    curves.to_parquet(stage.folder / "curves.parquet", index=False)
    means = curves[curves["shots"] == max(settings.shots)].groupby("step")["loss"].mean()
    for step, loss in means.items():
        stage.track.log_metrics({"query_loss": float(loss)}, step=int(step))
    stage.metrics({"rate": rate, **{f"loss_{step}": float(loss) for step, loss in means.items()}})


if __name__ == "__main__":
    run_stage("adapt", adapt)
