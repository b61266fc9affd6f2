"""From five recordings of a person to sound: ``python -m benchmarks.voice FOLDER``.

FOLDER has metadata.csv (speaker, path, text). Speakers are spread evenly over the sorted names of those that the
meta-model was not trained on. For each, ``metaspeech adapt`` makes a voice from the first recordings and
``metaspeech say`` speaks the texts of the next ones, each as a command of its own, so that the seconds are those of
somebody who types them, loading included. The judges hear the voice, the meta-model before any step, and the speaker's
own recordings of the same texts; similarity is to further recordings, neither adapted on nor spoken. A line a speaker,
then a table; one JSON line comes last.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch

from metaspeech.audio import io
from metaspeech.audio.features import resample
from metaspeech.evaluation.judges.base import RATE, Candidate, Query, Setting
from metaspeech.evaluation.statistics import cluster_bootstrap
from metaspeech.registry import JUDGES, resolve
from metaspeech.voices.meta_model import read_any
from metaspeech.voices.store import VoiceStore

ROOT = Path(__file__).resolve().parents[1]
FIGURES = {
    "similarity": "similarity",
    "impostor_similarity": "to others",
    "phoneme_error": "phoneme error",
    "mos": "MOS",
}
SYSTEMS = {"voice": "the voice", "start": "before adaptation", "real": "the speaker"}
CONSENT = "A speaker of a published corpus, for this measurement alone; the voice is deleted after it."


def chosen(table: pd.DataFrame, speakers: int, least: int, trained_on: set[str]) -> dict[str, pd.DataFrame]:
    """Speaker -> recordings, of ``speakers`` with at least ``least`` and not ``trained_on``."""
    groups = {str(name): rows for name, rows in table.groupby("speaker") if len(rows) >= least}
    groups = {name: rows for name, rows in groups.items() if name not in trained_on}
    if not groups:
        raise SystemExit(f"no unseen speaker has {least} recordings: lower --shots, --queries or --enrolment")
    names = sorted(groups)
    picks = np.linspace(0, len(names) - 1, min(speakers, len(names))).round().astype(int)
    return {names[index]: groups[names[index]] for index in dict.fromkeys(picks)}


def command(*arguments: object) -> float:
    """Seconds that a command takes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    began = time.monotonic()
    line = [sys.executable, "-m", "metaspeech.cli", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}\n{done.stdout}{done.stderr}")
    return time.monotonic() - began


def heard(path: Path) -> np.ndarray:
    samples, rate = io.read(path)
    return np.asarray(resample(torch.from_numpy(samples), rate, RATE).numpy())


def make(folder: Path, speaker: str, rows: pd.DataFrame, given: argparse.Namespace, work: Path) -> dict[str, Any]:
    """A voice of one speaker, and what it says. The sounds lie in ``work/<system>-<number>.wav``."""
    recordings = work / "recordings"
    shutil.rmtree(recordings, ignore_errors=True)
    recordings.mkdir(parents=True)
    for number, row in enumerate(rows.head(given.shots).itertuples()):
        source = folder / str(row.path)
        shutil.copyfile(source, recordings / f"{number}{source.suffix}")
        (recordings / f"{number}.txt").write_text(str(row.text), encoding="utf-8")
    options = ["--recordings", recordings, "--consent", CONSENT, "--store", work / "voices", "--overwrite"]
    options += ["--model-from", given.model_from] if given.model_from else []
    options += ["--vocoder", "wavenet"] if given.wavenet else []
    seconds = {"adapt": command("adapt", *options, "--name", "voice", "--keep-doubtful")}
    command("adapt", *options, "--name", "start", "--keep-doubtful", "--steps", "0", "--no-check-texts")
    spoken = []
    for number, row in enumerate(rows.iloc[given.shots : given.shots + given.queries].itertuples()):
        for system in ("voice", "start"):
            out = work / f"{system}-{number}.wav"
            took = command("say", "--voice", system, "--store", work / "voices", str(row.text), "-o", out)
            if system == "voice":
                spoken.append({"took": took, "seconds": soundfile.info(out).duration})
        soundfile.write(work / f"real-{number}.wav", heard(folder / str(row.path)), RATE)
    store = VoiceStore(work / "voices")
    card = store.card("voice")
    part = card.parts["tacotron"]
    return {
        "speaker": speaker,
        "recordings": round(sum(one.seconds for one in card.recordings), 1),
        "adapt_seconds": seconds["adapt"],
        "say_seconds": float(np.mean([one["took"] for one in spoken])),
        "first_sound_seconds": seconds["adapt"] + spoken[0]["took"],
        "steps": part.step,
        "loss_before": part.losses[0] if part.losses else float("nan"),
        "loss_after": part.losses[part.step] if part.losses else float("nan"),
        "megabytes": store.bytes("voice") / 1e6,
        "meta_model": part.meta_model,
        "algorithm": part.algorithm,
        "origin": part.origin,
    }


