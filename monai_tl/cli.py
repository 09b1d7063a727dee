"""The ``monai-tl`` command. Heavy packages are imported inside the verbs, so help is instant."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from monai_tl import DEFAULT_KEY_FILE, __version__
from monai_tl.errors import (
    DEBUG_VARIABLE,
    ConfigError,
    MonaiTLError,
    StageError,
    describe_unexpected,
    is_debugging,
)
from monai_tl.stopping import stop_tidily

app = typer.Typer(
    name="monai-tl",
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


@app.command()
def run(
    workspace: Workspace = HERE,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of live bars.")] = False,
) -> None:
    """Run the whole pipeline of a workspace as a Prefect flow over DVC."""
    from monai_tl.commands import run as command

    raise typer.Exit(command.run(workspace.resolve(), plain=plain))


@app.command()
def curve(
    workspace: Workspace = HERE,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of live bars.")] = False,
) -> None:
    """Dice against labels and steps, with and without the pretrained start: labels saved, steps saved."""
    from monai_tl.commands import curve as command

    raise typer.Exit(command.run(workspace.resolve(), plain=plain))


@app.command()
def serve(
    workspace: Workspace = HERE,
    port: Annotated[int, typer.Option(help="Port of the dashboard on 127.0.0.1.")] = 4200,
    interval: Annotated[int, typer.Option(help="Seconds between scheduled runs.")] = 86_400,
    cron: Annotated[Optional[str], typer.Option(help="Cron schedule; takes the place of the interval.")] = None,  # noqa: UP045 - typer reads it at run time
) -> None:
    """Serve the dashboard and run the pipeline on a schedule until interrupted."""
    from monai_tl.commands import serve as command

    raise typer.Exit(command.run(workspace.resolve(), port=port, interval=interval, cron=cron))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new workspace.")],
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Bring an existing workspace up to the installed version.")
    ] = False,
) -> None:
    """Make a new workspace: git, DVC, params.yaml, dvc.yaml, flows."""
    from monai_tl.commands import init as command
    from monai_tl.files import named_output

    with named_output(folder):
        command.run(folder, refresh=refresh)


@app.command()
def doctor(folder: Annotated[Path, typer.Argument(help="Workspace to look at.")] = HERE) -> None:
    """Say what is wrong with the installation or a workspace, and how to mend it."""
    from monai_tl.commands import doctor as command

    raise typer.Exit(command.run(folder.resolve()))


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
def pretrain(
    params_file: Annotated[Path, typer.Argument(help="Parameters of the run: no source, scratch arm only.")],
    data: Annotated[Path, typer.Argument(help="Data set to learn from.")],
    out: Annotated[Path, typer.Argument(help="Source folder to write.")],
) -> None:
    """Train a source from scratch on a data set and write it with its card."""
    from monai_tl.commands import pretrain as command
    from monai_tl.files import named_output

    with named_output(out):
        command.run(params_file, data, out)


@app.command()
def rank(
    sources: Annotated[list[Path], typer.Argument(help="Pretrained sources to choose from.")],
    workspace: Workspace = HERE,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Scores only, which are unreliable by themselves.")
    ] = False,
    n_cases: Annotated[int, typer.Option("--n-cases", help="Training cases to look at, at most.")] = 16,
    steps: Annotated[int, typer.Option(help="Steps of each source's probe.")] = 60,
    seeds: Annotated[int, typer.Option(help="Repetitions of the probe, each with another seed.")] = 3,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="JSON file to write, Markdown beside it; default: reports/rank/rank.json."),
    ] = None,
) -> None:
    """Rank sources on training cases: transferability scores, a short probe, and whether they agree."""
    from rich.console import Console

    from monai_tl.commands import rank as command
    from monai_tl.config import load_params
    from monai_tl.workspace import check_installed_version

    check_installed_version(workspace)
    command.run(
        sources,
        workspace.resolve(),
        load_params(workspace),
        n_cases=n_cases,
        steps=0 if no_probe else steps,
        n_seeds=seeds,
        out=out,
        console=Console(),
    )


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
) -> None:
    """Apply a model to new studies and write DICOM SEG and NIfTI."""
    from monai_tl.commands import segment as command
    from monai_tl.files import named_output

    with named_output(out):
        typer.echo(command.run(dicom_dir, out, model, identity=identity, key_file=key_file.expanduser()))


sources_app = typer.Typer(
    help="Pretrained networks to start from: what there is, what they expect, whether their weights fit.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(sources_app, name="sources")


@sources_app.command("list")
def list_sources(workspace: Workspace = HERE) -> None:
    """List what can be pulled, and the sources of the workspace."""
    from monai_tl.commands import sources as command

    for line in command.describe_all(workspace):
        typer.echo(line)


@sources_app.command("show")
def show_source(path: Source) -> None:
    """Print a source's card: contract, classes, layer groups; of an incomplete one, a draft to complete."""
    from monai_tl.commands import sources as command

    for line in command.describe(path):
        typer.echo(line)


