"""Runs the study and writes it up: ``make study``, or ``python -m pipelines.study [RUN ...] [--corpus NAME=FOLDER]``.

study/study.yaml lists the runs, each a run of the pipeline in a clone under .metaspeech/study; study/study.md is the
template of the page. A run that was finished before takes seconds, one that was interrupted goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaspeech.errors import UserError
from metaspeech.study import page, runs, workplace
from metaspeech.tracking import tracking_uri

STUDY, TEMPLATE, PROFILES = Path("study/study.yaml"), Path("study/study.md"), Path("profiles")
RESULTS, PAGE = Path("results/study"), Path("reports/study.md")

Names = Annotated[list[str] | None, typer.Argument(help="Runs; all of them when none is named.")]
Corpora = Annotated[list[str] | None, typer.Option("--corpus", help="NAME=FOLDER of recordings, repeatable.")]
Jobs = Annotated[int, typer.Option(min=0, help="Stages at a time; 0: by cores and memory.")]
Only = Annotated[bool, typer.Option("--page", help="Write the page of what is finished, and run nothing.")]

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(names: Names = None, corpus: Corpora = None, jobs: Jobs = 0, only: Only = False) -> None:
    try:
        known = runs.read_runs(STUDY)
        if not only:
            run_all(runs.chosen(known, names or []), folders(corpus or []), jobs)
        page.write(TEMPLATE, known, RESULTS, PAGE)
        typer.echo(f"the study: {PAGE}")
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("interrupted. The same command goes on where this one stopped", err=True)
        raise typer.Exit(130) from None


def run_all(wanted: list[runs.StudyRun], corpora: dict[str, Path], jobs: int) -> None:
    """One after the other; those whose recordings were not given are left out, and named."""
    absent = [run for run in wanted if run.corpus and run.corpus not in corpora]
    ready = [run for run in wanted if run not in absent]
    params = [run.params(PROFILES, corpora) for run in ready]  # all are looked at before the first hour passes
    for run in absent:
        typer.echo(f"left out: {run.name} needs recordings: --corpus {run.corpus}=FOLDER")
    latest: dict[str, str] = {}  # corpus -> the run before, whose preparation and pretraining may be the same
    for number, (run, own) in enumerate(zip(ready, params, strict=True), start=1):
        typer.echo(f"\nrun {number} of {len(ready)}, {run.name}: {run.title}")
        like, latest[run.corpus] = latest.get(run.corpus, ""), run.name
        done = workplace.run(Path.cwd(), run.name, own, jobs, tracking_uri(Path.cwd()), RESULTS / run.name, like)
        typer.echo(f"run {run.name}: finished ({done.seconds:.0f} s)")


def folders(given: list[str]) -> dict[str, Path]:
    """Of recordings, by name."""
    found = {}
    for one in given:
        name, _, folder = one.partition("=")
        if not (name and folder) or not Path(folder).is_dir():
            raise UserError(f"--corpus {one}: expected NAME=FOLDER, with a folder of recordings that is there")
        found[name] = Path(folder).absolute()
    return found


if __name__ == "__main__":
    app()
