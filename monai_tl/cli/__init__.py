"""The ``monai-tl`` command. Heavy packages are imported inside the verbs, so help is instant."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from monai_tl import __version__
from monai_tl.cli import networks, studies, workspaces
from monai_tl.cli.options import app
from monai_tl.errors import DEBUG_VARIABLE, MonaiTLError, describe_unexpected, is_debugging
from monai_tl.stopping import stop_tidily

VERBS = (workspaces, studies, networks)
"""Imported for the verbs they register, in the order of the help."""


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: errors of this package become one clear message and their exit code; others their type and place."""
    # read when torch loads its threads: without it they spin while they wait, and on a shared machine a training step
    # takes three times as long; results are the same
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    stop_tidily()
    try:
        app()
    except MonaiTLError as error:
        typer.echo(f"monai-tl: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if is_debugging():
            raise
        # no path: below a folder of studies it may be a patient's name
        reason = error.strerror or "input or output failed"
        typer.echo(f"monai-tl: {reason}; check disk space and permissions, then run again", err=True)
        sys.exit(1)
    except Exception as error:
        if is_debugging():
            raise
        typer.echo(
            f"monai-tl: unexpected {describe_unexpected(error)}. This is a fault of monai_tl: report this line. Its "
            f"text is held back because it may name a patient; {DEBUG_VARIABLE}=1 shows it, on a terminal that may",
            err=True,
        )
        sys.exit(1)
