"""``metaspeech deliver``: what could not be sent to MLflow while it was away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaspeech.errors import UserError


def deliver(
    folder: Annotated[Path, typer.Argument(help="The project.")] = Path("."),
    uri: Annotated[str, typer.Option(help="Only what was for this server; by default for whichever.")] = "",
) -> None:
    """Send what MLflow has not got yet.

    While a server is down, runs are kept in .metaspeech/spool; each later stage sends them, and so does this command.
    """
    from metaspeech.tracking.delivery import Carrier
    from metaspeech.tracking.reasons import public
    from metaspeech.tracking.server import base_folder, tracking_uri
    from metaspeech.tracking.spool import FOLDER, waiting

    base = base_folder(folder)
    names = {spool.folder: header for spool in waiting(base) if (header := spool.readable_header())}
    if not names:
        typer.echo(f"Nothing waits in {base / FOLDER / 'spool'}.")
        return
    own = tracking_uri(base)
    failed: dict[str, str] = {}
    for address in sorted({header.uri for header in names.values()}):
        if uri and public(uri) != address:
            continue
        chosen = next((one for one in (uri, own) if one and public(one) == address), address)  # with its password
        for what, why in Carrier(chosen, base).round().items():
            failed[address] = f"{what} at {address}: {why}"
    for path, header in names.items():
        typer.echo(
            f"{'still waits' if path.exists() else 'delivered':11}  {header.record.name}  ({header.execution.key})"
        )
    if failed:
        raise UserError("; ".join(failed.values()) + f". What is left is kept in {base / FOLDER / 'spool'}")
