"""The stages: one table that the command line, DVC and the flow all follow."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from monai_tl.config import Params

STATE_FOLDER = ".monai_tl"
"""Run state of a workspace: case cache, training checkpoints, the dashboard's database. Neither git's nor DVC's."""


@dataclass(frozen=True)
class Stage:
    """One stage as DVC sees it.

    Attributes:
        name: Also its section in params.yaml and its module in this package.
        deps: Files or folders read, relative to the workspace; ``{ingest.source}`` is filled from params.yaml;
            one that is null there is no dependency.
        outs: Folders made, cached by DVC.
        metrics, plots: Files at stage level, in git and not in DVC's cache.
        matrix: Keys of its params section that make one run each, e.g. arm × fold × seed.
    """

    name: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()
    matrix: tuple[str, ...] = ()


STAGES: tuple[Stage, ...] = (
    Stage("ingest", deps=("{ingest.source}",), outs=("artifacts/cases",)),
    Stage("split", deps=("artifacts/cases", "{split.test_ids_file}"), outs=("artifacts/split",)),
    Stage("plan", deps=("artifacts/cases", "artifacts/split", "{plan.source}"), outs=("artifacts/plan",)),
    Stage("preprocess", deps=("artifacts/cases", "artifacts/plan"), outs=("artifacts/prepared",)),
    Stage(
        "finetune",
        deps=("artifacts/prepared", "artifacts/split", "artifacts/plan", "{plan.source}"),
        outs=("artifacts/models/{arm}-{fold}-{seed}",),
        matrix=("arm", "fold", "seed"),
    ),
    Stage(
        "predict", deps=("artifacts/prepared", "artifacts/split", "artifacts/models"), outs=("artifacts/predictions",)
    ),
    Stage(
        "evaluate",
        deps=(
            "artifacts/cases",
            "artifacts/split",
            "artifacts/plan",
            "artifacts/prepared/failed.json",
            "artifacts/models",
            "artifacts/predictions",
        ),
        outs=("reports/html",),
        metrics=("reports/metrics.json",),
        plots=("reports/plots/cases.csv", "reports/plots/history.csv"),
    ),
    Stage(
        "export",
        deps=(
            "{ingest.source}",
            "artifacts/cases",
            "artifacts/plan",
            "artifacts/models",
            "artifacts/predictions",
            "reports/metrics.json",
        ),
        outs=("artifacts/export",),
    ),
)
"""In the order of the data's way through the house."""

STAGE_NAMES = tuple(stage.name for stage in STAGES)


def run_stage(name: str, workspace: Path, params: Params, matrix: Mapping[str, str]) -> None:
    """Do the work of one stage in this process.

    Args:
        name: One of STAGE_NAMES.
        workspace: Folder that holds params.yaml.
        params: The checked parameters.
        matrix: ``{"arm": ..., "fold": ..., "seed": ...}`` for a stage with a matrix, else empty.

    Raises:
        MonaiTLError: With a message for the user.
    """
    module = importlib.import_module(f"monai_tl.stages.{name}")
    run = cast("Callable[..., None]", module.run)
    run(workspace, params, **matrix)
