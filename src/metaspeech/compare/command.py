"""``metaspeech compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaspeech.errors import UserError

FORMATS = (".png", ".svg", ".pdf")


def compare(
    runs: Annotated[list[str], typer.Argument(help="Names or ids of MLflow's parent runs, or of DVC experiments.")],
    uri: Annotated[str, typer.Option(help="Of the tracking server; by default the project's own.")] = "",
    step: Annotated[int, typer.Option(help="Adaptation steps; -1: those that findings are about.")] = -1,
    plot: Annotated[Path | None, typer.Option(help="Where to write a figure (png, svg or pdf).")] = None,
) -> None:
    """Which parameters differ between runs, which figures do, and is it significant?

    The first run is the one that the others are compared with, speaker by speaker.
    """
    from rich.console import Console

    from metaspeech.compare.differences import differences
    from metaspeech.compare.runs import Store
    from metaspeech.compare.show import LETTERS, show
    from metaspeech.tracking.server import tracking_uri

    if len(runs) < 2:
        raise UserError(f"compare takes two runs or more, and got {len(runs)}: metaspeech compare first second")
    if len(runs) > len(LETTERS):
        raise UserError(f"compare: at most {len(LETTERS)} runs, and got {len(runs)}. For more: make ui")
    if plot and plot.suffix.lower() not in FORMATS:
        raise UserError(f"--plot {plot}: not a format of figures; expected {', '.join(FORMATS)}")
    found = Store(uri or tracking_uri(Path.cwd())).read(runs)
    same = {run.run_id for run in found}
    if len(same) < len(found):
        raise UserError("compare: the same run was named twice")
    first, *others = found
    changes = differences(first, others, None if step < 0 else step)
    show(Console(), found, changes)
    if plot and changes:
        from metaspeech.compare.plot import differences_plot, save

        save(differences_plot(first.name, changes), plot)
        typer.echo(f"{plot}: written")
