"""``metaspeech sweep``: the options; the work is in pipelines/sweep.py of the project one is in."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from metaspeech.errors import UserError


def sweep(
    space: Annotated[Path, typer.Argument(help="What is varied, and what trials are judged by: sweeps/inner.yaml.")],
    study: Annotated[str, typer.Option(help="Name of the study; by default the file's.")] = "",
    trials: Annotated[int, typer.Option(min=1, help="Finished trials that the study is to have.")] = 20,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at the same time.")] = 1,
    timeout: Annotated[float | None, typer.Option(min=0, help="Minutes after which no trial is begun.")] = None,
    storage: Annotated[str, typer.Option(help="URL of a database; by default a journal file.")] = "",
    sampler: Annotated[str, typer.Option(help="tpe, nsga2 or random.")] = "tpe",
    engine: Annotated[str, typer.Option(help="Where trials run: local, or ray (a cluster).")] = "local",
    address: Annotated[
        str, typer.Option(help="Of the cluster, host:port; else RAY_ADDRESS, else one is started.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the sampler.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and what it would take.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Only write the page again.")] = False,
) -> None:
    """Search params.yaml for better values: each trial is a DVC experiment and an MLflow run.

    Interrupted, it goes on where it stopped when the same command is given again.
    """
    if not Path("pipelines/sweep.py").is_file():
        raise UserError("no pipelines/sweep.py here. Run from the project's root, where params.yaml and dvc.yaml are")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    work = import_module("pipelines.sweep")
    options = work.Options(
        space=space,
        study=study or space.stem,
        trials=trials,
        jobs=jobs,
        minutes=timeout,
        storage=storage,
        sampler=sampler,
        engine=engine,
        address=address,
        seed=seed,
    )
    if dry_run:
        typer.echo("\n".join(work.plan(options)))
    elif report:
        typer.echo(work.report(options))
    else:
        work.sweep(options)
