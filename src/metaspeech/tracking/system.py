"""Load and memory of the machine while a stage runs, as MLflow shows them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

EVERY = 10.0  # seconds

Log = Callable[[Mapping[str, float], int], None]


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics import cpu_monitor, disk_monitor, gpu_monitor, network_monitor

    kinds: list[Any] = [cpu_monitor.CPUMonitor, disk_monitor.DiskMonitor, network_monitor.NetworkMonitor]
    found = [kind() for kind in kinds]
    with suppress(Exception):  # no GPU, or none of its library
        gpu: Any = gpu_monitor.GPUMonitor
        found.append(gpu())
    return found


class SystemMetrics(threading.Thread):
    """Samples by MLflow's own monitors (CPU, memory, disk, network, GPU where there is one) until :meth:`stop`."""

    def __init__(self, log: Log) -> None:
        super().__init__(name="metaspeech system metrics", daemon=True)
        self._log, self._stop_asked = log, threading.Event()
        self.start()

    def run(self) -> None:
        monitors = _monitors()
        step = 0
        while not self._stop_asked.wait(EVERY if step else 0.5):
            values: dict[str, float] = {}
            for monitor in monitors:
                monitor.collect_metrics()
                values |= {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            self._log(values, step)
            step += 1

    def stop(self) -> None:
        self._stop_asked.set()
        self.join(timeout=1.0)
