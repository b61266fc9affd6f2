"""A vector for every task, by several representations: data/representation/<model>.parquet."""

from pathlib import Path

import pandas as pd
from tqdm import tqdm

from metaspeech.data.episodes import read_episodes, read_pool
from metaspeech.parallel import ordered_map, worker_count
from metaspeech.tasks import represent as tasks
from metaspeech.tasks.representation import TaskVectors, read_vectors, write_vectors
from metaspeech.training.compute import chosen_device, set_up_torch
from pipelines._stage import Stage, run_stage

EPISODES = Path("data/episodes")
VECTORS = Path("data/representation")


def represent(stage: Stage) -> None:
    params = stage.params
    set_up_torch(params)
    starts = tuple((model, Path("models/pretrain") / model) for model in params.models)
    setting = tasks.Setting(params, Path("data/prepared"), starts)
    episodes = [spec for split in ("val", "test") for spec in read_episodes(EPISODES / f"{split}.parquet")]
    jobs = list(tasks.jobs(setting, read_pool(EPISODES / "train.parquet"), episodes))
    workers = worker_count(params.represent.workers) if chosen_device(params).type == "cpu" else 1
    done = tqdm(ordered_map(tasks.run, jobs, workers), "tasks", total=len(jobs), unit="task", mininterval=1.0)
    table = pd.concat(list(done), ignore_index=True)
    for model, own in table.groupby("model"):
        write_vectors(VECTORS / f"{model}.parquet", own)
    stage.metrics({model: nearness(model, params.represent.representations) for model in params.models})


def nearness(model: str, representations: list[str]) -> dict[str, float]:
    """By representation: how similar test tasks are to the nearest training speaker, on average."""
    found = {}
    for name in representations:
        vectors: TaskVectors = read_vectors(VECTORS / f"{model}.parquet", name)
        similarity = vectors.similarity(vectors.ids("test"), vectors.ids("train"))
        found[f"{name}_to_nearest"] = float(similarity.max(axis=1).mean())
    return found


if __name__ == "__main__":
    run_stage("represent", represent)
