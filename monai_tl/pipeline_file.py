"""dvc.yaml and curve/dvc.yaml, written from the tables of stages.

``python -m monai_tl.pipeline_file`` prints the one for the current folder; ``monai-tl init --refresh DIR`` writes it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from monai_tl.config import PARAMS_FILE, Params, load_params
from monai_tl.errors import ConfigError
from monai_tl.faults import parse_yaml, read_text
from monai_tl.stages import CURVE, CURVE_FILE, STAGES, Stage, list_of
from monai_tl.workspace import PIPELINE_FILE, VERSION_FILE, holds_own_code

_PACKAGE = Path(__file__).parent
_ROOT = _PACKAGE.name
_PARAMETER = re.compile(r"\{(\w+)\.(\w+)\}")
INPUTS = tuple(sorted({f"{m[1]}.{m[2]}" for stage in STAGES for item in stage.deps for m in _PARAMETER.finditer(item)}))
"""Parameters that name an input of a stage."""
_SOURCE = "plan.source"
REFRESH = "run 'monai-tl init --refresh .'"
"""What mends a pipeline file that does not fit."""
ARTIFACTS = {
    "model": {
        "path": "artifacts/export/model",
        "type": "model",
        "desc": "The better arm; 'monai-tl models' lists its versions",
    }
}
"""What ``dvc artifacts get`` can fetch by version or stage."""
_HEADER = """\
# The pipeline as DVC sees it. Written from monai_tl's table of stages: not edited by hand.
# `monai-tl init --refresh .` writes it again; parameters live in params.yaml.
"""


def render_dvc_yaml(
    code: Mapping[str, Sequence[str]], unset: Collection[str] = (), beside_source: Sequence[str] = ()
) -> str:
    """The text of dvc.yaml.

    Args:
        code: For each stage, the files and folders of code its result depends on, relative to the workspace.
        unset: Parameters that name an input but are null in params.yaml (``plan.source``): no dependency then.
        beside_source: Outside ``plan.source`` and deciding about it; see ``monai_tl.sources.kinds.companions``.

    Returns:
        YAML; equal arguments give equal bytes.
    """
    stages = {stage.name: _entry(stage, code[stage.name], unset, beside_source) for stage in STAGES}
    content = {"stages": stages, "artifacts": ARTIFACTS}
    return _HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def render_curve_yaml(
    code: Mapping[str, Sequence[str]], unset: Collection[str] = (), beside_source: Sequence[str] = ()
) -> str:
    """The text of curve/dvc.yaml; see ``render_dvc_yaml``. Paths in it start at the workspace, as in dvc.yaml."""
    stages = {stage.name: {"wdir": "..", **_entry(stage, code[stage.name], unset, beside_source)} for stage in CURVE}
    content = {"vars": [f"../{PARAMS_FILE}"], "stages": stages}
    return _HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _entry(stage: Stage, code: Sequence[str], unset: Collection[str], beside_source: Sequence[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    command = f"python -m monai_tl stage {stage.name}"
    if stage.matrix:
        # the plural is the parameter, the singular one value of it: arm of finetune.arms
        entry["matrix"] = {key: f"${{{stage.section_name}.{list_of(key)}}}" for key in stage.matrix}
        command += "".join(f" --{key} ${{item.{key}}}" for key in stage.matrix)
    deps = [item for item in stage.deps if item.strip("{}") not in unset]
    entry["cmd"] = command
    beside = beside_source if f"{{{_SOURCE}}}" in deps else ()
    entry["deps"] = [*_as_written(deps), *beside, *code]
    entry["params"] = _parameters(stage)
    entry["outs"] = [re.sub(r"\{(\w+)\}", r"${item.\1}", item) for item in stage.outs]
    # not under outs: an output without cache would switch off DVC's run-cache for the stage
    if stage.metrics:
        entry["metrics"] = [{item: {"cache": False}} for item in stage.metrics]
    if stage.plots:
        entry["plots"] = [{item: {"cache": False, **fields}} for item, fields in stage.plots.items()]
    return entry


def _as_written(deps: Sequence[str]) -> list[str]:
    return [_PARAMETER.sub(r"${\1.\2}", item) for item in deps]


def _parameters(stage: Stage) -> list[str]:
    """What DVC records of params.yaml: sections, and keys of the stage's own where it names some."""
    found: list[str] = []
    for name in sections_read(stage.name):
        is_own = name == stage.section_name
        found += [f"{name}.{key}" for key in stage.keys] if is_own and stage.keys else [name]
    return found


