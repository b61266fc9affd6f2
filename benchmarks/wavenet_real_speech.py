"""What a longer training of WaveNet on real speech brings: ``python -m benchmarks.wavenet_real_speech FOLDER``.

FOLDER is a copy of the project in which the stages ``prepare`` and ``episodes`` have run on recordings; its params.yaml
says how to train (``pretrain``). Weights are kept at steps that double. Each of them then copies recordings of the test
speakers, which training never saw and which no adaptation brings closer, and the judges listen, to Griffin-Lim's copies
of the same too. Writes FOLDER/build/real_speech/figures.json and, with ``--plot``, a picture of the figures over time;
a table and one JSON line come last. What was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from metaspeech import config
from metaspeech.data.episodes import EpisodeSpec, read_episodes, read_pool
from metaspeech.data.module import StepModule
from metaspeech.data.store import Store
from metaspeech.data.tensors import EpisodeMaker
from metaspeech.evaluation.bench import enrolment_of
from metaspeech.evaluation.judges.base import RATE, Candidate, Query, Setting
from metaspeech.evaluation.rendering import griffin_lim, utterance_seed, vocode
from metaspeech.evaluation.statistics import cluster_bootstrap
from metaspeech.evaluation.style import INK, PALETTE
from metaspeech.files import replacing
from metaspeech.registry import JUDGES, resolve
from metaspeech.training.checkpoint import build_model, fingerprint
from metaspeech.training.compute import set_up_torch
from metaspeech.training.joint_learner import JointLearner
from metaspeech.training.trainer import fit, make_trainer

MODEL, FIRST = "wavenet", 250  # steps before the first snapshot
SHOWN = {"phoneme_error": "Phoneme error rate", "similarity": "Speaker similarity", "mcd": "Mel-cepstral distance (dB)"}


class Snapshots(pl.Callback):
    """Keeps the weights after FIRST steps, twice as many and so on, and after the last, with the hours they took."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.since = folder, time.monotonic()
        self.wanted = {steps, *(FIRST * 2**power for power in range(32) if FIRST * 2**power < steps)}
        self.spent = 0.0  # seconds of training before this process

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self.spent + time.monotonic() - self.since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.spent, self.since = float(state["spent"]), time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, *args: Any) -> None:
        if trainer.global_step not in self.wanted:
            return
        weights = {name: value.detach().clone() for name, value in learner.model.state_dict().items()}
        hours = (self.spent + time.monotonic() - self.since) / 3600
        with replacing(self.folder / f"{trainer.global_step:06d}.safetensors") as path:
            save_file(weights, path, metadata={"hours": str(hours)})


def train(run: Path, out: Path, params: config.Params) -> None:
    store, settings = Store(run / "data/prepared"), params.pretrain
    pool = read_pool(run / "data/episodes/train.parquet")
    batches = EpisodeMaker(store, params.seed).joint(pool, settings.batch_size, settings.speeds)
    validation = [store.batch(spec.query) for spec in read_episodes(run / "data/episodes/val.parquet")]
    model = build_model(MODEL, params, store.features())
    learner = JointLearner(model, len(pool) * len(settings.speeds), settings, params.seed)
    module = StepModule(batches, settings.steps, settings.checkpoint_every, validation)
    partial = out / f"partial-{fingerprint(vars(settings))}"
    trainer = make_trainer(params, module.epochs, _log(out), partial, gradient_clip_val=settings.clip or None)
    trainer.callbacks.append(Snapshots(out, settings.steps))  # type: ignore[attr-defined]
    fit(trainer, learner, module, partial)


