"""The run of a stage: what it logs goes to its record and to the spool, from where it is delivered to MLflow.

No failure of the tracking server stops a stage or makes it wait while it works.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaspeech.errors import Stopped
from metaspeech.tracking import images
from metaspeech.tracking.delivery import Delivery, say
from metaspeech.tracking.execution import Execution, current
from metaspeech.tracking.reasons import public, reason
from metaspeech.tracking.record import Record
from metaspeech.tracking.server import base_folder, connect, tracking_uri
from metaspeech.tracking.spool import FOLDER, Entry, Header, Spool, new_id
from metaspeech.tracking.system import SystemMetrics

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

ROWS = 500  # metrics in an entry


class StageRun:
    """Every method takes next to no time, and is safe to call when there is no tracking server."""

    def __init__(self, record: Record, execution: Execution, spool: Spool | None = None) -> None:
        """Without a ``spool`` only the record is kept."""
        self.record = record
        self.execution = execution
        self._spool = spool
        self._steps: dict[str, int] = {}
        self._warned = False

    @property
    def run_id(self) -> str | None:
        """Of MLflow; None where it was not yet known when the stage ended."""
        return self.record.run_id

    def log_metrics(self, values: Mapping[str, float | int | None], step: int | None = None) -> None:
        """Numbers (None is left out). Without a ``step`` they stand at the last one of their curve."""
        numbers = {name: float(value) for name, value in values.items() if value is not None}
        self.record.metrics |= numbers
        self._log_rows(numbers, step)

    def log_figure(self, figure: Figure, name: str) -> None:
        """A matplotlib figure as ``figures/<name>.png`` (another suffix is kept)."""
        file = name if Path(name).suffix else f"{name}.png"
        self._keep(file, figure.savefig, "figures")

    def log_image(self, pixels: np.ndarray, name: str, step: int) -> None:
        """An image (height, width) in [0, 1] that MLflow shows with a slider over its steps."""
        for file, write in images.files(pixels, name, step):
            self._keep(file, write, "images", image=True)

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """A table that MLflow can show, as ``tables/<name>.json``."""
        write = partial(table.to_json, orient="split", index=False, date_format="iso")
        self._keep(f"{name}.json", write, "tables", table=True)

    def log_artifact(self, path: str | Path, folder: str = "") -> None:
        """A file, or a folder with what it holds, under ``folder`` of the run's artifacts."""
        source = Path(path)
        files = sorted(one for one in source.rglob("*") if one.is_file()) if source.is_dir() else [source]
        for file in files:
            inside = file.parent.relative_to(source).as_posix() if source.is_dir() else "."
            to = "/".join(part for part in (folder, inside) if part not in ("", "."))
            self._try(str(file), partial(Spool.keep_copy, source=file, to=to))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags of the run, kept in the record too."""
        self.record.tags.update(tags)
        self._append({"tags": dict(tags)})

    def set_on_parent(self, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """What the execution as a whole is known by, on the parent run: few figures, and what the UI lists."""
        now = int(time.time() * 1000)
        rows = [(name, value, now, 0) for name, value in metrics.items()]
        self._append({"parent": {"metrics": rows, "tags": dict(tags)}})

    def mirror(self, records: Iterable[Record]) -> None:
        """Gives each recorded stage that has no finished run in this execution one, made from its record.

        Such a stage was taken from DVC's cache (tag ``dvc.cached`` = true).
        """
        self._append({"mirror": [asdict(record) for record in records]})

    def _log_rows(self, numbers: Mapping[str, float], step: int | None) -> None:
        now = int(time.time() * 1000)
        if step is None:
            now += 1  # of two values at a step MLflow shows the later one
        else:
            self._steps |= dict.fromkeys(numbers, step)
        rows = [(name, value, now, self._steps.get(name, 0)) for name, value in numbers.items()]
        for first in range(0, len(rows), ROWS):
            self._append({"metrics": rows[first : first + ROWS]})

    def _keep(self, file: str, write: Callable[[Path], Any], to: str, **more: Any) -> None:
        self._try(f"{to}/{file}", lambda spool: spool.keep(file, write, to, **more))

    def _append(self, entry: Entry) -> None:
        self._try("an entry", lambda spool: spool.append("log", entry))

    def _try(self, what: str, action: Callable[[Spool], Any]) -> None:
        if self._spool is None:
            return
        try:
            taken = action(self._spool)
        except OSError as error:
            say(f"warning: {what} is not kept for MLflow: {reason(error)}. The stage goes on.")
            return
        if taken is False and not self._warned:
            self._warned = True
            say(
                f"warning: the disk that holds {self._spool.folder} takes no more; what is logged for MLflow waits in "
                "memory until there is room."
            )

    def _end(self) -> None:
        self.log_metrics({"seconds": self.record.seconds, "memory_mib": self.record.memory_mib})
        self._append({"end": {"status": self.record.status, "when": int(time.time() * 1000)}})


@contextmanager
def stage_run(
    stage: str,
    item: str = "",
    *,
    record: Path,
    params: Mapping[str, Any] | None = None,
    root: Path | None = None,
    execution: Execution | None = None,
    headline: Mapping[str, Any] | None = None,
    about: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    inputs: Mapping[str, str] | None = None,
    data: Collection[str] = (),
    experiment: str = "metaspeech",
    name: str = "",
    system_metrics: bool = False,
) -> Iterator[StageRun]:
    """Opens the run of a stage, and writes its record to ``record`` at the end, also when the stage failed.

    Args:
        params: the flat params that the stage reads.
        root: the project's root.
        headline: the flat params by which executions are told apart; they go on the parent run.
        about: tags of the parent run.
        tags: tags of the run.
        inputs: path -> digest of what the stage reads.
        data: those of the inputs that the execution as a whole is about.
        name: of the parent run; by default that of the DVC experiment, or the execution's key.
        system_metrics: whether load and memory of the machine are logged too.
    """
    root = root or Path.cwd()
    params = dict(params or {})
    execution = execution or current(root, params)
    entry = Record(
        stage=stage,
        item=item,
        execution=execution.key,
        status="FINISHED",
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        seconds=0.0,
        run_id=None,
        params=params,
        inputs=dict(inputs or {}),
    )
    entry.tags = {"stage": stage, "item": item, **(tags or {}), **execution.tags(entry.name)}
    header = Header(
        id=new_id(),
        uri=public(tracking_uri(root)),
        experiment=experiment,
        execution=execution,
        parent_name=name or execution.experiment or execution.key,
        parent_params=dict(headline or {}),
        parent_tags={**(about or {}), **execution.tags("")},
        parent_inputs={path: digest for path, digest in entry.inputs.items() if path in data},
        record=entry,
    )
    spool = _spool(base_folder(root), header)
    run = StageRun(entry, execution, spool)
    delivery = _delivery(spool, root)
    sampler = SystemMetrics(run._log_rows) if system_metrics and spool else None
    started = time.monotonic()
    try:
        yield run
    except BaseException as error:
        failed = isinstance(error, Exception) and not isinstance(error, Stopped)
        entry.status = "FAILED" if failed else "KILLED"
        raise
    finally:
        if sampler:
            sampler.stop()
        entry.seconds = round(time.monotonic() - started, 3)
        entry.memory_mib = peak_memory()
        run._end()
        try:
            _hand_over(spool, delivery)
        finally:
            entry.run_id = delivery.run_id if delivery else None
            entry.write(record)


def _spool(base: Path, header: Header) -> Spool | None:
    try:
        return Spool.create(base, header)
    except OSError as error:
        say(
            f"warning: {base / FOLDER}: cannot be written ({error.strerror or error}). The stage goes on without "
            "tracking; its results are not affected."
        )
        return None


def _delivery(spool: Spool | None, root: Path) -> Delivery | None:
    """Loads mlflow here and not in the thread: of two threads that import, one may meet half-made modules."""
    if spool is None:
        return None
    try:
        connect(tracking_uri(root))
        delivery = Delivery(spool, root)
    except Exception as error:
        say(
            f"warning: MLflow at {public(tracking_uri(root))} cannot be used: {reason(error)}. The stage goes on; what "
            f"it logs is kept in {FOLDER}/spool."
        )
        return None
    delivery.start()
    return delivery


def _hand_over(spool: Spool | None, delivery: Delivery | None) -> None:
    """At the end of the stage: the spool is emptied, or left for the next one."""
    if spool is None:
        return
    if delivery and delivery.finish():
        spool.remove()
    else:
        say(
            f"warning: not all of this stage has reached MLflow. It is kept in {FOLDER}/spool; the next stage sends "
            "it, or: metaspeech deliver"
        )
    spool.let_go()


def peak_memory() -> float | None:
    """MiB, the most that this process has held; None where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")  # Linux
        return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)
    except (OSError, ValueError, IndexError):
        return None
