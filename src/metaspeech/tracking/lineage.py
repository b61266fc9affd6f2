"""Which data went into a stage: digests of upstream outs, from dvc.lock."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import yaml


def upstream(lock: Path, deps: Iterable[str]) -> dict[str, str]:
    """Path -> digest of every out in ``lock`` that is, holds, or lies under, one of ``deps``.

    DVC writes a stage's entry when the stage has finished: upstream entries are those of this execution, while the
    entry of the running stage itself would be the one of its last run. Empty when there is no dvc.lock yet.
    """
    try:
        stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    except FileNotFoundError:
        return {}
    wanted = [PurePosixPath(dep) for dep in deps]
    return {
        out["path"]: out[out.get("hash", "md5")]
        for stage in stages.values()
        for out in stage.get("outs", [])
        if any(_overlap(PurePosixPath(out["path"]), dep) for dep in wanted)
    }


def _overlap(one: PurePosixPath, other: PurePosixPath) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
