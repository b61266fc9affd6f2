"""How torch computes in a stage: threads, determinism, device."""

from __future__ import annotations

import os

import torch

from metaspeech.config import Params
from metaspeech.errors import UserError


def set_up_torch(params: Params) -> None:
    """Threads, determinism and the seed of a stage. Call before the model is built.

    Raises:
        UserError: ``device: cuda`` was asked for and there is none.
    """
    if params.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "params.yaml: device: 'cuda' asked for, but torch sees no CUDA device. Set device to auto or cpu"
        )
    torch.set_num_threads(params.threads or _threads_asked_for() or os.cpu_count() or 1)
    deterministic()
    torch.manual_seed(params.seed)


def _threads_asked_for() -> int:
    """By ``OMP_NUM_THREADS``, as whoever runs several stages at once sets it; 0: nothing was asked for."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() else 0


def deterministic() -> None:
    """The same input gives the same bits, on this machine."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


def chosen_device(params: Params) -> torch.device:
    """CUDA where there is one and nothing else was asked for. Apple's GPUs have not all that the inner loop needs."""
    return torch.device("cpu" if params.device == "cpu" or not torch.cuda.is_available() else "cuda")
