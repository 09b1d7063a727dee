"""The stages: one table that the command line, DVC and the flow all follow."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
        metrics, plots: Files at stage level, in git and not in DVC's cache; of a plot also what DVC draws of it, and by
            which template.
        matrix: Keys of its params section that make one run each, e.g. arm × fold × seed.
        section: Its section in params.yaml where that is not its name.
        keys: Keys of this section that its result depends on, in place of the whole section.
    """

    name: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    plots: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    matrix: tuple[str, ...] = ()
    section: str = ""
    keys: tuple[str, ...] = ()

    @property
    def section_name(self) -> str:
        """Its section in params.yaml."""
        return self.section or self.name


def list_of(key: str) -> str:
    """The parameter that lists the values of a matrix key: ``arms`` for ``arm``."""
    return {"strategy": "strategies"}.get(key, key if key.endswith("s") else f"{key}s")


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
            "{plan.source}",
            "{evaluate.source_set}",
            "{evaluate.groups}",
        ),
        outs=("reports/html",),
        metrics=("reports/metrics.json",),
        plots={
            "reports/plots/cases.csv": {
                "template": "cases",
                "title": "Dice of each test case",
                "x": "class",
                "x_label": "class",
                "y": "dice",
                "y_label": "Dice",
            },
            "reports/plots/history.csv": {
                "template": "training",
                "title": "Validation Dice while training",
                "x": "step",
                "x_label": "optimiser step",
                "y": "val_dice",
                "y_label": "mean foreground Dice",
            },
        },
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
            "{export.privacy_audit}",
        ),
        outs=("artifacts/export",),
    ),
)
"""In the order of the data's way through the house."""

STAGE_NAMES = tuple(stage.name for stage in STAGES)

CURVE_FILE = "curve/dvc.yaml"
"""The second pipeline of a workspace, so that ``dvc repro`` alone trains no points of a curve."""
CURVE_TEMPLATE = "curve/strategies.json"
"""How DVC draws the curve: Vega-Lite."""

_POINT_DEPS = ("artifacts/cases", "artifacts/split", "artifacts/plan", "artifacts/prepared", "{plan.source}")
_PLOT = {"y": "dice", "y_label": "mean foreground Dice of the test cases", "template": CURVE_TEMPLATE}

CURVE: tuple[Stage, ...] = (
    Stage(
        "curve_label",
        deps=_POINT_DEPS,
        outs=("artifacts/curve/labels/{labels}-{strategy}-{seed}",),
        matrix=("labels", "strategy", "seed"),
        section="curve",
        # the lists are no dependency: one more value leaves the points of the others as they are
        keys=("training",),
    ),
    Stage(
        "curve_step",
        deps=_POINT_DEPS,
        outs=("artifacts/curve/steps/{steps}-{strategy}-{seed}",),
        matrix=("steps", "strategy", "seed"),
        section="curve",
        keys=("training", "steps_labels"),
    ),
    Stage(
        "curve",
        deps=("artifacts/curve/labels", "artifacts/curve/steps"),
        outs=("reports/curve/html",),
        metrics=("reports/curve/curve.json",),
        plots={f"reports/curve/{axis}.csv": {**_PLOT, "x": axis, "x_label": axis} for axis in ("labels", "steps")},
    ),
)
"""The stages of ``monai-tl curve``: what it trains, then what it makes of that."""


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
