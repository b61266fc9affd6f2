"""What tensors take at the highest, and what there is to take."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CGROUPS = Path("/sys/fs/cgroup")
# (folder below CGROUPS, limit, usage, in memory.stat: what can be given back) of version 2 and version 1
VERSIONS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within ``with``: counts bytes of all tensors that are made and not yet freed, those in graphs too.

    Views count once, and what was there before does not count. The figure is the same on every run and does not depend
    on how the C library keeps what is freed.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            key, size = storage._cdata, storage.nbytes()
            if key not in self._known and key not in given:
                self._known.add(key)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, key, size)
        return result

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Runs ``work``: what its tensors take at the highest, beside those that were there before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return int(torch.cuda.max_memory_allocated(device)) - int(before)
    live = LiveTensors()
    with live:
        work()
    return live.peak


def available_bytes(device: torch.device) -> int | None:
    """What can be had now: of the GPU, or of the machine and whatever limits this process. None: not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return None
    machine = 1024 * int(meminfo.partition("MemAvailable:")[2].split()[0])
    return min([machine, *limits_left(groups, CGROUPS)])


def limits_left(groups: str, root: Path) -> Iterator[int]:
    """What is left of each limit on this process, its groups given as in /proc/self/cgroup."""
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        for folder, limit, usage, reclaimable in VERSIONS:
            if folder in controllers.split(","):
                inner = Path(path.lstrip("/"))
                for group in (inner, *inner.parents):
                    here = root / folder / group
                    try:
                        most, used = (int((here / name).read_text()) for name in (limit, usage))
                        kept = (here / "memory.stat").read_text().partition(f"{reclaimable} ")[2].split()[0]
                    except (OSError, ValueError, IndexError):  # no such group in this container, or no limit ("max")
                        continue
                    yield max(0, most - used + int(kept))


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]
