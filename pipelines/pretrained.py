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
from metaspeech.files import replacing
from metaspeech.registry import MODELS
from tools import smoke

STARTS = Path("assets/starts")
STATISTICS = Path("assets/mel_statistics.json")
HELD_OUT_TEXTS = Path("assets/held_out_texts.txt")
BUILD = Path("build/pretrained")

Names = Annotated[list[str] | None, typer.Argument(help="Models; all of them when none is named.")]
HELP = "The folder of a project in which the stages have run."
Run = Annotated[Path, typer.Option("--from", help=HELP)]

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def train(models: Names = None) -> None:
    """Trains each in a copy of the project with its profile, and exports. An interrupted one goes on."""
    for model in models or list(MODELS):
        folder = BUILD / model
        smoke.update(folder)
        smoke.run(folder, sys.executable, "-m", "pipelines.profile", "apply", f"pretrained_{model}")
        smoke.run(folder, sys.executable, "-m", "dvc", "repro", f"pretrain@{model}")
        export(model, folder)


@app.command()
def export(model: Annotated[str, typer.Argument(help="A model.")], run: Run) -> None:
    """Makes assets/starts/<model> of what a run has pretrained."""
    from metaspeech.data.episodes import read_episodes, read_pool
    from metaspeech.data.store import Store
    from metaspeech.tracking import Record
    from metaspeech.training.start_card import export_start

    try:
        params, store = config.load(run / "params.yaml"), Store(run / "data/prepared")
        pool = read_pool(run / "data/episodes/train.parquet")
        held_out = [store.batch(spec.query) for spec in read_episodes(run / "data/episodes/val.parquet")]
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


@app.command()
def held_out_texts(run: Run) -> None:
    """Makes assets/held_out_texts.txt the texts of a run's val and test speakers."""
    from metaspeech.data.episodes import split_corpus
    from metaspeech.data.store import Store

    params, store = config.load(run / "params.yaml"), Store(run / "data/prepared")
    splits = split_corpus(store.manifest, params.episodes, params.data_seed)
    held_out = [utt_id for split in ("val", "test") for pool in splits.pools[split].values() for utt_id in pool]
    texts = sorted({splits.texts[utt_id] for utt_id in held_out})
    with replacing(HELD_OUT_TEXTS) as temporary:
        temporary.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    typer.echo(f"{HELD_OUT_TEXTS}: {len(texts)} texts")


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    app()