def judged(folder: Path, chosen: dict[str, pd.DataFrame], given: argparse.Namespace, work: Path) -> pd.DataFrame:
    """A row a speaker, system and text, with what the judges say."""
    first = given.shots + given.queries
    enrolment = {
        name: [heard(folder / str(path)) for path in rows["path"].iloc[first : first + given.enrolment]]
        for name, rows in chosen.items()
    }
    setting = Setting(enrolment, [str(text) for rows in chosen.values() for text in rows["text"]])
    judges = [resolve(JUDGES, name)(setting) for name in ("similarity", "phonemes", "mos")]
    table = []
    for name, rows in chosen.items():
        for number, text in enumerate(rows["text"].iloc[given.shots : first]):
            sounds = {system: heard(work / name / f"{system}-{number}.wav") for system in SYSTEMS}
            query = Query(f"{name}-{number}", name, str(text), sounds["real"])
            scores: list[dict[str, Any]] = [{} for _ in SYSTEMS]
            for judge in judges:
                said = judge(query, [Candidate(sound) for sound in sounds.values()])
                for entry, one in zip(scores, said, strict=True):
                    entry.update(one)
            for system, entry in zip(SYSTEMS, scores, strict=True):
                table.append({"speaker": name, "system": system, **{key: entry[key] for key in FIGURES}})
    return pd.DataFrame(table)


def intervals(table: pd.DataFrame, seed: int) -> dict[str, dict[str, list[float]]]:
    """System -> figure -> mean and its 95 % interval, speakers resampled."""
    found: dict[str, dict[str, list[float]]] = {}
    for system in SYSTEMS:
        own = table[table["system"] == system]
        for figure in FIGURES:
            means = own.groupby("speaker")[figure].mean().dropna().to_numpy()
            if len(means):
                one = cluster_bootstrap(means, seed=seed)
                found.setdefault(system, {})[figure] = [round(float(x), 4) for x in (one.mean, one.low, one.high)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--speakers", type=int, default=6)
    parser.add_argument("--shots", type=int, default=5, help="recordings that a voice is made from")
    parser.add_argument("--queries", type=int, default=2, help="texts that it speaks")
    parser.add_argument("--enrolment", type=int, default=3, help="further recordings that similarity is to, at most 10")
    parser.add_argument("--model-from", type=Path, help="folder of the meta-model; by default adapt chooses")
    parser.add_argument("--wavenet", action="store_true", help="adapt a WaveNet too and speak through it")
    parser.add_argument("--keep", type=Path, help="a folder to leave the sounds in")
    given = parser.parse_args()
    given.model_from = given.model_from and given.model_from.resolve()
    table = pd.read_csv(given.folder / "metadata.csv", dtype=str, keep_default_na=False)
    trained_on = set(read_any(given.model_from).card.get("speakers", ())) if given.model_from else set()
    speakers = chosen(table, given.speakers, given.shots + given.queries + given.enrolment, trained_on)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.keep or Path(temporary)
        rows = []
        for name, own in speakers.items():
            rows.append(make(given.folder, name, own, given, (work / name).resolve()))
            print({key: round(x, 2) if isinstance(x, float) else x for key, x in rows[-1].items()}, flush=True)
        scores = judged(given.folder, speakers, given, work)
        for name in speakers if given.keep else ():
            shutil.rmtree(work / name / "voices")
    figures = intervals(scores, seed=1)
    made = pd.DataFrame(rows)
    shown = pd.DataFrame(
        {
            SYSTEMS[system]: {FIGURES[key]: f"{x[0]:.2f} ({x[1]:.2f} to {x[2]:.2f})" for key, x in found.items()}
            for system, found in figures.items()
        }
    )
    print(shown.T.to_string())
    line = {
        "corpus": given.folder.resolve().name,
        "speakers": len(speakers),
        "shots": given.shots,
        "queries": given.queries,
        **made[["meta_model", "algorithm", "origin"]].iloc[0].to_dict(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "wavenet": given.wavenet,
        **made.select_dtypes("number").mean().round(3).to_dict(),
        "worst_first_sound_seconds": round(float(made["first_sound_seconds"].max()), 3),
        "judges": figures,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
