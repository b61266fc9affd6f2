"""A Ray cluster: one that is there, by its address, or one of this machine; looked over before it is given work.

Ray is an extra (``pip install 'metaspeech[ray]'``) and imported only where it is used.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import metaspeech
from metaspeech.errors import UserError

ADDRESS = "RAY_ADDRESS"  # of the environment, where Ray itself looks for it
LOCAL = "local"  # as an address: start one here
PACKAGES = ("metaspeech", "torch", "pytorch_lightning", "dvc", "mlflow", "optuna")
OBJECT_STORE_BYTES = 200 * 2**20  # of a cluster started here: files are shared through folders, not through it
CONNECT_SECONDS, PROBE_SECONDS = 5.0, 180.0


@dataclass(frozen=True)
class Node:
    """A machine of the cluster that takes work."""

    id: str
    host: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Cluster:
    """What a cluster offers."""

    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> int:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> int:
        return sum(node.gpus for node in self.nodes)

    def share(self, jobs: int) -> tuple[int, float]:
        """CPUs and GPUs for each of so many jobs at the same time: the most with which all find a machine."""
        cpus = max(node.cpus for node in self.nodes)
        while cpus > 1 and sum(node.cpus // cpus for node in self.nodes) < jobs:
            cpus -= 1
        return cpus, 1 / max(1, math.ceil(jobs / self.gpus)) if self.gpus else 0.0

    def described(self) -> str:
        gpus = f" and {counted(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{counted(len(self.nodes), 'node')} with {counted(self.cpus, 'CPU')}{gpus}"


def counted(number: float, unit: str) -> str:
    """``1 CPU``, ``2 CPUs``."""
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


@contextmanager
def connected(address: str, shared: Sequence[Path], read: Sequence[Path] = ()) -> Iterator[Cluster]:
    """Connects to a cluster, or starts one on this machine, and leaves it at the end.

    Inside of it work may be given to Ray; its workers import metaspeech from where this process does.

    Args:
        address: ``host:port``, ``auto`` (one that runs on this machine) or ``local``; empty: by ``RAY_ADDRESS``, and
            without that ``local``.
        shared: folders that every node must see under the same path. They are made when absent.
        read: further folders that every node must have, which are only read.

    Raises:
        UserError: Ray is not installed, there is no such cluster, or its nodes lack packages or do not see the folders.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = _ray()
    address = address or os.environ.get(ADDRESS, "") or LOCAL
    here: dict[str, Any] = {"address": address}
    if address == LOCAL:
        os.environ.setdefault("RAY_worker_niceness", "0")  # as without Ray
        here |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES, "_node_ip_address": "127.0.0.1"}
    else:
        _check(address)
    try:
        ray.init(
            **here,
            logging_level="ERROR",
            log_to_driver=False,
            runtime_env={"env_vars": _environment()},
        )
    except Exception as error:  # Ray raises plain ones too
        raise UserError(f"Ray at {address}: {first_line(error)}") from None
    try:
        nodes = _nodes(ray)
        if not nodes:
            raise UserError(f"Ray at {address}: no node of it offers a CPU")
        _look_over(ray, nodes, shared, read)
        yield Cluster(nodes)
    finally:
        ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed: pip install 'metaspeech[ray]', or leave engine at local") from None
    return ray


def _check(address: str) -> None:
    """Ray itself tries an address at which nobody answers for a minute."""
    if "://" in address:
        raise UserError(
            f"Ray at {address}: expected host:port of the cluster's head, such as 10.0.0.1:6379. Start the command on "
            "a machine of the cluster; Ray's client (ray://) cannot see its folders"
        )
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"Ray at {address}: expected host:port, such as 10.0.0.1:6379, or auto, or local")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"Ray at {address}: nobody answers ({error.strerror or error}). Is the head running? ray start --head"
        ) from None


def _environment() -> dict[str, str]:
    """Of workers: a checkout is not installed on the nodes, but lies in the folder that they share."""
    own = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    paths = [Path(metaspeech.__path__[0]).parent, *map(Path, own)]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(str(path.resolve()) for path in paths))}


def _nodes(ray: Any) -> tuple[Node, ...]:
    found = []
    for node in ray.nodes():
        offered: Mapping[str, float] = node["Resources"]
        if node["Alive"] and offered.get("CPU", 0) >= 1:
            cpus, gpus = int(offered["CPU"]), int(offered.get("GPU", 0))
            found.append(Node(node["NodeID"], node["NodeManagerHostname"], cpus, gpus))
    return tuple(found)


def _look_over(ray: Any, nodes: Sequence[Node], shared: Sequence[Path], read: Sequence[Path]) -> None:
    """Every node must see what is written here, and have the packages."""
    folders = [str(folder.resolve()) for folder in (*shared, *read)]
    token, marks = secrets.token_hex(8), []
    try:
        for folder in shared:
            folder.mkdir(parents=True, exist_ok=True)
            marks.append(folder.resolve() / f".seen-{token}")
            marks[-1].touch()
        answers = [_probe(ray, node).remote(folders, [mark.name for mark in marks], PACKAGES) for node in nodes]
        for node, answer in zip(nodes, answers, strict=True):
            try:
                unseen, missing = ray.get(answer, timeout=PROBE_SECONDS)
            except ray.exceptions.RayError as error:
                raise UserError(f"Ray: node {node.host} does not answer: {first_line(error)}") from None
            if unseen:
                raise UserError(
                    f"Ray: node {node.host} does not see {', '.join(unseen)}. The project must lie in a folder that "
                    "all nodes share (NFS, Lustre, an object store mounted as a folder), under the same path everywhere"
                )
            if missing:
                raise UserError(
                    f"Ray: node {node.host} cannot import {', '.join(missing)}. Install there what is installed here: "
                    "pip install 'metaspeech[ray]', with the same versions"
                )
    finally:
        for mark in marks:
            with suppress(OSError):
                mark.unlink()


def _probe(ray: Any, node: Node) -> Any:
    """A task on a node. It is defined here so that Ray sends its code, which needs nothing of ours."""

    def look(folders: list[str], marks: list[str], packages: tuple[str, ...]) -> tuple[list[str], list[str]]:
        import importlib.util
        import os

        expected = [os.path.join(*one) for one in zip(folders, marks, strict=False)] + folders[len(marks) :]
        unseen = [folder for folder, path in zip(folders, expected, strict=True) if not os.path.exists(path)]
        return unseen, [one for one in packages if not importlib.util.find_spec(one)]

    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
    return ray.remote(look).options(num_cpus=0, scheduling_strategy=strategy)


def first_line(error: BaseException | None) -> str:
    """Of an error's text, which Ray's make a page of."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))[:300]
