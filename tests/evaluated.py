"""A small project for the stages evaluate and report: untrained models and speakers of tones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from speech import write_corpus

from metaspeech import config, registry
from metaspeech.config import Params
from metaspeech.data.episodes import (
    EpisodeSpec,
    Splits,
    read_episodes,
    split_corpus,
    stored_episodes,
    write_episodes,
    write_pool,
)
from metaspeech.data.prepare import prepare_corpus
from metaspeech.data.store import Store
from metaspeech.evaluation import bench
from metaspeech.models.base import parameters_of
from metaspeech.tasks.representation import COLUMNS, write_vectors
from metaspeech.tracking import Execution, Record, StageRun
from metaspeech.training import deltas
from metaspeech.training.checkpoint import build_model, save_model
from pipelines._stage import Stage

STEPS = (0, 1, 2)
PARAMS: dict[str, Any] = {
    "algorithms": ["transfer", "maml"],
    "prepare": {"workers": 1, "statistics": ""},
    "episodes": {"val_speakers": 1, "test_speakers": 2, "text_split": "none", "shots": 2, "queries": 2},
    "models": ["tacotron"],
    "tacotron": {"preset": "tiny"},
    "wavenet": {"preset": "tiny"},
    "adapt": {"shots": [2], "steps": list(STEPS), "tune_steps": 1},
    "evaluate": {
        "shots": [2], "queries": 2, "vocoder_steps": [0, 2], "vocoder_queries": 1, "griffin_lim_iterations": 2,
        "max_seconds_ratio": 1.5, "bootstrap": 100, "workers": 1,
    },
    "report": {"speakers": 2, "title": "A <b>title</b> & more"},
}  # fmt: skip


class Tracked(StageRun):
    """Without a server; keeps the names of what was logged."""

    def __init__(self) -> None:
        record = Record("stage", "", "execution", "FINISHED", "2026-01-01T00:00:00", 1.0, None)
        super().__init__(record, Execution("c0ffee" * 7, True, "", "", "0", ()))
        self.logged: list[str] = []

    def log_figure(self, figure: object, name: str) -> None:
        self.logged.append(name)

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        self.logged.append(name)

    def log_artifact(self, path: str | Path, folder: str = "") -> None:
        self.logged.append(str(path))


def params(**changes: Any) -> Params:
    return config.from_mapping({**PARAMS, **changes})


def stage(name: str, settings: Params) -> Stage:
    """A stage of the project in the current folder, without tracking."""
    folder = Path("results") / name
    folder.mkdir(parents=True, exist_ok=True)
    return Stage(name, (), settings, folder, Tracked())


def write_inputs(project: Path, settings: Params) -> None:
    """Everything that evaluate reads: store, test episodes, checkpoints, deltas, curves."""
    corpus = project / "data/corpus"
    write_corpus(corpus, speakers=5, utterances=6)
    described = {"source": "folder", "root": ".", "licence": "none", "language": "en", "note": "Tones, not speech."}
    described |= {"speakers": 5, "utterances": 30, "rejected": 0, "hours": 0.01}
    (corpus / "corpus.json").write_text(json.dumps(described), encoding="utf-8")
    prepare_corpus(corpus, project / "data/prepared", settings.prepare, progress=False)
    store = Store(project / "data/prepared")
    splits = split_corpus(store.manifest, settings.episodes, settings.seed)
    episodes = stored_episodes(splits, "test", settings.episodes, settings.seed)
    write_episodes(project / "data/episodes/test.parquet", episodes)
    write_episodes(
        project / "data/episodes/val.parquet", stored_episodes(splits, "val", settings.episodes, settings.seed)
    )
    write_pool(project / "data/episodes/train.parquet", splits.pools["train"])
    (project / "data/representation").mkdir()
    for model in settings.models:
        write_vectors(project / f"data/representation/{model}.parquet", vectors(settings, splits, episodes))
        network = build_model(model, settings, store.features())
        known = {"speakers": splits.speakers("train")}
        save_model(project / "models/pretrain" / model, network, model, settings, store.features(), **known)
        (project / "results/pretrain" / model).mkdir(parents=True)
        (project / "results/pretrain" / model / "start.json").write_text("null\n", encoding="utf-8")
        for number, algorithm in enumerate(settings.algorithms):
            for seed in settings.seeds:
                write_adapted(project, settings, store, splits, episodes, model, algorithm, number, seed)


def vectors(settings: Params, splits: Splits, episodes: list[EpisodeSpec]) -> pd.DataFrame:
    """A vector for every task by every representation."""
    tasks = [(speaker, "train", speaker) for speaker in splits.speakers("train")]
    tasks += [(spec.episode_id, spec.split, spec.speaker) for spec in episodes]
    rows = [
        (name, *task, [1.0, float(number), float(number % 2)])
        for name in settings.represent.representations
        for number, task in enumerate(tasks)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def write_adapted(
    project: Path,
    settings: Params,
    store: Store,
    splits: Splits,
    episodes: list[EpisodeSpec],
    model: str,
    algorithm: str,
    number: int,
    seed: int,
) -> None:
    """What meta_train and adapt leave of one model, the ``number``-th algorithm and a seed."""
    torch.manual_seed(number + 100 * (seed - 1))
    network = build_model(model, settings, store.features())
    name = f"{model}-{algorithm}-{seed}"
    known = {"speakers": splits.speakers("train")}
    save_model(project / "models/meta_train" / name, network, model, settings, store.features(), **known)
    base, rows = parameters_of(network), []
    folder = project / "results/adapt" / name / "deltas"
    folder.mkdir(parents=True)
    for episode in episodes:
        adapted = {
            step: {key: value + 1e-3 * step * torch.randn_like(value) for key, value in base.items()} for step in STEPS
        }
        for shots in settings.adapt.shots:
            moved = {
                step: {key: base[key] + shots / 2 * (value - base[key]) for key, value in own.items()}
                for step, own in adapted.items()
            }
            deltas.write(folder / f"{episode.episode_id}-{shots}.safetensors", base, moved)
        owner = {"model": model, "algorithm": algorithm, "seed": seed, "episode_id": episode.episode_id}
        losses = {step: 2.0 - 0.1 * step + 0.01 * number + 0.04 * (seed - 1) for step in STEPS}
        rows += [
            {**owner, "speaker": episode.speaker, "shots": shots, "step": step, "loss": losses[step]}
            for shots in settings.adapt.shots
            for step in STEPS
        ]
    pd.DataFrame(rows).to_parquet(folder.parent / "curves.parquet", index=False)
    far = {"horizon_step": 20, "horizon_loss": 1.7 + number, "horizon_diverged": 2 * number, "horizon_tasks": 2}
    trained = {"gradient_evaluations": 8, "outer_steps": 4 - 3 * number}
    for stage_name, metrics in (("adapt", far), ("meta_train", trained)):
        path = project / "results" / stage_name / name / "metrics.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(metrics), encoding="utf-8")


def run_first(settings: Params, audio: Path) -> pd.DataFrame:
    """The rows of the first test episode under MAML, in the project of the current folder."""
    classes = {name: registry.resolve(registry.MODELS, name) for name in settings.models}
    models, adapted = Path("models/meta_train"), Path("results/adapt")
    setup = bench.Bench(
        params=settings,
        store=Path("data/prepared"),
        episodes=tuple(read_episodes(Path("data/episodes/test.parquet"))),
        systems=tuple(bench.systems(classes, settings)),
        voices=tuple(
            bench.Voice(name, "maml", 1, models / f"{name}-maml-1", adapted / f"{name}-maml-1") for name in classes
        ),
        audible=frozenset(),
        audio=audio,
    )
    return pd.DataFrame(bench.run(bench.Job(setup, setup.episodes[0], "maml", 1)).rows)