@sources_app.command("check")
def check_source(path: Source) -> None:
    """Load a source's weights into its own network and say what does not fit."""
    from monai_tl.commands import sources as command

    for line in command.check(path):
        typer.echo(line)


@sources_app.command("pull")
def pull_source(
    name: Annotated[str, typer.Argument(help="Name in the table ('sources list'), or NAME@VERSION.")],
    to: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("sources"),
    index: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Folder or web address that holds the zip file, in place of the zoo's host."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 30.0,
) -> None:
    """Fetch a bundle of the MONAI model zoo, checked; a broken download goes on where it stopped."""
    from monai_tl.commands import sources as command
    from monai_tl.files import named_output

    with named_output(to):
        typer.echo(command.pull(name, to, index, timeout, lambda line: typer.echo(line, err=True)))


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
def promote(
    workspace: Workspace = HERE,
    accept_undecided: Annotated[
        bool, typer.Option("--accept-undecided", help="Promote although no verdict shows that it does no harm.")
    ] = False,
) -> None:
    """Record that the exported model may go out; a model that did harm never does."""
    from monai_tl.commands import promote as command

    typer.echo(command.run(workspace.resolve(), accept_undecided=accept_undecided))


@app.command()
def forgetting(
    model: Annotated[Path, typer.Argument(help="artifacts/export/model of a run, or one model folder of it.")],
    source: Annotated[Path, typer.Option(help="Source folder that the model was tuned from.")],
    data: Annotated[Path, typer.Option(help="Held set of the source's own task: DICOM, or NIfTI in a known layout.")],
    classes: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="YAML file with the set's classes. Without it the card's, with their values in order."),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="JSON file to write.")] = None,  # noqa: UP045
    key_file: KeyFile = KEY_FILE,
) -> None:
    """Say what tuning cost on the source's own task."""
    from monai_tl.commands import forgetting as command

    typer.echo(command.run(model, source, data, classes, out, key_file.expanduser()))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="Stage name as in dvc.yaml.")],
    arm: Annotated[Optional[str], typer.Option(help="Arm, for a stage run once an arm.")] = None,  # noqa: UP045
    fold: Annotated[Optional[int], typer.Option(help="Fold, for a stage run once a fold.")] = None,  # noqa: UP045
    labels: Annotated[Optional[str], typer.Option(help="Labels of a point of the curve.")] = None,  # noqa: UP045
    steps: Annotated[Optional[int], typer.Option(help="Steps of a point of the curve.")] = None,  # noqa: UP045
    strategy: Annotated[Optional[str], typer.Option(help="Strategy of a point of the curve.")] = None,  # noqa: UP045
    seed: Annotated[Optional[int], typer.Option(help="Seed, for a stage run once a seed.")] = None,  # noqa: UP045
    workspace: Workspace = HERE,
) -> None:
    """Do one stage's work (what dvc.yaml calls)."""
    from monai_tl.parallel import die_with_parent

    die_with_parent()
    from monai_tl.config import load_params
    from monai_tl.stages import CURVE, STAGES, run_stage
    from monai_tl.workspace import check_installed_version

    known = {item.name: item for item in (*STAGES, *CURVE)}
    found = known.get(name)
    if found is None:
        raise ConfigError(f"stage: there is no {name!r}; the stages are {', '.join(known)}", "arguments")
    options = {"arm": arm, "fold": fold, "labels": labels, "steps": steps, "strategy": strategy, "seed": seed}
    given = {key: str(value) for key, value in options.items() if value is not None}
    if set(given) != set(found.matrix):
        wanted = " and ".join(f"--{key}" for key in found.matrix) or f"no {' or '.join(f'--{key}' for key in options)}"
        raise ConfigError(f"stage {name}: takes {wanted}", "arguments")
    check_installed_version(workspace)
    params = load_params(workspace)
    try:
        run_stage(name, workspace.resolve(), params, given)
    except MemoryError as error:
        raise StageError(name, "out of memory; lower the batch size or patch size in params.yaml") from error
    except OSError as error:
        raise StageError(
            name, f"{error.strerror or 'input or output failed'}; check disk space and permissions"
        ) from error


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
