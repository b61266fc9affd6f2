"""How fast prepare is and whether its memory stays flat: ``python -m benchmarks.prepare_speed [--sizes 1000 10000]``.

One JSON line a size: utterances a second (starting the processes included), and the largest resident memory of the
main process and of a worker. The corpus is made here: segments of 1.5 s out of one FLAC file a speaker at 22,050 Hz,
as the generated corpus has them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import soundfile

from metaspeech.config import Prepare
from metaspeech.data.prepare import prepare_corpus
from metaspeech.parallel import worker_count

RATE = 22050
SECONDS = 1.5
SPEAKERS, RECORDED = 10, 100  # recordings a speaker; larger corpora name the same ones again
LETTERS = "abcdefghij"


def make_corpus(folder: Path, size: int) -> None:
    """``size`` utterances that need no more disk than ``SPEAKERS * RECORDED``."""
    noise = np.random.default_rng(0)
    length = round(SECONDS * RATE)
    time = np.arange(length) / RATE
    for speaker in range(SPEAKERS):
        pitch = 90 + 15 * speaker
        hum = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 30))
        speech = 0.1 * hum * np.abs(np.sin(2 * np.pi * 2 * time)) + noise.normal(0, 1e-3, length)
        soundfile.write(folder / f"{speaker}.flac", np.tile(speech, RECORDED), RATE)
    number = np.arange(size)
    start = (number // SPEAKERS % RECORDED) * float(length)
    texts = ["".join(LETTERS[int(digit)] for digit in str(k)) + " is what is said" for k in number]
    pd.DataFrame(
        {
            "utt_id": [f"u{k:07d}" for k in number],
            "speaker": [f"s{k % SPEAKERS}" for k in number],
            "path": [f"{k % SPEAKERS}.flac" for k in number],
            "text": texts,
            "start": start,
            "stop": start + length,
        }
    ).to_parquet(folder / "corpus.parquet")
    (folder / "corpus.json").write_text(json.dumps({"root": "."}), encoding="utf-8")


def measure(size: int, workers: int) -> dict[str, float]:
    """Prepares a corpus of ``size`` in this process and its workers."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, out = Path(folder) / "corpus", Path(folder) / "out"
        corpus.mkdir()
        make_corpus(corpus, size)
        started = perf_counter()
        summary = prepare_corpus(corpus, out, Prepare(workers=workers, statistics=""), progress=False)
        seconds = perf_counter() - started
    assert summary.utterances == size, summary
    users = {"main": resource.RUSAGE_SELF, "worker": resource.RUSAGE_CHILDREN}
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in kilobytes elsewhere
    usage = {name: resource.getrusage(who) for name, who in users.items()}
    return {
        "utterances": size,
        "workers": workers,
        "seconds": round(seconds, 2),
        "utterances_per_second": round(size / seconds, 1),
        "cpu_ms_per_utterance": round(1e3 * sum(u.ru_utime + u.ru_stime for u in usage.values()) / size, 2),
        **{f"{name}_peak_mb": round(u.ru_maxrss * unit / 2**20) for name, u in usage.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--workers", type=int, default=0, help="0: one a core")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # a size in a process of its own
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.sizes[0], worker_count(arguments.workers))), flush=True)
        return
    for size in arguments.sizes:
        command = [sys.executable, "-m", "benchmarks.prepare_speed", "--one", "--sizes", str(size)]
        subprocess.run([*command, "--workers", str(arguments.workers)], check=True)


if __name__ == "__main__":
    main()
