"""``metaspeech results``: the tables of an execution, from MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def results(
    run: Annotated[str, typer.Argument(help="Name or id of a parent run; by default the latest with results.")] = "",
    uri: Annotated[str, typer.Option(help="Of the server; by default MLFLOW_TRACKING_URI, or the project's.")] = "",
    experiment: Annotated[str, typer.Option(help="Its name in MLflow.")] = "metaspeech",
) -> None:
    """Print findings and tables of an execution as MLflow has them: results/ is not read."""
    from metaspeech.report.markdown import build_markdown
    from metaspeech.tracking.results import summary_of
    from metaspeech.tracking.server import tracking_uri

    summary = summary_of(run, uri or tracking_uri(Path.cwd()), experiment)
    typer.echo(build_markdown(summary, run or experiment))
