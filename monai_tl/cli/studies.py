"""Verbs of DICOM studies: convert, de-identify, segment, and the key that keeps their names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from monai_tl.cli.options import HERE, KEY_FILE, KeyFile, Workspace, app


@app.command()
def key(
    path: Annotated[Path, typer.Argument(help="Where the secret is kept: outside any repository.")] = KEY_FILE,
    demo_seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Derive a fixed key from a number: for synthetic data only."),
    ] = None,
) -> None:
    """Make the secret that pseudonyms are derived from, unless it is there."""
    from monai_tl.commands import key as command
    from monai_tl.files import named_output

    with named_output(path):
        typer.echo(command.run(path.expanduser(), seed=demo_seed))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of DICOM, any nesting.")],
    out: Annotated[Path, typer.Argument(help="Folder for NIfTI files, index.json and rejected.json.")],
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="YAML file: class and the structures it is drawn as. Without it each structure is a class."),
    ] = None,
    names: Annotated[
        str, typer.Option(help="Names of the files, of {case} {patient} {study} {series} {modality} {part} {number}.")
    ] = "{case}",
    keep_shear: Annotated[
        bool, typer.Option("--keep-shear", help="Keep slices of a tilted gantry as they are, with a sheared affine.")
    ] = False,
    key_file: KeyFile = KEY_FILE,
) -> None:
    """Convert DICOM to NIfTI with its labels, and say what was refused and why."""
    from monai_tl.commands import convert as command
    from monai_tl.files import named_output

    with named_output(out):
        typer.echo(
            command.run(source, out, labels=labels, names=names, keep_shear=keep_shear, key_file=key_file.expanduser())
        )


@app.command()
def deidentify(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of DICOM files, any nesting.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for what names nobody, outside SRC.")],
    key_file: Annotated[
        Path, typer.Option(help="Secret for pseudonyms, UIDs and the shift of dates; made by 'monai-tl key'.")
    ] = Path("~/.config/monai_tl/pseudonym.key"),
) -> None:
    """Write DICOM that tells nothing of its patients; what may not leave is listed, never copied."""
    from monai_tl.commands import deidentify as command
    from monai_tl.files import named_output

    with named_output(out):
        typer.echo(command.run(source, out, key_file=key_file.expanduser()))


@app.command()
def segment(
    dicom_dir: Annotated[Path, typer.Argument(help="Folder of DICOM studies, any nesting.")],
    out: Annotated[Path, typer.Argument(help="Folder for DICOM SEG and NIfTI.")],
    model: Annotated[list[Path], typer.Option("--model", "-m", help="Model folder; several are averaged.")],
    key_file: KeyFile = KEY_FILE,
    identity: Annotated[
        str,
        typer.Option(help="'source' keeps the patient's identity in the SEG for the PACS; 'pseudonymous' does not."),
    ] = "source",
    mode: Annotated[
        str, typer.Option(help="'fast', or 'exact': the windows and the float32 that the model was judged with.")
    ] = "fast",
    engine: Annotated[
        str, typer.Option(help="'torch', 'onnx' (ONNX Runtime), or 'fastest', which times both on one window.")
    ] = "torch",
    flip: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Also pass each window mirrored along LR, AP or SI, and take the mean; can be repeated."),
    ] = None,
) -> None:
    """Apply a model to new studies and write DICOM SEG and NIfTI."""
    from monai_tl.commands import segment as command
    from monai_tl.files import named_output

    with named_output(out):
        typer.echo(
            command.run(
                dicom_dir,
                out,
                model,
                identity=identity,
                key_file=key_file.expanduser(),
                mode=mode,
                engine=engine,
                flips=flip or (),
            )
        )


@app.command()
def whois(
    items: Annotated[list[str], typer.Argument(help="Items of rejected.json, or case ids.")],
    workspace: Workspace = HERE,
    source: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of DICOM that convert, deidentify or segment was given, in place of a workspace."),
    ] = None,
    key_file: KeyFile = KEY_FILE,
) -> None:
    """Tell which files a refused item or a case is: on this terminal only, with the pseudonym key."""
    from monai_tl.commands import whois as command

    for line in command.run(items, workspace.resolve(), source, key_file.expanduser()):
        typer.echo(line)


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write hospital_a and hospital_b into.")],
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    n_a: Annotated[int, typer.Option("--n-a", help="Studies of hospital A, the source domain.")] = 32,
    n_b: Annotated[int, typer.Option("--n-b", help="Studies of hospital B, the target.")] = 24,
) -> None:
    """Write the synthetic demo cohort as DICOM."""
    from monai_tl.commands import phantom as command
    from monai_tl.files import named_output

    with named_output(out):
        typer.echo(command.run(out, seed=seed, n_a=n_a, n_b=n_b))


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Option(help="Folder of NIfTI label maps or DICOM SEG, any nesting.")],
    references: Annotated[Path, typer.Option(help="Folder of what they are judged by, with the same names.")],
    out: Annotated[Path, typer.Option(help="New folder for cases.csv, metrics.json and summary.md.")],
    classes: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="YAML file: class and its structures or values. Without it each value or name is a class."),
    ] = None,
    cases: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="CSV file: column 'case', maybe 'patient', and columns to group by (site, age, sex ...)."),
    ] = None,
    lesions: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Class that is counted lesion by lesion too; may be given several times."),
    ] = None,
    tolerance_mm: Annotated[float, typer.Option(help="Surface distance taken as agreement, mm.")] = 2.0,
    class_tolerance: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="That of a class that needs another: NAME=MM; may be given several times."),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
) -> None:
    """Score anybody's predictions, NIfTI or DICOM SEG, against references; no workspace is needed."""
    from monai_tl.commands import evaluate as command
    from monai_tl.files import named_output

    with named_output(out):
        typer.echo(
            command.run(
                predictions,
                references,
                out,
                classes=classes,
                cases=cases,
                lesions=lesions or (),
                tolerance_mm=tolerance_mm,
                class_tolerances_mm=command.read_tolerances(class_tolerance or ()),
                confidence=confidence,
            )
        )


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="A B ...", help="Evaluated folders, workspaces, or revisions or experiments of DVC."),
    ],
    workspace: Workspace = HERE,
    metric: Annotated[str, typer.Option(help="Column of cases.csv.")] = "dice",
    arm: Annotated[Optional[str], typer.Option(help="Arm of runs that have several; default: transfer.")] = None,  # noqa: UP045
    confidence: Annotated[float, typer.Option(help="Of the intervals and of all pairs together.")] = 0.95,
    out: Annotated[Optional[Path], typer.Option(help="JSON file to write.")] = None,  # noqa: UP045
) -> None:
    """Compare runs, folders or revisions in pairs, over patients, corrected for the number of pairs."""
    from monai_tl.commands import compare as command

    typer.echo(command.run(runs, workspace.resolve(), metric=metric, arm=arm, confidence=confidence, out=out))
