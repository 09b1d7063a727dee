"""The command's options that several verbs share, and the application they hang on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_tl import DEFAULT_KEY_FILE
from monai_tl.cli.output import Verbs

app = typer.Typer(
    name="monai-tl",
    cls=Verbs,
    help="Transfer learning for medical image segmentation: DICOM in, a judged network and DICOM SEG out.",
    no_args_is_help=True,
    add_completion=False,
    # plain help keeps start-up under 0.3 s; plain tracebacks keep local variables (maybe patient data) off the screen
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Workspace = Annotated[Path, typer.Option("--workspace", "-w", help="Folder that holds params.yaml.")]
Source = Annotated[Path, typer.Argument(metavar="PATH", help="Folder of a source, or zip file of a MONAI bundle.")]
KeyFile = Annotated[Path, typer.Option(help="Secret for pseudonyms and derived UIDs; made by 'monai-tl key'.")]
HERE = Path()
KEY_FILE = Path(DEFAULT_KEY_FILE)