def code_of(workspace: Path) -> dict[str, tuple[str, ...]]:
    """For each stage the code its result depends on, as dependencies of the workspace.

    In a checkout of this package these are the modules the stage imports; in any other workspace VERSION_FILE.
    """
    if not holds_own_code(workspace):
        return version_code()
    return {stage.name: _as_dependencies(import_closure(f"{_ROOT}.stages.{stage.name}")) for stage in (*STAGES, *CURVE)}


def version_code() -> dict[str, tuple[str, ...]]:
    """The installed version as the code of every stage."""
    return {stage.name: (VERSION_FILE,) for stage in (*STAGES, *CURVE)}


def pipeline_text(workspace: Path) -> str:
    """dvc.yaml as it must be for a workspace's params.yaml and the installed package.

    Raises:
        ConfigError: params.yaml has faults.
    """
    params = load_params(workspace)
    return render_dvc_yaml(code_of(workspace), _unset(params), _beside_source(workspace, params.plan.source))


def curve_text(workspace: Path) -> str:
    """curve/dvc.yaml, likewise."""
    params = load_params(workspace)
    return render_curve_yaml(code_of(workspace), _unset(params), _beside_source(workspace, params.plan.source))


def _beside_source(workspace: Path, source: Any) -> list[str]:
    """Paths as dvc.yaml names them: relative to the workspace where the source is."""
    if not isinstance(source, str):
        return []
    # only a pipeline with a source needs the readers of sources
    from monai_tl.sources.kinds import companions

    names = [path.name for path in companions(workspace / source)]
    # the folder around a card is named, of all others files beside the source
    folder = Path(source).parent
    return [folder.as_posix() if name == folder.name else (folder / name).as_posix() for name in names]


def _unset(params: Params) -> set[str]:
    return {name for name in INPUTS if getattr(getattr(params, name.split(".")[0]), name.split(".")[1]) is None}


