"""Adapted parameters, stored as differences from the start that they were adapted from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metaspeech.errors import UserError
from metaspeech.files import replacing
from metaspeech.models.base import Parameters


def write(
    path: Path,
    base: Mapping[str, Tensor],
    adapted: Mapping[int, Mapping[str, Tensor]],
    others: Mapping[str, Tensor] | None = None,
) -> None:
    """Stores ``adapted[step] - base`` in half precision; parameters that did not move are left out.

    ``others`` are stored as they are; their names are no ``<step>/<parameter>``.
    """
    tensors = dict(others or {})
    for step, params in adapted.items():
        for name, value in params.items():
            delta = (value - base[name]).to(torch.float16).cpu().contiguous()
            if bool(delta.any()):
                tensors[f"{step}/{name}"] = delta
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"steps": " ".join(str(step) for step in sorted(adapted))})


def read(path: Path, base: Mapping[str, Tensor], step: int) -> Parameters:
    """The parameters after ``step`` steps: ``base`` plus the stored difference.

    Step 0 has one too: an algorithm may begin elsewhere than at ``base``.

    Raises:
        UserError: the file is missing, damaged or has no such step.
    """
    params = {name: value.detach().clone() for name, value in base.items()}
    try:
        with safe_open(path, framework="pt") as file:
            steps = (file.metadata() or {}).get("steps", "").split()
            if str(step) not in steps:
                raise UserError(
                    f"{path}: holds steps {', '.join(steps)}, not {step}. Check adapt.steps and run: dvc repro"
                )
            for key in file.keys():  # noqa: SIM118 - a safetensors handle is not a mapping
                owner, _, name = key.partition("/")
                if owner == str(step):
                    params[name] = params[name] + file.get_tensor(key).to(params[name])
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read: {error}. Delete its folder and run: dvc repro") from None
    return params