def _log(out: Path) -> Any:
    def log(values: dict[str, float], step: int) -> None:
        if "validation_loss" in values:
            with (out / "losses.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "validation_loss": values["validation_loss"]}) + "\n")

    return log


def judged(run: Path, out: Path, params: config.Params, queries: int) -> pd.DataFrame:
    """A row an utterance and way to copy it: step -1 is the recording itself, 0 Griffin-Lim's copy."""
    store = Store(run / "data/prepared")
    tasks = read_episodes(run / "data/episodes/test.parquet")
    rate = int(store.settings["sample_rate"])
    if rate != RATE:
        raise SystemExit(f"the judges hear {RATE} Hz, {run} has {rate} Hz")
    enrolment = {
        speaker: [store.audio(utt_id) for utt_id in utt_ids] for speaker, utt_ids in enrolment_of(store, tasks).items()
    }
    judges = [resolve(JUDGES, name)(Setting(enrolment, ())) for name in ("phonemes", "similarity", "mcd")]
    utterances = [(task, utt_id) for task in tasks for utt_id in task.query[:queries]]

    def listen(step: int, hours: float, copies: Sequence[np.ndarray | None]) -> pd.DataFrame:
        rows = []
        for (task, utt_id), audio in zip(utterances, copies, strict=True):
            query = _query(store, task, utt_id)
            copy = [Candidate(_heard(audio))]
            scores = {name: value for judge in judges for name, value in judge(query, copy)[0].items()}
            rows.append({"step": step, "hours": hours, "speaker": task.speaker, "utt_id": utt_id, **scores})
        return pd.DataFrame(rows)

    mels = [store.mel(utt_id) for _, utt_id in utterances]
    seeds = [utterance_seed(params.seed, utt_id) for _, utt_id in utterances]
    gl = [griffin_lim(store, mel, iterations=32, seed=seed) for mel, seed in zip(mels, seeds, strict=True)]
    tables = [listen(-1, 0, [store.audio(utt_id) for _, utt_id in utterances]), listen(0, 0, gl)]
    for path in sorted(out.glob("*.safetensors")):
        kept = path.with_suffix(".parquet")
        if not kept.exists():
            model = build_model(MODEL, params, store.features()).eval()
            model.load_state_dict(load_file(path))
            with safe_open(path, framework="pt") as file:
                hours = float(file.metadata()["hours"])
            made = listen(int(path.stem), hours, vocode(model, store, mels, seeds=seeds))
            with replacing(kept) as temporary:
                made.to_parquet(temporary)
        tables.append(pd.read_parquet(kept))
        print(f"{path.stem} steps: {tables[-1][list(SHOWN)].mean().round(3).to_dict()}", flush=True)
    return pd.concat(tables, ignore_index=True)


def _query(store: Store, task: EpisodeSpec, utt_id: str) -> Query:
    return Query(utt_id, task.speaker, str(store.manifest.loc[utt_id, "text"]), store.audio(utt_id))


def _heard(audio: np.ndarray | None) -> np.ndarray:
    if audio is None:
        raise SystemExit("the training has diverged: weights or samples are not finite")
    return audio


def summary(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Mean and interval (speakers resampled) of every figure at every step."""
    rows = []
    for (step, hours), group in table.groupby(["step", "hours"]):
        row: dict[str, Any] = {"step": int(step), "hours": round(float(hours), 3)}
        for name in SHOWN:
            found = cluster_bootstrap(group.groupby("speaker")[name].mean().to_numpy(), seed=seed)
            row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def plot(figures: pd.DataFrame, path: Path) -> None:
    """Each judge's figure over steps, with the recordings themselves and Griffin-Lim's copies as levels."""
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    trained = figures[figures["step"] > 0]
    for axes, (name, title) in zip(figure.subplots(1, len(SHOWN)), SHOWN.items(), strict=True):
        axes.fill_between(trained["step"], trained[f"{name}_low"], trained[f"{name}_high"], color=PALETTE[0], alpha=0.2)
        axes.plot(trained["step"], trained[name], marker="o", color=PALETTE[0], label="WaveNet's copy")
        for step, label, colour, style in ((0, "Griffin-Lim's copy", PALETTE[5], "--"), (-1, "recording", INK, ":")):
            level = float(figures.loc[figures["step"] == step, name].iloc[0])
            if step == 0 or name != "mcd":
                axes.axhline(level, color=colour, linestyle=style, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(trained["step"], _labels(trained["step"].tolist()), fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel("training steps")
        axes.set_title(title, fontsize=11, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _labels(steps: list[int]) -> list[str]:
    """Of ticks; none where the next one is too near."""
    names = [f"{step / 1000:g}k" if step >= 1000 else str(step) for step in steps]
    spaced = zip(names[:-1], pairwise(steps), strict=True)
    return [*(name if after / step > 1.7 else "" for name, (step, after) in spaced), names[-1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="FOLDER")
    parser.add_argument("--queries", type=int, default=2, help="recordings of each test speaker")
    parser.add_argument("--plot", type=Path, help="a picture to write")
    given = parser.parse_args()
    params = config.for_model(config.load(given.run / "params.yaml"), MODEL)
    out = given.run / "build/real_speech"
    out.mkdir(parents=True, exist_ok=True)
    set_up_torch(params)
    if not (out / f"{params.pretrain.steps:06d}.safetensors").exists():
        train(given.run, out, params)
    figures = summary(judged(given.run, out, params, given.queries), params.seed)
    with replacing(out / "figures.json") as path:
        path.write_text(figures.to_json(orient="records", indent=1) + "\n", encoding="utf-8")
    if given.plot:
        plot(figures, given.plot)
    print(figures.round(3).to_string(index=False))
    print(json.dumps(figures.iloc[-1].round(4).to_dict()))


if __name__ == "__main__":
    main()
