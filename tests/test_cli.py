"""The command metaspeech as a whole; each command has tests of its own."""

from __future__ import annotations

import subprocess
import sys

import typer
from typer.testing import CliRunner

from metaspeech.cli import Commands, app
from metaspeech.errors import UserError


def test_help_imports_nothing_that_takes_time():
    code = (
        "import sys; from typer.testing import CliRunner; from metaspeech.cli import app; "
        "print(CliRunner().invoke(app, ['--help']).output); "
        "print(sorted({'torch', 'mlflow', 'optuna', 'ray', 'dvc', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    assert done.stdout.rstrip().endswith("[]"), "imported for --help"


def test_it_says_its_version():
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.output.startswith("metaspeech ")


def test_what_the_user_can_put_right_is_one_message_and_status_2():
    own = typer.Typer(cls=Commands)

    @own.callback()
    def root() -> None:
        pass

    @own.command()
    def fail() -> None:
        raise UserError("space.yaml: unknown key 'inner.rat'. Did you mean 'inner.rate'?")

    done = CliRunner().invoke(own, ["fail"])
    assert done.exit_code == 2
    assert done.output == "error: space.yaml: unknown key 'inner.rat'. Did you mean 'inner.rate'?\n"
