"""``monai-tl curve``: Dice against labels and against steps, by the workspace's own flow over curve/dvc.yaml."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from monai_tl.commands.run import choose_console, run_flow
from monai_tl.config import PARAMS_FILE, Params, load_params, parse_params
from monai_tl.errors import ConfigError
from monai_tl.faults import parse_yaml
from monai_tl.files import write_text
from monai_tl.integrity import check_if_sealed
from monai_tl.pipeline_file import check_sections, curve_text
from monai_tl.records import Split
from monai_tl.stages import CURVE_FILE, CURVE_TEMPLATE
from monai_tl.workspace import FLOWS_FOLDER, check_installed_version, flows_template, template_folder

FLOW = "curve"


def run(workspace: Path, *, plain: bool = False) -> int:
    """Train and test every point that is missing or out of date, and show what they say together.

    What is trained is the section ``curve`` of params.yaml alone, so that DVC records it; where there is none, one is
    appended that suits the budget of finetune.

    Args:
        workspace: Folder that holds params.yaml.
        plain: Lines instead of live bars.

    Returns:
        The flow's exit status: 0, or the exit code of the error it ended with.

    Raises:
        ConfigError: The workspace has faults, or its flows are older than this command.
    """
    check_installed_version(workspace)
    params = load_params(workspace)
    flow = Path(FLOWS_FOLDER) / f"{FLOW}.py"
    if not (workspace / flow).is_file():
        raise ConfigError(
            f"{flow} is not there, so the workspace's flows are older; copy what is missing from "
            f"{flows_template() / FLOWS_FOLDER}"
        )
    console = choose_console(plain)
    if params.curve is None:
        _append_section(workspace, default_section(params, _n_pool(workspace)), console)
    write_text(workspace / CURVE_FILE, curve_text(workspace))
    shutil.copyfile(template_folder() / CURVE_TEMPLATE.replace("/", "_"), workspace / CURVE_TEMPLATE)
    check_sections(workspace)
    code = run_flow(workspace, f"{FLOWS_FOLDER}.{FLOW}", console, plain=plain)
    if code == 0:
        _show(workspace, console)
    return code


def _n_pool(workspace: Path) -> int | None:
    """Labelled cases outside the test set; None before the split.

    Raises:
        DataError: Code ``integrity``: the split was changed since its stage.
    """
    path = workspace / "artifacts/split/split.json"
    if not path.is_file():
        return None
    check_if_sealed(path.parent)
    fold = Split.read(path).folds[0]
    return len(fold.train) + len(fold.val)


def default_section(params: Params, n_pool: int | None) -> str:
    """The section ``curve`` for a workspace that has none, as text.

    Args:
        params: Give the budget, of which an eighth, a quarter and a half are the steps, and the strategy.
        n_pool: Cases that labels can be drawn from; None where that is not known yet.
    """
    labels = [str(n) for n in (4, 8, 16, 32, 64) if n < (n_pool or 16)] + ["all"]
    full = params.finetune.max_steps
    steps = sorted({max(1, full // part) for part in (8, 4, 2)} - {full}) or [1]
    is_pretrained = params.plan.source is not None and params.finetune.strategy != "scratch"
    strategies = f"[{params.finetune.strategy}, scratch]" if is_pretrained else "[scratch]"
    return f"""
# monai-tl curve: each combination is one training; one more value costs its own points and no others
curve:
  labels: [{", ".join(labels)}]
  strategies: {strategies}
  seeds: [0]
  steps: {steps}
  steps_labels: all
  training:
    max_steps: null
    validate_every: null
    val_fraction: 0.25
    keep_weights: false
"""


def _append_section(workspace: Path, section: str, console: Console) -> None:
    path = workspace / PARAMS_FILE
    text = path.read_text(encoding="utf-8").rstrip("\n") + "\n" + section
    # a budget of one step leaves no smaller one, and a file in flow style takes no block after it
    parse_params(parse_yaml(text, PARAMS_FILE))
    write_text(path, text)
    console.print(f"{PARAMS_FILE} had no section curve; this was added:{section}", highlight=False, markup=False)


def _show(workspace: Path, console: Console) -> None:
    reports = workspace / "reports/curve"
    record: dict[str, Any] = json.loads((reports / "curve.json").read_text(encoding="utf-8"))
    for axis in ("labels", "steps"):
        part = record[axis]
        budgets = sorted({int(budget) for line in part["dice"].values() for budget in line})
        # no title of the table, which would be broken to its width
        console.print(part["sentence"], highlight=False, markup=False, soft_wrap=True)
        table = Table(box=None)
        table.add_column(axis)
        for budget in budgets:
            table.add_column(str(budget), justify="right")
        for name, line in part["dice"].items():
            table.add_row(name, *(f"{line[str(budget)]['mean']:.3f}" for budget in budgets))
        console.print(table)
    console.print(f"{reports / 'html/curve.html'}", highlight=False, markup=False, soft_wrap=True)
