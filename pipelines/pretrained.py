"""The starts that ship with the project, and the statistics of the features that they read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from metaspeech.data.statistics import MelStatistics, write_statistics

STATISTICS = Path("assets/mel_statistics.json")

app = typer.Typer(add_completion=False, help=__doc__)


@app.callback()
def main() -> None:
    """Several commands, of which this one is no command."""


@app.command()
def statistics(
    run: Annotated[
        Path, typer.Option("--from", help="A folder in which 'prepare' has run with statistics ''.")
    ] = Path(),
) -> None:
    """Makes assets/mel_statistics.json say what a run's own mel statistics are."""
    store = json.loads((run / "data/prepared/store.json").read_text(encoding="utf-8"))
    corpus = json.loads((run / "data/corpus/corpus.json").read_text(encoding="utf-8"))
    made_from = {key: corpus[key] for key in ("source", "speakers", "utterances", "hours", "licence")}
    write_statistics(STATISTICS, MelStatistics(store["mel_mean"], store["mel_std"]), store["settings"], made_from)
    typer.echo(f"{STATISTICS}: of {corpus['speakers']} speakers, {corpus['hours']:.2f} h of {corpus['source']}")


if __name__ == "__main__":
    app()