def check_sections(workspace: Path) -> None:
    """Make sure that params.yaml, which has been checked by itself, writes out what DVC reads from it.

    A section left out would be filled with defaults by this package, but DVC can only record what is in the file.

    Raises:
        ConfigError: Lists the sections and keys that are missing, and a source that dvc.yaml does not fit. Or dvc.yaml
            cannot be read.
    """
    content = parse_yaml(read_text(workspace / PARAMS_FILE, "is missing"), PARAMS_FILE)
    faults = [f"{name}: is missing; DVC records it, so write at least '{name}: {{}}'" for name in _missing(content)]
    for section, key in sorted((stage.section_name, list_of(key)) for stage in STAGES for key in stage.matrix):
        if key not in (content.get(section) or {}):
            faults.append(f"{section}.{key}: must be written out, because {PIPELINE_FILE} refers to it")
    try:
        written = (workspace / PIPELINE_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        # it is written by this package, so writing it again is all there is to do
        raise ConfigError(f"is missing or damaged; {REFRESH}", PIPELINE_FILE) from None
    for name in INPUTS:
        section, key = name.split(".")
        if ((content.get(section) or {}).get(key) is not None) != (f"${{{name}}}" in written):
            faults.append(f"{name}: {PIPELINE_FILE} was written for another choice; {REFRESH}")
    watched = _deps_of_plan(written)
    source = (content.get("plan") or {}).get("source")
    missing = [item for item in _beside_source(workspace, source) if item not in watched]
    if missing:
        listed = ", ".join(missing)
        faults.append(f"{_SOURCE}: beside it {listed} decides about it, which {PIPELINE_FILE} does not say; {REFRESH}")
    faults += _curve_faults(workspace, content)
    if faults:
        raise ConfigError(faults)


def _deps_of_plan(written: str) -> list[str]:
    """What the plan depends on in a pipeline file."""
    try:
        deps: list[str] = parse_yaml(written, PIPELINE_FILE)["stages"]["plan"]["deps"]
    except (ConfigError, KeyError, TypeError):
        # a damaged file is found by what is missing in it, or by DVC
        return []
    return deps


def _curve_faults(workspace: Path, content: Mapping[str, Any]) -> Iterator[str]:
    """What curve/dvc.yaml refers to in vain. DVC reads every pipeline file there is, for the training as well."""
    path = workspace / CURVE_FILE
    if not path.is_file():
        return
    section = content.get("curve") or {}
    needed = {list_of(key) for stage in CURVE for key in stage.matrix} | {key for stage in CURVE for key in stage.keys}
    for key in sorted(needed - section.keys()):
        yield f"curve.{key}: must be written out, because {CURVE_FILE} refers to it; or remove the folder of that file"
    source, written = (content.get("plan") or {}).get("source"), path.read_text("utf-8")
    beside = _beside_source(workspace, source)
    if (source is not None) != (f"${{{_SOURCE}}}" in written) or any(f"- {item}\n" not in written for item in beside):
        yield f"{_SOURCE}: {CURVE_FILE} was written for another choice; {REFRESH}"


def _missing(content: Mapping[str, Any]) -> list[str]:
    return [stage.name for stage in STAGES if content.get(stage.name) is None]


def sections_read(stage: str) -> tuple[str, ...]:
    """Sections of params.yaml that a stage uses: its own, and those its code names as ``params.SECTION``."""
    found = {stage}
    for module in import_closure(f"{_ROOT}.stages.{stage}"):
        found |= _params_attributes(module)
    return tuple(name for name in Params.model_fields if name in found)


@cache
def _params_attributes(module: str) -> frozenset[str]:
    nodes = [node for node in ast.walk(_parse(module)) if isinstance(node, ast.Attribute)]
    return frozenset(node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "params")


def import_closure(module: str) -> tuple[str, ...]:
    """Dotted names of all modules of this package that a module imports, directly or not, itself included.

    Imports inside functions count; those under ``if TYPE_CHECKING`` do not, since they never run. A package's
    ``__init__`` counts where a module of the package does, except the root's, which holds the version only, and the
    stage table's, whose content is dvc.yaml.
    """
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or _file_of(name) is None:
            continue
        seen.add(name)
        waiting += _imported(name)
        waiting += [".".join(name.split(".")[:n]) for n in range(2, name.count(".") + 1)]
    return tuple(sorted(seen - {_ROOT, f"{_ROOT}.stages"}))


def _file_of(module: str) -> Path | None:
    base = _PACKAGE.parent.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


@cache
def _parse(module: str) -> ast.Module:
    path = _file_of(module)
    return ast.parse(path.read_bytes() if path else b"")


@cache
def _imported(module: str) -> tuple[str, ...]:
    return tuple(_named_imports(module))


def _named_imports(module: str) -> Iterator[str]:
    path = _file_of(module)
    package = module if path and path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _running(_parse(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == _ROOT)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            stem = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (stem, node.module or "") if part)
            if base.split(".")[0] == _ROOT:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, without the bodies of ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for item in child.orelse:
                yield item
                yield from _running(item)
            continue
        yield child
        yield from _running(child)


def _as_dependencies(modules: Sequence[str]) -> tuple[str, ...]:
    """Folders for packages, so a new module in one counts at once; files for the core and for stages."""
    found: set[str] = set()
    for name in modules:
        parts = name.split(".")
        path = _file_of(name)
        if path is None:
            continue
        if (len(parts) == 2 and path.name != "__init__.py") or parts[1] == "stages":
            found.add(path.relative_to(_PACKAGE.parent).as_posix())
        else:
            found.add(f"{parts[0]}/{parts[1]}")
    return tuple(sorted(found))


if __name__ == "__main__":
    sys.stdout.write(pipeline_text(Path.cwd()))
