"""The starts that ship with the project, and the statistics of the features that they read.

``python -m pipelines.pretrained train`` makes them from nothing (hours); ``export`` takes one from a finished run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from metaspeech import config
from metaspeech.errors import UserError
from metaspeech.registry import MODELS
from tools import smoke

STARTS = Path("assets/starts")
STATISTICS = Path("assets/mel_statistics.json")
BUILD = Path("build/pretrained")

Names = Annotated[list[str] | None, typer.Argument(help="Models; all of them when none is named.")]
Run = Annotated[Path, typer.Option("--from", help="The folder of a project in which the stages have run.")]

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def train(models: Names = None) -> None:
    """Trains in a copy of the project with the profile 'pretrained', and exports. An interrupted one goes on."""
    chosen = models or list(MODELS)
    smoke.update(BUILD)
    smoke.run(BUILD, sys.executable, "-m", "pipelines.profile", "apply", "pretrained", "--set", f"models={chosen}")
    smoke.run(BUILD, sys.executable, "-m", "dvc", "repro", *(f"pretrain@{model}" for model in chosen))
    export(chosen, BUILD)


@app.command()
def export(models: Names = None, run: Run = BUILD) -> None:
    """Makes assets/starts/<model> of the models that a run has pretrained."""
    from metaspeech.data.episodes import read_episodes, read_pool
    from metaspeech.data.store import Store
    from metaspeech.tracking import Record
    from metaspeech.training.start_card import export_start

    try:
        params, store = config.load(run / "params.yaml"), Store(run / "data/prepared")
        pool = read_pool(run / "data/episodes/train.parquet")
        held_out = [store.batch(spec.query) for spec in read_episodes(run / "data/episodes/val.parquet")]
        for model in models or list(MODELS):
            start = export_start(
                STARTS / model,
                run / "models/pretrain" / model / "model.safetensors",
                model, params, store, pool, held_out,
                corpus=_read(run / "data/corpus/corpus.json"),
                record=Record.read(run / "results/runs/pretrain" / f"{model}.json"),
            )  # fmt: skip
            typer.echo(f"{start.folder}: {start.steps} steps, validation {start.card['validation']}")
    except (UserError, FileNotFoundError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@app.command()
def statistics(run: Run) -> None:
    """Makes assets/mel_statistics.json say what a run found with prepare.statistics ''."""
    from metaspeech.data.statistics import MelStatistics, write_statistics

    store, corpus = _read(run / "data/prepared/store.json"), _read(run / "data/corpus/corpus.json")
    made_from = {key: corpus[key] for key in ("source", "speakers", "utterances", "hours", "licence")}
    write_statistics(STATISTICS, MelStatistics(store["mel_mean"], store["mel_std"]), store["settings"], made_from)
    typer.echo(f"{STATISTICS}: of {corpus['speakers']} speakers, {corpus['hours']:.2f} h of {corpus['source']}")


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    app()
