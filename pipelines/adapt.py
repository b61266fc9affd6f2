"""The inner loop on every test task: curves over shots and steps, adapted parameters as deltas."""

from pathlib import Path

import pandas as pd
from tqdm import tqdm

from metaspeech.data.episodes import read_episodes
from metaspeech.parallel import Workers, worker_count
from metaspeech.training.adaptation import horizon_steps, horizon_summary
from metaspeech.training.adapter import Job, Setting, run
from metaspeech.training.compute import chosen_device, set_up_torch
from pipelines._episodes import EPISODES, task_files
from pipelines._stage import Stage, run_stage


def adapt(stage: Stage) -> None:
    params, (name, algorithm, _) = stage.params, stage.item
    settings = params.adapt
    set_up_torch(params)
    setting = Setting(params, algorithm, Path("models/meta_train") / "-".join(stage.item), task_files(name))
    held_out, unseen = (read_episodes(EPISODES / f"{split}.parquet") for split in ("val", "test"))
    shots, steps = sorted(set(settings.shots)), tuple(sorted(set(settings.steps)))
    far = horizon_steps(steps, settings.horizon * params.inner.steps)

    with Workers(worker_count(settings.workers) if chosen_device(params).type == "cpu" else 1) as workers:
        trials = [
            Job(setting, spec, params.episodes.shots, rate, (settings.tune_steps,))
            for rate in settings.rates
            for spec in held_out
        ]
        tuned = pd.DataFrame([row for rows in progress(workers, "rates", trials) for row in rows])
        by_rate = tuned.groupby("rate")["loss"].mean()
        rate = float(by_rate.idxmin())
        jobs = [
            Job(setting, spec, count, rate, steps + far * (number < settings.horizon_tasks and count == shots[-1]),
                frozenset(steps), stage.folder / "deltas")
            for count in reversed(shots)
            for number, spec in enumerate(unseen)
        ]  # fmt: skip
        curves = pd.DataFrame([row for rows in progress(workers, "tasks", jobs) for row in rows])

    curves = curves.drop(columns="rate")
    curves.insert(0, "model", name)
    curves.insert(1, "algorithm", algorithm)
    curves.insert(2, "seed", params.seed)
    regular = curves[curves["step"].isin(steps)]
    regular.to_parquet(stage.folder / "curves.parquet", index=False)
    followed = curves["episode_id"].isin([spec.episode_id for spec in unseen[: settings.horizon_tasks]])
    horizon = curves[followed & (curves["shots"] == shots[-1])]
    horizon.to_parquet(stage.folder / "horizon.parquet", index=False)
    means = regular[regular["shots"] == shots[-1]].groupby("step")["loss"].mean()
    for step, loss in means.items():
        stage.track.log_metrics({"query_loss": float(loss)}, step=int(step))
    stage.track.set_on_parent({f"validation_loss/{'-'.join(stage.item)}": float(by_rate[rate])}, {})
    losses = {f"loss_{step}": float(loss) for step, loss in means.items()}
    stage.metrics({"rate": rate, "validation_loss": float(by_rate[rate]), **losses, **horizon_summary(horizon)})


def progress(workers: Workers, name: str, jobs: list[Job]) -> tqdm:  # type: ignore[type-arg]
    return tqdm(workers.map(run, jobs), name, total=len(jobs), unit="task", mininterval=1.0)


if __name__ == "__main__":
    run_stage("adapt", adapt)
