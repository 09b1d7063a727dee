"""Verbs of a workspace: make it, look at it, run it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Optional

import typer

from monai_tl.cli.options import HERE, Workspace, app
from monai_tl.errors import ConfigError, StageError, describe_os_error, is_out_of_memory


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
    port: Annotated[int, typer.Option(help="Port of the dashboard.")] = 4200,
    interval: Annotated[Optional[int], typer.Option(help="Seconds between trainings; else serve.every_s.")] = None,  # noqa: UP045 - typer reads it at run time
    cron: Annotated[Optional[str], typer.Option(help="Cron schedule of the training; else serve.cron.")] = None,  # noqa: UP045
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback opens it.")] = "127.0.0.1",
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Train in the workspace itself, not in a clone with branches runs/....")
    ] = False,
) -> None:
    """Serve the dashboard and run the pipeline on a schedule until interrupted."""
    from monai_tl.commands import serve as command

    raise typer.Exit(command.run(workspace.resolve(), port, interval, cron, in_place, host))


@app.command()
def inbox(
    workspace: Workspace = HERE,
    once: Annotated[bool, typer.Option("--once", help="One pass over what is there now.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Tell what became of the studies; work on none.")] = False,
    release: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="STUDY", help="Let a study, or all, out of quarantine."),
    ] = None,
) -> None:
    """Segment new studies as they arrive, each exactly once, until interrupted."""
    from monai_tl.commands import inbox as command

    if release is not None:
        typer.echo(command.release(workspace.resolve(), release))
    elif report:
        typer.echo(command.report(workspace.resolve()))
    else:
        command.run(workspace.resolve(), once=once, tell=typer.echo)


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
def doctor(
    folder: Annotated[Path, typer.Argument(help="Workspace to look at.")] = HERE,
    cache: Annotated[bool, typer.Option("--cache", help="Hash every object in DVC's cache as well.")] = False,
) -> None:
    """Say what is wrong with the installation or a workspace, and how to mend it."""
    from monai_tl.commands import doctor as command

    raise typer.Exit(command.run(folder.resolve(), check_cache=cache))


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
    from monai_tl.effort import measured
    from monai_tl.stages import CURVE, STAGES, STATE_FOLDER
    from monai_tl.stages.sealing import run_sealed_stage
    from monai_tl.torchrun import started_ranks
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
        state = workspace.resolve() / STATE_FOLDER
        with measured(state, name, given) if started_ranks()[0] == 0 else nullcontext():
            run_sealed_stage(name, workspace.resolve(), params, given)
        if name in _AFTER_THE_REPORT:
            # imported here: it brings the drawing library, which other stages do not need
            from monai_tl.report.whole_page import write_whole_page

            write_whole_page(workspace.resolve(), state)
    except Exception as error:
        if is_out_of_memory(error):
            raise StageError(name, _OUT_OF_MEMORY.get(name, _LESS_AT_ONCE)) from error
        if not isinstance(error, OSError):
            raise
        raise StageError(name, f"{describe_os_error(error)}; check disk space and permissions") from error


_AFTER_THE_REPORT = ("evaluate", "export")
"""Stages whose end brings the report with the times of all stages up to date."""
_LESS_AT_ONCE = "out of memory; work on fewer cases at once (MONAI_TL_JOBS=1), or use a machine with more"
_OUT_OF_MEMORY = {
    "finetune": "out of memory; lower finetune.batch_size or plan.max_patch_voxels in params.yaml",
    "predict": "out of memory; lower predict.batch_size, or plan.max_patch_voxels and train again",
}
_OUT_OF_MEMORY |= dict.fromkeys(("curve_label", "curve_step"), _OUT_OF_MEMORY["finetune"])
