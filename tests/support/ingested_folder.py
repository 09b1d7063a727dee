"""The ingest stage on a folder, for the conversion server: what it refused, as rejected.json of convert has it."""

from __future__ import annotations

import json
from pathlib import Path

from monai_tl.config import IngestConfig
from monai_tl.dicom.deidentify import load_key
from monai_tl.labels import ClassSpec
from monai_tl.progress import Progress
from monai_tl.stages.ingest import ingest


def run(source: str, out: str, key_file: str) -> None:
    """Ingest with one class, "GTV", whatever share is refused, and write what was refused to OUT/refused.json."""
    config = IngestConfig(source=source, classes=(ClassSpec(name="GTV"),), max_rejected_fraction=1.0)
    key = load_key(Path(key_file))
    summary = ingest(Path(source), Path(out) / "cases", config, key, Path(out) / "cache", Progress("ingest"))
    refused = [one.model_dump() for one in summary.rejected]
    (Path(out) / "refused.json").write_text(json.dumps({"cases": summary.dataset.case_ids, "rejected": refused}))
