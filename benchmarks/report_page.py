"""How soon the report opens with many speakers: ``python -m benchmarks.report_page``.

Makes the results of an evaluation from random numbers and harmonic tones, runs them through the page's own builder
(figures, tables, encoded sound), opens the page in a headless Chromium and prints one JSON line: megabytes, DOM nodes,
milliseconds to the load event and of the main thread's CPU until then (medians of several openings), seconds to build.
On a busy machine the first figure is about the machine; the second is not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaspeech.audio import io
from metaspeech.config import Represent
from metaspeech.evaluation.judges.base import Column
from metaspeech.evaluation.summary import summarise
from metaspeech.evaluation.systems import System, condition
from metaspeech.report.learning import Learning
from metaspeech.report.page import Provenance, build_page
from metaspeech.report.results import Results
from metaspeech.tasks.representation import COLUMNS, write_vectors
from metaspeech.tracking import Record

RATE = 16000  # Hz
STEPS, HEARD, HEADLINE = (0, 1, 5, 10, 20), (0, 5, 20), 5
JUDGED = [
    Column("mcd", "MCD (dB)", "lower", "Mel-cepstral distortion."),
    Column("similarity", "Speaker similarity", "higher", "Cosine."),
    Column("phoneme_error", "Phoneme error", "lower", "Rate."),
]
REFERENCES = {"real": {"mcd": 0.0, "similarity": 0.91, "phoneme_error": 0.35},
              "copy": {"mcd": 2.0, "similarity": 0.88, "phoneme_error": 0.4}}  # fmt: skip
SYSTEMS = [
    System("tacotron", "wavenet", HEARD, HEADLINE),
    System("tacotron", None, STEPS, HEADLINE, "Query loss", "Of training."),
    System(None, "wavenet", HEARD, HEADLINE, "Bits per sample", "Of the likelihood."),
]
MODELS = ("tacotron", "wavenet")


def write_results(
    folder: Path,
    names: Sequence[str],
    *,
    systems: Sequence[System] = SYSTEMS,
    algorithms: Sequence[str] = ("transfer", "reptile", "fomaml", "maml"),
    shots: Sequence[int] = (5,),
    seeds: Sequence[int] = (1,),
    text: str = "the bird saved the goat",
    checks: pd.DataFrame | None = None,
    leakage: pd.DataFrame | None = None,
) -> None:
    """What the stages before report leave, under ``folder``: MAML a little better than the rest, all else by chance.

    Args:
        names: of speakers.
        checks, leakage: see :class:`~metaspeech.evaluation.summary.Summary`.
    """
    rng, evaluated = np.random.default_rng(0), folder / "results/evaluate"
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    panels: dict[str, np.ndarray] = {}
    for place, speaker in enumerate(names):
        episode = f"e{place:03}"
        owner = {"episode_id": episode, "speaker": speaker, "utt_id": f"u{place}", "text": text}
        flags = {"stopped": True, "finite": True, "seconds": 1.2}
        for name, values in REFERENCES.items():
            at = {"model": "", "algorithm": name, "shots": 0, "step": 0, "seed": seeds[0]}
            measured = {key: value + 0.02 * rng.normal() * bool(value) for key, value in values.items()}
            rows.append({**at, **owner, **flags, **measured})
            _write_sound(evaluated / "audio" / episode / f"{name}.flac", place, rng)
        panels[f"{episode}/real/mel"] = rng.normal(size=(75, 80)).astype(np.float16)
        for system in systems:
            for algorithm in algorithms:
                for count in shots:
                    for seed in seeds:
                        for step in STEPS:
                            gain = (1 + (algorithm == "maml")) * np.sqrt(step * count) / 100
                            at = {"model": system.name, "algorithm": algorithm, "shots": count, "step": step,
                                  "seed": seed}  # fmt: skip
                            if system.role != "chain":
                                loss = 4 - gain + 0.05 * rng.normal()
                                curves.append({**at, "episode_id": episode, "speaker": speaker, "loss": loss})
                            if step not in system.steps:
                                continue
                            rows.append({**at, **owner, **flags, "mcd": 7 - 5 * gain + 0.5 * rng.normal(),
                                         "similarity": 0.6 + gain + 0.03 * rng.normal(),
                                         "phoneme_error": 0.6 - gain / 2 + 0.05 * rng.normal()})  # fmt: skip
                    for step in HEARD:
                        named = f"{episode}/{condition(system.name, algorithm, count, step)}"
                        _write_sound(evaluated / "audio" / f"{named}.flac", place, rng)
                        if not place:
                            panels[f"{named}/mel"] = rng.normal(size=(75, 80)).astype(np.float16)
    settings = {"algorithms": list(algorithms), "shots": max(shots), "all_shots": list(shots), "queries": 1,
                "vocoder_queries": 1, "seed": 1, "seeds": list(seeds), "test": "sign_flip",
                "audible": [f"e{place:03}" for place in range(len(names))]}  # fmt: skip
    table, of_curves = pd.DataFrame(rows), pd.DataFrame(curves)
    summary, speakers = summarise(
        table, of_curves, JUDGED, systems, settings, bootstrap=200, seed=1, checks=checks, leakage=leakage
    )
    summary.write(evaluated / "summary.json")
    table.to_parquet(evaluated / "utterances.parquet", index=False)
    speakers.to_parquet(evaluated / "speakers.parquet", index=False)
    np.savez_compressed(evaluated / "audio/panels.npz", **panels)
    _write_learning(folder, of_curves, algorithms, seeds, names)


def build(folder: Path, title: str = "Many speakers") -> str:
    """The page, by the way that the stage takes."""
    results = Results(folder / "results/evaluate")
    figures = {system.name: results.figures(system.name) for system in results.summary.systems}
    records = [Record("evaluate", "", "synthetic", "FINISHED", "2026-01-01T00:00:00", 60.0, None)]
    represent = Represent()
    learning = Learning(folder / "results", folder / "representation", results.summary, records, represent, HEADLINE)
    corpus = {"source": "synthetic", "speakers": 2 * len(results.summary.settings["audible"]), "utterances": 0,
              "hours": 0.0, "language": "none", "licence": "none", "note": "Random numbers and tones."}  # fmt: skip
    provenance = Provenance(corpus, "", False, "python -m benchmarks.report_page", {}, [("evaluate", 60.0)], [])
    return build_page(results, figures, [learning.of(model) for model in learning.labels], provenance, title)


def opened(path: Path, times: int) -> dict[str, int]:
    """DOM nodes; milliseconds to the load event, and CPU of the main thread: medians of so many openings."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        loaded, busy, nodes = [], [], 0
        for _ in range(times):
            page = browser.new_page()
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            page.goto(path.as_uri())
            metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
            busy.append(1000 * metrics["TaskDuration"])
            loaded.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
            nodes = page.evaluate("document.querySelectorAll('*').length")
            page.close()
        browser.close()
    return {"dom_nodes": nodes, "load_ms": round(statistics.median(loaded)), "cpu_ms": round(statistics.median(busy))}


