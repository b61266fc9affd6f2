"""The command ``metaspeech``: what a person does around the pipeline.

A command is a function in the package that it belongs to, added below. Its module imports at the top only what takes no
time (no torch, mlflow, optuna ...): all of them are imported for ``metaspeech --help``.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from metaspeech.compare.command import compare
from metaspeech.errors import UserError
from metaspeech.report.command import results
from metaspeech.serve.command import serve
from metaspeech.sweeps.command import sweep
from metaspeech.tracking.command import deliver
from metaspeech.voices import commands as voices

USER_ERROR = 2  # exit status of an error that the user can put right


class Commands(TyperGroup):
    """Ends with one message, without a traceback, on what the user can put right."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(USER_ERROR) from None


app = typer.Typer(
    cls=Commands, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"metaspeech {version('metaspeech')}")
        raise typer.Exit


@app.callback()
def metaspeech(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it, and end.")] = False,
) -> None:
    """Meta-learned speech synthesis. The pipeline itself is run by `dvc repro`; these commands go with it."""


# one line a command: app.command()(function)
app.command()(compare)
app.command()(deliver)
app.command()(results)
app.command()(serve)
app.command()(sweep)
app.command()(voices.adapt)
app.command()(voices.say)
app.add_typer(voices.voices, name="voices")


def main() -> None:
    app()


if __name__ == "__main__":
    main()
