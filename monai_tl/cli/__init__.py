"""The ``monai-tl`` command. Heavy packages are imported inside the verbs, so help is instant."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from monai_tl import __version__
from monai_tl.cli import networks, studies, workspaces
from monai_tl.cli.interruption import INTERRUPTED, TERMINATED, how_to_go_on
from monai_tl.cli.options import app
from monai_tl.cli.output import be_quiet
from monai_tl.errors import DEBUG_VARIABLE, MonaiTLError, describe_os_error, describe_unexpected, is_debugging
from monai_tl.json_lines import end_events, write_event
from monai_tl.progress import finish_view
from monai_tl.stopping import stop_if_asked, stop_tidily

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
    be_quiet()
    code: int | str | None = 1
    try:
        _run()
        code = 0
    except SystemExit as end:
        code = end.code
        if code == INTERRUPTED:
            finish_view()
            typer.echo(how_to_go_on(sys.argv[1:]), err=True)
        raise
    finally:
        finish_view()
        write_event("end", exit_code=code if isinstance(code, int) else int(code is not None))
        end_events()
        if code in (INTERRUPTED, TERMINATED):
            _leave_at_once(code)


def _leave_at_once(code: int) -> NoReturn:
    """End after what is registered for the end, without taking apart the modules: that can take seconds."""
    # see monai_tl.stopping: an order is not given again to what tidies up
    signal.setitimer(signal.ITIMER_REAL, 0)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run() -> None:
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except MonaiTLError as error:
        stop_if_asked()
        _fail(str(error), error.exit_code)
    except Exception as error:
        if is_debugging():
            raise
        stop_if_asked()
        _fail(_words_of(error), 1)


def _words_of(error: Exception) -> str:
    if isinstance(error, OSError):
        # no path: below a folder of studies it may be a patient's name
        return f"{describe_os_error(error)}; check disk space and permissions, then run again"
    return (
        f"unexpected {describe_unexpected(error)}. This is a fault of monai_tl: report this line. Its text is held "
        f"back because it may name a patient; {DEBUG_VARIABLE}=1 shows it, on a terminal that may"
    )


def _fail(words: str, code: int) -> NoReturn:
    finish_view()
    write_event("error", text=words, exit_code=code)
    typer.echo(f"monai-tl: {words}", err=True)
    sys.exit(code)
