"""How time and memory grow with the corpus: ``python -m benchmarks.scale [--sizes 1000 10000 100000 1000000]``.

Of synthetic metadata only, a hundred utterances a speaker; a table, then one JSON line. Each operation of each size
runs in a process of its own. Seconds are of CPU, so that other work on the machine does not count; memory is the
largest resident size above what the process had after its imports. ``growth`` is the exponent of a power law through
the two largest sizes: 1 is linear. What is done once a step, at any size, is in milliseconds a step.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from metaspeech.config import Episodes, Prepare
from metaspeech.data import episodes, manifest, texts
from metaspeech.data.store import Store, describe
from metaspeech.tasks.representation import TaskVectors
from metaspeech.tasks.samplers import Uniform
from metaspeech.tasks.speaker_embedding import SpeakerEmbedding

SIZES = [10**3, 10**4, 10**5, 10**6]
A_SPEAKER = 100  # utterances
TOKENS = 20  # of a text
STEPS = 20  # that a figure a step is the mean of
WORDS = ["amber", "basalt", "cedar", "delta", "ember", "fjord", "garnet", "harbour", "indigo", "juniper", "kestrel"]
CONFIG = Episodes(val_speakers=2, test_speakers=4)

Made = Callable[[Path], Callable[[], Any]]  # prepares something, and returns what is measured


def make(folder: Path, size: int) -> None:
    """corpus.parquet, and a store whose shards are empty files."""
    number = np.arange(size)
    draw = np.random.default_rng(0).integers(0, len(WORDS), (size, 6))
    columns = {
        "utt_id": [f"u{one:08d}" for one in number],
        "speaker": [f"s{one // A_SPEAKER:06d}" for one in number],
        "text": [" ".join(WORDS[word] for word in row) + "." for row in draw],
    }
    paths = [f"{one // A_SPEAKER:06d}/{one:08d}.flac" for one in number]
    pq.write_table(pa.table({**columns, "path": paths}), folder / "corpus.parquet")
    counts = np.full(size, 200, np.int32)
    table = pa.table(
        {
            **columns,
            "tokens": pa.array([list(range(1, TOKENS + 1))] * size, pa.list_(pa.int32())),
            "seconds": np.full(size, 3.2),
            "frames": counts,
            "samples": counts * 256,
            "shard": np.zeros(size, np.int32),
            "frame_start": number * 200,
            "sample_start": number * 51200,
        }
    )
    pq.write_table(table, folder / "manifest.parquet")
    (folder / "empty.npy").touch()
    index = {
        "settings": {"sample_rate": 16000, "hop": 256},
        "symbols": ["_"],
        "mel_mean": [0.0],
        "mel_std": [1.0],
        "shards": [{"mel": describe(folder / "empty.npy"), "audio": describe(folder / "empty.npy")}],
        "manifest": describe(folder / "manifest.parquet"),
    }
    (folder / "store.json").write_text(json.dumps(index), encoding="utf-8")


def read_corpus(folder: Path) -> Callable[[], Any]:
    return lambda: manifest.read_corpus(folder / "corpus.parquet")


def check_manifest(folder: Path) -> Callable[[], Any]:
    return lambda: manifest.check_manifest(pq.read_table(folder / "manifest.parquet"), folder / "manifest.parquet")


def open_store(folder: Path) -> Callable[[], Any]:
    return lambda: Store(folder)


def split(folder: Path) -> Callable[[], Any]:
    store = Store(folder)
    return lambda: episodes.split_corpus(store.manifest, CONFIG, 1)


def stored(folder: Path) -> Callable[[], Any]:
    splits = episodes.split_corpus(Store(folder).manifest, CONFIG, 1)
    return lambda: [episodes.stored_episodes(splits, name, CONFIG, 1) for name in ("val", "test")]


def write_and_read_pool(folder: Path) -> Callable[[], Any]:
    pool, path = _pool(folder), folder / "pool.parquet"

    def both() -> None:
        episodes.write_pool(path, pool)
        episodes.read_pool(path)

    return both


def meta_step(folder: Path) -> Callable[[], Any]:
    store, pool = Store(folder), _pool(folder)
    spoken = store.manifest["text"]
    sampler = Uniform(sorted(pool), None, 1, 4, STEPS)

    def draw() -> None:
        for step in range(STEPS):
            for place, speaker in enumerate(sampler.speakers_of(step)):
                one = episodes.train_episode(pool, spoken, speaker, 5, 5, 1, 4 * step + place)
                for utt_id in (*one.support, *one.query):
                    store.tokens(utt_id)

    return draw


def joint_step(folder: Path) -> Callable[[], Any]:
    pool = _pool(folder)
    utterances = episodes.pooled(pool)
    return lambda: [episodes.joint_batch(utterances, 16, 1, step) for step in range(STEPS)]


def nearest(folder: Path) -> Callable[[], Any]:
    """For the algorithm ``nearest``: of a task's voice among all training speakers."""
    speakers = sorted(_pool(folder))
    draw = np.random.default_rng(0).standard_normal((len(speakers), 256), dtype=np.float32)
    table = pd.DataFrame({"id": speakers, "split": "train", "speaker": speakers, "vector": list(draw)})
    vectors = TaskVectors("speaker_embedding", SpeakerEmbedding(), table)
    return lambda: [vectors.nearest(speakers[step % len(speakers)], speakers) for step in range(STEPS)]


