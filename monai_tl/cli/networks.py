"""Verbs of pretrained and tuned networks: what there is, how good it is, whether it may go out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from monai_tl.cli.options import HERE, KEY_FILE, KeyFile, Source, Workspace, app
from monai_tl.errors import ConfigError

sources_app = typer.Typer(
    help="Pretrained networks to start from: what there is, what they expect, whether their weights fit.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(sources_app, name="sources")


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
def promote(
    workspace: Workspace = HERE,
    accept_undecided: Annotated[
        bool, typer.Option("--accept-undecided", help="Promote although no verdict shows that it does no harm.")
    ] = False,
    stage: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="'prod': also put it in production, unless the one there is as good."),
    ] = None,
    approve: Annotated[bool, typer.Option("--approve", help="With --stage: somebody has looked at it.")] = False,
    weigh: Annotated[
        bool, typer.Option("--weigh", help="With --stage: say how it compares, and change nothing.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="With --stage: the version before is in it again.")] = False,
) -> None:
    """Record that the exported model may go out; a model that did harm never does."""
    if stage not in (None, "prod") or (stage is None and (approve or undo or weigh)):
        raise ConfigError("--stage: prod is the only one; --approve, --weigh and --undo go with it", "arguments")
    if stage is None:
        from monai_tl.commands import promote as command

        typer.echo(command.run(workspace.resolve(), accept_undecided=accept_undecided))
        return
    from monai_tl.commands import registry

    if undo:
        typer.echo(registry.undo(workspace.resolve()))
    elif weigh:
        said = registry.weigh(workspace.resolve(), accept_undecided=accept_undecided)
        typer.echo(said or "It is in production already.")
    else:
        typer.echo(registry.to_prod(workspace.resolve(), approve=approve, accept_undecided=accept_undecided))


@app.command()
def models(workspace: Workspace = HERE) -> None:
    """List the versions of a workspace's model: stage, verdict, data, source, licence."""
    from monai_tl.commands import registry

    typer.echo(registry.describe_models(workspace.resolve()))


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


@app.command("audit-privacy")
def audit_privacy(
    workspace: Workspace = HERE,
    arm: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Attack this arm alone; may be given again. Default: every arm of the run."),
    ] = None,
    references: Annotated[
        int,
        typer.Option(
            help="Networks to train on random halves of the patients, to hold losses against. Even. Default: the "
            "run's other folds."
        ),
    ] = 0,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="JSON file to write; default: reports/privacy.json."),
    ] = None,
) -> None:
    """Attack the tuned networks: can somebody who has one tell whose images it was trained on?"""
    from monai_tl.commands import audit_privacy as command
    from monai_tl.config import load_params
    from monai_tl.privacy_records import AUDIT_FILE
    from monai_tl.workspace import check_installed_version

    check_installed_version(workspace)
    found = command.run(workspace.resolve(), load_params(workspace), arm, references, out)
    typer.echo(command.describe(found, out or Path(AUDIT_FILE)))


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
    sha256: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="That the zip file must have; the zoo publishes SHA-1 alone."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 30.0,
) -> None:
    """Fetch a bundle of the MONAI model zoo, checked; a broken download goes on where it stopped."""
    from monai_tl.commands import sources as command
    from monai_tl.files import named_output

    with named_output(to):
        typer.echo(command.pull(name, to, index, sha256, timeout, lambda line: typer.echo(line, err=True)))
