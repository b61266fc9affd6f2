"""Sets params.yaml to a profile and says what changed: ``python -m pipelines.profile apply smoke --set seed=2``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaspeech import profiles
from metaspeech.errors import UserError

PROFILES = Path("profiles")
PARAMS = Path("params.yaml")

app = typer.Typer(add_completion=False, help="Profiles: settings for params.yaml.")


@app.command("list")
def show() -> None:
    """The profiles there are, each with its first line."""
    for name in profiles.names(PROFILES):
        first = (PROFILES / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        typer.echo(f"{name:10} {first.lstrip('# ')}")


@app.command()
def apply(
    name: Annotated[str, typer.Argument(help="A file in profiles/, without .yaml; 'default' goes back.")],
    assignments: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, repeatable.")] = None,
) -> None:
    """Makes params.yaml say what the profile says; every other value goes back to its default."""
    try:
        wanted = profiles.settings(PROFILES / f"{name}.yaml", assignments or [])
        changes = profiles.apply(PARAMS, wanted)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    for key, before, after in changes:
        typer.echo(f"  {key}: {before} -> {'(removed)' if after is None else after}")
    typer.echo(f"{PARAMS}: {len(changes) or 'no'} values changed to profile '{name}'. What will run: dvc status")


if __name__ == "__main__":
    app()
