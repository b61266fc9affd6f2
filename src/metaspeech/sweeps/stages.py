"""dvc.yaml as a sweep sees it: what a trial runs again, what all trials share, where the figures are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from metaspeech import config
from metaspeech.errors import UserError
from metaspeech.registry import ALGORITHMS, MODELS
from metaspeech.sweeps.space import Objective

NAMES = {"$model": MODELS, "$algorithm": ALGORITHMS}
Stages = Mapping[str, Mapping[str, Any]]  # name -> what dvc.yaml says of it, in the order of the pipeline


def needed(stages: Stages, target: str) -> list[str]:
    """The target and what it needs, in order."""
    wanted = {target}
    for name in reversed(list(stages)):
        if any(_feeds(stages[name], stages[other]) for other in wanted):
            wanted.add(name)
    return [name for name in stages if name in wanted]


def affected(stages: Stages, target: str, keys: Iterable[str]) -> list[str]:
    """Of the needed stages those whose results may change with params ``keys``, in order."""
    keys, found = list(keys), list[str]()
    for name in needed(stages, target):
        stage = stages[name]
        lists = [str(one).removeprefix("${").removesuffix("}") for one in stage.get("matrix", {}).values()]
        read = [*stage.get("params", []), *lists]
        touched = any(_covers(entry, key) for entry in read for key in keys)
        if touched or any(_feeds(stages[other], stage) for other in found):
            found.append(name)
    return found


def metric_files(stage: Mapping[str, Any], objective: Objective, params: config.Params) -> list[str]:
    """The metrics files of a trial that an objective is the mean of."""
    lists: dict[str, Sequence[object]] = {
        "${models}": params.models,
        "${algorithms}": params.algorithms,
        "${seeds}": params.seeds,
    }
    matrix = stage.get("matrix", {})
    files = []
    for values in itertools.product(*(lists[source] for source in matrix.values())):
        item = dict(zip(matrix, values, strict=True))
        if matrix and item["model"] != objective.model:
            continue
        if matrix and objective.algorithm and item["algorithm"] != objective.algorithm:
            continue
        files += [_filled(_path(entry), item) for entry in stage["metrics"]]
    if not files:
        raise UserError(f"objective {objective.name}: no trial of models {params.models} has it")
    return files


def figures(content: Mapping[str, Any], objective: Objective, params: config.Params, file: str) -> list[float | None]:
    """What one metrics file has of an objective. Raises UserError when it has no such figure."""
    if objective.metric in content:
        return [content[objective.metric]]
    systems = [
        f"{objective.model}-{name}".replace("+", "-")
        for name in ([objective.algorithm] if objective.algorithm else params.algorithms)
    ]
    found = [content[one][objective.metric] for one in systems if objective.metric in content.get(one, {})]
    if len(found) < len(systems):
        inner = next((content[one] for one in systems if isinstance(content.get(one), Mapping)), content)
        known = [name for name, value in inner.items() if not isinstance(value, Mapping)] or list(inner)
        raise UserError(f"objective {objective.name}: {file} has no such figure. It has: {', '.join(known)}")
    return found


def _feeds(stage: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    outs = [_path(entry) for entry in [*stage.get("outs", []), *stage.get("metrics", [])]]
    deps = [_path(entry) for entry in other.get("deps", [])]
    return any(_overlap(_fixed_part(out), _fixed_part(dep)) for out in outs for dep in deps)


def _overlap(one: str, other: str) -> bool:
    if not one or not other:
        return False
    left, right = PurePosixPath(one), PurePosixPath(other)
    return left.is_relative_to(right) or right.is_relative_to(left)


def _covers(entry: str, key: str) -> bool:
    """One is the other or a section of it; ``${item.model}`` stands for any model."""
    parts = re.sub(r"\$\{item\.(\w+)\}", r"$\1", entry).split(".")
    return all(other in NAMES.get(part, [part]) for part, other in zip(parts, key.split("."), strict=False))


def _fixed_part(entry: str) -> str:
    """Up to the first ``${...}``: the rest depends on the item."""
    return entry.partition("${")[0].rstrip("/.")


def _filled(entry: str, item: Mapping[str, Any]) -> str:
    for key, value in item.items():
        entry = entry.replace(f"${{item.{key}}}", str(value))
    return entry


def _path(entry: Any) -> str:
    return entry if isinstance(entry, str) else str(next(iter(entry)))
