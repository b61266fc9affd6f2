"""What is said of addresses at which there is no cluster, and without Ray."""

from __future__ import annotations

import socket
import sys

import pytest

from metaspeech import cluster
from metaspeech.cluster import Cluster, Node
from metaspeech.errors import UserError


def refused(address, folder):
    with pytest.raises(UserError) as error, cluster.connected(address, [folder]):
        pass
    return str(error.value)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ray://head:10001", "Start the command on a machine of the cluster"),
        ("head", "expected host:port, such as 10.0.0.1:6379, or auto, or local"),
        ("head:port", "expected host:port"),
        ("head:99999", "expected host:port"),
        ("head.invalid:6379", "nobody answers"),
    ],
)
def test_an_address_of_no_cluster_is_one_message(address, expected, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'metaspeech[ray]'")
    assert expected in refused(address, tmp_path)


def test_a_port_at_which_nobody_listens_is_said_at_once(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'metaspeech[ray]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv(cluster.ADDRESS, f"127.0.0.1:{free.getsockname()[1]}")
        message = refused("", tmp_path)
    assert "nobody answers (Connection refused). Is the head running? ray start --head" in message


def test_without_ray_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'metaspeech[ray]', or leave engine at local" in refused("local", tmp_path)


def test_jobs_share_the_machines_and_none_asks_for_more_than_one_has():
    nodes = Cluster((Node("a", "a", 4, 1), Node("b", "b", 16, 1)))
    assert nodes.share(1) == (16, 1.0)
    assert nodes.share(4) == (4, 0.5)
    assert nodes.share(100) == (1, 0.02)
