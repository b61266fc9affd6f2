"""A Ray cluster of two small nodes on this machine, for tests: ports are whatever is free."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'metaspeech[ray]'")

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.update({"RAY_worker_niceness": "0"})
os.environ.pop("RAY_ADDRESS", None)
STORE_BYTES = 80 * 2**20  # of each node, the least that Ray takes
QUICK = {"health_check_period_ms": 500, "health_check_failure_threshold": 4, "health_check_initial_delay_ms": 0}


@contextmanager
def two_nodes() -> Iterator:  # type: ignore[type-arg]
    """The cluster and its second node, which may be killed: ``cluster.remove_node(second, allow_graceful=False)``."""
    from ray.cluster_utils import Cluster

    own = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=own | {"_system_config": QUICK}, shutdown_at_exit=True)
    try:
        yield cluster, cluster.add_node(**own)
    finally:
        cluster.shutdown()
