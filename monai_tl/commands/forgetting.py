"""``monai-tl forgetting``: a tuned model on a held set of its source's task, against the source itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

from monai_tl import DEFAULT_KEY_FILE
from monai_tl.config import EvaluateConfig
from monai_tl.dicom.deidentify import load_key
from monai_tl.errors import ConfigError
from monai_tl.files import temporary_folder, write_json
from monai_tl.labels import read_scheme
from monai_tl.report.tables import forgetting_rows
from monai_tl.sources.card import read_source
from monai_tl.sources.ensemble import InferenceSettings, read_ensemble
from monai_tl.stages.forgetting import Applied, measure_forgetting


def run(
    model: Path,
    source: Path,
    data: Path,
    classes: Path | None = None,
    out: Path | None = None,
    key_file: Path = Path(DEFAULT_KEY_FILE),
) -> str:
    """Measure forgetting.

    Args:
        model: ``artifacts/export/model`` of a finished run, or one model folder of it.
        source: Source folder that the model was tuned from.
        data: Held set of the source's task.
        classes: YAML file with its classes, as ``convert --labels`` takes it; None takes the card's names with their
            label values in order.
        out: JSON file to write; None writes none.
        key_file: Secret behind the pseudonyms.

    Returns:
        The sentence, and a line for each head and class.

    Raises:
        ConfigError: There is no folder ``data``.
        MonaiTLError: See ``measure_forgetting``.
    """
    if not data.is_dir():
        # ingest would point at params.yaml, which has no part in this
        raise ConfigError(f"--data: there is no folder {data}", "arguments")
    ensemble = read_ensemble([model])
    settings = ensemble.settings or InferenceSettings()
    scheme = None if classes is None else read_scheme(classes)
    evaluate = EvaluateConfig(source_classes=None if scheme is None else scheme.classes)
    applied = Applied(settings.predict, settings.preprocess, evaluate)
    with temporary_folder(Path(tempfile.gettempdir()), "monai_tl-forgetting") as work:
        found = measure_forgetting(
            read_source(source), ensemble.folders, data, load_key(key_file), applied, work / "cache", work / "work"
        )
    if out is not None:
        write_json(out, found.model_dump(mode="json"))
    rows = [f"{row.head}, {row.class_name}: {row.before} → {row.after}, {row.change}" for row in forgetting_rows(found)]
    return "\n".join([found.sentence, *rows])
