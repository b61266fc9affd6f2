"""Work in several processes, and files that are whole or absent."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from metaspeech.files import replacing
from metaspeech.parallel import ordered_map, worker_count


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_items_are_taken_as_needed(workers: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    results = ordered_map(math.sqrt, items(), workers, ahead=2)
    assert next(results) == 0
    assert len(taken) <= workers * 2
    assert list(results) == [math.sqrt(item) for item in range(1, 20)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_arrives_as_it_was_raised(workers: int) -> None:
    results = ordered_map(math.sqrt, [4, -1, 9], workers)
    assert next(results) == 2
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        next(results)


def test_workers_have_one_thread_each_and_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert list(ordered_map(os.getenv, ["OMP_NUM_THREADS", "MKL_NUM_THREADS"], 2)) == ["1", "1"]
    assert os.getenv("OMP_NUM_THREADS") == "7"
    assert os.getenv("MKL_NUM_THREADS") is None


def test_zero_workers_are_one_a_core() -> None:
    assert worker_count(3) == 3
    assert 1 <= worker_count(0) <= (os.cpu_count() or 1)


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
        assert temporary.suffix == ".txt"

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("tw")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "one"
    assert [item.name for item in path.parent.iterdir()] == ["a.txt"]
