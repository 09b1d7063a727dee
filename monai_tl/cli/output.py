"""What every verb takes beside its own options: JSON lines in place of text, and the messages of other libraries."""

from __future__ import annotations

import logging
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from monai_tl.json_lines import begin_events
from monai_tl.progress import use_view


def _begin_json(value: bool) -> None:
    if value:
        begin_events()
        use_view(None)


def _begin_listening(value: bool) -> None:
    if value:
        listen()


def _verb(
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", callback=_begin_json, is_eager=True, expose_value=False, help="One JSON object a line, no text."
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            callback=_begin_listening,
            is_eager=True,
            expose_value=False,
            help="Messages of other libraries too; they may quote the data.",
        ),
    ] = False,
) -> None:
    pass


def _shared_options() -> list[Any]:
    """The options above, as typer builds them for a verb."""
    app = typer.Typer(add_completion=False)
    app.command()(_verb)
    return [option for option in typer.main.get_command(app).params if option.name in ("as_json", "verbose")]


class Verbs(TyperGroup):
    """A group whose verbs, and those of the groups in it, all take the options of this module."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        waiting = list(self.commands.values())
        while waiting:
            command = waiting.pop()
            if isinstance(command, TyperGroup):
                waiting += command.commands.values()
            else:
                command.params += _shared_options()


def be_quiet() -> None:
    """Hold back warnings and log lines of other libraries: they are for their developers and may quote a header."""
    warnings.simplefilter("ignore")
    root = logging.getLogger()
    if not root.handlers:
        # without any handler, Python prints warnings of loggers on standard error
        root.addHandler(logging.NullHandler())


def listen() -> None:
    """Let warnings and log lines of other libraries through."""
    warnings.simplefilter("default")
    logging.captureWarnings(True)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", force=True)
