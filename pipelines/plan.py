"""What meta-training will cost with the present params.yaml, before anything is trained: ``python -m pipelines.plan``.

Each model, untrained and of the right size, takes a few gradients with each algorithm on one task of the training
speakers: of median length among the first ones. What stages other than meta_train take is not looked at.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metaspeech import config
from metaspeech.data.batch import Episode
from metaspeech.data.episodes import read_episodes, read_pool, turn_speaker
from metaspeech.data.store import Store
from metaspeech.data.tensors import EpisodeMaker
from metaspeech.errors import UserError
from metaspeech.meta.base import MetaAlgorithm
from metaspeech.meta.baselines import Conditioned
from metaspeech.models.base import loss_function, parameters_of
from metaspeech.registry import ALGORITHMS, resolve
from metaspeech.training.checkpoint import build_model
from metaspeech.training.compute import chosen_device, set_up_torch
from metaspeech.training.planner import Plan, affordable_steps, duration, plan, size
from pipelines._episodes import EPISODES

PREPARED = Path("data/prepared")
DRAWN = 15  # tasks, of which the one of median length is measured
COLUMNS = "{:9} {:12} {:>11} {:>12} {:>10} {:>10}"


def plan_all(params: config.Params, prepared: Path = PREPARED, episodes: Path = EPISODES) -> list[str]:
    """A table with a line for each model and algorithm, then totals and warnings. Raises like :func:`plans`."""
    lines = [COLUMNS.format("model", "algorithm", "outer steps", "evaluations", "time", "tensors")]
    made = plans(params, prepared, episodes)
    warnings: dict[str, list[str]] = {}  # text -> of which models and algorithms
    for name, algorithm, one in made:
        figures = (one.outer_steps, one.gradient_evaluations, duration(one.seconds), size(one.memory_bytes))
        lines.append(COLUMNS.format(name, algorithm, *figures))
        for warning in one.warnings():
            warnings.setdefault(warning, []).append(f"{name} with {algorithm}")
    steps, evaluations = (sum(getattr(one, key) for *_, one in made) for key in ("outer_steps", "gradient_evaluations"))
    seconds, highest = sum(one.seconds for *_, one in made), max(one.memory_bytes for *_, one in made)
    lines.append(COLUMNS.format("all", "", steps, evaluations, duration(seconds), f"<= {size(highest)}"))
    held = made[0][2].held
    lines.append(
        "Time includes validation. Tensors: at the highest, beside the model and the data"
        + (f"; a process may hold up to {held:g} times as much." if held > 1 else ".")
    )
    return lines + [f"warning: {', '.join(whose)}: {warning}" for warning, whose in warnings.items()]


def plans(params: config.Params, prepared: Path = PREPARED, episodes: Path = EPISODES) -> list[tuple[str, str, Plan]]:
    """Model, algorithm and what their meta-training will take, for each that params ask for.

    Raises:
        UserError: there are no tasks yet, a task cannot be measured, or params.yaml does not pay for an outer step.
    """
    if not (prepared.is_dir() and (episodes / "train.parquet").is_file() and (episodes / "val.parquet").is_file()):
        raise UserError(f"{prepared}, {episodes}: no tasks to measure yet. Run: dvc repro episodes")
    store, held_out = Store(prepared), len(read_episodes(episodes / "val.parquet"))
    tasks = _tasks(store, params, episodes / "train.parquet")
    made: list[tuple[str, str, Plan]] = []
    for name in params.models:
        own = config.for_model(params, name)
        set_up_torch(own)
        device = chosen_device(own)
        if own.devices > 1 and device.type == "cpu":
            torch.set_num_threads(1)
        model = build_model(name, own, store.features()).to(device)
        task = sorted(tasks, key=lambda one: model.length(one.support) + model.length(one.query))[DRAWN // 2]
        for algorithm_name in own.algorithms:
            algorithm: MetaAlgorithm = resolve(ALGORITHMS, algorithm_name).from_params(own)
            with torch.autocast(device.type, torch.bfloat16, enabled=own.precision == "bfloat16"):
                one = _plan(algorithm, algorithm_name, model, task.to(device), own, held_out)
            made.append((name, algorithm_name, one))
    return made


def _plan(algorithm: MetaAlgorithm, name: str, model: Any, task: Episode, params: config.Params, held_out: int) -> Plan:
    """Vectors of tasks and neighbours, which a later stage finds, are stood in for: they cost the same."""
    if isinstance(algorithm, Conditioned):
        task = replace(task, representation=torch.zeros(algorithm.width, device=task.support.mels.device))
    if "neighbour" in algorithm.needs:
        task = replace(task, neighbour=task.support)
    settings, loss_fn, start = params.meta_train, loss_function(model), parameters_of(model)
    start |= algorithm.learned(loss_fn, start)
    steps = affordable_steps(algorithm, name, settings, params.devices)
    return plan(algorithm, loss_fn, start, task, settings, steps, params.devices, held_out)


def _tasks(store: Store, params: config.Params, pool_file: Path) -> list[Episode]:
    pool = read_pool(pool_file)
    speakers = [turn_speaker(sorted(pool), params.seed, place) for place in range(DRAWN)]
    shots, queries = params.episodes.shots, params.episodes.queries
    return EpisodeMaker(store, params.seed).outer_step(pool, lambda step: speakers, shots, queries)(0)


def main() -> None:
    try:
        print("\n".join(plan_all(config.load("params.yaml"))))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
