"""``monai-tl pretrain``: train a source from scratch with the project's own stages, and write it with its card."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from monai_tl import __version__
from monai_tl.config import Params, parse_params
from monai_tl.errors import ConfigError
from monai_tl.faults import fault_lines, parse_yaml, read_text
from monai_tl.files import temporary_folder
from monai_tl.progress import Progress
from monai_tl.records import model_name
from monai_tl.sources.card import Source, read_source, write_source
from monai_tl.sources.weights import load_state
from monai_tl.stages.sealing import run_sealed_stage


class CardText(BaseModel):
    """Section ``card`` of the file: what no training run can know.

    Attributes:
        name: Empty takes the folder's name.
        rebuild: The command that makes the source anew; empty takes the present one, as far as it holds no absolute
            path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    licence: str = "Apache-2.0"
    citation: str = Field(default=f"monai_tl {__version__}", min_length=1)
    rebuild: str = ""
    notes: str = ""


def run(params_file: Path, data: Path, out: Path, workspace: Path | None = None) -> Source:
    """Ingest, split, plan, preprocess, train the scratch arm once, and keep the best weights as a source.

    The same file, data and pseudonym key give the same bytes on one machine: the key decides the case ids, and these
    the split.

    Args:
        params_file: As params.yaml, with ``plan.source: null``, ``finetune.arms: [scratch]``, one fold and one seed; a
            further section ``card`` may hold name, licence, citation, rebuild and notes. ``ingest.source`` is
            replaced by ``data``.
        data: The data set.
        out: Source folder; gets card.yaml and weights.safetensors, other files stay.
        workspace: Where the stages work, kept for a later run; None takes a temporary folder.

    Returns:
        The source.

    Raises:
        ConfigError: The file has faults, or is not for a pretraining.
        MonaiTLError: As the stages.
        OSError: The source cannot be written.
    """
    params, text = _read(params_file, data)
    # before the work, so that a place that cannot be written costs nobody a training
    out.mkdir(parents=True, exist_ok=True)
    if workspace is not None:
        return _pretrain(params, text, workspace, out, _rebuild(text, params_file, data, out))
    with temporary_folder(Path(tempfile.gettempdir()), "monai_tl-pretrain") as folder:
        return _pretrain(params, text, folder, out, _rebuild(text, params_file, data, out))


def _read(params_file: Path, data: Path) -> tuple[Params, CardText]:
    where = params_file.name
    content: Any = parse_yaml(read_text(params_file, "there is no such file; give the parameters' file"), where)
    if not isinstance(content, dict):
        raise ConfigError("the file holds no mapping of sections", where)
    sections = {key: value for key, value in content.items() if key != "card"}
    if isinstance(sections.get("ingest"), dict):
        sections["ingest"] = {**sections["ingest"], "source": str(data.resolve())}
    params = parse_params(sections, where)
    faults = []
    if params.plan.source is not None:
        faults.append("plan.source: must be null: a source begins from nothing")
    if params.finetune.arms != ("scratch",):
        faults.append("finetune.arms: must be [scratch]")
    if len(params.finetune.folds) != 1:
        faults.append("finetune.folds: must name one fold: its validation cases choose the best weights")
    if len(params.finetune.seeds) != 1:
        faults.append("finetune.seeds: must name one seed: the source is one network")
    if faults:
        raise ConfigError(faults, where)
    try:
        return params, CardText.model_validate(content.get("card") or {})
    except ValidationError as error:
        raise ConfigError([f"card.{line}" for line in fault_lines(error, CardText)], where) from None


def _rebuild(text: CardText, params_file: Path, data: Path, out: Path) -> str:
    if text.rebuild:
        return text.rebuild
    # a path of this machine is no use elsewhere and may name a person
    paths = [path.name if path.is_absolute() else str(path) for path in (params_file, data, out)]
    return shlex.join(["monai-tl", "pretrain", *paths])


def _pretrain(params: Params, text: CardText, workspace: Path, out: Path, rebuild: str) -> Source:
    fold, seed = params.finetune.folds[0], params.finetune.seed
    for stage in ("ingest", "split", "plan", "preprocess"):
        run_sealed_stage(stage, workspace, params, {})
    run_sealed_stage("finetune", workspace, params, {"arm": "scratch", "fold": str(fold), "seed": str(seed)})
    model = read_source(workspace / "artifacts/models" / model_name("scratch", fold, seed))
    state = load_state(model.weights_path, model.card.weights.sha256)
    changes = {
        "name": text.name or out.resolve().name,
        "licence": text.licence,
        "citation": text.citation,
        "rebuild": rebuild,
        "notes": text.notes or model.card.notes,
    }
    card = type(model.card).model_validate({**model.card.model_dump(), **changes})
    source = write_source(out, card, state.tensors)
    Progress("pretrain", total=1).advance(f"source {card.name}: {', '.join(card.classes)}")
    return source