def _write_sound(path: Path, speaker: int, rng: np.random.Generator) -> None:
    """1.2 s of a gliding harmonic tone with noise: as hard to encode as speech."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = np.arange(int(1.2 * RATE)) / RATE
    phase = 2 * np.pi * (90 + 3 * speaker % 150) * (seconds + 0.1 * np.sin(3 * seconds))
    tone = sum(np.sin(order * phase + rng.uniform(0, 6)) / order for order in range(1, 12))
    envelope = np.clip(np.sin(2 * np.pi * 3 * seconds), 0.05, 1)
    io.write(path, (0.1 * envelope * tone + 0.01 * rng.normal(size=len(seconds))).astype(np.float32), RATE)


def _write_learning(
    folder: Path, curves: pd.DataFrame, algorithms: Sequence[str], seeds: Sequence[int], names: Sequence[str]
) -> None:
    """What meta_train, adapt and represent leave."""
    rng = np.random.default_rng(1)
    for model in sorted(set(curves["model"])):
        for algorithm in algorithms:
            for seed in seeds:
                metrics = {"adapt": {}, "meta_train": {"gradient_evaluations": 320, "outer_steps": 40}}
                for stage, values in metrics.items():
                    own = folder / "results" / stage / f"{model}-{algorithm}-{seed}"
                    own.mkdir(parents=True, exist_ok=True)
                    (own / "metrics.json").write_text(json.dumps(values), encoding="utf-8")
                mine = curves[(curves["model"] == model) & (curves["algorithm"] == algorithm)]
                path = folder / f"results/adapt/{model}-{algorithm}-{seed}/curves.parquet"
                mine[mine["seed"] == seed].to_parquet(path, index=False)
        tasks = [(f"t{place}", "train", f"t{place}") for place in range(len(names))]
        tasks += [(f"e{place:03}", "test", name) for place, name in enumerate(names)]
        rows = [(one, *task, rng.normal(size=16).tolist()) for one in Represent().representations for task in tasks]
        (folder / "representation").mkdir(exist_ok=True)
        write_vectors(folder / f"representation/{model}.parquet", pd.DataFrame(rows, columns=COLUMNS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speakers", type=int, default=50)
    parser.add_argument("--times", type=int, default=5, help="that the page is opened")
    parser.add_argument("--keep", type=Path, help="write the page there as well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_results(folder, [f"speaker {place:02}" for place in range(given.speakers)])
        since = time.monotonic()
        text = build(folder)
        built = time.monotonic() - since
        page = folder / "index.html"
        page.write_text(text, encoding="utf-8")
        if given.keep:
            shutil.copy(page, given.keep)
        found = {
            "speakers": given.speakers,
            "megabytes": round(len(text.encode()) / 1e6, 2),
            "build_s": round(built, 1),
        }
        print(json.dumps(found | opened(page, given.times)))


if __name__ == "__main__":
    main()