def _pool(folder: Path) -> episodes.Pool:
    table = pq.read_table(folder / "manifest.parquet", columns=["speaker", "utt_id"]).to_pandas()
    return {str(speaker): tuple(names) for speaker, names in table.groupby("speaker")["utt_id"]}


WHOLE: dict[str, Made] = {
    "read corpus": read_corpus,
    "check manifest": check_manifest,
    "open store": open_store,
    "split speakers and texts": split,
    "stored episodes": stored,
    "write and read pool": write_and_read_pool,
}
A_STEP: dict[str, Made] = {
    "outer step's tasks": meta_step,
    "pretraining batch": joint_step,
    "nearest speaker": nearest,
}


def measure(name: str, folder: Path) -> dict[str, float]:
    """In this process."""
    _import_what_is_lazy()
    before = _peak()
    act = (WHOLE | A_STEP)[name](folder)
    began = process_time()
    act()
    return {"seconds": process_time() - began, "mb": max(0.0, _peak() - before)}


def _import_what_is_lazy() -> None:
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), 10 * A_SPEAKER)
        manifest.read_corpus(Path(folder) / "corpus.parquet")
    texts.phrase("a")
    Prepare()


def _peak() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def summary(found: dict[str, dict[int, dict[str, float]]]) -> dict[str, Any]:
    """Growth and figures at the largest size, printed as a table too."""
    figures: dict[str, Any] = {}
    sizes = list(next(iter(found.values())))
    print(f"{'':26}" + "".join(f"{f'{size:,} rows':>26}" for size in sizes) + f"{'growth':>9}")
    for name, by_size in found.items():
        a_step = name in A_STEP
        largest = by_size[sizes[-1]]
        unit, scale = ("ms a step", 1e3 / STEPS) if a_step else ("s", 1.0)
        cells = [f"{one['seconds'] * scale:.3g} {unit}, {one['mb']:.0f} MB" for one in by_size.values()]
        exponent = growth({size: one["seconds"] for size, one in by_size.items()})
        print(f"{name:26}" + "".join(f"{cell:>26}" for cell in cells) + f"{exponent:9.2f}")
        figures[name] = {
            "growth": round(exponent, 2),
            **({"ms_a_step": _short(largest["seconds"] * scale)} if a_step else {}),
            **({} if a_step else {"us_a_row": _short(1e6 * largest["seconds"] / sizes[-1])}),
            "bytes_a_row": _short(largest["mb"] * 2**20 / sizes[-1]),
            "seconds": {str(size): _short(one["seconds"]) for size, one in by_size.items()},
            "mb": {str(size): _short(one["mb"]) for size, one in by_size.items()},
        }
    return {"utterances_a_speaker": A_SPEAKER, "sizes": sizes, "operations": figures}


def child(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.scale", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def growth(seconds: dict[int, float]) -> float:
    """The exponent of the power law through the two largest sizes; nan of one size."""
    (less, before), (more, after) = ([(1, math.nan), *seconds.items()])[-2:]
    return math.log(max(after, 1e-9) / max(before, 1e-9)) / math.log(more / less)


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # an operation and its folder
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)  # a folder and a size
    arguments = parser.parse_args()
    if arguments.make:
        make(Path(arguments.make[0]), int(arguments.make[1]))
        return
    if arguments.one:
        name, place = arguments.one
        print(json.dumps(measure(name, Path(place))), flush=True)
        return
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in (*WHOLE, *A_STEP)}
    for size in sorted(arguments.sizes):
        with tempfile.TemporaryDirectory() as place:
            child("--make", place, str(size))  # a process begins with the peak of the one that started it
            for name, by_size in found.items():
                by_size[size] = json.loads(child("--one", name, place).splitlines()[-1])
    print(json.dumps(summary(found)))


if __name__ == "__main__":
    main()
