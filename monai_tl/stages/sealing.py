"""What ``monai-tl stage`` does around a stage: its inputs are as they were written, its outputs get manifests."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from monai_tl import stages
from monai_tl.config import Params
from monai_tl.errors import ConfigError
from monai_tl.files import sweep_abandoned
from monai_tl.integrity import check_sealed, check_sealed_part, recorded_outputs, seal
from monai_tl.pins import check_pinned
from monai_tl.stages import CURVE, STAGES
from monai_tl.torchrun import started_ranks


def run_sealed_stage(name: str, workspace: Path, params: Params, matrix: Mapping[str, str]) -> None:
    """``monai_tl.stages.run_stage`` between two looks: inputs are as they were written, and outputs get manifests.

    Under DVC (it sets DVC_STAGE) each input is also the one that dvc.lock names, and what the user has given is what
    its pin names. By hand stages may be run that DVC knows nothing of. Of several processes that torchrun started all
    look, and the first alone writes.

    Raises:
        MonaiTLError: As ``run_stage``; DataError with code ``integrity`` where an input was changed; ConfigError where
            torchrun started several processes of a stage that works in one.
    """
    rank, n_ranks = started_ranks()
    if n_ranks > 1 and name != "finetune":
        raise ConfigError(f"stage {name}: works in one process; start it without torchrun", "arguments")
    is_of_dvc = bool(os.environ.get("DVC_STAGE"))
    recorded = recorded_outputs(workspace) if is_of_dvc else {}
    stage = next(item for item in (*STAGES, *CURVE) if item.name == name)
    for item in stage.deps:
        for folder in _folders_of(item, workspace):
            path = workspace / item
            if path.is_file():
                check_sealed_part(folder, path)
            else:
                check_sealed(folder, recorded.get(folder.relative_to(workspace).as_posix()))
    for given in _given(stage.deps, params) if is_of_dvc else ():
        check_pinned(workspace, given)
    beside = [workspace / item for item in (*stage.metrics, *stage.plots)]
    # those of outputs go with the next run of the same output; these lie where other things stay
    for path in beside:
        sweep_abandoned(path.parent, path.name)
    stages.run_stage(name, workspace, params, matrix)
    if rank:
        return
    outputs = [workspace / item.format(**matrix) for item in stage.outs]
    for folder in outputs:
        seal(folder, [path for path in beside if path.is_file()])


def _given(items: Iterable[str], params: Params) -> Iterator[Path]:
    """Inputs that params.yaml names."""
    for item in items:
        if item.startswith("{"):
            section, key = item.strip("{}").split(".")
            value = getattr(getattr(params, section), key)
            if value is not None:
                yield Path(value)


def _folders_of(item: str, workspace: Path) -> Iterator[Path]:
    """The outputs of stages that an input is, lies in, holds, or belongs to, as far as they are there."""
    for stage in (*STAGES, *CURVE):
        for out in stage.outs:
            if item == Path(out).parent.as_posix() and "{" in out:
                yield from sorted(path for path in (workspace / item).glob("*") if path.is_dir())
            elif (Path(item).is_relative_to(out) or item in stage.metrics) and (workspace / out).is_dir():
                yield workspace / out
